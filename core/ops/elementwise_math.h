/* The scalar formulas of elementwise operations, shared by C and CUDA. Branch-free, so that loops over them become
 * vectors. exp and tanh follow Cephes (Moshier, expf.c and tanhf.c), within 2 ulp.
 *
 * On a GPU two steps are the hardware's, as kernels of bf16 are otherwise limited by arithmetic: exp is CUDA's own
 * (within 1 ulp, subnormal results included), and 1 / (1 + e) takes the approximate reciprocal (within 1 ulp) in place
 * of the division. With the worst of both errors sigmoid is within 3.6e-7 of its value, tanh within 2.4e-7. */
#ifndef SL_OPS_ELEMENTWISE_MATH_H
#define SL_OPS_ELEMENTWISE_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/host_device.h"

/* One instruction where there is one; without it fmaf is a slow call. */
#if defined(__FMA__) || defined(__CUDACC__)
#define SL_MAD(a, b, c) fmaf((a), (b), (c))
#else
#define SL_MAD(a, b, c) ((a) * (b) + (c))
#endif

SL_HD float sl_bits_float(uint32_t u) {
  float f;
  memcpy(&f, &u, sizeof f);
  return f;
}

/* 1 / d, for d from 1 on. */
SL_HD float sl_reciprocalf(float d) {
#ifdef __CUDA_ARCH__
  float r; /* 0 where the value is subnormal */
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(d));
  return r;
#else
  return 1.0f / d;
#endif
}

SL_HD float sl_expf(float x) {
#ifdef __CUDA_ARCH__
  return expf(x);
#else
  const float magic = 12582912.0f; /* 1.5 * 2^23: adding it leaves the nearest integer in the low bits */
  x = x > 89.0f ? 89.0f : x;
  x = x < -104.0f ? -104.0f : x;
  float t = SL_MAD(x, 1.44269504088896341f, magic), n = t - magic;
  float r = SL_MAD(n, -0.693359375f, x), p = 1.9875691500E-4f;
  r = SL_MAD(n, 2.12194440e-4f, r);
  p = SL_MAD(p, r, 1.3981999507E-3f);
  p = SL_MAD(p, r, 8.3334519073E-3f);
  p = SL_MAD(p, r, 4.1665795894E-2f);
  p = SL_MAD(p, r, 1.6666665459E-1f);
  p = SL_MAD(p, r, 5.0000001201E-1f);
  p = SL_MAD(p, r * r, r) + 1.0f;
  uint32_t bits;
  memcpy(&bits, &t, sizeof bits);
  int32_t k = (int32_t)(bits - 0x4b400000u),
          half = k >> 1; /* 2^k in two factors: subnormal and infinite results come out right */
  return p * sl_bits_float((uint32_t)(half + 127) << 23) * sl_bits_float((uint32_t)(k - half + 127) << 23);
#endif
}

SL_HD float sl_tanhf(float x) {
  float a = fabsf(x), z = x * x, p = -5.70498872745E-3f;
  p = SL_MAD(p, z, 2.06390887954E-2f);
  p = SL_MAD(p, z, -5.37397155531E-2f);
  p = SL_MAD(p, z, 1.33314422036E-1f);
  p = SL_MAD(p, z, -3.33332819422E-1f);
  float small = SL_MAD(p * z, x, x), large = 1.0f - 2.0f * sl_reciprocalf(sl_expf(2.0f * a) + 1.0f);
  large = x < 0.0f ? -large : large;
  return a < 0.625f ? small : large;
}

SL_HD float sl_sigmoidf(float x) {
  float e = sl_expf(-fabsf(x)), r = sl_reciprocalf(1.0f + e);
  return x < 0.0f ? e * r : r;
}

/* s = sigmoid(x) and *rest = 1 - s; on a GPU the difference would show the reciprocal's error, times x in what follows.
 */
SL_HD float sl_sigmoid_and_rest(float x, float *rest) {
#ifdef __CUDA_ARCH__
  float e = expf(-fabsf(x)), r = sl_reciprocalf(1.0f + e), small = e * r;
  *rest = x < 0.0f ? r : small;
  return x < 0.0f ? small : r;
#else
  float s = sl_sigmoidf(x);
  *rest = 1.0f - s;
  return s;
#endif
}

/* --- unary: value, and derivative d by x --- */

SL_HD float sl_neg_f(float x) { return -x; }
SL_HD float sl_abs_f(float x) { return fabsf(x); }
SL_HD float sl_sign_f(float x) { return x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : x; } /* NaN stays */
SL_HD float sl_exp_f(float x) { return sl_expf(x); }
SL_HD float sl_log_f(float x) { return logf(x); }
SL_HD float sl_sqrt_f(float x) { return sqrtf(x); }
SL_HD float sl_rsqrt_f(float x) { return 1.0f / sqrtf(x); }
SL_HD float sl_square_f(float x) { return x * x; }
SL_HD float sl_sin_f(float x) { return sinf(x); }
SL_HD float sl_cos_f(float x) { return cosf(x); }
SL_HD float sl_tanh_f(float x) { return sl_tanhf(x); }
SL_HD float sl_sigmoid_f(float x) { return sl_sigmoidf(x); }
SL_HD float sl_erf_f(float x) { return erff(x); }
SL_HD float sl_relu_f(float x) { return x < 0.0f ? 0.0f : x; }
SL_HD float sl_silu_f(float x) { return x * sl_sigmoidf(x); }
/* 0.5 x (1 + tanh(u)) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3): no cancellation where tanh is near -1 */
#define SL_GELU_2K 1.5957691216057308f
#define SL_GELU_C 0.044715f
SL_HD float sl_gelu_f(float x) { return x * sl_sigmoidf(SL_GELU_2K * x * SL_MAD(SL_GELU_C * x, x, 1.0f)); }
SL_HD float sl_gelu_erf_f(float x) { return 0.5f * x * erfcf(-0.70710678118654752f * x); }
SL_HD float sl_round_f(float x) { return rintf(x); }
SL_HD float sl_floor_f(float x) { return floorf(x); }

SL_HD float sl_neg_d(float x) { return (void)x, -1.0f; }
SL_HD float sl_abs_d(float x) { return sl_sign_f(x); }
SL_HD float sl_sign_d(float x) { return (void)x, 0.0f; }
SL_HD float sl_exp_d(float x) { return sl_expf(x); }
SL_HD float sl_log_d(float x) { return 1.0f / x; }
SL_HD float sl_sqrt_d(float x) { return 0.5f / sqrtf(x); }
SL_HD float sl_rsqrt_d(float x) { return -0.5f / (x * sqrtf(x)); }
SL_HD float sl_square_d(float x) { return 2.0f * x; }
SL_HD float sl_sin_d(float x) { return cosf(x); }
SL_HD float sl_cos_d(float x) { return -sinf(x); }
SL_HD float sl_tanh_d(float x) { /* 1 - tanh^2 = 4 s (1 - s), s = sigmoid(2x), without cancellation */
  float e = sl_expf(-2.0f * fabsf(x)), r = sl_reciprocalf(1.0f + e);
  return 4.0f * e * r * r;
}
SL_HD float sl_sigmoid_d(float x) {
  float e = sl_expf(-fabsf(x)), r = sl_reciprocalf(1.0f + e);
  return e * r * r;
}
SL_HD float sl_erf_d(float x) { return 1.1283791670955126f * sl_expf(-x * x); }
SL_HD float sl_relu_d(float x) { return x > 0.0f ? 1.0f : 0.0f; }
SL_HD float sl_silu_d(float x) {
  float rest, s = sl_sigmoid_and_rest(x, &rest);
  return s * SL_MAD(x, rest, 1.0f);
}
SL_HD float sl_gelu_d(float x) {
  float xx = x * x, rest, s = sl_sigmoid_and_rest(SL_GELU_2K * x * SL_MAD(SL_GELU_C, xx, 1.0f), &rest);
  return SL_MAD(x * s * rest, SL_GELU_2K * SL_MAD(3.0f * SL_GELU_C, xx, 1.0f), s);
}
SL_HD float sl_gelu_erf_d(float x) {
  return SL_MAD(0.3989422804014327f * x, sl_expf(-0.5f * x * x), 0.5f * erfcf(-0.70710678118654752f * x));
}
SL_HD float sl_round_d(float x) { return (void)x, 0.0f; }
SL_HD float sl_floor_d(float x) { return (void)x, 0.0f; }

/* --- binary --- */

SL_HD float sl_add_f(float a, float b) { return a + b; }
SL_HD float sl_sub_f(float a, float b) { return a - b; }
SL_HD float sl_mul_f(float a, float b) { return a * b; }
SL_HD float sl_div_f(float a, float b) { return a / b; }
SL_HD float sl_pow_f(float a, float b) { return powf(a, b); }
SL_HD float sl_maximum_f(float a, float b) { return a > b || a != a ? a : b; } /* NaN if either is */
SL_HD float sl_minimum_f(float a, float b) { return a < b || a != a ? a : b; }

SL_HD float sl_clamp_f(float x, float lo, float hi) { return x < lo ? lo : x > hi ? hi : x; }

#endif
