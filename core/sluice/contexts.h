/* The context: allocator, threads, memory limit and hooks. Made by the host, given to constructors; whatever is made
 * from a context remembers it and must be freed before it. Contexts do not know of each other: each thread may have one
 * of its own. One context, and what was made from it, is used by one thread at a time. */
#ifndef SLUICE_CONTEXTS_H
#define SLUICE_CONTEXTS_H

#include "sluice/errors.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sl_context sl_context;

typedef struct sl_context_options {
  int threads;           /* compute threads; 0: all cores that the process may use */
  uint64_t memory_limit; /* bytes that the library may take together; 0: no limit */
  /* Allocator; NULL: aligned_alloc and free. alloc must return memory aligned to 64 bytes, or NULL. Several threads may
   * call at once. */
  void *(*alloc)(void *user, size_t bytes);
  void (*free)(void *user, void *p, size_t bytes);
  /* Messages for people (warnings, news); NULL: dropped. The library never prints. */
  void (*log)(void *user, const char *text);
  /* Called on memory pressure before SL_STATUS_OOM is returned, once, on the thread that made the context only; may
   * free tensors (Lua's collector). */
  void (*pressure)(void *user);
  void *user; /* handed to the four above */
} sl_context_options;

/* NULL options: the defaults above. The caller owns *out and frees it with sl_context_free. ARG; OOM. */
SL_MUST_USE sl_status sl_context_new(const sl_context_options *options, sl_context **out);
/* NULL is allowed. */
void sl_context_free(sl_context *ctx);

/* How many threads compute. */
int sl_context_threads(const sl_context *ctx);
/* From now on; fewer than 1 is taken as 1. */
void sl_context_set_threads(sl_context *ctx, int threads);

/* Asks long work to stop: running programs return SL_STATUS_CANCELLED at their next node. May be called from a signal
 * handler or another thread; stays set until cleared. */
void sl_context_cancel(sl_context *ctx);
void sl_context_cancel_clear(sl_context *ctx);
bool sl_context_cancelled(const sl_context *ctx);

typedef struct sl_memory {
  uint64_t bytes, peak_bytes; /* handed out now, and at most so far */
  uint64_t blocks;            /* blocks alive */
  uint64_t calls;             /* allocations so far: flat in a running program */
  uint64_t device_bytes;      /* of tensors on GPUs */
} sl_memory;

sl_memory sl_context_memory(const sl_context *ctx);
/* Bytes; 0: none. */
uint64_t sl_context_memory_limit(const sl_context *ctx);
/* While nothing runs; what is out stays out. */
void sl_context_set_memory_limit(sl_context *ctx, uint64_t bytes);
/* peak_bytes begins again, at what is handed out now. */
void sl_context_reset_peak(sl_context *ctx);

#ifdef __cplusplus
}
#endif

#endif
