/* adaLN on the CPU: rows in parallel, each read from memory once. */
#define SL_ADALN_LOOPS sl__adaln_base
#include "ops/adaln_loops.h"

#include "base/parallel.h"
#include "ops/kernels.h"

typedef struct adaln_task {
  adaln_job job;
  const sl_adaln_loops *loops;
  const sl_view *dshift, *dscale;
} adaln_task;

static void forward_task(void *user, int64_t begin, int64_t end, int thread) {
  const adaln_task *t = user;
  (void)thread;
  t->loops->forward(&t->job, begin, end);
}

static void backward_task(void *user, int64_t begin, int64_t end, int thread) {
  const adaln_task *t = user;
  (void)thread;
  t->loops->backward(&t->job, begin, end);
}

static void reduce_task(void *user, int64_t begin, int64_t end, int thread) {
  const adaln_task *t = user;
  (void)thread;
  const int64_t C = t->job.C, blocks = sl_row_blocks(t->job.T);
  for (int64_t n = begin; n < end; n++) {
    const float *partial = t->job.partial + n * blocks * 2 * C;
    row_sum_blocks(t->dshift, n, C, partial, blocks, 2 * C);
    row_sum_blocks(t->dscale, n, C, partial + C, blocks, 2 * C);
  }
}

sl_status sl_cpu_adaln(sl_exec *e, const sl_view *y, const sl_view *mean, const sl_view *rstd, const sl_view *x,
                       const sl_view *shift, const sl_view *scale, const sl_view *mask, double eps) {
  const int64_t N = x->shape.dim[0], T = x->shape.dim[1], C = x->shape.dim[2];
  adaln_task t = {.loops = SL_LOOPS_OF(e->ctx, sl__adaln)};
  t.job = (adaln_job){.T = T,
                      .C = C,
                      .eps = (float)eps,
                      .x = x,
                      .y = y,
                      .shift = shift,
                      .scale = scale,
                      .mask = mask,
                      .mean = mean,
                      .rstd = rstd};
  sl_parallel_for(e->ctx, N * T, row_grain(C), forward_task, &t);
  return SL_STATUS_OK;
}

sl_status sl_cpu_adaln_backward(sl_exec *e, const sl_view *dx, const sl_view *dshift, const sl_view *dscale,
                                const sl_view *dy, const sl_view *x, const sl_view *scale, const sl_view *mask,
                                const sl_view *mean, const sl_view *rstd, const sl_view *prior, void *workspace) {
  const int64_t N = x->shape.dim[0], T = x->shape.dim[1], C = x->shape.dim[2];
  adaln_task t = {.loops = SL_LOOPS_OF(e->ctx, sl__adaln), .dshift = dshift, .dscale = dscale};
  t.job = (adaln_job){.T = T,
                      .C = C,
                      .x = x,
                      .dy = dy,
                      .scale = scale,
                      .mask = mask,
                      .mean = mean,
                      .rstd = rstd,
                      .prior = prior,
                      .dx = dx,
                      .partial = workspace};
  sl_parallel_for(e->ctx, N * sl_row_blocks(T), 1, backward_task, &t);
  sl_parallel_for(e->ctx, N, row_grain(C * sl_row_blocks(T)), reduce_task, &t);
  return SL_STATUS_OK;
}
