#include <math.h>
#include <string.h>

#include "base/parallel.h"
#include "ops/kernels.h"
#include "ops/window.h"

/* Planes [H,W] in parallel: nothing is shared between them. */
typedef struct task {
  const sl_window *w;
  const float *x, *dy;
  float *y, *dx;
  int32_t *at;
  int64_t H, W, OH, OW;
  bool count_pad;
} task;

/* Rows or columns first … last-1 of the image under output position `out`. */
static void span(const sl_window *w, int d, int64_t size, int64_t out, int64_t *first, int64_t *last) {
  *first = out * w->stride[d] - w->pad[2 * d];
  *last = *first + w->kernel[d];
  if (*first < 0) *first = 0;
  if (*last > size) *last = size;
}

static void max_planes(void *user, int64_t begin, int64_t end, int thread) {
  const task *t = user;
  (void)thread;
  for (int64_t p = begin; p < end; p++)
    for (int64_t o = 0; o < t->OH * t->OW; o++) {
      int64_t i0, i1, j0, j1;
      span(t->w, 0, t->H, o / t->OW, &i0, &i1);
      span(t->w, 1, t->W, o % t->OW, &j0, &j1);
      const float *x = t->x + p * t->H * t->W;
      int64_t best = i0 * t->W + j0;
      for (int64_t i = i0; i < i1; i++)
        for (int64_t j = j0; j < j1; j++)
          if (x[i * t->W + j] > x[best] || isnan(x[i * t->W + j])) best = i * t->W + j;
      if (t->y) t->y[p * t->OH * t->OW + o] = x[best];
      if (t->at) t->at[p * t->OH * t->OW + o] = (int32_t)best;
    }
}

static void max_planes_backward(void *user, int64_t begin, int64_t end, int thread) {
  const task *t = user;
  (void)thread;
  for (int64_t p = begin; p < end; p++) {
    float *dx = t->dx + p * t->H * t->W;
    memset(dx, 0, (size_t)(t->H * t->W) * sizeof *dx);
    for (int64_t o = p * t->OH * t->OW; o < (p + 1) * t->OH * t->OW; o++) dx[t->at[o]] += t->dy[o];
  }
}

/* 1 / what a window is divided by: its elements inside the image, or inside the padded image. */
static float share(const task *t, int64_t oi, int64_t oj, int64_t inside) {
  if (!t->count_pad) return inside ? 1 / (float)inside : 0;
  int64_t count = 1;
  const int64_t at[] = {oi, oj}, size[] = {t->H, t->W};
  for (int d = 0; d < 2; d++) {
    int64_t first = at[d] * t->w->stride[d] - t->w->pad[2 * d], last = first + t->w->kernel[d];
    if (last > size[d] + t->w->pad[2 * d + 1]) last = size[d] + t->w->pad[2 * d + 1];
    count *= last - first;
  }
  return 1 / (float)count;
}

static void avg_planes(void *user, int64_t begin, int64_t end, int thread) {
  const task *t = user;
  (void)thread;
  for (int64_t p = begin; p < end; p++) {
    if (t->dx) memset(t->dx + p * t->H * t->W, 0, (size_t)(t->H * t->W) * sizeof(float));
    for (int64_t o = 0; o < t->OH * t->OW; o++) {
      int64_t i0, i1, j0, j1;
      span(t->w, 0, t->H, o / t->OW, &i0, &i1);
      span(t->w, 1, t->W, o % t->OW, &j0, &j1);
      float part = share(t, o / t->OW, o % t->OW, (i1 - i0) * (j1 - j0)), sum = 0;
      float d = t->dy ? t->dy[p * t->OH * t->OW + o] * part : 0;
      for (int64_t i = i0; i < i1; i++)
        for (int64_t j = j0; j < j1; j++) {
          int64_t k = (p * t->H + i) * t->W + j;
          if (t->dx) t->dx[k] += d;
          else sum += t->x[k];
        }
      if (t->y) t->y[p * t->OH * t->OW + o] = sum * part;
    }
  }
}

static task task_of(const sl_window *w, const sl_view *image, const sl_view *pooled) {
  return (task){.w = w,
                .H = image->shape.dim[2],
                .W = image->shape.dim[3],
                .OH = pooled->shape.dim[2],
                .OW = pooled->shape.dim[3]};
}

static int64_t planes(const sl_view *v) { return v->shape.dim[0] * v->shape.dim[1]; }

sl_status sl_cpu_max_pool2d(sl_exec *e, const sl_view *y, const sl_view *at, const sl_view *x, const sl_window *w) {
  task t = task_of(w, x, y);
  t.x = x->data, t.y = y->data, t.at = at->data;
  sl_parallel_for(e->ctx, planes(x), 1, max_planes, &t);
  return SL_STATUS_OK;
}

sl_status sl_cpu_max_pool2d_backward(sl_exec *e, const sl_view *dx, const sl_view *dy, const sl_view *at) {
  task t = task_of(NULL, dx, dy);
  t.dx = dx->data, t.dy = dy->data, t.at = at->data;
  sl_parallel_for(e->ctx, planes(dx), 1, max_planes_backward, &t);
  return SL_STATUS_OK;
}

sl_status sl_cpu_avg_pool2d(sl_exec *e, const sl_view *y, const sl_view *x, const sl_window *w, bool count_pad) {
  task t = task_of(w, x, y);
  t.x = x->data, t.y = y->data, t.count_pad = count_pad;
  sl_parallel_for(e->ctx, planes(x), 1, avg_planes, &t);
  return SL_STATUS_OK;
}

sl_status sl_cpu_avg_pool2d_backward(sl_exec *e, const sl_view *dx, const sl_view *dy, const sl_window *w,
                                     bool count_pad) {
  task t = task_of(w, dx, dy);
  t.dx = dx->data, t.dy = dy->data, t.count_pad = count_pad;
  sl_parallel_for(e->ctx, planes(dx), 1, avg_planes, &t);
  return SL_STATUS_OK;
}
