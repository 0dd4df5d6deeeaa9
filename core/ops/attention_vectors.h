/* The few vector operations that attention's loops are written in, for the instruction set this file is compiled for.
 */
#ifndef SL_OPS_ATTENTION_VECTORS_H
#define SL_OPS_ATTENTION_VECTORS_H

#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define VL 16 /* floats in a vector */
#define MR 8  /* rows of a register tile */
#elif defined(__AVX2__)
#define VL 8
#define MR 4
#else
#define VL 4
#define MR 4
#endif
#define PW (2 * VL) /* columns of a register tile, and of a panel */

typedef float vf __attribute__((vector_size(VL * sizeof(float))));
typedef int32_t vi __attribute__((vector_size(VL * sizeof(float))));

static inline vf v_load(const float *p) {
  vf v;
  memcpy(&v, p, sizeof v);
  return v;
}
static inline void v_store(float *p, vf v) { memcpy(p, &v, sizeof v); }
static inline vf v_set(float x) { return x - (vf){0}; }

/* v_max: the second if either is NaN. v_nonnegligible: r where !(x < limit), else 0. */
#if defined(__AVX512F__)
static inline vf v_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline vf v_max(vf a, vf b) { return _mm512_max_ps(a, b); }
static inline vf v_unless_below(vf x, vf limit, vf r) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, limit, _CMP_NLT_UQ), r);
}
#elif defined(__AVX2__)
static inline vf v_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
static inline vf v_max(vf a, vf b) { return _mm256_max_ps(a, b); }
static inline vf v_unless_below(vf x, vf limit, vf r) { return _mm256_and_ps(_mm256_cmp_ps(x, limit, _CMP_NLT_UQ), r); }
#else
static inline vf v_fma(vf a, vf b, vf c) { return a * b + c; }
static inline vf v_max(vf a, vf b) {
  vi first = a > b;
  return (vf)((first & (vi)a) | (~first & (vi)b));
}
static inline vf v_unless_below(vf x, vf limit, vf r) {
  vi below = x < limit;
  return (vf)(~below & (vi)r);
}
#endif

/* 2^x, relative error about 1e-7; 0 below the normal numbers, NaN for NaN; x at most 127. */
static inline vf v_exp2(vf x) {
  const vf lowest = v_set(-126.0f), magic = v_set(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
  vf c = v_max(lowest, x), t = c + magic, f = c - (t - magic);
  vf p = v_set(1.535336188319500e-4f);
  p = v_fma(p, f, v_set(1.339887440266574e-3f));
  p = v_fma(p, f, v_set(9.618437357674640e-3f));
  p = v_fma(p, f, v_set(5.550332471162809e-2f));
  p = v_fma(p, f, v_set(2.402264791363012e-1f));
  p = v_fma(p, f, v_set(6.931472028550421e-1f));
  p = v_fma(p, f, v_set(1.0f));
  return v_unless_below(x, lowest, (vf)((vi)p + ((vi)t << 23)));
}

static inline float v_sum(vf v) {
  float s[VL], total = 0;
  memcpy(s, &v, sizeof v);
  for (int i = 0; i < VL; i++) total += s[i];
  return total;
}

static inline float v_highest(vf v) {
  float s[VL], top;
  memcpy(s, &v, sizeof v);
  top = s[0];
  for (int i = 1; i < VL; i++) top = s[i] > top ? s[i] : top;
  return top;
}

/* --- small products: C [m, n] (+)= A [m, k] B [k, n] ---
 * B lies in panels of PW columns (the last one may have VL), each [rows of B][width]. m is rounded up to MR, n is a
 * multiple of VL. A's element (i, j) is a[i * rs + j * cs]. */

static inline __attribute__((always_inline)) void register_tile(int nv, int64_t k, const float *a, int64_t rs,
                                                                int64_t cs, const float *b, float *c, int64_t ldc,
                                                                int add) {
  vf acc[MR][2];
#pragma GCC unroll 8
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 2
    for (int v = 0; v < nv; v++) acc[i][v] = add ? v_load(c + i * ldc + v * VL) : (vf){0};
  for (int64_t p = 0; p < k; p++, b += nv * VL, a += cs) {
    vf b0 = v_load(b), b1 = nv > 1 ? v_load(b + VL) : b0;
#pragma GCC unroll 8
    for (int i = 0; i < MR; i++) {
      vf x = v_set(a[i * rs]);
      acc[i][0] = v_fma(x, b0, acc[i][0]);
      if (nv > 1) acc[i][1] = v_fma(x, b1, acc[i][1]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 2
    for (int v = 0; v < nv; v++) v_store(c + i * ldc + v * VL, acc[i][v]);
}

typedef struct operand { /* B: its panels hold `rows` rows; the product uses k of them from `first` on */
  const float *panels;
  int64_t rows, first;
} operand;

static void small_product(int64_t m, int64_t n, int64_t k, const float *a, int64_t rs, int64_t cs, operand b, float *c,
                          int64_t ldc, int add) {
  for (int64_t j = 0; j < n; j += PW) {
    const float *panel = b.panels + j * b.rows;
    if (n - j >= PW)
      for (int64_t i = 0; i < m; i += MR)
        register_tile(2, k, a + i * rs, rs, cs, panel + b.first * PW, c + i * ldc + j, ldc, add);
    else
      for (int64_t i = 0; i < m; i += MR)
        register_tile(1, k, a + i * rs, rs, cs, panel + b.first * VL, c + i * ldc + j, ldc, add);
  }
}

static inline int64_t panel_width(int64_t j, int64_t n) { return n - j >= PW ? PW : VL; }

/* Writes row r of a [rows, n] operand. */
static inline void panel_row(float *panels, int64_t rows, int64_t r, const float *src, int64_t n) {
  for (int64_t j = 0; j < n; j += PW) {
    int64_t padded = (n - j + VL - 1) / VL * VL, width = padded >= PW ? PW : VL, have = n - j < width ? n - j : width;
    float *to = panels + j * rows + r * width;
    if (have == PW) memcpy(to, src + j, PW * sizeof(float));
    else {
      for (int64_t i = 0; i < have; i++) to[i] = src[j + i];
      for (int64_t i = have; i < width; i++) to[i] = 0;
    }
  }
}

/* Writes columns t … t+3 of a [rows, n] operand, given as 4 rows of `rows` floats. */
static inline void panel_columns(float *panels, int64_t rows, int64_t n, int64_t t, const float *const src[4]) {
  int64_t j = t / PW * PW, width = panel_width(j, n);
  float *to = panels + j * rows + (t - j);
  int64_t r = 0;
#if defined(__x86_64__)
  for (; r + 4 <= rows; r += 4) {
    __m128 a = _mm_loadu_ps(src[0] + r), b = _mm_loadu_ps(src[1] + r), c = _mm_loadu_ps(src[2] + r),
           d = _mm_loadu_ps(src[3] + r);
    _MM_TRANSPOSE4_PS(a, b, c, d);
    _mm_storeu_ps(to + r * width, a);
    _mm_storeu_ps(to + (r + 1) * width, b);
    _mm_storeu_ps(to + (r + 2) * width, c);
    _mm_storeu_ps(to + (r + 3) * width, d);
  }
#endif
  for (; r < rows; r++)
    for (int i = 0; i < 4; i++) to[r * width + i] = src[i][r];
}

#endif
