/* Loops over rows of floats, compiled once per instruction set: the file that includes this names the table in
 * SL_LOOPS. */
#ifndef SL_OPS_ELEMENTWISE_LOOPS_H
#define SL_OPS_ELEMENTWISE_LOOPS_H

#include "ops/elementwise.h"
#include "ops/elementwise_math.h"
#include "ops/row_loops.h"

/* Operands of n floats; the strides of a and b are 1, or that of one of them 0 for one value at every place. y may be a
 * or b. */
typedef struct sl_elementwise_loops {
  void (*unary[SL_UNARY_COUNT])(float *y, const float *x, int64_t n);
  void (*unary_backward[SL_UNARY_COUNT])(float *dx, const float *dy, const float *x, int64_t n);
  void (*binary[SL_BINARY_COUNT])(float *y, const float *a, int sa, const float *b, int sb, int64_t n);
  void (*compare[SL_COMPARE_COUNT])(uint8_t *y, const float *a, int sa, const float *b, int sb, int64_t n);
  void (*clamp)(float *y, const float *x, float lo, float hi, int64_t n);
  void (*from_bf16)(float *y, const uint16_t *x, int64_t n);
  void (*to_bf16)(uint16_t *y, const float *x, int64_t n);
} sl_elementwise_loops;
extern const sl_elementwise_loops sl__elementwise_base, sl__elementwise_avx2, sl__elementwise_avx512;

#ifdef SL_LOOPS
#define X(name)                                                                                                        \
  static void unary_##name(float *y, const float *x, int64_t n) {                                                      \
    _Pragma("omp simd") for (int64_t i = 0; i < n; i++) y[i] = sl_##name##_f(x[i]);                                    \
  }                                                                                                                    \
  static void backward_##name(float *dx, const float *dy, const float *x, int64_t n) {                                 \
    _Pragma("omp simd") for (int64_t i = 0; i < n; i++) dx[i] = dy[i] * sl_##name##_d(x[i]);                           \
  }
SL_UNARY_LIST(X)
#undef X

#define FORMS(T, expr_vv, expr_vs, expr_sv)                                                                            \
  if (sa && sb) {                                                                                                      \
    _Pragma("omp simd") for (int64_t i = 0; i < n; i++) y[i] = (T)(expr_vv);                                           \
  } else if (sa) {                                                                                                     \
    const float v = *b;                                                                                                \
    _Pragma("omp simd") for (int64_t i = 0; i < n; i++) y[i] = (T)(expr_vs);                                           \
  } else {                                                                                                             \
    const float v = *a;                                                                                                \
    _Pragma("omp simd") for (int64_t i = 0; i < n; i++) y[i] = (T)(expr_sv);                                           \
  }
#define X(name)                                                                                                        \
  static void binary_##name(float *y, const float *a, int sa, const float *b, int sb, int64_t n) {                     \
    FORMS(float, sl_##name##_f(a[i], b[i]), sl_##name##_f(a[i], v), sl_##name##_f(v, b[i]))                            \
  }
SL_BINARY_LIST(X)
#undef X
#define X(name, operator)                                                                                              \
  static void compare_##name(uint8_t *y, const float *a, int sa, const float *b, int sb, int64_t n) {                  \
    FORMS(uint8_t, a[i] operator b[i], a[i] operator v, v operator b[i])                                               \
  }
SL_COMPARE_LIST(X)
#undef X

static void clamp(float *y, const float *x, float lo, float hi, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; i++) y[i] = sl_clamp_f(x[i], lo, hi);
}

static void from_bf16(float *y, const uint16_t *x, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; i++) y[i] = sl_bf16_to_f32(x[i]);
}

static void to_bf16(uint16_t *y, const float *x, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; i++) y[i] = bf16_round(x[i]);
}

const sl_elementwise_loops SL_LOOPS = {
#define X(name) [SL_UNARY_##name] = unary_##name,
    .unary = {SL_UNARY_LIST(X)},
#undef X
#define X(name) [SL_UNARY_##name] = backward_##name,
    .unary_backward = {SL_UNARY_LIST(X)},
#undef X
#define X(name) [SL_BINARY_##name] = binary_##name,
    .binary = {SL_BINARY_LIST(X)},
#undef X
#define X(name, operator) [SL_COMPARE_##name] = compare_##name,
    .compare = {SL_COMPARE_LIST(X)},
#undef X
    .clamp = clamp,
    .from_bf16 = from_bf16,
    .to_bf16 = to_bf16,
};
#endif

#endif
