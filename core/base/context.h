/* The context: allocator, threads, memory limit and hooks. Made by the host, given to constructors; whatever is made
 * from a context remembers it and must be freed before it. Contexts do not know of each other. */
#ifndef SL_BASE_CONTEXT_H
#define SL_BASE_CONTEXT_H

#include "base/status.h"

typedef struct sl_context sl_context;

typedef enum sl_isa { SL_ISA_BASE, SL_ISA_AVX2, SL_ISA_AVX512 } sl_isa; /* paths of our own CPU kernels */

typedef struct sl_context_options {
  int threads;           /* compute threads; 0: all cores that the process may use */
  uint64_t memory_limit; /* bytes that sl_alloc may hand out together; 0: no limit */
  /* Allocator; NULL: aligned_alloc and free. alloc must return memory aligned to 64 bytes, or NULL. */
  void *(*alloc)(void *user, size_t bytes);
  void (*free)(void *user, void *p, size_t bytes);
  /* Messages for people (warnings, news); NULL: dropped. The core never prints. */
  void (*log)(void *user, const char *text);
  /* Called on memory pressure before SL_STATUS_OOM is returned, once, on the thread that made the
   * context only; may free tensors (Lua's collector). */
  void (*pressure)(void *user);
  void *user;
} sl_context_options;

/* NULL options: the defaults above. The caller owns *out and frees it with sl_context_free. */
SL_MUST_USE sl_status sl_context_new(const sl_context_options *options, sl_context **out);
void sl_context_free(sl_context *ctx);

int sl_context_threads(const sl_context *ctx);
void sl_context_set_threads(sl_context *ctx, int threads); /* at least 1 */
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

/* Asks long work to stop: running programs return SL_STATUS_CANCELLED at their next node. May be called from a signal
 * handler or another thread; stays set until cleared. */
void sl_context_cancel(sl_context *ctx);
void sl_context_cancel_clear(sl_context *ctx);
bool sl_context_cancelled(const sl_context *ctx);

/* --- what other rooms keep with a context (opened devices), by key --- */

/* `free` is called when the context goes, the latest attached first. On the thread that made the context. */
SL_MUST_USE sl_status sl_context_attach(sl_context *ctx, const void *key, void *what,
                                        void (*free)(sl_context *ctx, void *what));
void *sl_context_attached(const sl_context *ctx, const void *key); /* NULL: none */

/* --- memory: every block the core takes comes from here, 64-byte aligned, uninitialised --- */

typedef struct sl_memory {
  uint64_t bytes, peak_bytes; /* handed out now, and at most so far */
  uint64_t blocks;            /* blocks alive */
  uint64_t calls;             /* calls of sl_alloc so far: flat in a running program */
  uint64_t device_bytes;      /* of tensors on GPUs, which sl_alloc did not give */
} sl_memory;

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
sl_memory sl_context_memory(const sl_context *ctx);
uint64_t sl_context_memory_limit(const sl_context *ctx);           /* bytes; 0: none */
void sl_context_set_memory_limit(sl_context *ctx, uint64_t bytes); /* while nothing runs; what is out stays out */
void sl_context_reset_peak(sl_context *ctx);
/* For tests: the n-th call of sl_alloc from now (0 = the next) and all after it fail; negative: never. */
void sl_context_fail_after(sl_context *ctx, int64_t n);

#endif
