/* LayerNorm on the CPU: rows in parallel, sums in double. */
#include <math.h>
#include <string.h>

#include "base/parallel.h"
#include "ops/row_loops.h"

#include "ops/kernels.h"

typedef struct task {
  const sl_view *y, *mean, *rstd, *x, *w, *dy, *dw, *db;
  int64_t C;
  double eps;
} task;

static inline double element(const sl_view *v, int64_t i) {
  return v->dtype == SL_F32 ? (double)((const float *)v->data)[i]
                            : (double)sl_bf16_to_f32(((const uint16_t *)v->data)[i]);
}

static inline void put(const sl_view *v, int64_t i, double value) {
  if (v->dtype == SL_F32) {
    ((float *)v->data)[i] = (float)value;
  } else {
    ((uint16_t *)v->data)[i] = bf16_round((float)value);
  }
}

static void forward(void *user, int64_t begin, int64_t end, int thread) {
  const task *t = user;
  (void)thread;
  const float *w = t->w->data, *b = t->db->data;
  for (int64_t r = begin; r < end; r++) {
    int64_t at = r * t->C;
    double sum = 0, squares = 0;
    for (int64_t c = 0; c < t->C; c++) sum += element(t->x, at + c);
    double mean = sum / (double)t->C;
    for (int64_t c = 0; c < t->C; c++) {
      double d = element(t->x, at + c) - mean;
      squares += d * d;
    }
    double rstd = 1 / sqrt(squares / (double)t->C + t->eps);
    for (int64_t c = 0; c < t->C && t->y->data; c++) {
      double v = (element(t->x, at + c) - mean) * rstd;
      put(t->y, at + c, v * (w ? (double)w[c] : 1) + (b ? (double)b[c] : 0));
    }
    if (t->mean->data) ((float *)t->mean->data)[r] = (float)mean;
    if (t->rstd->data) ((float *)t->rstd->data)[r] = (float)rstd;
  }
}

static int64_t grain(int64_t C) { return C > 0 && C < 16384 ? 16384 / C : 1; }
static int64_t row_count(const sl_view *x, int64_t C) { return C ? sl_shape_numel(&x->shape) / C : 0; }

sl_status sl_cpu_layer_norm(sl_exec *e, const sl_view *y, const sl_view *mean, const sl_view *rstd, const sl_view *x,
                            const sl_view *w, const sl_view *b, double eps) {
  int64_t C = x->shape.dim[x->shape.rank - 1];
  task t = {.y = y, .mean = mean, .rstd = rstd, .x = x, .w = w, .db = b, .C = C, .eps = eps};
  sl_parallel_for(e->ctx, row_count(x, C), grain(C), forward, &t);
  return SL_STATUS_OK;
}

/* With g = dy w and xhat = (x - mean) rstd: dx = rstd (g - mean(g) - xhat mean(g xhat)). */
static void backward_rows(void *user, int64_t begin, int64_t end, int thread) {
  const task *t = user;
  (void)thread;
  const float *w = t->w->data;
  for (int64_t r = begin; r < end; r++) {
    int64_t at = r * t->C;
    double mean = ((const float *)t->mean->data)[r], rstd = ((const float *)t->rstd->data)[r], sum = 0, dot = 0;
    for (int64_t c = 0; c < t->C; c++) {
      double g = element(t->dy, at + c) * (w ? (double)w[c] : 1);
      sum += g;
      dot += g * (element(t->x, at + c) - mean) * rstd;
    }
    sum /= (double)t->C;
    dot /= (double)t->C;
    for (int64_t c = 0; c < t->C; c++) {
      double g = element(t->dy, at + c) * (w ? (double)w[c] : 1);
      put(t->y, at + c, rstd * (g - sum - (element(t->x, at + c) - mean) * rstd * dot));
    }
  }
}

/* Columns in parallel, rows in order: the same sums for any number of threads. */
static void backward_columns(void *user, int64_t begin, int64_t end, int thread) {
  const task *t = user;
  (void)thread;
  int64_t rows = row_count(t->x, t->C);
  for (int64_t c = begin; c < end; c++) {
    double dw = 0, db = 0;
    for (int64_t r = 0; r < rows; r++) {
      double mean = ((const float *)t->mean->data)[r], rstd = ((const float *)t->rstd->data)[r];
      double dy = element(t->dy, r * t->C + c);
      dw += dy * (element(t->x, r * t->C + c) - mean) * rstd;
      db += dy;
    }
    if (t->dw->data) ((float *)t->dw->data)[c] = (float)dw;
    if (t->db->data) ((float *)t->db->data)[c] = (float)db;
  }
}

sl_status sl_cpu_layer_norm_backward(sl_exec *e, const sl_view *dx, const sl_view *dw, const sl_view *db,
                                     const sl_view *dy, const sl_view *x, const sl_view *w, const sl_view *mean,
                                     const sl_view *rstd, void *workspace) {
  (void)workspace;
  int64_t C = x->shape.dim[x->shape.rank - 1];
  task t = {.y = dx, .mean = mean, .rstd = rstd, .x = x, .w = w, .dy = dy, .dw = dw, .db = db, .C = C};
  if (dx->data) sl_parallel_for(e->ctx, row_count(x, C), grain(C), backward_rows, &t);
  if (dw->data || db->data) sl_parallel_for(e->ctx, C, 16, backward_columns, &t);
  return SL_STATUS_OK;
}
