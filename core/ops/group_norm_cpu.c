/* GroupNorm on the CPU: a group of a sample at a time, sums in double. */
#include <math.h>

#include "base/parallel.h"
#include "ops/kernels.h"

typedef struct task {
  const float *x, *w, *b, *scale, *shift, *dy;
  const uint8_t *mask;
  float *y, *mean, *rstd, *dx;
  double *sums;              /* [N, C, 2]: sum dz, sum dz xhat */
  int64_t C, groups, per, S; /* channels, groups, channels of a group, elements of a channel */
  double eps;
  bool silu;
} task;

static task task_of(const sl_view *x, int64_t groups, bool silu) {
  task t = {.x = x->data, .C = x->shape.dim[1], .groups = groups, .silu = silu, .S = 1};
  t.per = t.C / groups;
  for (int i = 2; i < x->shape.rank; i++) t.S *= x->shape.dim[i];
  return t;
}

/* y = act(xhat * gain + offset) * mask for one channel of a sample. */
typedef struct channel {
  float gain, offset, mask;
} channel;

static channel channel_of(const task *t, int64_t n, int64_t c) {
  float w = t->w ? t->w[c] : 1, b = t->b ? t->b[c] : 0;
  float s = t->scale ? 1 + t->scale[n * t->C + c] : 1, h = t->shift ? t->shift[n * t->C + c] : 0;
  return (channel){w * s, b * s + h, t->mask ? (float)t->mask[n * t->C + c] : 1};
}

static void moments(const float *x, int64_t n, double eps, float *mean, float *rstd) {
  double sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; i++) sum += (double)x[i];
  double m = n ? sum / (double)n : 0;
#pragma omp simd reduction(+ : squares)
  for (int64_t i = 0; i < n; i++) squares += ((double)x[i] - m) * ((double)x[i] - m);
  *mean = (float)m;
  *rstd = (float)(1 / sqrt((n ? squares / (double)n : 0) + eps));
}

static void forward(void *user, int64_t begin, int64_t end, int thread) {
  const task *t = user;
  (void)thread;
  for (int64_t k = begin; k < end; k++) { /* group k % groups of sample k / groups */
    int64_t n = k / t->groups, c0 = k % t->groups * t->per, at = (n * t->C + c0) * t->S;
    float mean, rstd;
    moments(t->x + at, t->per * t->S, t->eps, &mean, &rstd);
    if (t->mean) t->mean[k] = mean;
    if (t->rstd) t->rstd[k] = rstd;
    for (int64_t c = 0; c < t->per && t->y; c++) {
      channel ch = channel_of(t, n, c0 + c);
      const float *x = t->x + at + c * t->S;
      float *y = t->y + at + c * t->S;
      for (int64_t i = 0; i < t->S; i++) y[i] = (x[i] - mean) * rstd * ch.gain + ch.offset;
      for (int64_t i = 0; i < t->S && t->silu; i++) y[i] = y[i] / (1 + expf(-y[i]));
      for (int64_t i = 0; i < t->S && t->mask; i++) y[i] *= ch.mask;
    }
  }
}

sl_status sl_cpu_group_norm(sl_exec *e, const sl_view *out, const sl_view *in, int64_t groups, double eps, bool silu) {
  task t = task_of(&in[0], groups, silu);
  t.w = in[1].data, t.b = in[2].data, t.scale = in[3].data, t.shift = in[4].data, t.mask = in[5].data;
  t.y = out[0].data, t.mean = out[1].data, t.rstd = out[2].data;
  t.eps = eps;
  sl_parallel_for(e->ctx, in[0].shape.dim[0] * groups, 1, forward, &t);
  return SL_STATUS_OK;
}

/* The gradient before the activation, dz, of one element. */
static inline float before_act(const task *t, const channel *ch, float xhat, float dy) {
  if (!t->silu) return dy * ch->mask;
  float z = xhat * ch->gain + ch->offset, s = 1 / (1 + expf(-z));
  return dy * ch->mask * s * (1 + z * (1 - s));
}

static void backward(void *user, int64_t begin, int64_t end, int thread) {
  const task *t = user;
  (void)thread;
  for (int64_t k = begin; k < end; k++) {
    int64_t n = k / t->groups, c0 = k % t->groups * t->per, at = (n * t->C + c0) * t->S;
    float mean = t->mean[k], rstd = t->rstd[k];
    double all = 0, along = 0; /* over the group: sum dxhat, sum dxhat xhat */
    for (int64_t c = 0; c < t->per; c++) {
      channel ch = channel_of(t, n, c0 + c);
      const float *x = t->x + at + c * t->S, *dy = t->dy + at + c * t->S;
      double sum = 0, dot = 0;
      for (int64_t i = 0; i < t->S; i++) {
        float xhat = (x[i] - mean) * rstd, dz = before_act(t, &ch, xhat, dy[i]);
        sum += (double)dz;
        dot += (double)dz * (double)xhat;
      }
      t->sums[2 * (n * t->C + c0 + c)] = sum;
      t->sums[2 * (n * t->C + c0 + c) + 1] = dot;
      all += sum * (double)ch.gain;
      along += dot * (double)ch.gain;
    }
    double count = (double)(t->per * t->S);
    float mean_all = (float)(all / count), mean_along = (float)(along / count);
    for (int64_t c = 0; c < t->per && t->dx; c++) {
      channel ch = channel_of(t, n, c0 + c);
      const float *x = t->x + at + c * t->S, *dy = t->dy + at + c * t->S;
      float *dx = t->dx + at + c * t->S;
      for (int64_t i = 0; i < t->S; i++) {
        float xhat = (x[i] - mean) * rstd;
        dx[i] = rstd * (before_act(t, &ch, xhat, dy[i]) * ch.gain - mean_all - xhat * mean_along);
      }
    }
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
                                     void *workspace) {
  task t = task_of(&in[1], groups, silu);
  t.dy = in[0].data, t.w = in[2].data, t.b = in[3].data, t.scale = in[4].data, t.shift = in[5].data,
  t.mask = in[6].data;
  t.mean = in[7].data, t.rstd = in[8].data;
  t.dx = out[0].data;
  t.sums = workspace;
  sl_parallel_for(e->ctx, in[1].shape.dim[0] * groups, 1, backward, &t);
  parts(&t, in[1].shape.dim[0], out);
  return SL_STATUS_OK;
}
