/* AdamW with averages, and the gradient's square norm, on the CPU. */
#define SL_LOOPS sl__adamw_base
#include "ops/adamw_loops.h"

#include "base/parallel.h"

typedef struct update_task {
  adamw_job job;
  const sl_adamw_loops *loops;
} update_task;

static void run_update(void *user, int64_t begin, int64_t end, int thread) {
  const update_task *t = user;
  (void)thread;
  t->loops->update(&t->job, begin, end);
}

sl_status sl_cpu_adamw_ema(sl_exec *e, const sl_adamw_f32 *k, int64_t n, float *p, float *g, float *m, float *v,
                           int n_ema, float *const *ema, uint16_t *p16, const double *gradients, const double *losses) {
  SL_REQUIRE(n_ema >= 0 && n_ema <= 4, ARG, "adamw: %d averages, expected 0 to 4", n_ema);
  update_task t = {{*k, p, g, m, v, n_ema, ema, p16}, SL_LOOPS_OF(e->ctx, sl__adamw)};
  if (!sl_adamw_scale(k, gradients, losses, &t.job.k.grad_scale)) return SL_STATUS_OK;
  sl_parallel_for(e->ctx, n, 16384, run_update, &t);
  return SL_STATUS_OK;
}

typedef struct squares_task {
  const sl_adamw_loops *loops;
  const float *x;
  int64_t n, size;
  double part[SL_SQUARES_BLOCKS];
} squares_task;

static void run_squares(void *user, int64_t begin, int64_t end, int thread) {
  squares_task *t = user;
  (void)thread;
  for (int64_t b = begin; b < end; b++) {
    const int64_t left = t->n - b * t->size;
    t->part[b] = left <= 0 ? 0.0 : t->loops->squares(t->x + b * t->size, left < t->size ? left : t->size);
  }
}

sl_status sl_cpu_sum_of_squares(sl_exec *e, int64_t n, const float *x, double *out) {
  squares_task t = {.loops = SL_LOOPS_OF(e->ctx, sl__adamw), .x = x, .n = n, .size = sl_squares_part(n)};
  sl_parallel_for(e->ctx, SL_SQUARES_BLOCKS, n < 65536 ? SL_SQUARES_BLOCKS : 8, run_squares, &t);
  double sum = 0.0;
  for (int b = 0; b < SL_SQUARES_BLOCKS; b++) sum += t.part[b];
  *out = sum;
  return SL_STATUS_OK;
}
