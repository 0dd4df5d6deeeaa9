/* The one way to compute on several threads (OpenMP behind it). */
#ifndef SL_BASE_PARALLEL_H
#define SL_BASE_PARALLEL_H

#include "base/context.h"

/* Calls fn(user, begin, end, thread) so that 0 … n-1 are covered once, in contiguous ranges, the same for the same n
 * and number of threads. At least `grain` items go to a thread; with fewer than two grains it runs on the caller's
 * thread. thread is 0 … threads-1. fn must not fail, and may not call sl_parallel_for. */
void sl_parallel_for(sl_context *ctx, int64_t n, int64_t grain,
                     void (*fn)(void *user, int64_t begin, int64_t end, int thread), void *user);
/* Holds oneDNN and OpenMP to the context's thread count on the calling thread; a program's run calls it once. */
void sl_parallel_enter(sl_context *ctx);
/* The same for another number of threads, until the next sl_parallel_enter. Returns the number before. */
int sl_parallel_threads(int threads);

#endif
