#include <string.h>

#include "base/parallel.h"
#include "ops/kernels.h"

/* One loop for both orders: pixels of `inner` neighbours – 1 in planes, C in channels-last images. */
typedef struct task {
  const float *x;
  float *y;
  int64_t W, s, inner; /* columns of the smaller image */
} task;

/* Rows of the larger image in parallel. */
static void enlarge_rows(void *user, int64_t begin, int64_t end, int thread) {
  const task *t = user;
  (void)thread;
  for (int64_t r = begin; r < end; r++) {
    const float *x = t->x + r / t->s * t->W * t->inner;
    float *y = t->y + r * t->W * t->s * t->inner;
    if (r > begin && r % t->s) { /* as the row before */
      memcpy(y, y - t->W * t->s * t->inner, (size_t)(t->W * t->s * t->inner) * sizeof *y);
      continue;
    }
    for (int64_t j = 0; j < t->W; j++, x += t->inner)
      for (int64_t k = 0; k < t->s; k++, y += t->inner)
        for (int64_t c = 0; c < t->inner; c++) y[c] = x[c];
  }
}

/* y [W, inner] += x [W, s, inner], one of every s pixels. */
static void add_pixels(const task *t, const float *x, float *y) {
  if (t->inner == 1 && t->s == 2) { /* planes, halved: the loop that everyone needs is a vector */
    for (int64_t j = 0; j < t->W; j++) y[j] += x[2 * j] + x[2 * j + 1];
    return;
  }
  for (int64_t j = 0; j < t->W; j++, y += t->inner)
    for (int64_t k = 0; k < t->s; k++, x += t->inner)
      for (int64_t c = 0; c < t->inner; c++) y[c] += x[c];
}

/* Rows of the smaller image in parallel. */
static void shrink_rows(void *user, int64_t begin, int64_t end, int thread) {
  const task *t = user;
  (void)thread;
  float part = 1 / (float)(t->s * t->s);
  for (int64_t r = begin; r < end; r++) {
    float *y = t->y + r * t->W * t->inner;
    for (int64_t i = 0; i < t->W * t->inner; i++) y[i] = 0;
    for (int64_t k = 0; k < t->s; k++) add_pixels(t, t->x + (r * t->s + k) * t->W * t->s * t->inner, y);
    for (int64_t i = 0; i < t->W * t->inner; i++) y[i] *= part;
  }
}

static int64_t rows_of(const sl_view *v, bool last) {
  return last ? v->shape.dim[0] * v->shape.dim[1] : v->shape.dim[0] * v->shape.dim[1] * v->shape.dim[2];
}

static void run(sl_exec *e, const sl_view *y, const sl_view *x, const sl_view *small, const sl_view *split,
                int64_t scale, bool last, void (*fn)(void *, int64_t, int64_t, int)) {
  task t = {x->data, y->data, small->shape.dim[last ? 2 : 3], scale, last ? x->shape.dim[3] : 1};
  int64_t work = t.W * t.s * t.inner;
  sl_parallel_for(e->ctx, rows_of(split, last), work > 0 && work < 8192 ? 8192 / work : 1, fn, &t);
}

sl_status sl_cpu_upsample(sl_exec *e, const sl_view *y, const sl_view *x, int64_t scale, bool last) {
  run(e, y, x, x, y, scale, last, enlarge_rows);
  return SL_STATUS_OK;
}

sl_status sl_cpu_downsample(sl_exec *e, const sl_view *y, const sl_view *x, int64_t scale, bool last) {
  run(e, y, x, y, y, scale, last, shrink_rows);
  return SL_STATUS_OK;
}
