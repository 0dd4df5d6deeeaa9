/* adaLN's loops over rows, compiled once per instruction set: the file that includes this names the table in
 * SL_ADALN_LOOPS. */
#ifndef SL_OPS_ADALN_LOOPS_H
#define SL_OPS_ADALN_LOOPS_H

#include <math.h>

#include "ops/adaln_math.h"
#include "ops/row_loops.h"

typedef struct adaln_job {
  int64_t T, C;
  float eps;
  const sl_view *x, *y, *dy, *shift, *scale, *mask, *mean, *rstd, *prior, *dx;
  float *partial; /* [N, blocks, 2, C]: dshift and dscale of each block of rows */
} adaln_job;

typedef struct sl_adaln_loops {
  void (*forward)(const adaln_job *j, int64_t begin, int64_t end);  /* rows of N*T */
  void (*backward)(const adaln_job *j, int64_t begin, int64_t end); /* blocks of N*blocks */
} sl_adaln_loops;
extern const sl_adaln_loops sl__adaln_base, sl__adaln_avx2, sl__adaln_avx512;

/* Gives elements c … c+size-1 of a row of the stream as floats, in `buffer` or where they lie; again: not for the
 * first time. */
typedef const float *adaln_source(const void *from, int64_t row, int64_t c, int64_t size, bool again, float *buffer);

static inline const float *modulation(const sl_view *v, int64_t sample, int64_t c0, int64_t n, float *buffer) {
  return row_read(v, sample * v->stride[0] + c0, n, buffer);
}

static inline float sum_of(const float *r, int64_t n) {
  float s = 0.0f;
#pragma omp simd reduction(+ : s)
  for (int64_t i = 0; i < n; i++) s += r[i];
  return s;
}

static inline float deviation_of(const float *r, int64_t n, float mean) {
  float s = 0.0f;
#pragma omp simd reduction(+ : s)
  for (int64_t i = 0; i < n; i++) s += (r[i] - mean) * (r[i] - mean);
  return s;
}

static inline void modulate(float *y, const float *r, const float *shift, const float *scale, float mean, float rstd,
                            int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; i++) y[i] = sl_adaln_y(r[i], mean, rstd, shift[i], scale[i]);
}

static inline const float *masked_part(const adaln_job *j, adaln_source *source, const void *from, int64_t row,
                                       int64_t c, bool again, float buffer[5][SL_ROW]) {
  const int64_t size = row_part(j->C, c);
  return row_masked(j->mask, row / j->T, c, size, source(from, row, c, size, again, buffer[0]), buffer[1]);
}

/* The mean first, then squares of deviations from it; a row that fits the buffer is asked for once. */
static inline void adaln_row(const adaln_job *j, adaln_source *source, const void *from, int64_t row,
                             float buffer[5][SL_ROW]) {
  const int64_t C = j->C, n = row / j->T;
  const float *r = NULL;
  float sum = 0.0f, squares = 0.0f;
  for (int64_t c = 0; c < C; c += SL_ROW) {
    r = masked_part(j, source, from, row, c, false, buffer);
    sum += sum_of(r, row_part(C, c));
  }
  const float mean = sum / (float)C;
  for (int64_t c = 0; c < C; c += SL_ROW) {
    if (C > SL_ROW) r = masked_part(j, source, from, row, c, true, buffer);
    squares += deviation_of(r, row_part(C, c), mean);
  }
  const float rstd = 1.0f / sqrtf(squares / (float)C + j->eps);
  for (int64_t c = 0; c < C && j->y->data; c += SL_ROW) {
    const int64_t size = row_part(C, c), at = row * C + c;
    if (C > SL_ROW) r = masked_part(j, source, from, row, c, true, buffer);
    float *y = row_target(j->y, at, buffer[4]);
    modulate(y, r, modulation(j->shift, n, c, size, buffer[2]), modulation(j->scale, n, c, size, buffer[3]), mean, rstd,
             size);
    row_done(j->y, at, size, y);
  }
  if (j->mean->data) ((float *)j->mean->data)[row] = mean;
  if (j->rstd->data) ((float *)j->rstd->data)[row] = rstd;
}

static inline const float *read_x(const void *from, int64_t row, int64_t c, int64_t size, bool again, float *buffer) {
  const adaln_job *j = from;
  (void)again;
  return row_read(j->x, row * j->C + c, size, buffer);
}

static inline void adaln_rows(const adaln_job *j, int64_t begin, int64_t end) {
  float buffer[5][SL_ROW];
  for (int64_t row = begin; row < end; row++) adaln_row(j, read_x, j, row, buffer);
}

/* Part of a row of backward, as floats. */
typedef struct adaln_part {
  const float *r, *dy, *scale;
} adaln_part;

static inline adaln_part read_part(const adaln_job *j, int64_t n, int64_t row, int64_t c, float buffer[6][SL_ROW]) {
  const int64_t at = row * j->C + c, size = row_part(j->C, c);
  adaln_part k;
  k.r = row_masked(j->mask, n, c, size, row_read(j->x, at, size, buffer[0]), buffer[1]);
  k.dy = row_read(j->dy, at, size, buffer[2]);
  k.scale = modulation(j->scale, n, c, size, buffer[3]);
  return k;
}

/* Adds the row to dshift and dscale; s[0] += sum g, s[1] += sum g xhat. */
static inline void gather_sums(const adaln_part *k, float mean, float rstd, float *dshift, float *dscale, float s[2],
                               int64_t n) {
  float s0 = 0.0f, s1 = 0.0f;
#pragma omp simd reduction(+ : s0, s1)
  for (int64_t i = 0; i < n; i++) {
    const float xhat = (k->r[i] - mean) * rstd, g = k->dy[i] * (1.0f + k->scale[i]);
    s0 += g;
    s1 += g * xhat;
    dshift[i] += k->dy[i];
    dscale[i] += k->dy[i] * xhat;
  }
  s[0] += s0, s[1] += s1;
}

/* gather_sums of the whole row, and its means in s; *k: its last part. */
static inline void gather_row(const adaln_job *j, int64_t n, int64_t row, float *dshift, float *dscale, adaln_part *k,
                              float s[2], float buffer[6][SL_ROW]) {
  const float mean = ((const float *)j->mean->data)[row], rstd = ((const float *)j->rstd->data)[row];
  s[0] = s[1] = 0.0f;
  for (int64_t c = 0; c < j->C; c += SL_ROW) {
    *k = read_part(j, n, row, c, buffer);
    gather_sums(k, mean, rstd, dshift + c, dscale + c, s, row_part(j->C, c));
  }
  s[0] /= (float)j->C, s[1] /= (float)j->C;
}

/* dx of part of a row, in buffer[4]. */
static inline float *part_dx(const adaln_job *j, const adaln_part *k, int64_t n, int64_t row, int64_t c,
                             const float s[2], float buffer[6][SL_ROW]) {
  const int64_t size = row_part(j->C, c);
  const float mean = ((const float *)j->mean->data)[row], rstd = ((const float *)j->rstd->data)[row];
  const float *prior = j->prior->data ? row_read(j->prior, row * j->C + c, size, buffer[5]) : NULL;
  float *d = buffer[4];
#pragma omp simd
  for (int64_t i = 0; i < size; i++)
    d[i] = sl_adaln_dr(k->dy[i] * (1.0f + k->scale[i]), (k->r[i] - mean) * rstd, rstd, s[0], s[1]);
  (void)row_masked(j->mask, n, c, size, d, d);
  if (!prior) return d;
#pragma omp simd
  for (int64_t i = 0; i < size; i++) d[i] = prior[i] + d[i];
  return d;
}

static inline void adaln_backward_row(const adaln_job *j, int64_t n, int64_t row, float *dshift, float *dscale,
                                      float buffer[6][SL_ROW]) {
  adaln_part k = {NULL, NULL, NULL};
  float s[2];
  gather_row(j, n, row, dshift, dscale, &k, s, buffer);
  for (int64_t c = 0; c < j->C && j->dx->data; c += SL_ROW) {
    if (j->C > SL_ROW) k = read_part(j, n, row, c, buffer);
    row_write(j->dx, row * j->C + c, row_part(j->C, c), part_dx(j, &k, n, row, c, s, buffer));
  }
}

static inline void adaln_backward_blocks(const adaln_job *j, int64_t begin, int64_t end) {
  float buffer[6][SL_ROW];
  const int64_t blocks = sl_row_blocks(j->T), C = j->C;
  for (int64_t b = begin; b < end; b++) {
    const int64_t n = b / blocks, first = b % blocks * SL_ROW_BLOCK;
    const int64_t last = first + SL_ROW_BLOCK < j->T ? first + SL_ROW_BLOCK : j->T;
    float *dshift = j->partial + 2 * b * C, *dscale = dshift + C;
    memset(dshift, 0, 2 * (size_t)C * sizeof *dshift);
    for (int64_t t = first; t < last; t++) adaln_backward_row(j, n, n * j->T + t, dshift, dscale, buffer);
  }
}

#ifdef SL_ADALN_LOOPS
const sl_adaln_loops SL_ADALN_LOOPS = {adaln_rows, adaln_backward_blocks};
#endif

#endif
