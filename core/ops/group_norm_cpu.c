/* GroupNorm on the CPU. The unit of work is a slab: some whole groups of one sample, read panel by panel. Sums are
 * taken in double, the mean before the squares of what deviates from it. */
#define SL_LOOPS sl__group_norm_base
#include "ops/group_norm_loops.h"

#include "base/parallel.h"
#include "ops/kernels.h"

#define LINE 64 /* pixels of a panel's row in planes: its columns are added up at the end, one after the other */
#define SLAB 64 /* channels of a slab in channels-last images, if its groups are smaller */

typedef struct task {
  const sl_group_norm_loops *loops;
  const float *x, *w, *b, *scale, *shift, *dy;
  const uint8_t *mask;
  float *y, *mean, *rstd, *dx; /* any of them may be NULL */
  double *sums;                /* [N, C, 2]: sum dz, sum dz xhat */
  int64_t C, groups, per, S;   /* channels, groups, channels of a group, elements of a channel */
  int64_t slab, slabs;         /* groups of a slab, slabs of a sample */
  double eps;
  bool silu, last;
} task;

static task task_of(const sl_exec *e, const sl_view *x, int64_t groups, bool silu, bool last) {
  int rank = x->shape.rank, channels = last ? rank - 1 : 1;
  task t = {.loops = SL_LOOPS_OF(e->ctx, sl__group_norm),
            .x = x->data,
            .C = x->shape.dim[channels],
            .groups = groups,
            .silu = silu,
            .last = last,
            .S = 1};
  for (int i = 1; i < rank; i++) t.S *= i == channels ? 1 : x->shape.dim[i];
  t.per = t.C / groups;
  t.slab = last && t.per > 0 && t.per < SLAB ? SLAB / t.per : 1;
  if (t.slab > groups) t.slab = groups;
  t.slabs = (groups + t.slab - 1) / t.slab;
  return t;
}

/* --- slabs and their panels --- */

/* Groups g0 … g1-1 of sample n, and what is known of each. */
typedef struct slab {
  int64_t n, g0, g1;
  double sum[SLAB];
  float mean[SLAB], rstd[SLAB], mean_all[SLAB], mean_along[SLAB];
} slab;

static void slab_of(const task *t, int64_t k, slab *s) {
  s->n = k / t->slabs;
  s->g0 = k % t->slabs * t->slab;
  s->g1 = s->g0 + t->slab < t->groups ? s->g0 + t->slab : t->groups;
}

/* A panel's place: from channel c0 on, in the images from element `at` on. */
typedef struct place {
  int64_t c0, at;
} place;

/* The group, within the slab, of a panel's column i. */
static int64_t group_at(const task *t, const slab *s, const place *q, int64_t i) {
  return (q->c0 + (t->last ? i : 0)) / t->per - s->g0;
}

static void set_moments(const task *t, const slab *s, const place *q, sl_panel *p) {
  for (int64_t i = 0, g = group_at(t, s, q, 0); i < p->width; i++) {
    if (t->last) g = group_at(t, s, q, i);
    p->mean[i] = s->mean[g];
    p->rstd[i] = s->rstd[g];
  }
}

static void set_affine(const task *t, const slab *s, const place *q, sl_panel *p) {
  p->silu = t->silu;
  p->masked = t->mask != NULL;
  for (int64_t i = 0; i < p->width; i++) {
    if (i > 0 && !t->last) { /* one channel */
      p->gain[i] = p->gain[0], p->offset[i] = p->offset[0], p->mask[i] = p->mask[0];
      continue;
    }
    int64_t c = q->c0 + i, nc = s->n * t->C + c;
    float w = t->w ? t->w[c] : 1, b = t->b ? t->b[c] : 0;
    float scale = t->scale ? 1 + t->scale[nc] : 1, shift = t->shift ? t->shift[nc] : 0;
    p->gain[i] = w * scale;
    p->offset[i] = b * scale + shift;
    p->mask[i] = t->mask ? (float)t->mask[nc] : 1;
  }
}

typedef void panel_fn(const task *t, slab *s, const place *q, sl_panel *p);

static void each_panel(const task *t, slab *s, panel_fn *fn) {
  sl_panel p;
  for (int64_t c = s->g0 * t->per, end = s->g1 * t->per, next; c < end; c = next) {
    place q = {c, s->n * t->C * t->S + (t->last ? c : c * t->S)};
    int64_t whole = t->S / LINE * LINE;
    if (t->last) {
      next = end - c < SL_PANEL ? end : c + SL_PANEL;
      p.rows = t->S, p.width = next - c, p.stride = t->C;
      fn(t, s, &q, &p);
      continue;
    }
    next = c + 1;
    p.rows = t->S / LINE, p.width = p.stride = LINE;
    if (whole > 0) fn(t, s, &q, &p);
    q.at += whole;
    p.rows = 1, p.width = p.stride = t->S - whole;
    if (p.width > 0) fn(t, s, &q, &p);
  }
}

static void zero(double *columns, int64_t n) { memset(columns, 0, (size_t)n * sizeof *columns); }

/* --- forward --- */

static void to_groups(const task *t, slab *s, const place *q, const sl_panel *p, const double *columns) {
  for (int64_t i = 0, g = group_at(t, s, q, 0); i < p->width; i++) {
    if (t->last) g = group_at(t, s, q, i);
    s->sum[g] += columns[i];
  }
}

static void sum_panel(const task *t, slab *s, const place *q, sl_panel *p) {
  double columns[SL_PANEL];
  zero(columns, p->width);
  t->loops->sum(p, t->x + q->at, columns);
  to_groups(t, s, q, p, columns);
}

static void squares_panel(const task *t, slab *s, const place *q, sl_panel *p) {
  double columns[SL_PANEL];
  zero(columns, p->width);
  for (int64_t i = 0, g = group_at(t, s, q, 0); i < p->width; i++) {
    if (t->last) g = group_at(t, s, q, i);
    p->mean[i] = s->mean[g];
  }
  t->loops->squares(p, t->x + q->at, columns);
  to_groups(t, s, q, p, columns);
}

static void forward_panel(const task *t, slab *s, const place *q, sl_panel *p) {
  set_moments(t, s, q, p);
  set_affine(t, s, q, p);
  t->loops->forward(p, t->x + q->at, t->y + q->at);
}

/* Gathers with fn and gives the mean over each group. */
static void averages(const task *t, slab *s, panel_fn *fn, double *out) {
  double count = (double)(t->per * t->S);
  for (int64_t g = 0; g < s->g1 - s->g0; g++) s->sum[g] = 0;
  each_panel(t, s, fn);
  for (int64_t g = 0; g < s->g1 - s->g0; g++) out[g] = count > 0 ? s->sum[g] / count : 0;
}

static void forward(void *user, int64_t begin, int64_t end, int thread) {
  const task *t = user;
  double average[SLAB];
  slab s;
  (void)thread;
  for (int64_t k = begin; k < end; k++) {
    slab_of(t, k, &s);
    averages(t, &s, sum_panel, average);
    for (int64_t g = 0; g < s.g1 - s.g0; g++) s.mean[g] = (float)average[g];
    averages(t, &s, squares_panel, average);
    for (int64_t g = 0; g < s.g1 - s.g0; g++) s.rstd[g] = (float)(1 / sqrt(average[g] + t->eps));
    size_t first = (size_t)(s.n * t->groups + s.g0), bytes = (size_t)(s.g1 - s.g0) * sizeof *s.mean;
    if (t->mean) memcpy(t->mean + first, s.mean, bytes);
    if (t->rstd) memcpy(t->rstd + first, s.rstd, bytes);
    if (t->y) each_panel(t, &s, forward_panel);
  }
}

sl_status sl_cpu_group_norm(sl_exec *e, const sl_view *out, const sl_view *in, int64_t groups, double eps, bool silu,
                            bool last) {
  task t = task_of(e, &in[0], groups, silu, last);
  t.w = in[1].data, t.b = in[2].data, t.scale = in[3].data, t.shift = in[4].data, t.mask = in[5].data;
  t.y = out[0].data, t.mean = out[1].data, t.rstd = out[2].data;
  t.eps = eps;
  sl_parallel_for(e->ctx, in[0].shape.dim[0] * t.slabs, 1, forward, &t);
  return SL_STATUS_OK;
}

/* --- backward --- */

static void before_panel(const task *t, slab *s, const place *q, sl_panel *p) {
  double sum[SL_PANEL], along[SL_PANEL], *to = t->sums + 2 * (s->n * t->C + q->c0);
  zero(sum, p->width);
  zero(along, p->width);
  set_moments(t, s, q, p);
  set_affine(t, s, q, p);
  t->loops->before(p, t->x + q->at, t->dy + q->at, t->dx ? t->dx + q->at : NULL, sum, along);
  for (int64_t i = 0; i < p->width; i++) {
    to[t->last ? 2 * i : 0] += sum[i];
    to[t->last ? 2 * i + 1 : 1] += along[i];
  }
}

static void dx_panel(const task *t, slab *s, const place *q, sl_panel *p) {
  set_moments(t, s, q, p);
  for (int64_t i = 0, g = group_at(t, s, q, 0); i < p->width; i++) {
    if (t->last) g = group_at(t, s, q, i);
    p->mean_all[i] = s->mean_all[g];
    p->mean_along[i] = s->mean_along[g];
  }
  t->loops->dx(p, t->x + q->at, t->dx + q->at);
}

/* Means over group g of dxhat and of dxhat xhat, from its channels' sums. */
static void gradient_means(const task *t, slab *s, int64_t g) {
  double all = 0, along = 0, count = (double)(t->per * t->S);
  for (int64_t c = (s->g0 + g) * t->per; c < (s->g0 + g + 1) * t->per; c++) {
    const double *sums = t->sums + 2 * (s->n * t->C + c);
    double gain = (double)((t->w ? t->w[c] : 1) * (t->scale ? 1 + t->scale[s->n * t->C + c] : 1));
    all += sums[0] * gain;
    along += sums[1] * gain;
  }
  s->mean_all[g] = (float)(all / count);
  s->mean_along[g] = (float)(along / count);
}

static void backward(void *user, int64_t begin, int64_t end, int thread) {
  const task *t = user;
  slab s;
  (void)thread;
  for (int64_t k = begin; k < end; k++) {
    slab_of(t, k, &s);
    double *sums = t->sums + 2 * (s.n * t->C + s.g0 * t->per);
    size_t first = (size_t)(s.n * t->groups + s.g0), bytes = (size_t)(s.g1 - s.g0) * sizeof *s.mean;
    memset(sums, 0, (size_t)(2 * (s.g1 - s.g0) * t->per) * sizeof *sums);
    memcpy(s.mean, t->mean + first, bytes);
    memcpy(s.rstd, t->rstd + first, bytes);
    each_panel(t, &s, before_panel);
    for (int64_t g = 0; t->dx && g < s.g1 - s.g0; g++) gradient_means(t, &s, g);
    if (t->dx) each_panel(t, &s, dx_panel);
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
  task t = task_of(e, &in[1], groups, silu, last);
  t.dy = in[0].data, t.w = in[2].data, t.b = in[3].data, t.scale = in[4].data, t.shift = in[5].data,
  t.mask = in[6].data;
  t.mean = in[7].data, t.rstd = in[8].data;
  t.dx = out[0].data;
  t.sums = workspace;
  sl_parallel_for(e->ctx, in[1].shape.dim[0] * t.slabs, 1, backward, &t);
  parts(&t, in[1].shape.dim[0], out);
  return SL_STATUS_OK;
}
