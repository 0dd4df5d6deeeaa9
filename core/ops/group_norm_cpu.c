/* GroupNorm on the CPU: a group of a sample at a time, sums in double. One loop for both orders: a group is `lines`
 * lines of `length` neighbours, `step` apart – its channels in planes, its pixels in channels-last images. */
#include <math.h>

#include "base/parallel.h"
#include "ops/kernels.h"

#define PART 64 /* neighbours handled at a time */

typedef struct task {
  const float *x, *w, *b, *scale, *shift, *dy;
  const uint8_t *mask;
  float *y, *mean, *rstd, *dx;
  double *sums;              /* [N, C, 2]: sum dz, sum dz xhat */
  int64_t C, groups, per, S; /* channels, groups, channels of a group, elements of a channel */
  int64_t lines, length, step;
  double eps;
  bool silu, last;
} task;

static task task_of(const sl_view *x, int64_t groups, bool silu, bool last) {
  int rank = x->shape.rank;
  task t = {.x = x->data, .C = x->shape.dim[last ? rank - 1 : 1], .groups = groups, .silu = silu, .last = last, .S = 1};
  for (int i = 1; i < rank; i++) t.S *= i == (last ? rank - 1 : 1) ? 1 : x->shape.dim[i];
  t.per = t.C / groups;
  t.lines = last ? t.S : t.per;
  t.length = last ? t.per : t.S;
  t.step = last ? t.C : t.S;
  return t;
}

/* First element of group k % groups of sample k / groups. */
static int64_t start_of(const task *t, int64_t k) {
  int64_t n = k / t->groups, c = k % t->groups * t->per;
  return n * t->C * t->S + (t->last ? c : c * t->S);
}

/* y = act(xhat * gain + offset) * mask for up to PART neighbours, and their channels. */
typedef struct part {
  float gain[PART], offset[PART], mask[PART];
} part;

static void read_part(const task *t, int64_t n, int64_t c, int64_t size, part *p) {
  for (int64_t i = 0; i < size; i++) {
    int64_t ch = t->last ? c + i : c;
    float w = t->w ? t->w[ch] : 1, b = t->b ? t->b[ch] : 0;
    float s = t->scale ? 1 + t->scale[n * t->C + ch] : 1, h = t->shift ? t->shift[n * t->C + ch] : 0;
    p->gain[i] = w * s;
    p->offset[i] = b * s + h;
    p->mask[i] = t->mask ? (float)t->mask[n * t->C + ch] : 1;
  }
}

static void moments(const task *t, const float *x, float *mean, float *rstd) {
  double sum = 0, squares = 0, count = (double)(t->lines * t->length);
  for (int64_t l = 0; l < t->lines; l++)
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < t->length; i++) sum += (double)x[l * t->step + i];
  double m = count > 0 ? sum / count : 0;
  for (int64_t l = 0; l < t->lines; l++)
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < t->length; i++) {
      double d = (double)x[l * t->step + i] - m;
      squares += d * d;
    }
  *mean = (float)m;
  *rstd = (float)(1 / sqrt((count > 0 ? squares / count : 0) + t->eps));
}

/* Calls fn for every part of the group's lines that shares its channels: in planes line by line, in channels-last
 * images column of channels by column, so that a part is read once. */
typedef void part_fn(const task *t, const part *p, int64_t k, int64_t at, int64_t size, void *state);

static void each_part(const task *t, int64_t k, part_fn *fn, void *state) {
  int64_t n = k / t->groups, c0 = k % t->groups * t->per, start = start_of(t, k);
  part p;
  for (int64_t i = 0; i < t->length; i += PART) {
    int64_t size = t->length - i < PART ? t->length - i : PART;
    for (int64_t l = 0; l < t->lines; l++) {
      if (!t->last || l == 0) read_part(t, n, c0 + (t->last ? i : l), size, &p);
      fn(t, &p, k, start + l * t->step + i, size, state);
    }
  }
}

typedef struct stats {
  float mean, rstd;
} stats;

static void forward_part(const task *t, const part *p, int64_t k, int64_t at, int64_t size, void *state) {
  const stats *s = state;
  const float *x = t->x + at;
  float *y = t->y + at;
  (void)k;
  for (int64_t i = 0; i < size; i++) y[i] = (x[i] - s->mean) * s->rstd * p->gain[i] + p->offset[i];
  for (int64_t i = 0; i < size && t->silu; i++) y[i] = y[i] / (1 + expf(-y[i]));
  for (int64_t i = 0; i < size && t->mask; i++) y[i] *= p->mask[i];
}

static void forward(void *user, int64_t begin, int64_t end, int thread) {
  const task *t = user;
  (void)thread;
  for (int64_t k = begin; k < end; k++) {
    stats s;
    moments(t, t->x + start_of(t, k), &s.mean, &s.rstd);
    if (t->mean) t->mean[k] = s.mean;
    if (t->rstd) t->rstd[k] = s.rstd;
    if (t->y) each_part(t, k, forward_part, &s);
  }
}

sl_status sl_cpu_group_norm(sl_exec *e, const sl_view *out, const sl_view *in, int64_t groups, double eps, bool silu,
                            bool last) {
  task t = task_of(&in[0], groups, silu, last);
  t.w = in[1].data, t.b = in[2].data, t.scale = in[3].data, t.shift = in[4].data, t.mask = in[5].data;
  t.y = out[0].data, t.mean = out[1].data, t.rstd = out[2].data;
  t.eps = eps;
  sl_parallel_for(e->ctx, in[0].shape.dim[0] * groups, 1, forward, &t);
  return SL_STATUS_OK;
}

/* --- backward --- */

typedef struct back {
  float mean, rstd, mean_all, mean_along;
} back;

/* The gradient before the activation, dz, of one element. */
static inline float before_act(const task *t, const part *p, int64_t i, float xhat, float dy) {
  if (!t->silu) return dy * p->mask[i];
  float z = xhat * p->gain[i] + p->offset[i], s = 1 / (1 + expf(-z));
  return dy * p->mask[i] * s * (1 + z * (1 - s));
}

static void sum_part(const task *t, const part *p, int64_t k, int64_t at, int64_t size, void *state) {
  const back *b = state;
  int64_t n = k / t->groups, within = at - start_of(t, k);
  int64_t c = k % t->groups * t->per + (t->last ? within % t->C : within / t->S);
  double *sums = t->sums + 2 * (n * t->C + c);
  for (int64_t i = 0; i < size; i++) {
    float xhat = (t->x[at + i] - b->mean) * b->rstd, dz = before_act(t, p, i, xhat, t->dy[at + i]);
    double *to = sums + (t->last ? 2 * i : 0);
    to[0] += (double)dz;
    to[1] += (double)dz * (double)xhat;
  }
}

static void dx_part(const task *t, const part *p, int64_t k, int64_t at, int64_t size, void *state) {
  const back *b = state;
  (void)k;
  for (int64_t i = 0; i < size; i++) {
    float xhat = (t->x[at + i] - b->mean) * b->rstd;
    float d = before_act(t, p, i, xhat, t->dy[at + i]) * p->gain[i];
    t->dx[at + i] = b->rstd * (d - b->mean_all - xhat * b->mean_along);
  }
}

static void backward(void *user, int64_t begin, int64_t end, int thread) {
  const task *t = user;
  (void)thread;
  for (int64_t k = begin; k < end; k++) {
    int64_t n = k / t->groups, c0 = k % t->groups * t->per;
    double *sums = t->sums + 2 * (n * t->C + c0), all = 0, along = 0; /* over the group: sum dxhat, sum dxhat xhat */
    for (int64_t i = 0; i < 2 * t->per; i++) sums[i] = 0;
    back b = {t->mean[k], t->rstd[k], 0, 0};
    each_part(t, k, sum_part, &b);
    for (int64_t c = 0; c < t->per; c++) {
      part p;
      read_part(t, n, c0 + c, 1, &p);
      all += sums[2 * c] * (double)p.gain[0];
      along += sums[2 * c + 1] * (double)p.gain[0];
    }
    double count = (double)(t->per * t->S);
    b.mean_all = (float)(all / count);
    b.mean_along = (float)(along / count);
    if (t->dx) each_part(t, k, dx_part, &b);
  }
}

/* From a channel's two sums: with a = xhat w + b, z = a (1 + scale) + shift. */
static void parts(const task *t, int64_t N, const sl_view *out) {
  float *dw = out[1].data, *db = out[2].data, *dscale = out[3].data, *dshift = out[4].data;
  for (int64_t c = 0; c < t->C; c++) {
    double sum_w = 0, sum_b = 0, w = t->w ? (double)t->w[c] : 1, b = t->b ? (double)t->b[c] : 0;
    for (int64_t n = 0; n < N; n++) {
      const double *s = t->sums + 2 * (n * t->C + c);
      double factor = t->scale ? 1 + (double)t->scale[n * t->C + c] : 1;
      sum_w += s[1] * factor;
      sum_b += s[0] * factor;
      if (dscale) dscale[n * t->C + c] = (float)(w * s[1] + b * s[0]);
      if (dshift) dshift[n * t->C + c] = (float)s[0];
    }
    if (dw) dw[c] = (float)sum_w;
    if (db) db[c] = (float)sum_b;
  }
}

sl_status sl_cpu_group_norm_backward(sl_exec *e, const sl_view *out, const sl_view *in, int64_t groups, bool silu,
                                     bool last, void *workspace) {
  task t = task_of(&in[1], groups, silu, last);
  t.dy = in[0].data, t.w = in[2].data, t.b = in[3].data, t.scale = in[4].data, t.shift = in[5].data,
  t.mask = in[6].data;
  t.mean = in[7].data, t.rstd = in[8].data;
  t.dx = out[0].data;
  t.sums = workspace;
  sl_parallel_for(e->ctx, in[1].shape.dim[0] * groups, 1, backward, &t);
  parts(&t, in[1].shape.dim[0], out);
  return SL_STATUS_OK;
}
