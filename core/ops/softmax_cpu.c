#include <math.h>

#include "base/parallel.h"
#include "ops/kernels.h"

typedef struct task {
  const sl_view *y, *x, *dy;
  int64_t n, inner;
  bool log;
} task;

static inline double get(const sl_view *v, int64_t i) {
  return v->dtype == SL_F32 ? ((const float *)v->data)[i] : sl_element_get(v->dtype, (const uint16_t *)v->data + i);
}

static inline void set(const sl_view *v, int64_t i, double value) {
  if (v->dtype == SL_F32) {
    ((float *)v->data)[i] = (float)value;
  } else {
    sl_element_set(v->dtype, (uint16_t *)v->data + i, value);
  }
}

/* Item k is column k % inner of row k / inner; sums in double. A row of -inf alone gives NaN, as it has no softmax. */
static void forward(void *user, int64_t begin, int64_t end, int thread) {
  const task *t = user;
  (void)thread;
  for (int64_t k = begin; k < end; k++) {
    int64_t at = k / t->inner * t->n * t->inner + k % t->inner;
    double most = -INFINITY, sum = 0;
    for (int64_t i = 0; i < t->n; i++) {
      double v = get(t->x, at + i * t->inner);
      most = v > most || isnan(v) ? v : most;
    }
    for (int64_t i = 0; i < t->n; i++) sum += (double)expf((float)(get(t->x, at + i * t->inner) - most));
    double log_sum = log(sum), inverse = 1 / sum;
    for (int64_t i = 0; i < t->n; i++) {
      double v = get(t->x, at + i * t->inner) - most;
      set(t->y, at + i * t->inner, t->log ? v - log_sum : (double)expf((float)v) * inverse);
    }
  }
}

/* softmax: dx = y (dy - sum dy y); log_softmax: dx = dy - exp(y) sum dy. */
static void backward(void *user, int64_t begin, int64_t end, int thread) {
  const task *t = user;
  (void)thread;
  for (int64_t k = begin; k < end; k++) {
    int64_t at = k / t->inner * t->n * t->inner + k % t->inner;
    double sum = 0;
    for (int64_t i = 0; i < t->n; i++) {
      int64_t j = at + i * t->inner;
      sum += t->log ? get(t->dy, j) : get(t->dy, j) * get(t->x, j);
    }
    for (int64_t i = 0; i < t->n; i++) {
      int64_t j = at + i * t->inner;
      double y = get(t->x, j), dy = get(t->dy, j);
      set(t->y, j, t->log ? dy - exp(y) * sum : y * (dy - sum));
    }
  }
}

static int64_t grain(int64_t n) { return n > 0 && n < 8192 ? 8192 / n : 1; }

sl_status sl_cpu_softmax(sl_exec *e, bool log, const sl_view *y, const sl_view *x, int64_t rows, int64_t n,
                         int64_t inner) {
  task t = {.y = y, .x = x, .n = n, .inner = inner, .log = log};
  sl_parallel_for(e->ctx, rows * inner, grain(n), forward, &t);
  return SL_STATUS_OK;
}

sl_status sl_cpu_softmax_backward(sl_exec *e, bool log, const sl_view *dx, const sl_view *dy, const sl_view *y,
                                  int64_t rows, int64_t n, int64_t inner) {
  task t = {.y = dx, .x = y, .dy = dy, .n = n, .inner = inner, .log = log};
  sl_parallel_for(e->ctx, rows * inner, grain(n), backward, &t);
  return SL_STATUS_OK;
}
