/* Functions of two operands on CUDA, comparisons, and where. */
#include "ops/elementwise.h"

#include "ops/elementwise_math.h"
#include "ops/map_cuda.h"

/* --- two operands --- */

#define X(name)                                                                                                        \
  struct fn_##name {                                                                                                   \
    SL_DEVICE float value(float a, float b) { return sl_##name##_f(a, b); }                                            \
  };
SL_BINARY_LIST(X)
#undef X

template <class T, class Fn>
struct binary_of : sl_gpu_function<T, T, T> {
  __device__ float of(float a, float b) const { return Fn::value(a, b); }
};

/* bf16 added into f32. */
struct add_bf16 : sl_gpu_function<float, float, sl_gpu_bf16> {
  __device__ float of(float a, float b) const { return sl_add_f(a, b); }
};

struct binary_any : sl_gpu_function<sl_gpu_any, sl_gpu_any, sl_gpu_any> {
  int fn;
  __device__ float of(float a, float b) const {
#define X(name)                                                                                                        \
  case SL_BINARY_##name: return sl_##name##_f(a, b);
    switch (fn) { SL_BINARY_LIST(X) }
#undef X
    return a;
  }
};

/* Arithmetic wraps around. */
template <class T>
struct binary_integer : sl_gpu_function<T, T, T> {
  int fn;
  __device__ T of(T a, T b) const {
    switch (fn) {
      case SL_BINARY_add: return (T)((uint64_t)a + (uint64_t)b);
      case SL_BINARY_sub: return (T)((uint64_t)a - (uint64_t)b);
      case SL_BINARY_mul: return (T)((uint64_t)a * (uint64_t)b);
      case SL_BINARY_maximum: return a > b ? a : b;
      default: return a < b ? a : b;
    }
  }
};

template <class T>
static sl_status run_binary(sl_exec *e, int fn, sl_gpu_walk *w) {
#define X(name)                                                                                                        \
  case SL_BINARY_##name: return sl_gpu_map(e, w, binary_of<T, fn_##name>());
  switch (fn) { SL_BINARY_LIST(X) }
#undef X
  return sl_fail(SL_STATUS_ARG, "binary: fn is %d, expected a function's number", fn);
}

template <class F>
static sl_status run_numbered(sl_exec *e, int fn, sl_gpu_walk *w) {
  F f;
  f.fn = fn;
  return sl_gpu_map_one(e, w, f);
}

extern "C" sl_status sl_cuda_binary(sl_exec *e, int fn, const sl_view *y, const sl_view *a, const sl_view *b) {
  const sl_view *const views[] = {y, a, b};
  sl_gpu_walk w = sl_gpu_walk_of(3, views);
  switch (a->dtype) {
    case SL_U8: return run_numbered<binary_integer<uint8_t>>(e, fn, &w);
    case SL_I32: return run_numbered<binary_integer<int32_t>>(e, fn, &w);
    case SL_I64: return run_numbered<binary_integer<int64_t>>(e, fn, &w);
    default: break;
  }
  if (sl_gpu_map_fits<binary_of<float, fn_add>>(&w)) return run_binary<float>(e, fn, &w);
  if (sl_gpu_map_fits<binary_of<sl_gpu_bf16, fn_add>>(&w)) return run_binary<sl_gpu_bf16>(e, fn, &w);
  if (fn == SL_BINARY_add && sl_gpu_map_fits<add_bf16>(&w)) return sl_gpu_map(e, &w, add_bf16());
  return run_numbered<binary_any>(e, fn, &w);
}

/* --- comparisons --- */

/* Bits of an answer: what is true of a < b, of a == b, of a > b, and of NaNs. */
enum { LESS = 1, EQUAL = 2, MORE = 4, NEITHER = 8 };

template <class T>
struct compare_of : sl_gpu_function<uint8_t, T, T> {
  int answer;
  template <class S>
  __device__ uint8_t of(S a, S b) const {
    return (answer & (a < b ? LESS : a == b ? EQUAL : a > b ? MORE : NEITHER)) != 0;
  }
};

template <class T>
static compare_of<T> compare_by(int fn) {
  static const int answer[SL_COMPARE_COUNT] = {LESS, LESS | EQUAL, MORE, MORE | EQUAL, EQUAL, LESS | MORE | NEITHER};
  compare_of<T> f;
  f.answer = answer[fn];
  return f;
}

extern "C" sl_status sl_cuda_compare(sl_exec *e, int fn, const sl_view *y, const sl_view *a, const sl_view *b) {
  SL_REQUIRE(fn >= 0 && fn < SL_COMPARE_COUNT, ARG, "compare: fn is %d, expected a function's number", fn);
  const sl_view *const views[] = {y, a, b};
  sl_gpu_walk w = sl_gpu_walk_of(3, views);
  switch (a->dtype) {
    case SL_U8: return sl_gpu_map_one(e, &w, compare_by<uint8_t>(fn));
    case SL_I32: return sl_gpu_map_one(e, &w, compare_by<int32_t>(fn));
    case SL_I64: return sl_gpu_map_one(e, &w, compare_by<int64_t>(fn));
    default: break;
  }
  if (sl_gpu_map_fits<compare_of<float>>(&w)) return sl_gpu_map(e, &w, compare_by<float>(fn));
  if (sl_gpu_map_fits<compare_of<sl_gpu_bf16>>(&w)) return sl_gpu_map(e, &w, compare_by<sl_gpu_bf16>(fn));
  return sl_gpu_map_one(e, &w, compare_by<sl_gpu_any>(fn));
}

/* --- where --- */

/* bf16 goes by way of float, as on the CPU: a NaN comes out quiet. */
template <class T, class Truth>
struct where_of : sl_gpu_function<T, Truth, T, T> {
  template <class C, class S>
  __device__ S of(C c, S a, S b) const {
    return c ? a : b;
  }
};

extern "C" sl_status sl_cuda_where(sl_exec *e, const sl_view *y, const sl_view *c, const sl_view *a, const sl_view *b) {
  const sl_view *const views[] = {y, c, a, b};
  sl_gpu_walk w = sl_gpu_walk_of(4, views);
  if (sl_gpu_map_fits<where_of<float, uint8_t>>(&w)) return sl_gpu_map(e, &w, where_of<float, uint8_t>());
  if (sl_gpu_map_fits<where_of<sl_gpu_bf16, uint8_t>>(&w)) return sl_gpu_map(e, &w, where_of<sl_gpu_bf16, uint8_t>());
  switch (w.v[0].size) {
    case 1: return sl_gpu_map_one(e, &w, where_of<uint8_t, sl_gpu_truth>());
    case 2: return sl_gpu_map_one(e, &w, where_of<sl_gpu_bf16, sl_gpu_truth>());
    case 4: return sl_gpu_map_one(e, &w, where_of<uint32_t, sl_gpu_truth>());
    default: return sl_gpu_map_one(e, &w, where_of<uint64_t, sl_gpu_truth>());
  }
}
