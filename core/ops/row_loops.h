/* Rows of f32 or bf16 as floats, for the loops of fused kernels; compiled once per instruction set.
 * A row, or a part of SL_ROW elements of a long one, is read into a buffer that stays in L1; f32 rows are used where
 * they lie. */
#ifndef SL_OPS_ROW_LOOPS_H
#define SL_OPS_ROW_LOOPS_H

#include "base/bf16.h"
#include "tensor/tensor.h"

#define SL_ROW 2048

static inline uint16_t bf16_round(float f) {
  uint32_t u;
  memcpy(&u, &f, sizeof u);
  uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16, quiet = (u >> 16) | 0x40u;
  return (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? quiet : rounded); /* no branch: loops stay vectors */
}

/* Rows of C elements worth a thread of their own. */
static inline int64_t row_grain(int64_t C) { return C > 0 && C < 32768 ? 32768 / C : 1; }

/* Size of the part of a row of C that begins at c0. */
static inline int64_t row_part(int64_t C, int64_t c0) { return C - c0 < SL_ROW ? C - c0 : SL_ROW; }

/* n elements from element `at` on. */
static inline const float *row_read(const sl_view *v, int64_t at, int64_t n, float *buffer) {
  if (v->dtype == SL_F32) return (const float *)v->data + at;
  const uint16_t *h = (const uint16_t *)v->data + at;
#pragma omp simd
  for (int64_t i = 0; i < n; i++) buffer[i] = sl_bf16_to_f32(h[i]);
  return buffer;
}

/* Where to write floats of the row, to be followed by row_done. */
static inline float *row_target(const sl_view *v, int64_t at, float *buffer) {
  return v->dtype == SL_F32 ? (float *)v->data + at : buffer;
}

static inline void row_done(const sl_view *v, int64_t at, int64_t n, const float *written) {
  if (v->dtype == SL_F32) return;
  uint16_t *h = (uint16_t *)v->data + at;
#pragma omp simd
  for (int64_t i = 0; i < n; i++) h[i] = bf16_round(written[i]);
}

/* Floats as elements of v, from `at` on. */
static inline void row_write(const sl_view *v, int64_t at, int64_t n, const float *from) {
  if (v->dtype == SL_F32) memcpy((float *)v->data + at, from, (size_t)n * sizeof *from);
  else row_done(v, at, n, from);
}

/* What a tensor of that dtype holds of x. */
static inline void row_rounded(sl_dtype dtype, int64_t n, float *x) {
  if (dtype == SL_F32) return;
#pragma omp simd
  for (int64_t i = 0; i < n; i++) x[i] = sl_bf16_to_f32(bf16_round(x[i]));
}

/* The sample's mask from channel c0 on; NULL without one. */
static inline const uint8_t *row_mask(const sl_view *mask, int64_t sample, int64_t c0) {
  return mask->data ? (const uint8_t *)mask->data + sample * mask->stride[0] + c0 : NULL;
}

/* x times its sample's mask; x itself where there is no mask. */
static inline const float *row_masked(const sl_view *mask, int64_t sample, int64_t c0, int64_t n, const float *x,
                                      float *buffer) {
  const uint8_t *m = row_mask(mask, sample, c0);
  if (!m) return x;
#pragma omp simd
  for (int64_t i = 0; i < n; i++) buffer[i] = (float)m[i] * x[i];
  return buffer;
}

/* Row `sample` of out (f32 [N,C], dense; skipped if absent) = the sum over blocks, in order, of rows `stride` floats
 * apart. */
static inline void row_sum_blocks(const sl_view *out, int64_t sample, int64_t C, const float *partial, int64_t blocks,
                                  int64_t stride) {
  if (!out->data) return;
  float *sum = (float *)out->data + sample * C;
  memset(sum, 0, (size_t)C * sizeof *sum);
  for (int64_t b = 0; b < blocks; b++) {
    const float *p = partial + b * stride;
#pragma omp simd
    for (int64_t c = 0; c < C; c++) sum[c] += p[c];
  }
}

#endif
