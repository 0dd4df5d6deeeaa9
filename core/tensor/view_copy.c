/* Strided copies with conversion. Dimensions are dropped and merged first; what remains is cut into tiles, each of
 * rows that an inner loop for the pair of dtypes copies. */
#include "base/bf16.h"
#include "base/parallel.h"
#include "tensor/tensor.h"

#include <math.h>
#include <string.h>

/* --- single elements --- */

static int64_t to_integer(double v, double low, double high) {
  if (isnan(v)) return 0;
  if (v <= low) return (int64_t)low;
  if (v >= high) return high >= 0x1p63 ? INT64_MAX : (int64_t)high;
  return (int64_t)v; /* towards zero */
}

double sl_element_get(sl_dtype d, const void *p) {
  switch (d) {
    case SL_F32: return (double)*(const float *)p;
    case SL_BF16: return (double)sl_bf16_to_f32(*(const sl_bf16 *)p);
    case SL_I32: return *(const int32_t *)p;
    case SL_I64: return (double)*(const int64_t *)p;
    case SL_U8: return *(const uint8_t *)p;
    case SL_F16: return (double)sl_f16_to_f32(*(const sl_f16 *)p);
    case SL_F64: return *(const double *)p;
    case SL_BOOL: return *(const uint8_t *)p != 0;
    case SL_I8: return *(const int8_t *)p;
    case SL_I16: return *(const int16_t *)p;
    case SL_DTYPE_COUNT: break;
  }
  return 0;
}

void sl_element_set(sl_dtype d, void *p, double v) {
  switch (d) {
    case SL_F32: *(float *)p = (float)v; break;
    case SL_BF16: *(sl_bf16 *)p = sl_bf16_from_f32((float)v); break;
    case SL_I32: *(int32_t *)p = (int32_t)to_integer(v, INT32_MIN, INT32_MAX); break;
    case SL_I64: *(int64_t *)p = to_integer(v, -0x1p63, 0x1p63); break;
    case SL_U8: *(uint8_t *)p = (uint8_t)to_integer(v, 0, UINT8_MAX); break;
    case SL_F16: *(sl_f16 *)p = sl_f16_from_f32((float)v); break;
    case SL_F64: *(double *)p = v; break;
    case SL_BOOL: *(uint8_t *)p = v != 0; break;
    case SL_I8: *(int8_t *)p = (int8_t)to_integer(v, INT8_MIN, INT8_MAX); break;
    case SL_I16: *(int16_t *)p = (int16_t)to_integer(v, INT16_MIN, INT16_MAX); break;
    case SL_DTYPE_COUNT: break;
  }
}

/* --- rows --- */

typedef struct row {
  char *dst;
  const char *src;
  int64_t ds, ss, n; /* strides in elements */
  sl_dtype to, from;
} row;
typedef void row_fn(row r);

#define ROW(name, T, S, expr)                                                                                          \
  static void name(row r) {                                                                                            \
    T *d = (T *)(void *)r.dst;                                                                                         \
    const S *s = (const S *)(const void *)r.src;                                                                       \
    if (r.ds == 1 && r.ss == 1) {                                                                                      \
      for (int64_t i = 0; i < r.n; i++) {                                                                              \
        S v = s[i];                                                                                                    \
        d[i] = expr;                                                                                                   \
      }                                                                                                                \
      return;                                                                                                          \
    }                                                                                                                  \
    for (int64_t i = 0; i < r.n; i++) {                                                                                \
      S v = s[i * r.ss];                                                                                               \
      d[i * r.ds] = expr;                                                                                              \
    }                                                                                                                  \
  }
#define SAME(name, T)                                                                                                  \
  static void name(row r) {                                                                                            \
    if (r.ds == 1 && r.ss == 1) {                                                                                      \
      memcpy(r.dst, r.src, (size_t)r.n * sizeof(T));                                                                   \
      return;                                                                                                          \
    }                                                                                                                  \
    T *d = (T *)(void *)r.dst;                                                                                         \
    const T *s = (const T *)(const void *)r.src;                                                                       \
    for (int64_t i = 0; i < r.n; i++) d[i * r.ds] = s[i * r.ss];                                                       \
  }
SAME(same_1, uint8_t)
SAME(same_2, uint16_t)
SAME(same_4, uint32_t)
SAME(same_8, uint64_t)
ROW(f32_to_bf16, sl_bf16, float, sl_bf16_from_f32(v))
ROW(bf16_to_f32, float, sl_bf16, sl_bf16_to_f32(v))
ROW(f16_to_f32, float, sl_f16, sl_f16_to_f32(v))
ROW(f64_to_f32, float, double, (float)v)
ROW(u8_to_f32, float, uint8_t, v)
ROW(i32_to_f32, float, int32_t, (float)v)
ROW(i64_to_f32, float, int64_t, (float)v)
ROW(i32_to_i64, int64_t, int32_t, v)
/* A comparison with NaN is false: 0. */
ROW(f32_to_u8, uint8_t, float, (uint8_t)(v >= 255.0f ? 255 : v > 0.0f ? (int)v : 0))

static void any_row(row r) {
  size_t to = sl_dtype_size(r.to), from = sl_dtype_size(r.from);
  for (int64_t i = 0; i < r.n; i++) {
    const char *s = r.src + i * r.ss * (int64_t)from;
    char *d = r.dst + i * r.ds * (int64_t)to;
    double v = sl_element_get(r.from, s);
    if (r.from == SL_I64 && !sl_dtype_is_float(r.to)) { /* a double would lose low bits */
      int64_t k = *(const int64_t *)(const void *)s;
      v = r.to == SL_BOOL ? k != 0 : k > INT32_MAX ? INT32_MAX : k < INT32_MIN ? INT32_MIN : (double)k;
    }
    sl_element_set(r.to, d, v);
  }
}

static row_fn *row_for(sl_dtype to, sl_dtype from) {
  static row_fn *const to_f32[SL_DTYPE_COUNT] = {
      [SL_BF16] = bf16_to_f32, [SL_F16] = f16_to_f32, [SL_F64] = f64_to_f32,
      [SL_U8] = u8_to_f32,     [SL_I32] = i32_to_f32, [SL_I64] = i64_to_f32,
  };
  if (to == from) {
    size_t size = sl_dtype_size(to);
    return size == 1 ? same_1 : size == 2 ? same_2 : size == 4 ? same_4 : same_8;
  }
  if (to == SL_F32 && to_f32[from]) return to_f32[from];
  if (from == SL_F32 && to == SL_BF16) return f32_to_bf16;
  if (from == SL_F32 && to == SL_U8) return f32_to_u8;
  if (from == SL_I32 && to == SL_I64) return i32_to_i64;
  return any_row;
}

/* --- the plan: collapsed dimensions and tiles --- */

typedef struct plan {
  int rank; /* at least 2; the last two dimensions are the plane that tiles cut */
  int64_t dim[SL_MAX_RANK + 2], ds[SL_MAX_RANK + 2], ss[SL_MAX_RANK + 2];
  int64_t tile_rows, tile_columns;           /* elements */
  int64_t tiles_down, tiles_across, n_tiles; /* of one plane; of all */
  sl_dtype to, from;
  char *dst;
  const char *src;
  row_fn *copy;
} plan;

/* Drops dimensions of 1 and merges neighbours that both sides walk as one. */
static void collapse(plan *p, const sl_view *dst, const sl_view *src) {
  p->rank = 0;
  for (int i = 0; i < dst->shape.rank; i++) {
    int64_t n = dst->shape.dim[i], ds = dst->stride[i], ss = src->stride[i];
    if (n == 1) continue;
    int last = p->rank - 1;
    if (last >= 0 && p->ds[last] == ds * n && p->ss[last] == ss * n) {
      p->dim[last] *= n;
      p->ds[last] = ds;
      p->ss[last] = ss;
      continue;
    }
    p->dim[p->rank] = n;
    p->ds[p->rank] = ds;
    p->ss[p->rank++] = ss;
  }
}

static void move_dim(int64_t *a, int from, int to) {
  int64_t v = a[from];
  for (int i = from; i < to; i++) a[i] = a[i + 1];
  a[to] = v;
}

/* Puts 1s in front until there is a plane, and its two dimensions last: columns are dst's, rows are where src is
 * densest. */
static void arrange(plan *p) {
  while (p->rank < 2) {
    for (int i = p->rank; i > 0; i--) p->dim[i] = p->dim[i - 1], p->ds[i] = p->ds[i - 1], p->ss[i] = p->ss[i - 1];
    p->dim[0] = 1, p->ds[0] = p->ss[0] = 0;
    p->rank++;
  }
  int last = p->rank - 1, dense = last;
  for (int i = 0; i <= last; i++) {
    if (p->ss[i] > 0 && p->dim[i] > 1 && (p->ss[i] < p->ss[dense] || p->ss[dense] <= 0)) dense = i;
  }
  bool transposed = dense != last && p->ss[last] > p->ss[dense];
  if (transposed && dense != last - 1) {
    move_dim(p->dim, dense, last - 1);
    move_dim(p->ds, dense, last - 1);
    move_dim(p->ss, dense, last - 1);
  }
  enum { SIDE = 32, MANY = 4096, LONG = 1 << 16 };
  int64_t rows = p->dim[last - 1], columns = p->dim[last];
  p->tile_columns = transposed ? SIDE : LONG;
  if (p->tile_columns > columns) p->tile_columns = columns;
  p->tile_rows = transposed ? SIDE : 1 + MANY / p->tile_columns;
  if (transposed && p->tile_columns < SIDE) p->tile_rows = 1 + MANY / p->tile_columns;
  if (p->tile_rows > rows) p->tile_rows = rows;
  p->tiles_down = (rows + p->tile_rows - 1) / p->tile_rows;
  p->tiles_across = (columns + p->tile_columns - 1) / p->tile_columns;
  p->n_tiles = p->tiles_down * p->tiles_across;
  for (int i = 0; i < p->rank - 2; i++) p->n_tiles *= p->dim[i];
}

static void copy_tile(const plan *p, int64_t d, int64_t s, int64_t row0, int64_t column0) {
  int last = p->rank - 1;
  int64_t to = (int64_t)sl_dtype_size(p->to), from = (int64_t)sl_dtype_size(p->from);
  int64_t row1 = row0 + p->tile_rows, n = p->tile_columns;
  if (row1 > p->dim[last - 1]) row1 = p->dim[last - 1];
  if (n > p->dim[last] - column0) n = p->dim[last] - column0;
  d += column0 * p->ds[last];
  s += column0 * p->ss[last];
  for (int64_t i = row0; i < row1; i++) {
    p->copy((row){.dst = p->dst + (d + i * p->ds[last - 1]) * to,
                  .src = p->src + (s + i * p->ss[last - 1]) * from,
                  .ds = p->ds[last],
                  .ss = p->ss[last],
                  .n = n,
                  .to = p->to,
                  .from = p->from});
  }
}

static void copy_tiles(void *user, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const plan *p = user;
  int outer = p->rank - 2;
  int64_t per_plane = p->tiles_down * p->tiles_across, index[SL_MAX_RANK + 2], d = 0, s = 0;
  int64_t plane = begin / per_plane, tile = begin % per_plane;
  for (int i = outer - 1; i >= 0; i--) {
    index[i] = plane % p->dim[i];
    plane /= p->dim[i];
    d += index[i] * p->ds[i];
    s += index[i] * p->ss[i];
  }
  for (int64_t k = begin; k < end; k++) {
    copy_tile(p, d, s, tile / p->tiles_across * p->tile_rows, tile % p->tiles_across * p->tile_columns);
    if (++tile < per_plane) continue;
    tile = 0;
    for (int i = outer - 1; i >= 0; i--) { /* the next plane */
      d += p->ds[i];
      s += p->ss[i];
      if (++index[i] < p->dim[i]) break;
      index[i] = 0;
      d -= p->dim[i] * p->ds[i];
      s -= p->dim[i] * p->ss[i];
    }
  }
}

typedef struct bytes_copy {
  char *dst;
  const char *src;
} bytes_copy;

static void copy_bytes(void *user, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const bytes_copy *b = user;
  memcpy(b->dst + begin, b->src + begin, (size_t)(end - begin));
}

void sl_view_copy(sl_context *ctx, const sl_view *dst, const sl_view *src) {
  SL_ASSERT(sl_shape_equal(&dst->shape, &src->shape));
  enum { GRAIN = 1 << 16 }; /* elements that are worth a thread */
  int64_t n = sl_shape_numel(&dst->shape);
  if (n == 0 || (dst->data == src->data && dst->dtype == src->dtype &&
                 memcmp(dst->stride, src->stride, (size_t)dst->shape.rank * sizeof *dst->stride) == 0)) {
    return;
  }
  plan p = {.to = dst->dtype, .from = src->dtype, .dst = dst->data, .src = src->data};
  collapse(&p, dst, src);
  if (p.to == p.from && (p.rank == 0 || (p.rank == 1 && p.ds[0] == 1 && p.ss[0] == 1))) {
    bytes_copy b = {p.dst, p.src};
    sl_parallel_for(ctx, n * (int64_t)sl_dtype_size(p.to), GRAIN * 8, copy_bytes, &b);
    return;
  }
  arrange(&p);
  p.copy = row_for(p.to, p.from);
  int64_t per_tile = n / p.n_tiles;
  sl_parallel_for(ctx, p.n_tiles, 1 + GRAIN / (per_tile ? per_tile : 1), copy_tiles, &p);
}

sl_view sl_view_part(const sl_view *v, int64_t dim, int64_t first, int64_t length, int64_t step) {
  sl_view p = *v;
  if (length > 0) p.data = (char *)v->data + first * v->stride[dim] * (int64_t)sl_dtype_size(v->dtype);
  p.shape.dim[dim] = length;
  p.stride[dim] *= step;
  return p;
}
