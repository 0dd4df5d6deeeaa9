/* The gated residual on the CPU: rows in parallel, each read from memory once. */
#define SL_RESIDUAL_LOOPS sl__residual_base
#include "ops/residual_loops.h"

#include "base/parallel.h"
#include "ops/kernels.h"

typedef struct residual_task {
  residual_job job;
  const sl_residual_loops *loops;
  const sl_view *dgate;
} residual_task;

static void forward_task(void *user, int64_t begin, int64_t end, int thread) {
  const residual_task *t = user;
  (void)thread;
  t->loops->forward(&t->job, begin, end);
}

static void backward_task(void *user, int64_t begin, int64_t end, int thread) {
  const residual_task *t = user;
  (void)thread;
  t->loops->backward(&t->job, begin, end);
}

static void reduce_task(void *user, int64_t begin, int64_t end, int thread) {
  const residual_task *t = user;
  (void)thread;
  const int64_t C = t->job.C, blocks = sl_row_blocks(t->job.T);
  for (int64_t n = begin; n < end; n++) row_sum_blocks(t->dgate, n, C, t->job.partial + n * blocks * C, blocks, C);
}

sl_status sl_cpu_gated_residual(sl_exec *e, const sl_view *out, const sl_view *x, const sl_view *y, const sl_view *gate,
                                const sl_view *mask, const sl_view *skip) {
  const int64_t N = x->shape.dim[0], T = x->shape.dim[1], C = x->shape.dim[2];
  residual_task t = {.loops = SL_LOOPS_OF(e->ctx, sl__residual)};
  t.job = (residual_job){.T = T, .C = C, .out = out, .x = x, .y = y, .gate = gate, .mask = mask, .skip = skip};
  sl_parallel_for(e->ctx, N * T, row_grain(C), forward_task, &t);
  return SL_STATUS_OK;
}

sl_status sl_cpu_gated_residual_backward(sl_exec *e, const sl_view *dx, const sl_view *dy, const sl_view *dgate,
                                         const sl_view *dskip, const sl_view *dout, const sl_view *y,
                                         const sl_view *gate, const sl_view *mask, void *workspace) {
  const int64_t N = dout->shape.dim[0], T = dout->shape.dim[1], C = dout->shape.dim[2];
  residual_task t = {.loops = SL_LOOPS_OF(e->ctx, sl__residual), .dgate = dgate};
  t.job = (residual_job){.T = T,
                         .C = C,
                         .dout = dout,
                         .y = y,
                         .gate = gate,
                         .mask = mask,
                         .dx = dx,
                         .dy = dy,
                         .dskip = dskip,
                         .partial = dgate->data ? workspace : NULL};
  sl_parallel_for(e->ctx, N * sl_row_blocks(T), 1, backward_task, &t);
  if (dgate->data) sl_parallel_for(e->ctx, N, row_grain(C * sl_row_blocks(T)), reduce_task, &t);
  return SL_STATUS_OK;
}
