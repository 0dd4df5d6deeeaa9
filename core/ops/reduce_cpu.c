/* Reductions. Sums of floats are taken in short float runs and gathered in double, in an order fixed by the shape:
 * results do not depend on the number of threads. */
#include "ops/reduce.h"

#include <math.h>

#include "base/parallel.h"
#include "ops/strided_rows.h"

#define BLOCK 65536 /* reduced elements summed by one thread at a time */
#define COLUMNS 256 /* of a unit of columns */
#define COLUMN_PARTS 16
#define LANES 16

typedef struct axis {
  int64_t n, xs, ys; /* strides in elements */
} axis;

typedef struct plan {
  int fn;
  const char *x;
  char *y;
  sl_dtype xt, yt;
  int64_t x_size;
  int kept_rank, reduced_rank; /* at least 1 */
  axis kept[SL_MAX_RANK + 1], reduced[SL_MAX_RANK + 1];
  int64_t n_kept, n_reduced;
  const sl_elementwise_loops *loops;
} plan;

/* Sum and extremes in double; of integers in int64_t. */
typedef union total {
  double f;
  int64_t i;
} total;

/* --- planning --- */

static int64_t size_of(int64_t v) { return v < 0 ? -v : v; }

/* Longest strides first, neighbours merged; at least one axis. */
static int arrange(axis *a, int n) {
  for (int i = 1; i < n; i++)
    for (int k = i; k > 0 && size_of(a[k - 1].xs) < size_of(a[k].xs); k--) {
      axis t = a[k];
      a[k] = a[k - 1], a[k - 1] = t;
    }
  int m = 0;
  for (int i = 0; i < n; i++) {
    axis last = m > 0 ? a[m - 1] : (axis){0, 0, 0};
    if (m > 0 && last.xs == a[i].xs * a[i].n && last.ys == a[i].ys * a[i].n) {
      a[m - 1] = (axis){last.n * a[i].n, a[i].xs, a[i].ys};
    } else {
      a[m++] = a[i];
    }
  }
  if (m == 0) a[m++] = (axis){1, 1, 1};
  return m;
}

static plan plan_of(sl_exec *e, int fn, const sl_view *y, const sl_view *x) {
  plan p = {.fn = fn, .x = x->data, .y = y->data, .xt = x->dtype, .yt = y->dtype, .n_kept = 1, .n_reduced = 1};
  p.x_size = (int64_t)sl_dtype_size(x->dtype);
  p.loops = sl__elementwise_loops(e->ctx);
  for (int i = 0; i < x->shape.rank; i++) {
    int64_t n = x->shape.dim[i];
    if (y->shape.dim[i] == n) {
      p.n_kept *= n;
      if (n != 1) p.kept[p.kept_rank++] = (axis){n, x->stride[i], y->stride[i]};
    } else {
      p.n_reduced *= n;
      p.reduced[p.reduced_rank++] = (axis){n, x->stride[i], 0};
    }
  }
  p.kept_rank = arrange(p.kept, p.kept_rank);
  p.reduced_rank = arrange(p.reduced, p.reduced_rank);
  return p;
}

static int64_t offset_in(const axis *a, int rank, int64_t index, int64_t *y) {
  int64_t at = 0;
  for (int i = rank; i-- > 0;) {
    int64_t k = index % a[i].n;
    index /= a[i].n;
    at += k * a[i].xs;
    if (y) *y += k * a[i].ys;
  }
  return at;
}

/* --- combining --- */

static bool is_float(const plan *p) { return p->xt == SL_F32 || p->xt == SL_BF16; }
static double larger(double a, double b) { return a > b || isnan(a) ? a : b; }
static double smaller(double a, double b) { return a < b || isnan(a) ? a : b; }

static total nothing(const plan *p) {
  bool f = is_float(p);
  if (p->fn == SL_REDUCE_MAX) return f ? (total){.f = -INFINITY} : (total){.i = INT64_MIN};
  if (p->fn == SL_REDUCE_MIN) return f ? (total){.f = INFINITY} : (total){.i = INT64_MAX};
  return f ? (total){.f = 0} : (total){.i = 0};
}

static total combine(const plan *p, total a, total b) {
  if (is_float(p)) {
    if (p->fn == SL_REDUCE_MAX) return (total){.f = larger(a.f, b.f)};
    if (p->fn == SL_REDUCE_MIN) return (total){.f = smaller(a.f, b.f)};
    return (total){.f = a.f + b.f};
  }
  if (p->fn == SL_REDUCE_MAX) return a.i > b.i ? a : b;
  if (p->fn == SL_REDUCE_MIN) return a.i < b.i ? a : b;
  return (total){.i = (int64_t)((uint64_t)a.i + (uint64_t)b.i)};
}

static void store(const plan *p, int64_t at, total t) {
  char *y = p->y + at * (int64_t)sl_dtype_size(p->yt);
  switch (p->yt) {
    case SL_F32: *(float *)(void *)y = (float)(p->fn == SL_REDUCE_MEAN ? t.f / (double)p->n_reduced : t.f); break;
    case SL_BF16:
      *(uint16_t *)(void *)y = sl_bf16_from_f32((float)(p->fn == SL_REDUCE_MEAN ? t.f / (double)p->n_reduced : t.f));
      break;
    case SL_I64: *(int64_t *)(void *)y = t.i; break;
    case SL_I32: *(int32_t *)(void *)y = (int32_t)t.i; break;
    default: *(uint8_t *)y = (uint8_t)t.i; break;
  }
}

/* --- rows: the reduced axis lies densest --- */

/* n <= SL_ROW floats; lanes keep the order of addition the same on every machine. */
static double sum_row(const float *x, int64_t n) {
  double sum = 0;
  int64_t i = 0;
  if (n >= LANES) {
    float lane[LANES] = {0};
    for (; i + LANES <= n; i += LANES)
      for (int k = 0; k < LANES; k++) lane[k] += x[i + k];
    for (int k = 0; k < LANES; k++) sum += (double)lane[k];
  }
  for (; i < n; i++) sum += (double)x[i];
  return sum;
}

static double extreme_row(const float *x, int64_t n, bool max) {
  float lane[LANES];
  bool nan = false;
  for (int k = 0; k < LANES; k++) lane[k] = max ? -INFINITY : INFINITY;
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES)
    for (int k = 0; k < LANES; k++) {
      float v = max ? x[i + k] : -x[i + k], have = max ? lane[k] : -lane[k], best = v > have || v != v ? v : have;
      best = have != have ? have : best;
      lane[k] = max ? best : -best;
    }
  double best = max ? -INFINITY : INFINITY;
  for (int k = 0; k < LANES; k++)
    best = max ? larger(best, (double)lane[k]) : smaller(best, (double)lane[k]), nan |= lane[k] != lane[k];
  for (; i < n; i++) best = max ? larger(best, (double)x[i]) : smaller(best, (double)x[i]), nan |= x[i] != x[i];
  return nan ? NAN : best;
}

static total integer_row(const plan *p, const char *x, int64_t stride, int64_t n) {
  total t = nothing(p);
  for (int64_t i = 0; i < n; i++) {
    const void *v = x + i * stride * p->x_size;
    int64_t k = p->xt == SL_U8 ? *(const uint8_t *)v : p->xt == SL_I32 ? *(const int32_t *)v : *(const int64_t *)v;
    t = combine(p, t, (total){.i = k});
  }
  return t;
}

/* n <= SL_ROW elements as floats. */
static const float *floats_of(const plan *p, const char *x, int64_t stride, int64_t n, float *buffer) {
  if (p->xt == SL_F32) {
    if (stride == 1) return (const float *)(const void *)x;
    for (int64_t i = 0; i < n; i++) buffer[i] = ((const float *)(const void *)x)[i * stride];
    return buffer;
  }
  const uint16_t *h = (const uint16_t *)(const void *)x;
  if (stride == 1) p->loops->from_bf16(buffer, h, n);
  else
    for (int64_t i = 0; i < n; i++) buffer[i] = sl_bf16_to_f32(h[i * stride]);
  return buffer;
}

/* Reduced elements begin … end-1 of the output whose elements start at x. */
static total reduce_range(const plan *p, const char *x, int64_t begin, int64_t end) {
  float buffer[SL_ROW];
  total t = nothing(p);
  const axis *inner = &p->reduced[p->reduced_rank - 1];
  for (int64_t at = begin, n; at < end; at += n) {
    n = inner->n - at % inner->n;
    if (n > end - at) n = end - at;
    if (n > SL_ROW) n = SL_ROW;
    const char *row = x + offset_in(p->reduced, p->reduced_rank, at, NULL) * p->x_size;
    total part;
    if (!is_float(p)) {
      part = integer_row(p, row, inner->xs, n);
    } else {
      const float *f = floats_of(p, row, inner->xs, n, buffer);
      bool sum = p->fn == SL_REDUCE_SUM || p->fn == SL_REDUCE_MEAN;
      part.f = sum ? sum_row(f, n) : extreme_row(f, n, p->fn == SL_REDUCE_MAX);
    }
    t = combine(p, t, part);
  }
  return t;
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static void reduce_outputs(void *user, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const plan *p = user;
  for (int64_t k = begin; k < end; k++) {
    int64_t y = 0, x = offset_in(p->kept, p->kept_rank, k, &y);
    total t = nothing(p);
    for (int64_t b = 0; b < p->n_reduced; b += BLOCK)
      t = combine(p, t, reduce_range(p, p->x + x * p->x_size, b, least(b + BLOCK, p->n_reduced)));
    store(p, y, t);
  }
}

/* Few outputs of many elements: blocks go to threads, their totals are combined in order. */
typedef struct wave {
  const plan *p;
  const char *x;
  int64_t first; /* block */
  total part[1024];
} wave;

static void reduce_blocks(void *user, int64_t begin, int64_t end, int thread) {
  (void)thread;
  wave *w = user;
  for (int64_t b = begin; b < end; b++) {
    int64_t at = (w->first + b) * BLOCK;
    w->part[b] = reduce_range(w->p, w->x, at, least(at + BLOCK, w->p->n_reduced));
  }
}

static void reduce_by_blocks(sl_exec *e, const plan *p) {
  wave w = {.p = p};
  const int64_t room = (int64_t)(sizeof w.part / sizeof *w.part), blocks = (p->n_reduced + BLOCK - 1) / BLOCK;
  for (int64_t k = 0; k < p->n_kept; k++) {
    int64_t y = 0;
    w.x = p->x + offset_in(p->kept, p->kept_rank, k, &y) * p->x_size;
    total t = nothing(p);
    for (w.first = 0; w.first < blocks; w.first += room) {
      int64_t n = least(room, blocks - w.first);
      sl_parallel_for(e->ctx, n, 1, reduce_blocks, &w);
      for (int64_t b = 0; b < n; b++) t = combine(p, t, w.part[b]);
    }
    store(p, y, t);
  }
}

/* --- columns: a kept axis lies densest, and is walked in vectors --- */

static int64_t column_pieces(const plan *p) { return (p->kept[p->kept_rank - 1].n + COLUMNS - 1) / COLUMNS; }

static void add_row(float *sum, const float *x, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; i++) sum[i] += x[i];
}

/* Column sums of reduced elements begin … end-1 in double, by way of float sums of 32 rows. */
static void sum_columns(const plan *p, const char *x, int64_t n, int64_t begin, int64_t end, double *sum) {
  float run[COLUMNS], buffer[COLUMNS];
  for (int64_t i = 0; i < n; i++) sum[i] = 0;
  for (int64_t at = begin; at < end;) {
    memset(run, 0, sizeof run);
    for (int64_t stop = least(at + 32, end); at < stop; at++) {
      const char *row = x + offset_in(p->reduced, p->reduced_rank, at, NULL) * p->x_size;
      add_row(run, floats_of(p, row, 1, n, buffer), n);
    }
    for (int64_t i = 0; i < n; i++) sum[i] += (double)run[i];
  }
}

static void extreme_columns(const plan *p, const char *x, int64_t n, int64_t begin, int64_t end, double *best) {
  float buffer[COLUMNS];
  for (int64_t i = 0; i < n; i++) best[i] = nothing(p).f;
  for (int64_t at = begin; at < end; at++) {
    const float *f = floats_of(p, x + offset_in(p->reduced, p->reduced_rank, at, NULL) * p->x_size, 1, n, buffer);
    for (int64_t i = 0; i < n; i++) best[i] = combine(p, (total){.f = best[i]}, (total){.f = (double)f[i]}).f;
  }
}

typedef struct columns {
  const plan *p;
  int64_t unit, parts; /* unit < 0: units go to threads, not parts */
  double part[COLUMN_PARTS][COLUMNS];
} columns;

/* Where a unit's columns start. */
static const char *columns_at(const plan *p, int64_t unit, int64_t *n, int64_t *y) {
  int64_t pieces = column_pieces(p), column = unit % pieces * COLUMNS, width = p->kept[p->kept_rank - 1].n;
  *n = least(COLUMNS, width - column);
  return p->x + offset_in(p->kept, p->kept_rank, unit / pieces * width + column, y) * p->x_size;
}

static void column_part(const plan *p, int64_t unit, int64_t k, int64_t parts, double *out) {
  int64_t n, y = 0;
  const char *x = columns_at(p, unit, &n, &y);
  int64_t begin = p->n_reduced * k / parts, end = p->n_reduced * (k + 1) / parts;
  if (p->fn == SL_REDUCE_SUM || p->fn == SL_REDUCE_MEAN) sum_columns(p, x, n, begin, end, out);
  else extreme_columns(p, x, n, begin, end, out);
}

static void store_columns(const plan *p, int64_t unit, int64_t parts, double part[][COLUMNS]) {
  int64_t n, y = 0;
  (void)columns_at(p, unit, &n, &y);
  for (int64_t i = 0; i < n; i++) {
    total t = {.f = part[0][i]};
    for (int64_t k = 1; k < parts; k++) t = combine(p, t, (total){.f = part[k][i]});
    store(p, y + i * p->kept[p->kept_rank - 1].ys, t);
  }
}

static void column_units(void *user, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const columns *c = user;
  double part[COLUMN_PARTS][COLUMNS];
  for (int64_t u = begin; u < end; u++) {
    for (int64_t k = 0; k < c->parts; k++) column_part(c->p, u, k, c->parts, part[k]);
    store_columns(c->p, u, c->parts, part);
  }
}

static void column_parts(void *user, int64_t begin, int64_t end, int thread) {
  (void)thread;
  columns *c = user;
  for (int64_t k = begin; k < end; k++) column_part(c->p, c->unit, k, c->parts, c->part[k]);
}

static void reduce_columns(sl_exec *e, const plan *p) {
  columns c = {.p = p, .parts = p->n_reduced >= 32 * COLUMN_PARTS ? COLUMN_PARTS : 1};
  int64_t units = p->n_kept / p->kept[p->kept_rank - 1].n * column_pieces(p),
          grain = BLOCK / 2 / (COLUMNS * p->n_reduced) + 1;
  if (units >= sl_context_threads(e->ctx) || c.parts == 1 || p->n_reduced * COLUMNS < BLOCK) {
    sl_parallel_for(e->ctx, units, grain, column_units, &c);
    return;
  }
  for (c.unit = 0; c.unit < units; c.unit++) {
    sl_parallel_for(e->ctx, c.parts, 1, column_parts, &c);
    store_columns(p, c.unit, c.parts, c.part);
  }
}

sl_status sl_cpu_reduce(sl_exec *e, int fn, const sl_view *y, const sl_view *x) {
  plan p = plan_of(e, fn, y, x);
  if (p.n_kept == 0) return SL_STATUS_OK;
  const axis *kept = &p.kept[p.kept_rank - 1], *reduced = &p.reduced[p.reduced_rank - 1];
  bool by_columns = is_float(&p) && kept->xs == 1 && kept->n > 1 && reduced->xs != 1 && p.n_reduced > 1;
  if (by_columns) reduce_columns(e, &p);
  else if (p.n_kept < sl_context_threads(e->ctx) && p.n_reduced > BLOCK) reduce_by_blocks(e, &p);
  else sl_parallel_for(e->ctx, p.n_kept, 1 + BLOCK / 2 / (p.n_reduced + 1), reduce_outputs, &p);
  return SL_STATUS_OK;
}

/* --- argmax: the first of the largest; NaN is larger than any number --- */

typedef struct argmax_job {
  plan p;
  axis along;
} argmax_job;

static int64_t argmax_row(const argmax_job *j, const char *x) {
  const int64_t n = j->along.n, step = j->along.xs * j->p.x_size;
  int64_t at = 0;
  if (j->p.xt == SL_I64) {
    for (int64_t i = 1; i < n; i++)
      if (*(const int64_t *)(const void *)(x + i * step) > *(const int64_t *)(const void *)(x + at * step)) at = i;
    return at;
  }
  double best = sl_element_get(j->p.xt, x);
  for (int64_t i = 1; i < n && !isnan(best); i++) {
    double v = sl_element_get(j->p.xt, x + i * step);
    if (v > best || isnan(v)) best = v, at = i;
  }
  return at;
}

static void argmax_rows(void *user, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const argmax_job *j = user;
  for (int64_t k = begin; k < end; k++) {
    int64_t y = 0, x = offset_in(j->p.kept, j->p.kept_rank, k, &y);
    ((int64_t *)(void *)j->p.y)[y] = argmax_row(j, j->p.x + x * j->p.x_size);
  }
}

sl_status sl_cpu_argmax(sl_exec *e, int dim, const sl_view *y, const sl_view *x) {
  argmax_job j = {.p = plan_of(e, SL_REDUCE_MAX, y, x), .along = {x->shape.dim[dim], x->stride[dim], 0}};
  sl_parallel_for(e->ctx, j.p.n_kept, 1 + BLOCK / 2 / (j.along.n + 1), argmax_rows, &j);
  return SL_STATUS_OK;
}
