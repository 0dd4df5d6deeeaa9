#include "base/parallel.h"

#include <omp.h>

void sl_parallel_for(sl_context *ctx, int64_t n, int64_t grain,
                     void (*fn)(void *user, int64_t begin, int64_t end, int thread), void *user) {
  if (n <= 0) return;
  int64_t parts = n / (grain > 0 ? grain : 1);
  int threads = sl_context_threads(ctx);
  if (parts < threads) threads = (int)parts;
  if (threads < 2 || omp_in_parallel()) {
    fn(user, 0, n, 0);
    return;
  }
  int64_t size = n / threads, rest = n % threads; /* the first `rest` ranges get one item more */
#pragma omp parallel num_threads(threads)
  {
    /* OpenMP may give fewer threads than asked for; the ranges stay the same. */
    for (int t = omp_get_thread_num(); t < threads; t += omp_get_num_threads()) {
      int64_t begin = t * size + (t < rest ? t : rest);
      fn(user, begin, begin + size + (t < rest), t);
    }
  }
}

/* oneDNN built on OpenMP takes omp_get_max_threads() of the calling thread. */
int sl_parallel_threads(int threads) {
  int before = omp_get_max_threads();
  if (before != threads) omp_set_num_threads(threads);
  return before;
}

void sl_parallel_enter(sl_context *ctx) { (void)sl_parallel_threads(sl_context_threads(ctx)); }
