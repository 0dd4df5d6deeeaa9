/* Tensors of any rank and strides as CUDA kernels take them: walks over operands of one shape, and their elements. */
#ifndef SL_OPS_VIEWS_CUDA_H
#define SL_OPS_VIEWS_CUDA_H

#include "gpu/gpu.h"

#include "ops/kernels.h"

#define SL_GPU_OPERANDS 4

/* --- walks --- */

struct sl_gpu_view {
  char *p; /* first element */
  int32_t dtype, size;
  bool dense, one;             /* in the walk's order without gaps; one value everywhere */
  int64_t stride[SL_MAX_RANK]; /* in elements; [0] is the innermost dimension's, as in the walk */
};

/* Operands of one shape. Dimensions lie in the first operand's memory order, [0] innermost; those of 1 are dropped,
 * those that all operands walk as one are merged. A unit is what one index stands for: an element, or `vector`
 * neighbours. */
struct sl_gpu_walk {
  int32_t rank, n; /* rank at least 1 */
  int32_t vector;  /* elements of a unit */
  int32_t last;    /* elements of the last unit: vector or less */
  int64_t count;   /* units */
  int64_t dim[SL_MAX_RANK];
  uint32_t magic[SL_MAX_RANK], shift[SL_MAX_RANK]; /* division by dim where count is below 2^31 */
  sl_gpu_view v[SL_GPU_OPERANDS];
};

/* Division of n below 2^31 by d as (high word of n m + n) >> shift. Source: Granlund and Montgomery 1994. */
static inline void sl_gpu_walk_divisors(sl_gpu_walk *w) {
  w->count = 1;
  for (int i = 0; i < w->rank; i++) w->count *= w->dim[i];
  if (w->count >= (int64_t)1 << 31) return;
  for (int i = 0; i < w->rank; i++) {
    const uint64_t d = w->dim[i] > 0 ? (uint64_t)w->dim[i] : 1;
    uint32_t s = 0;
    while (((uint64_t)1 << s) < d) s++;
    w->shift[i] = s;
    w->magic[i] = (uint32_t)((((uint64_t)1 << s) - d) * ((uint64_t)1 << 32) / d + 1);
  }
}

/* Dimensions of v from the smallest stride to the largest; the last of equals first. */
static inline void sl_gpu_memory_order(const sl_view *v, int *order) {
  for (int i = v->shape.rank - 1, n = 0; i >= 0; i--, n++) {
    const int64_t mine = v->stride[i] < 0 ? -v->stride[i] : v->stride[i];
    int k = n;
    for (; k > 0; k--) {
      const int64_t other = v->stride[order[k - 1]];
      if ((other < 0 ? -other : other) <= mine) break;
      order[k] = order[k - 1];
    }
    order[k] = i;
  }
}

/* Whether the dimension i of the views goes on where the walk's outermost so far ends, for all operands. */
static inline bool sl_gpu_walk_merges(const sl_gpu_walk *w, const sl_view *const *views, int i) {
  const int at = w->rank - 1;
  for (int k = 0; k < w->n && at >= 0; k++)
    if (views[k]->stride[i] != w->v[k].stride[at] * w->dim[at]) return false;
  return at >= 0;
}

/* Whether the operands are dense or one value, of the walk's shape. */
static inline void sl_gpu_walk_describe(sl_gpu_walk *w) {
  for (int k = 0; k < w->n; k++) {
    int64_t want = 1;
    w->v[k].dense = w->v[k].one = true;
    for (int i = 0; i < w->rank; i++) {
      w->v[k].dense &= w->v[k].stride[i] == want;
      w->v[k].one &= w->v[k].stride[i] == 0;
      want *= w->dim[i];
    }
  }
}

/* n operands (at most SL_GPU_OPERANDS) of equal shape, the one that is written first. */
static inline sl_gpu_walk sl_gpu_walk_of(int n, const sl_view *const *views) {
  sl_gpu_walk w = {};
  int order[SL_MAX_RANK];
  w.n = n, w.vector = w.last = 1;
  for (int k = 0; k < n; k++) {
    w.v[k].p = (char *)views[k]->data;
    w.v[k].dtype = (int32_t)views[k]->dtype;
    w.v[k].size = (int32_t)sl_dtype_size(views[k]->dtype);
  }
  sl_gpu_memory_order(views[0], order);
  for (int d = 0; d < views[0]->shape.rank; d++) {
    const int i = order[d];
    const int64_t size = views[0]->shape.dim[i];
    if (size == 1) continue;
    if (sl_gpu_walk_merges(&w, views, i)) {
      w.dim[w.rank - 1] *= size;
      continue;
    }
    for (int k = 0; k < n; k++) w.v[k].stride[w.rank] = views[k]->stride[i];
    w.dim[w.rank++] = size;
  }
  if (w.rank == 0) {
    w.dim[w.rank++] = 1;
    for (int k = 0; k < n; k++) w.v[k].stride[0] = 1;
  }
  sl_gpu_walk_describe(&w);
  sl_gpu_walk_divisors(&w);
  return w;
}

/* Whether `vector` neighbours along the innermost dimension can be one unit: every operand has them side by side and
 * aligned as one, or has one value there. In a walk of rank 1 the last unit may be a part of one. */
static inline bool sl_gpu_walk_fits(const sl_gpu_walk *w, int vector) {
  bool fits = w->rank == 1 || w->dim[0] % vector == 0;
  for (int k = 0; k < w->n; k++) {
    const sl_gpu_view *v = &w->v[k];
    if (v->stride[0] == 0) continue;
    fits &= v->stride[0] == 1 && (uintptr_t)v->p % (size_t)(v->size * vector) == 0;
    for (int i = 1; i < w->rank; i++) fits &= v->stride[i] % vector == 0;
  }
  return fits;
}

/* Makes `vector` neighbours a unit, which must fit; strides [0] become `vector`, or stay 0. */
static inline void sl_gpu_walk_by(sl_gpu_walk *w, int vector) {
  w->last = (int32_t)(w->rank == 1 && w->dim[0] % vector ? w->dim[0] % vector : vector);
  w->vector = vector;
  w->dim[0] = (w->dim[0] + vector - 1) / vector;
  for (int k = 0; k < w->n; k++) w->v[k].stride[0] *= vector;
  sl_gpu_walk_divisors(w);
}

/* sl_gpu_walk_at where 32 bits do not hold the index; adds to `at`. */
template <int N>
SL_DEVICE void sl_gpu_walk_far(const sl_gpu_walk &w, int64_t index, int64_t (&at)[N]) {
  SL_UNROLL_BY(1)
  for (int i = 0; i < w.rank; i++) {
    const int64_t next = index / w.dim[i], digit = index - next * w.dim[i];
    for (int k = 0; k < N; k++) at[k] += digit * w.v[k].stride[i];
    index = next;
  }
}

/* Offsets in elements of unit `index`, below count, in the first N operands. */
template <int N>
SL_DEVICE void sl_gpu_walk_at(const sl_gpu_walk &w, int64_t index, int64_t (&at)[N]) {
  if (w.rank == 1) {
    for (int k = 0; k < N; k++) at[k] = index * w.v[k].stride[0];
    return;
  }
  for (int k = 0; k < N; k++) at[k] = 0;
  if (w.count >= (int64_t)1 << 31) return sl_gpu_walk_far(w, index, at);
  uint32_t rest = (uint32_t)index;
  SL_UNROLL
  for (int i = 0; i < SL_MAX_RANK; i++) {
    if (i + 1 == w.rank) {
      for (int k = 0; k < N; k++) at[k] += rest * w.v[k].stride[i];
      break;
    }
    const uint32_t high = (uint32_t)(((uint64_t)rest * w.magic[i]) >> 32), next = (high + rest) >> w.shift[i];
    const uint32_t digit = rest - next * (uint32_t)w.dim[i];
    for (int k = 0; k < N; k++) at[k] += digit * w.v[k].stride[i];
    rest = next;
  }
}

/* --- elements: conversions as in tensor/view_copy.c --- */

/* float16 as bits; base/bf16.c has the same for the CPU. */
SL_DEVICE float sl_gpu_from_f16(uint16_t h) {
  const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = (h >> 10) & 31u, mantissa = h & 0x3ffu;
  uint32_t u = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | mantissa << 13;
  float f = (float)mantissa * 0x1p-24f; /* subnormal or zero: exact */
  if (exponent == 0) return sign ? -f : f;
  memcpy(&f, &u, sizeof f);
  return f;
}

SL_DEVICE uint16_t sl_gpu_to_f16(float f) {
  uint32_t u;
  memcpy(&u, &f, sizeof u);
  const uint32_t sign = (u >> 16) & 0x8000u;
  uint32_t a = u & 0x7fffffffu;
  if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | ((a >> 13) & 0x3ffu));
  if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* 65520 and above round to infinity */
  if (a < 0x38800000u) { /* below 2^-14: the sum's ulp is 2^-24, so it rounds for us */
    float magnitude;
    memcpy(&magnitude, &a, sizeof magnitude);
    magnitude += 0.5f;
    memcpy(&a, &magnitude, sizeof a);
    return (uint16_t)(sign | (a - 0x3f000000u));
  }
  a += 0xfffu + ((a >> 13) & 1u);
  return (uint16_t)(sign | (a - 0x38000000u) >> 13);
}

/* Towards zero, held to low … high; NaN becomes 0. */
template <class S>
SL_DEVICE int64_t sl_gpu_integer(S v, int64_t low, int64_t high) {
  if (v != v) return 0;
  if (v <= (S)low) return low;
  return v >= (S)high ? high : (int64_t)v;
}

template <class R, class S>
SL_DEVICE R sl_gpu_cast(S v) {
  constexpr bool cuts = (R)0.5 == (R)0 && (S)0.5 != (S)0; /* a float becomes an integer */
  if constexpr (cuts) return (R)sl_gpu_integer(v, INT64_MIN, INT64_MAX);
  else return (R)v;
}

/* What 16-bit floats are rounded from; integers of 64 bits come by way of double, as on the CPU. */
SL_DEVICE float sl_gpu_narrow(float v) { return v; }
SL_DEVICE float sl_gpu_narrow(double v) { return (float)v; }
SL_DEVICE float sl_gpu_narrow(int64_t v) { return (float)(double)v; }

/* The element `at` of an array of any dtype as R: float, double or int64_t. */
template <class R>
SL_DEVICE R sl_gpu_get(const void *p, int dtype, int64_t at) {
  switch (dtype) {
    case SL_F32: return sl_gpu_cast<R>(((const float *)p)[at]);
    case SL_BF16: return sl_gpu_cast<R>(sl_gpu_from_bf16(((const uint16_t *)p)[at]));
    case SL_I32: return (R)((const int32_t *)p)[at];
    case SL_I64: return (R)((const int64_t *)p)[at];
    case SL_U8: return (R)((const uint8_t *)p)[at];
    case SL_F16: return sl_gpu_cast<R>(sl_gpu_from_f16(((const uint16_t *)p)[at]));
    case SL_F64: return sl_gpu_cast<R>(((const double *)p)[at]);
    case SL_BOOL: return (R)(((const uint8_t *)p)[at] != 0);
    case SL_I8: return (R)((const int8_t *)p)[at];
    default: return (R)((const int16_t *)p)[at];
  }
}

/* Writes v, a float, double or int64_t, as an element of any dtype. */
template <class S>
SL_DEVICE void sl_gpu_set(void *p, int dtype, int64_t at, S v) {
  switch (dtype) {
    case SL_F32: ((float *)p)[at] = (float)v; break;
    case SL_BF16: ((uint16_t *)p)[at] = sl_gpu_to_bf16(sl_gpu_narrow(v)); break;
    case SL_I32: ((int32_t *)p)[at] = (int32_t)sl_gpu_integer(v, INT32_MIN, INT32_MAX); break;
    case SL_I64: ((int64_t *)p)[at] = sl_gpu_integer(v, INT64_MIN, INT64_MAX); break;
    case SL_U8: ((uint8_t *)p)[at] = (uint8_t)sl_gpu_integer(v, 0, UINT8_MAX); break;
    case SL_F16: ((uint16_t *)p)[at] = sl_gpu_to_f16(sl_gpu_narrow(v)); break;
    case SL_F64: ((double *)p)[at] = (double)v; break;
    case SL_BOOL: ((uint8_t *)p)[at] = v != 0; break;
    case SL_I8: ((int8_t *)p)[at] = (int8_t)sl_gpu_integer(v, INT8_MIN, INT8_MAX); break;
    default: ((int16_t *)p)[at] = (int16_t)sl_gpu_integer(v, INT16_MIN, INT16_MAX); break;
  }
}

#endif
