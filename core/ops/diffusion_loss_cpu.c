/* The diffusion's loss on the CPU: parts of samples in parallel, their sums added in order. */
#define SL_LOOPS sl__diffusion_loss_base
#include "ops/diffusion_loss_loops.h"

#include "base/parallel.h"
#include "ops/kernels.h"

enum { OUT, X0, XT, NOISE, ROWS, WEIGHT, DMSE, DVB };
enum { LOSS, MSE, VB, ERROR };

typedef struct loss_task {
  loss_job job;
  const sl_diffusion_loss_loops *loops;
  const sl_view *result;
} loss_task;

static loss_task task_of(const sl_exec *e, const sl_view *in, bool learned) {
  int64_t M = 1;
  for (int i = 1; i < in[X0].shape.rank; i++) M *= in[X0].shape.dim[i];
  loss_job j = {.M = M, .learned = learned, .out = &in[OUT], .x0 = &in[X0], .xt = &in[XT], .noise = &in[NOISE]};
  j.rows = &in[ROWS], j.weight = &in[WEIGHT];
  return (loss_task){.job = j, .loops = SL_LOOPS_OF(e->ctx, sl__diffusion_loss)};
}

/* Parts worth a thread of their own. */
static int64_t grain_of(int64_t M) { return M >= SL_LOSS_PART ? 2 : 2 * SL_LOSS_PART / (M > 0 ? M : 1); }

static void forward_task(void *user, int64_t begin, int64_t end, int thread) {
  const loss_task *t = user;
  (void)thread;
  t->loops->forward(&t->job, begin, end);
}

static void backward_task(void *user, int64_t begin, int64_t end, int thread) {
  const loss_task *t = user;
  (void)thread;
  t->loops->backward(&t->job, begin, end);
}

static void put(const sl_view *v, int64_t n, float value) {
  if (v->data) ((float *)v->data)[n] = value;
}

static void finish_sample(const loss_task *t, int64_t n) {
  const loss_job *j = &t->job;
  const int64_t parts = sl_loss_parts(j->M);
  double squares = 0, bound = 0;
  for (int64_t i = n * parts; i < (n + 1) * parts; i++) squares += j->partial[2 * i], bound += j->partial[2 * i + 1];
  const sl_loss_result r = sl_loss_finish(squares, bound, j->M, loss_number(j->weight, n), j->learned);
  put(&t->result[LOSS], n, r.loss), put(&t->result[MSE], n, r.mse);
  put(&t->result[VB], n, r.vb), put(&t->result[ERROR], n, r.error);
}

sl_status sl_cpu_diffusion_loss(sl_exec *e, const sl_view *out, const sl_view *in, bool learned, void *workspace) {
  const int64_t N = in[X0].shape.dim[0];
  loss_task t = task_of(e, in, learned);
  t.job.partial = workspace, t.result = out;
  sl_parallel_for(e->ctx, N * sl_loss_parts(t.job.M), grain_of(t.job.M), forward_task, &t);
  for (int64_t n = 0; n < N; n++) finish_sample(&t, n);
  return SL_STATUS_OK;
}

sl_status sl_cpu_diffusion_loss_backward(sl_exec *e, const sl_view *out, const sl_view *in, bool learned) {
  loss_task t = task_of(e, in, learned);
  t.job.dmse = &in[DMSE], t.job.dvb = &in[DVB], t.job.grad = out;
  sl_parallel_for(e->ctx, in[X0].shape.dim[0] * sl_loss_parts(t.job.M), grain_of(t.job.M), backward_task, &t);
  return SL_STATUS_OK;
}
