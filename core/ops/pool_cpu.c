#include <math.h>
#include <string.h>

#include "base/parallel.h"
#include "ops/kernels.h"
#include "ops/window.h"

/* One loop for both orders: pixels of `inner` neighbours – 1 in planes [N*C][H][W], C in channels-last images
 * [N][H][W]. Images or planes in parallel: nothing is shared between them. */
typedef struct task {
  const sl_window *w;
  const float *x, *dy;
  float *y, *dx;
  int32_t *at;
  int64_t outer, inner, H, W, OH, OW;
  bool count_pad;
} task;

/* Rows or columns first … last-1 of the image under output position `out`. */
static void span(const sl_window *w, int d, int64_t size, int64_t out, int64_t *first, int64_t *last) {
  *first = out * w->stride[d] - w->pad[2 * d];
  *last = *first + w->kernel[d];
  if (*first < 0) *first = 0;
  if (*last > size) *last = size;
}

typedef struct box {
  int64_t i0, i1, j0, j1;
} box;

static box box_of(const task *t, int64_t o) {
  box b;
  span(t->w, 0, t->H, o / t->OW, &b.i0, &b.i1);
  span(t->w, 1, t->W, o % t->OW, &b.j0, &b.j1);
  return b;
}

static void max_images(void *user, int64_t begin, int64_t end, int thread) {
  const task *t = user;
  (void)thread;
  for (int64_t p = begin; p < end; p++)
    for (int64_t o = 0; o < t->OH * t->OW; o++) {
      box b = box_of(t, o);
      const float *x = t->x + p * t->H * t->W * t->inner;
      int64_t to = (p * t->OH * t->OW + o) * t->inner;
      for (int64_t c = 0; c < t->inner; c++) {
        int64_t best = b.i0 * t->W + b.j0;
        for (int64_t i = b.i0; i < b.i1; i++)
          for (int64_t j = b.j0; j < b.j1; j++) {
            float v = x[(i * t->W + j) * t->inner + c];
            if (v > x[best * t->inner + c] || isnan(v)) best = i * t->W + j;
          }
        if (t->y) t->y[to + c] = x[best * t->inner + c];
        if (t->at) t->at[to + c] = (int32_t)best;
      }
    }
}

static void max_images_backward(void *user, int64_t begin, int64_t end, int thread) {
  const task *t = user;
  (void)thread;
  for (int64_t p = begin; p < end; p++) {
    float *dx = t->dx + p * t->H * t->W * t->inner;
    memset(dx, 0, (size_t)(t->H * t->W * t->inner) * sizeof *dx);
    for (int64_t o = p * t->OH * t->OW * t->inner; o < (p + 1) * t->OH * t->OW * t->inner; o++)
      dx[t->at[o] * t->inner + o % t->inner] += t->dy[o];
  }
}

/* 1 / what a window is divided by: its elements inside the image, or inside the padded image. */
static float share(const task *t, int64_t o, const box *b) {
  int64_t inside = (b->i1 - b->i0) * (b->j1 - b->j0), count = 1;
  if (!t->count_pad) return inside ? 1 / (float)inside : 0;
  const int64_t at[] = {o / t->OW, o % t->OW}, size[] = {t->H, t->W};
  for (int d = 0; d < 2; d++) {
    int64_t first = at[d] * t->w->stride[d] - t->w->pad[2 * d], last = first + t->w->kernel[d];
    if (last > size[d] + t->w->pad[2 * d + 1]) last = size[d] + t->w->pad[2 * d + 1];
    count *= last - first;
  }
  return 1 / (float)count;
}

static void mean_images(void *user, int64_t begin, int64_t end, int thread) {
  const task *t = user;
  (void)thread;
  for (int64_t p = begin; p < end; p++)
    for (int64_t o = 0; o < t->OH * t->OW; o++) {
      box b = box_of(t, o);
      float part = share(t, o, &b), *y = t->y + (p * t->OH * t->OW + o) * t->inner;
      for (int64_t c = 0; c < t->inner; c++) y[c] = 0;
      for (int64_t i = b.i0; i < b.i1; i++)
        for (int64_t j = b.j0; j < b.j1; j++) {
          const float *x = t->x + ((p * t->H + i) * t->W + j) * t->inner;
          for (int64_t c = 0; c < t->inner; c++) y[c] += x[c];
        }
      for (int64_t c = 0; c < t->inner; c++) y[c] *= part;
    }
}

static void mean_images_backward(void *user, int64_t begin, int64_t end, int thread) {
  const task *t = user;
  (void)thread;
  for (int64_t p = begin; p < end; p++) {
    memset(t->dx + p * t->H * t->W * t->inner, 0, (size_t)(t->H * t->W * t->inner) * sizeof(float));
    for (int64_t o = 0; o < t->OH * t->OW; o++) {
      box b = box_of(t, o);
      float part = share(t, o, &b);
      const float *dy = t->dy + (p * t->OH * t->OW + o) * t->inner;
      for (int64_t i = b.i0; i < b.i1; i++)
        for (int64_t j = b.j0; j < b.j1; j++) {
          float *dx = t->dx + ((p * t->H + i) * t->W + j) * t->inner;
          for (int64_t c = 0; c < t->inner; c++) dx[c] += dy[c] * part;
        }
    }
  }
}

static task task_of(const sl_window *w, const sl_view *image, const sl_view *pooled, bool last) {
  const int64_t *i = image->shape.dim, *o = pooled->shape.dim;
  if (last) return (task){.w = w, .outer = i[0], .inner = i[3], .H = i[1], .W = i[2], .OH = o[1], .OW = o[2]};
  return (task){.w = w, .outer = i[0] * i[1], .inner = 1, .H = i[2], .W = i[3], .OH = o[2], .OW = o[3]};
}

sl_status sl_cpu_max_pool2d(sl_exec *e, const sl_view *y, const sl_view *at, const sl_view *x, const sl_window *w,
                            bool last) {
  task t = task_of(w, x, y, last);
  t.x = x->data, t.y = y->data, t.at = at->data;
  sl_parallel_for(e->ctx, t.outer, 1, max_images, &t);
  return SL_STATUS_OK;
}

sl_status sl_cpu_max_pool2d_backward(sl_exec *e, const sl_view *dx, const sl_view *dy, const sl_view *at, bool last) {
  task t = task_of(NULL, dx, dy, last);
  t.dx = dx->data, t.dy = dy->data, t.at = at->data;
  sl_parallel_for(e->ctx, t.outer, 1, max_images_backward, &t);
  return SL_STATUS_OK;
}

sl_status sl_cpu_avg_pool2d(sl_exec *e, const sl_view *y, const sl_view *x, const sl_window *w, bool last,
                            bool count_pad) {
  task t = task_of(w, x, y, last);
  t.x = x->data, t.y = y->data, t.count_pad = count_pad;
  sl_parallel_for(e->ctx, t.outer, 1, mean_images, &t);
  return SL_STATUS_OK;
}

sl_status sl_cpu_avg_pool2d_backward(sl_exec *e, const sl_view *dx, const sl_view *dy, const sl_window *w, bool last,
                                     bool count_pad) {
  task t = task_of(w, dx, dy, last);
  t.dx = dx->data, t.dy = dy->data, t.count_pad = count_pad;
  sl_parallel_for(e->ctx, t.outer, 1, mean_images_backward, &t);
  return SL_STATUS_OK;
}
