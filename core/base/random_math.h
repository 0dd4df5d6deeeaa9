/* The formulas behind random.h, shared by C and CUDA. Each operation is one IEEE rounding, so results are bit-equal on
 * every machine: CUDA takes the _rn intrinsics, which are never contracted; C files that include this are compiled with
 * -ffp-contract=off. Polynomials: Cephes (Moshier), logf, sinf and cosf. */
#ifndef SL_BASE_RANDOM_MATH_H
#define SL_BASE_RANDOM_MATH_H

#include <Random123/philox.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define SL_HD __host__ __device__ static inline
#else
#define SL_HD static inline
#endif

#ifdef __CUDA_ARCH__
#define SL_RN_MUL(a, b) __fmul_rn(a, b)
#define SL_RN_ADD(a, b) __fadd_rn(a, b)
#define SL_RN_SQRT(a) __fsqrt_rn(a)
#else
#define SL_RN_MUL(a, b) ((a) * (b))
#define SL_RN_ADD(a, b) ((a) + (b))
#define SL_RN_SQRT(a) __builtin_sqrtf(a)
#endif
#define SL_RN_MULADD(a, b, c) SL_RN_ADD(SL_RN_MUL(a, b), c) /* two roundings */

/* Counter: low and high word of the block, sample, step. */
SL_HD void sl_rng_block(uint32_t seed, uint32_t stream, uint64_t block, uint32_t sample, uint32_t step,
                        uint32_t out[4]) {
  philox4x32_ctr_t counter = {{(uint32_t)block, (uint32_t)(block >> 32), sample, step}};
  philox4x32_key_t key = {{seed, stream}};
  philox4x32_ctr_t r = philox4x32(counter, key);
  out[0] = r.v[0], out[1] = r.v[1], out[2] = r.v[2], out[3] = r.v[3];
}

/* Odd multiples of 2^-24 in (0, 1), exact: 23 bits, as with 24 the sum with a half would round up to 1. */
SL_HD float sl_rng_uniform(uint32_t bits) { return SL_RN_MUL(SL_RN_ADD((float)(int32_t)(bits >> 9), 0.5f), 0x1p-23f); }

/* ln u for normal u > 0. */
SL_HD float sl_rng_log(float u) {
  uint32_t b;
  memcpy(&b, &u, sizeof b);
  b += 0x3f800000u - 0x3f3504f3u; /* the mantissa then lies in [sqrt(1/2), sqrt(2)) */
  float e = (float)((int32_t)(b >> 23) - 127), m;
  b = (b & 0x7fffffu) + 0x3f3504f3u;
  memcpy(&m, &b, sizeof m);
  float x = SL_RN_ADD(m, -1.0f), z = SL_RN_MUL(x, x);
  float y = 7.0376836292e-2f;
  y = SL_RN_MULADD(y, x, -1.1514610310e-1f);
  y = SL_RN_MULADD(y, x, 1.1676998740e-1f);
  y = SL_RN_MULADD(y, x, -1.2420140846e-1f);
  y = SL_RN_MULADD(y, x, 1.4249322787e-1f);
  y = SL_RN_MULADD(y, x, -1.6668057665e-1f);
  y = SL_RN_MULADD(y, x, 2.0000714765e-1f);
  y = SL_RN_MULADD(y, x, -2.4999993993e-1f);
  y = SL_RN_MULADD(y, x, 3.3333331174e-1f);
  y = SL_RN_MUL(SL_RN_MUL(y, x), z);
  y = SL_RN_MULADD(e, -2.12194440e-4f, y); /* ln 2 in two parts, the large one exact */
  y = SL_RN_MULADD(z, -0.5f, y);
  return SL_RN_MULADD(e, 0.693359375f, SL_RN_ADD(x, y));
}

/* sin and cos of 2 pi u, u in [0, 1]. */
SL_HD void sl_rng_sincos(float u, float *s, float *c) {
  float t = SL_RN_MUL(u, 4.0f);
  int32_t q = (int32_t)SL_RN_ADD(t, 0.5f);
  float a = SL_RN_MUL(SL_RN_ADD(t, -(float)q), 1.57079632679489662f), z = SL_RN_MUL(a, a); /* |a| <= pi/4 */
  float ps = -1.9515295891e-4f, pc = 2.443315711809948e-5f;
  ps = SL_RN_MULADD(ps, z, 8.3321608736e-3f);
  ps = SL_RN_MULADD(ps, z, -1.6666654611e-1f);
  ps = SL_RN_MULADD(SL_RN_MUL(ps, z), a, a);
  pc = SL_RN_MULADD(pc, z, -1.388731625493765e-3f);
  pc = SL_RN_MULADD(pc, z, 4.166664568298827e-2f);
  pc = SL_RN_MULADD(SL_RN_MUL(pc, z), z, SL_RN_MULADD(z, -0.5f, 1.0f));
  /* Quadrants by bits, without branches, so that loops vectorise. */
  uint32_t bs, bc, swap = 0u - ((uint32_t)q & 1u);
  memcpy(&bs, &ps, sizeof bs);
  memcpy(&bc, &pc, sizeof bc);
  uint32_t rs = ((bs & ~swap) | (bc & swap)) ^ (((uint32_t)q & 2u) << 30);
  uint32_t rc = ((bc & ~swap) | (bs & swap)) ^ ((((uint32_t)q + 1u) & 2u) << 30);
  memcpy(s, &rs, sizeof rs);
  memcpy(c, &rc, sizeof rc);
}

/* Two independent normals from two words (Box and Muller, 1958): elements 2j and 2j+1 from words 2j and 2j+1. */
SL_HD void sl_rng_normal_pair(uint32_t w0, uint32_t w1, float *n0, float *n1) {
  float r = SL_RN_SQRT(SL_RN_MUL(-2.0f, sl_rng_log(sl_rng_uniform(w0)))), s, c;
  sl_rng_sincos(sl_rng_uniform(w1), &s, &c);
  *n0 = SL_RN_MUL(r, c);
  *n1 = SL_RN_MUL(r, s);
}

#endif
