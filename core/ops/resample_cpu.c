#include "base/parallel.h"
#include "ops/kernels.h"

typedef struct task {
  const float *x;
  float *y;
  int64_t W, s; /* columns of the smaller image */
} task;

/* Rows of the larger image in parallel. */
static void upsample_rows(void *user, int64_t begin, int64_t end, int thread) {
  const task *t = user;
  (void)thread;
  for (int64_t r = begin; r < end; r++)
    for (int64_t j = 0; j < t->W; j++)
      for (int64_t k = 0; k < t->s; k++) t->y[(r * t->W + j) * t->s + k] = t->x[r / t->s * t->W + j];
}

/* Rows of the smaller image in parallel. */
static void downsample_rows(void *user, int64_t begin, int64_t end, int thread) {
  const task *t = user;
  (void)thread;
  float part = 1 / (float)(t->s * t->s);
  for (int64_t r = begin; r < end; r++)
    for (int64_t j = 0; j < t->W; j++) {
      float sum = 0;
      for (int64_t i = 0; i < t->s; i++)
        for (int64_t k = 0; k < t->s; k++) sum += t->x[((r * t->s + i) * t->W + j) * t->s + k];
      t->y[r * t->W + j] = sum * part;
    }
}

static int64_t rows(const sl_view *v) { return v->shape.dim[0] * v->shape.dim[1] * v->shape.dim[2]; }
static int64_t grain(int64_t columns) { return columns > 0 && columns < 8192 ? 8192 / columns : 1; }

sl_status sl_cpu_upsample(sl_exec *e, const sl_view *y, const sl_view *x, int64_t scale) {
  task t = {x->data, y->data, x->shape.dim[3], scale};
  sl_parallel_for(e->ctx, rows(y), grain(y->shape.dim[3]), upsample_rows, &t);
  return SL_STATUS_OK;
}

sl_status sl_cpu_downsample(sl_exec *e, const sl_view *y, const sl_view *x, int64_t scale) {
  task t = {x->data, y->data, y->shape.dim[3], scale};
  sl_parallel_for(e->ctx, rows(y), grain(x->shape.dim[3]), downsample_rows, &t);
  return SL_STATUS_OK;
}
