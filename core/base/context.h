/* What the library does with a context; what hosts do stands in sluice/contexts.h. */
#ifndef SL_BASE_CONTEXT_H
#define SL_BASE_CONTEXT_H

#include "base/status.h"
#include "sluice/contexts.h"

typedef enum sl_isa { SL_ISA_BASE, SL_ISA_AVX2, SL_ISA_AVX512 } sl_isa; /* paths of our own CPU kernels */

/* The best of our kernels' paths on this machine, lowered by SLUICE_ISA=base|avx2|avx512 in the environment. */
sl_isa sl_context_isa(const sl_context *ctx);
void sl_context_set_isa(sl_context *ctx, sl_isa isa); /* for tests; never above what the machine has */
/* Of tables name_base, name_avx2 and name_avx512 (loops compiled once per instruction set) the context's. */
#if defined(__x86_64__)
#define SL_LOOPS_OF(ctx, name)                                                                                         \
  (sl_context_isa(ctx) == SL_ISA_AVX512 ? &name##_avx512                                                               \
   : sl_context_isa(ctx) == SL_ISA_AVX2 ? &name##_avx2                                                                 \
                                        : &name##_base)
#else
#define SL_LOOPS_OF(ctx, name) (&name##_base)
#endif
const char *sl_isa_name(sl_isa isa);
sl_isa sl_isa_machine(void);
void sl_context_log(sl_context *ctx, const char *fmt, ...) SL_PRINTF(2, 3);

/* --- what other rooms keep with a context (opened devices), by key --- */

/* `free` is called when the context goes, the latest attached first. On the thread that made the context. */
SL_MUST_USE sl_status sl_context_attach(sl_context *ctx, const void *key, void *what,
                                        void (*free)(sl_context *ctx, void *what));
void *sl_context_attached(const sl_context *ctx, const void *key); /* NULL: none */

/* --- memory: every block the core takes comes from here, 64-byte aligned, uninitialised --- */

/* Returns NULL and sets the error text when memory or the limit is exhausted. 0 bytes give a valid block. */
SL_MUST_USE void *sl_alloc(sl_context *ctx, size_t bytes);
SL_MUST_USE void *sl_alloc_zero(sl_context *ctx, size_t bytes);
/* Grows a block (contents kept, new part uninitialised); on failure NULL, and the old block stays valid. */
SL_MUST_USE void *sl_realloc(sl_context *ctx, void *p, size_t bytes);
void sl_free(sl_context *ctx, void *p); /* NULL is allowed */
SL_MUST_USE char *sl_strdup(sl_context *ctx, const char *text);
/* Calls the pressure hook, if there is one and this is its thread: for memory that sl_alloc does not give (devices').
 */
void sl_context_pressure(sl_context *ctx);
void sl_context_count_device(sl_context *ctx, int64_t bytes); /* taken; negative: given back */
/* For tests: the n-th call of sl_alloc from now (0 = the next) and all after it fail; negative: never. */
void sl_context_fail_after(sl_context *ctx, int64_t n);

#endif
