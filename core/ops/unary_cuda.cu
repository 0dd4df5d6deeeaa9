/* Functions of one operand on CUDA, their derivatives, and clamp. */
#include "ops/elementwise.h"
#include "ops/elementwise_math.h"
#include "ops/map_cuda.h"

/* --- the functions --- */

#define X(name)                                                                                                        \
  struct fn_##name {                                                                                                   \
    SL_DEVICE float value(float x) { return sl_##name##_f(x); }                                                        \
    SL_DEVICE float slope(float x) { return sl_##name##_d(x); }                                                        \
  };
SL_UNARY_LIST(X)
#undef X

SL_DEVICE float value_of(int fn, float x) {
#define X(name)                                                                                                        \
  case SL_UNARY_##name: return sl_##name##_f(x);
  switch (fn) { SL_UNARY_LIST(X) }
#undef X
  return x;
}

SL_DEVICE float slope_of(int fn, float x) {
#define X(name)                                                                                                        \
  case SL_UNARY_##name: return sl_##name##_d(x);
  switch (fn) { SL_UNARY_LIST(X) }
#undef X
  return x;
}

template <class T, class Fn>
struct unary_of : sl_gpu_function<T, T> {
  __device__ float of(float x) const { return Fn::value(x); }
};

template <class T, class Fn>
struct backward_of : sl_gpu_function<T, T, T> {
  __device__ float of(float dy, float x) const { return dy * Fn::slope(x); }
};

struct unary_any : sl_gpu_function<sl_gpu_any, sl_gpu_any> {
  int fn;
  __device__ float of(float x) const { return value_of(fn, x); }
};

struct backward_any : sl_gpu_function<sl_gpu_any, sl_gpu_any, sl_gpu_any> {
  int fn;
  __device__ float of(float dy, float x) const { return dy * slope_of(fn, x); }
};

/* Arithmetic wraps around. */
template <class T>
struct unary_integer : sl_gpu_function<T, T> {
  int fn;
  __device__ T of(T x) const {
    switch (fn) {
      case SL_UNARY_neg: return (T)(0 - (uint64_t)x);
      case SL_UNARY_abs: return x > 0 ? x : (T)(0 - (uint64_t)x);
      case SL_UNARY_sign: return x > 0 ? (T)1 : x == 0 ? (T)0 : (T)-1;
      case SL_UNARY_square: return (T)((uint64_t)x * (uint64_t)x);
      case SL_UNARY_relu: return x > 0 ? x : (T)0;
      default: return x; /* round, floor */
    }
  }
};

template <class T>
struct clamp_of : sl_gpu_function<T, T> {
  float lo, hi;
  __device__ float of(float x) const { return sl_clamp_f(x, lo, hi); }
};

template <class T>
struct clamp_integer : sl_gpu_function<T, T> {
  T lo, hi;
  __device__ T of(T x) const { return x < lo ? lo : x > hi ? hi : x; }
};

/* --- kernels' choice --- */

/* F<T, fn> by units, for the function numbered fn. */
template <class T, template <class, class> class F>
static sl_status run_fast(sl_exec *e, int fn, sl_gpu_walk *w) {
#define X(name)                                                                                                        \
  case SL_UNARY_##name: return sl_gpu_map(e, w, F<T, fn_##name>());
  switch (fn) { SL_UNARY_LIST(X) }
#undef X
  return sl_fail(SL_STATUS_ARG, "unary: fn is %d, expected a function's number", fn);
}

template <template <class, class> class F, class Any>
static sl_status run_float(sl_exec *e, int fn, sl_gpu_walk *w) {
  if (sl_gpu_map_fits<F<float, fn_neg>>(w)) return run_fast<float, F>(e, fn, w);
  if (sl_gpu_map_fits<F<sl_gpu_bf16, fn_neg>>(w)) return run_fast<sl_gpu_bf16, F>(e, fn, w);
  Any f;
  f.fn = fn;
  return sl_gpu_map_one(e, w, f);
}

template <class T>
static sl_status run_unary_integer(sl_exec *e, int fn, sl_gpu_walk *w) {
  unary_integer<T> f;
  f.fn = fn;
  return sl_gpu_map_one(e, w, f);
}

extern "C" sl_status sl_cuda_unary(sl_exec *e, int fn, const sl_view *y, const sl_view *x) {
  const sl_view *const views[] = {y, x};
  sl_gpu_walk w = sl_gpu_walk_of(2, views);
  switch (x->dtype) {
    case SL_U8: return run_unary_integer<uint8_t>(e, fn, &w);
    case SL_I32: return run_unary_integer<int32_t>(e, fn, &w);
    case SL_I64: return run_unary_integer<int64_t>(e, fn, &w);
    default: return run_float<unary_of, unary_any>(e, fn, &w);
  }
}

extern "C" sl_status sl_cuda_unary_backward(sl_exec *e, int fn, const sl_view *dx, const sl_view *dy,
                                            const sl_view *x) {
  const sl_view *const views[] = {dx, dy, x};
  sl_gpu_walk w = sl_gpu_walk_of(3, views);
  return run_float<backward_of, backward_any>(e, fn, &w);
}

template <class T>
static sl_status run_clamp_integer(sl_exec *e, sl_gpu_walk *w, sl_dtype dtype, double lo, double hi) {
  clamp_integer<T> f; /* bounds rounded inwards, held to the dtype's range */
  sl_element_set(dtype, &f.lo, ceil(lo));
  sl_element_set(dtype, &f.hi, floor(hi));
  return sl_gpu_map_one(e, w, f);
}

template <class T>
static clamp_of<T> clamp_by(double lo, double hi) {
  clamp_of<T> f;
  f.lo = (float)lo, f.hi = (float)hi;
  return f;
}

extern "C" sl_status sl_cuda_clamp(sl_exec *e, const sl_view *y, const sl_view *x, double lo, double hi) {
  const sl_view *const views[] = {y, x};
  sl_gpu_walk w = sl_gpu_walk_of(2, views);
  switch (x->dtype) {
    case SL_U8: return run_clamp_integer<uint8_t>(e, &w, SL_U8, lo, hi);
    case SL_I32: return run_clamp_integer<int32_t>(e, &w, SL_I32, lo, hi);
    case SL_I64: return run_clamp_integer<int64_t>(e, &w, SL_I64, lo, hi);
    default: break;
  }
  if (sl_gpu_map_fits<clamp_of<float>>(&w)) return sl_gpu_map(e, &w, clamp_by<float>(lo, hi));
  if (sl_gpu_map_fits<clamp_of<sl_gpu_bf16>>(&w)) return sl_gpu_map(e, &w, clamp_by<sl_gpu_bf16>(lo, hi));
  return sl_gpu_map_one(e, &w, clamp_by<sl_gpu_any>(lo, hi));
}
