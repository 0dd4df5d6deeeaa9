/* The gated residual with the norm after it on the CPU: rows in parallel, each read from memory once. */
#define SL_RESIDUAL_ADALN_LOOPS sl__residual_adaln_base
#include "ops/residual_adaln_loops.h"

#include "base/parallel.h"
#include "ops/kernels.h"

typedef struct residual_adaln_task {
  residual_adaln_job job;
  const sl_residual_adaln_loops *loops;
  const sl_view *dshift, *dscale, *dgate;
} residual_adaln_task;

static void forward_task(void *user, int64_t begin, int64_t end, int thread) {
  const residual_adaln_task *t = user;
  (void)thread;
  t->loops->forward(&t->job, begin, end);
}

static void backward_task(void *user, int64_t begin, int64_t end, int thread) {
  const residual_adaln_task *t = user;
  (void)thread;
  t->loops->backward(&t->job, begin, end);
}

static void reduce_task(void *user, int64_t begin, int64_t end, int thread) {
  const residual_adaln_task *t = user;
  (void)thread;
  const int64_t C = t->job.sum.C, blocks = sl_row_blocks(t->job.sum.T);
  const sl_view *const sums[] = {t->dshift, t->dscale, t->dgate};
  for (int64_t n = begin; n < end; n++)
    for (int k = 0; k < 3; k++)
      row_sum_blocks(sums[k], n, C, t->job.sum.partial + (3 * n * blocks + k) * C, blocks, 3 * C);
}

sl_status sl_cpu_residual_adaln(sl_exec *e, const sl_view *out, const sl_view *in, double eps) {
  const sl_view *x = &in[SL_RA_X];
  const int64_t N = x->shape.dim[0], T = x->shape.dim[1], C = x->shape.dim[2];
  residual_adaln_task t = {.loops = SL_LOOPS_OF(e->ctx, sl__residual_adaln)};
  t.job.stream = x->dtype;
  t.job.sum = (residual_job){.T = T,
                             .C = C,
                             .out = &out[SL_RA_R],
                             .x = x,
                             .y = &in[SL_RA_Y],
                             .gate = &in[SL_RA_GATE],
                             .mask = &in[SL_RA_MASK],
                             .skip = &in[SL_RA_SKIP]};
  t.job.norm = (adaln_job){.T = T,
                           .C = C,
                           .eps = (float)eps,
                           .y = &out[SL_RA_H],
                           .shift = &in[SL_RA_SHIFT],
                           .scale = &in[SL_RA_SCALE],
                           .mask = &in[SL_RA_NEXT_MASK],
                           .mean = &out[SL_RA_MEAN],
                           .rstd = &out[SL_RA_RSTD]};
  sl_parallel_for(e->ctx, N * T, row_grain(C), forward_task, &t);
  return SL_STATUS_OK;
}

sl_status sl_cpu_residual_adaln_backward(sl_exec *e, const sl_view *out, const sl_view *in, int share,
                                         void *workspace) {
  const sl_view *r = &in[SL_RAB_R];
  const int64_t N = r->shape.dim[0], T = r->shape.dim[1], C = r->shape.dim[2];
  residual_adaln_task t = {.loops = SL_LOOPS_OF(e->ctx, sl__residual_adaln),
                           .dshift = &out[SL_RAB_DSHIFT],
                           .dscale = &out[SL_RAB_DSCALE],
                           .dgate = &out[SL_RAB_DGATE]};
  t.job.stream = r->dtype;
  t.job.share = (sl_residual_share)share;
  t.job.prior = &in[SL_RAB_PRIOR];
  t.job.gates = t.dgate->data != NULL;
  t.job.sum = (residual_job){.T = T,
                             .C = C,
                             .y = &in[SL_RAB_Y],
                             .gate = &in[SL_RAB_GATE],
                             .mask = &in[SL_RAB_MASK],
                             .dx = &out[SL_RAB_DX],
                             .dy = &out[SL_RAB_DY],
                             .dskip = &out[SL_RAB_DSKIP],
                             .partial = workspace};
  t.job.norm = (adaln_job){.T = T,
                           .C = C,
                           .x = r,
                           .dy = &in[SL_RAB_DH],
                           .scale = &in[SL_RAB_SCALE],
                           .mask = &in[SL_RAB_NEXT_MASK],
                           .mean = &in[SL_RAB_MEAN],
                           .rstd = &in[SL_RAB_RSTD],
                           .prior = &in[SL_RAB_DR]};
  sl_parallel_for(e->ctx, N * sl_row_blocks(T), 1, backward_task, &t);
  sl_parallel_for(e->ctx, N, row_grain(C * sl_row_blocks(T)), reduce_task, &t);
  return SL_STATUS_OK;
}
