/* GroupNorm's loops over a panel, compiled once per instruction set: the file that includes this names the table in
 * SL_LOOPS. A panel is `rows` rows of `width` neighbours, `stride` floats apart, and every column has its parameters:
 * the channels of some pixels in a channels-last image, or the pixels of one channel in planes. */
#ifndef SL_OPS_GROUP_NORM_LOOPS_H
#define SL_OPS_GROUP_NORM_LOOPS_H

#include <stdbool.h>

#include "ops/group_norm_math.h"

#define SL_PANEL 256 /* columns at most: the parameters stay in L1 */

/* Of each column: y = act((x - mean) * rstd * gain + offset) * mask. */
typedef struct sl_panel {
  int64_t rows, width, stride;
  bool silu, masked;
  float mean[SL_PANEL], rstd[SL_PANEL], gain[SL_PANEL], offset[SL_PANEL], mask[SL_PANEL];
  float mean_all[SL_PANEL], mean_along[SL_PANEL]; /* backward: of dxhat and dxhat xhat over the group */
} sl_panel;

typedef struct sl_group_norm_loops {
  /* Adds each column's sum of x, or of squares of x - mean, to sums[width]. */
  void (*sum)(const sl_panel *p, const float *x, double *sums);
  void (*squares)(const sl_panel *p, const float *x, double *sums);
  void (*forward)(const sl_panel *p, const float *x, float *y);
  /* With dz the gradient before the activation: adds sums of dz and of dz xhat; leaves dz * gain in d unless NULL. */
  void (*before)(const sl_panel *p, const float *x, const float *dy, float *d, double *sum, double *along);
  void (*dx)(const sl_panel *p, const float *x, float *d); /* d: dz * gain, becomes dx */
} sl_group_norm_loops;
extern const sl_group_norm_loops sl__group_norm_base, sl__group_norm_avx2, sl__group_norm_avx512;

#ifdef SL_LOOPS

#define SUM_ROWS 16 /* added up in float before they join the double sums */

static inline void clear(float *sums, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; i++) sums[i] = 0;
}

static inline void join(double *sums, const float *part, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; i++) sums[i] += (double)part[i];
}

/* Adds the sum over rows of `term`, of x's element i of a row, to sums[i]. */
#define SUM_OVER_ROWS(name, term)                                                                                      \
  static void name(const sl_panel *p, const float *x, double *sums) {                                                  \
    float part[SL_PANEL];                                                                                              \
    for (int64_t r = 0; r < p->rows; r += SUM_ROWS) {                                                                  \
      clear(part, p->width);                                                                                           \
      for (int64_t k = r; k < p->rows && k < r + SUM_ROWS; k++) {                                                      \
        const float *row = x + k * p->stride;                                                                          \
        _Pragma("omp simd") for (int64_t i = 0; i < p->width; i++) part[i] += term;                                    \
      }                                                                                                                \
      join(sums, part, p->width);                                                                                      \
    }                                                                                                                  \
  }
SUM_OVER_ROWS(panel_sum, row[i])
SUM_OVER_ROWS(panel_squares, (row[i] - p->mean[i]) * (row[i] - p->mean[i]))

static void panel_forward(const sl_panel *p, const float *x, float *y) {
  for (int64_t r = 0; r < p->rows; r++) {
    const float *in = x + r * p->stride;
    float *out = y + r * p->stride;
    if (p->silu) {
#pragma omp simd
      for (int64_t i = 0; i < p->width; i++)
        out[i] = sl_silu_f(sl_group_norm_z(in[i], p->mean[i], p->rstd[i], p->gain[i], p->offset[i]));
    } else {
#pragma omp simd
      for (int64_t i = 0; i < p->width; i++)
        out[i] = sl_group_norm_z(in[i], p->mean[i], p->rstd[i], p->gain[i], p->offset[i]);
    }
    if (!p->masked) continue;
#pragma omp simd
    for (int64_t i = 0; i < p->width; i++) out[i] *= p->mask[i];
  }
}

/* One row: dz of each column, left in d. */
static inline void before_row(const sl_panel *p, const float *x, const float *dy, float *d) {
  if (p->silu) {
#pragma omp simd
    for (int64_t i = 0; i < p->width; i++)
      d[i] = dy[i] * p->mask[i] * sl_silu_d(sl_group_norm_z(x[i], p->mean[i], p->rstd[i], p->gain[i], p->offset[i]));
  } else {
#pragma omp simd
    for (int64_t i = 0; i < p->width; i++) d[i] = dy[i] * p->mask[i];
  }
}

static void panel_before(const sl_panel *p, const float *x, const float *dy, float *d, double *sum, double *along) {
  float part_sum[SL_PANEL], part_along[SL_PANEL], dz[SL_PANEL];
  for (int64_t r = 0; r < p->rows; r += SUM_ROWS) {
    clear(part_sum, p->width);
    clear(part_along, p->width);
    for (int64_t k = r; k < p->rows && k < r + SUM_ROWS; k++) {
      const float *row = x + k * p->stride;
      before_row(p, row, dy + k * p->stride, dz);
#pragma omp simd
      for (int64_t i = 0; i < p->width; i++) {
        part_sum[i] += dz[i];
        part_along[i] += dz[i] * ((row[i] - p->mean[i]) * p->rstd[i]);
      }
      if (!d) continue;
      float *out = d + k * p->stride;
#pragma omp simd
      for (int64_t i = 0; i < p->width; i++) out[i] = dz[i] * p->gain[i];
    }
    join(sum, part_sum, p->width);
    join(along, part_along, p->width);
  }
}

static void panel_dx(const sl_panel *p, const float *x, float *d) {
  for (int64_t r = 0; r < p->rows; r++) {
    const float *in = x + r * p->stride;
    float *out = d + r * p->stride;
#pragma omp simd
    for (int64_t i = 0; i < p->width; i++) {
      const float xhat = (in[i] - p->mean[i]) * p->rstd[i];
      out[i] = sl_group_norm_dx(out[i], xhat, p->rstd[i], p->mean_all[i], p->mean_along[i]);
    }
  }
}

const sl_group_norm_loops SL_LOOPS = {panel_sum, panel_squares, panel_forward, panel_before, panel_dx};

#endif
#endif
