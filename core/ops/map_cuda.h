/* Elementwise CUDA kernels: a function of elements over a walk (views_cuda.h).
 *
 * A function F, a sl_gpu_function, names the element types of its operands, Y (written), A, B and C (sl_gpu_none: there
 * is no such one); V, the elements of a unit, and U, the units of a thread, where the walk allows units. of(a, b, c)
 * gives y, of floats for f32 and bf16, else of the elements themselves. */
#ifndef SL_OPS_MAP_CUDA_H
#define SL_OPS_MAP_CUDA_H

#include "ops/views_cuda.h"

#define SL_MAP_THREADS 256

struct sl_gpu_none {};
struct sl_gpu_bf16 {
  uint16_t bits;
};
struct sl_gpu_any {};   /* f32 or bf16, as the view says; only one by one, as are the next */
struct sl_gpu_truth {}; /* of any dtype: whether it is not 0 */
template <class S>
struct sl_gpu_stored {}; /* of any dtype, as S: float, double or int64_t */

/* The base of functions: operands' types; units of 16 bytes of the widest. */
template <class TY, class TA = sl_gpu_none, class TB = sl_gpu_none, class TC = sl_gpu_none>
struct sl_gpu_function {
  typedef TY Y;
  typedef TA A;
  typedef TB B;
  typedef TC C;
  enum {
    SIZE_AB = sizeof(A) > sizeof(B) ? sizeof(A) : sizeof(B),
    SIZE = (int)sizeof(Y) > SIZE_AB ? sizeof(Y) : SIZE_AB,
    V = 16 / SIZE,
    U = 2,
    BROADCASTS = sizeof(TB) > sizeof(sl_gpu_none) /* units of operands with one value along the innermost dimension */
  };
};

/* --- elements as values to compute with --- */

template <class T>
SL_DEVICE T sl_gpu_value(T x) {
  return x;
}
SL_DEVICE float sl_gpu_value(sl_gpu_bf16 x) { return sl_gpu_from_bf16(x.bits); }

template <class T>
SL_DEVICE void sl_gpu_put(T &y, T v) {
  y = v;
}
SL_DEVICE void sl_gpu_put(sl_gpu_bf16 &y, float v) { y.bits = sl_gpu_to_bf16(v); }

/* --- units --- */

/* `load` begins and `settle` ends the loading of a unit; nothing in the first waits for memory, so that many are under
 * way at once. */
template <class T, int V, bool BROADCASTS>
struct sl_gpu_unit {
  static constexpr bool there = true;
  T v[V], one;
  __device__ void load(const sl_gpu_view &x, int64_t at) {
    const T *p = (const T *)x.p + at;
    if (BROADCASTS && V > 1 && x.stride[0] == 0) {
      one = *p;
      return;
    }
    const sl_pack<T, V> r = *(const sl_pack<T, V> *)p;
    for (int i = 0; i < V; i++) v[i] = r.v[i];
  }
  __device__ void settle(const sl_gpu_view &x) {
    if (BROADCASTS && V > 1 && x.stride[0] == 0)
      for (int i = 0; i < V; i++) v[i] = one;
  }
  __device__ void store(const sl_gpu_view &y, int64_t at) const {
    sl_pack<T, V> r;
    for (int i = 0; i < V; i++) r.v[i] = v[i];
    *(sl_pack<T, V> *)((T *)y.p + at) = r;
  }
};

template <bool BROADCASTS>
struct sl_gpu_unit<sl_gpu_any, 1, BROADCASTS> {
  static constexpr bool there = true;
  float v[1];
  uint16_t half;
  __device__ void load(const sl_gpu_view &x, int64_t at) {
    if (x.dtype == SL_BF16) half = ((const uint16_t *)x.p)[at];
    else v[0] = ((const float *)x.p)[at];
  }
  __device__ void settle(const sl_gpu_view &x) {
    if (x.dtype == SL_BF16) v[0] = sl_gpu_from_bf16(half);
  }
  __device__ void store(const sl_gpu_view &y, int64_t at) const { sl_store<1>(y.p, y.dtype == SL_BF16, at, {{v[0]}}); }
};

template <bool BROADCASTS>
struct sl_gpu_unit<sl_gpu_truth, 1, BROADCASTS> {
  static constexpr bool there = true;
  bool v[1];
  __device__ void load(const sl_gpu_view &x, int64_t at) { v[0] = sl_gpu_get<float>(x.p, x.dtype, at) != 0.0f; }
  __device__ void settle(const sl_gpu_view &) {}
};

template <class S, bool BROADCASTS>
struct sl_gpu_unit<sl_gpu_stored<S>, 1, BROADCASTS> {
  static constexpr bool there = true;
  S v[1];
  __device__ void load(const sl_gpu_view &x, int64_t at) { v[0] = sl_gpu_get<S>(x.p, x.dtype, at); }
  __device__ void settle(const sl_gpu_view &) {}
  __device__ void store(const sl_gpu_view &y, int64_t at) const { sl_gpu_set(y.p, y.dtype, at, v[0]); }
};

template <int V, bool BROADCASTS>
struct sl_gpu_unit<sl_gpu_none, V, BROADCASTS> {
  static constexpr bool there = false;
};

/* A unit of each operand, and where it is. */
template <class F, int V>
struct sl_gpu_units {
  template <class T>
  using unit = sl_gpu_unit<T, V, F::BROADCASTS>;
  typedef typename F::A A;
  typedef typename F::B B;
  typedef typename F::C C;
  static constexpr int N = 1 + unit<A>::there + unit<B>::there + unit<C>::there;
  int64_t at[N];
  unit<A> a;
  unit<B> b;
  unit<C> c;

  __device__ void load(const sl_gpu_walk &w) {
    if constexpr (N > 1) a.load(w.v[1], at[1]);
    if constexpr (N > 2) b.load(w.v[2], at[2]);
    if constexpr (N > 3) c.load(w.v[3], at[3]);
  }
  __device__ void settle(const sl_gpu_walk &w) {
    if constexpr (N > 1) a.settle(w.v[1]);
    if constexpr (N > 2) b.settle(w.v[2]);
    if constexpr (N > 3) c.settle(w.v[3]);
  }
  __device__ void finish(const sl_gpu_walk &w, const F &f) {
    unit<typename F::Y> y;
    settle(w);
    for (int i = 0; i < V; i++) {
      if constexpr (N == 1) sl_gpu_put(y.v[i], f.of());
      if constexpr (N == 2) sl_gpu_put(y.v[i], f.of(sl_gpu_value(a.v[i])));
      if constexpr (N == 3) sl_gpu_put(y.v[i], f.of(sl_gpu_value(a.v[i]), sl_gpu_value(b.v[i])));
      if constexpr (N == 4) sl_gpu_put(y.v[i], f.of(sl_gpu_value(a.v[i]), sl_gpu_value(b.v[i]), sl_gpu_value(c.v[i])));
    }
    y.store(w.v[0], at[0]);
  }
};

/* Block b has SL_MAP_THREADS U units, a thread every SL_MAP_THREADS-th of them, loaded before the first is finished;
 * the first block also has what the last unit lacks of a whole one. */
template <class F, int V, int U>
__global__ void __launch_bounds__(SL_MAP_THREADS) sl_gpu_map_kernel(const sl_gpu_walk w, const F f) {
  const int64_t first = (int64_t)blockIdx.x * (SL_MAP_THREADS * U) + threadIdx.x, whole = w.count - (w.last < V);
  sl_gpu_units<F, V> units[U];
  SL_UNROLL
  for (int u = 0; u < U; u++) {
    if (first + u * SL_MAP_THREADS >= whole) break;
    sl_gpu_walk_at(w, first + u * SL_MAP_THREADS, units[u].at);
    units[u].load(w);
  }
  SL_UNROLL
  for (int u = 0; u < U; u++) {
    if (first + u * SL_MAP_THREADS >= whole) break;
    units[u].finish(w, f);
  }
  if (V > 1 && first < w.last && w.last < V) {
    sl_gpu_units<F, 1> one;
    for (int k = 0; k < one.N; k++) one.at[k] = w.v[k].stride[0] ? whole * V + first : 0;
    one.load(w);
    one.finish(w, f);
  }
}

template <class F, int V>
static sl_status sl_gpu_map_by(sl_exec *e, sl_gpu_walk *w, const F &f) {
  constexpr int U = V > 1 ? (int)F::U : 2;
  if (w->count == 0) return SL_STATUS_OK;
  sl_gpu_walk_by(w, V);
  const int64_t blocks = (w->count + SL_MAP_THREADS * U - 1) / (SL_MAP_THREADS * U);
  return SL_LAUNCH((sl_gpu_map_kernel<F, V, U>), dim3((unsigned)blocks), SL_MAP_THREADS, 0, e->stream, *w, f);
}

/* One by one; any strides. */
template <class F>
static sl_status sl_gpu_map_one(sl_exec *e, sl_gpu_walk *w, const F &f) {
  return sl_gpu_map_by<F, 1>(e, w, f);
}

/* By units, which must fit. */
template <class F>
static sl_status sl_gpu_map(sl_exec *e, sl_gpu_walk *w, const F &f) {
  return sl_gpu_map_by<F, F::V>(e, w, f);
}

/* Of the types that have a fast path. */
static inline int sl_gpu_dtype_of(const float *) { return SL_F32; }
static inline int sl_gpu_dtype_of(const sl_gpu_bf16 *) { return SL_BF16; }
static inline int sl_gpu_dtype_of(const uint8_t *) { return SL_U8; }
static inline int sl_gpu_dtype_of(const sl_gpu_none *) { return -1; }

/* Whether the operands have F's types and units fit. */
template <class F>
static bool sl_gpu_map_fits(const sl_gpu_walk *w) {
  const int dtype[] = {sl_gpu_dtype_of((typename F::Y *)nullptr), sl_gpu_dtype_of((typename F::A *)nullptr),
                       sl_gpu_dtype_of((typename F::B *)nullptr), sl_gpu_dtype_of((typename F::C *)nullptr)};
  bool fits = sl_gpu_walk_fits(w, F::V);
  for (int k = 0; k < w->n; k++) fits &= w->v[k].dtype == dtype[k] && (F::BROADCASTS || w->v[k].stride[0] != 0);
  return fits;
}

#endif
