/* The gated residual's loops over rows, compiled once per instruction set: the file that includes this names the table
 * in SL_RESIDUAL_LOOPS. */
#ifndef SL_OPS_RESIDUAL_LOOPS_H
#define SL_OPS_RESIDUAL_LOOPS_H

#include "ops/adaln_math.h"
#include "ops/row_loops.h"

typedef struct residual_job {
  int64_t T, C;
  const sl_view *out, *x, *y, *gate, *mask, *skip, *dout, *dx, *dy, *dskip;
  float *partial; /* [N, blocks, C]: dgate of each block of rows */
} residual_job;

typedef struct sl_residual_loops {
  void (*forward)(const residual_job *j, int64_t begin, int64_t end);  /* rows of N*T */
  void (*backward)(const residual_job *j, int64_t begin, int64_t end); /* blocks of N*blocks */
} sl_residual_loops;
extern const sl_residual_loops sl__residual_base, sl__residual_avx2, sl__residual_avx512;

/* The sum of part of a row, as floats; out may be x's memory. */
static inline void part_sum(const residual_job *j, int64_t row, int64_t c0, int64_t size, float *out,
                            float buffer[4][SL_ROW]) {
  const int64_t n = row / j->T, at = row * j->C + c0;
  const float *x = row_read(j->x, at, size, buffer[0]), *y = row_read(j->y, at, size, buffer[1]);
  const float *gate = row_read(j->gate, n * j->gate->stride[0] + c0, size, buffer[2]);
  const uint8_t *m = row_mask(j->mask, n, c0);
  if (m && j->skip->data) {
    const float *skip = row_read(j->skip, at, size, buffer[3]);
#pragma omp simd
    for (int64_t i = 0; i < size; i++) out[i] = x[i] + gate[i] * y[i] + (1.0f - (float)m[i]) * skip[i];
  } else if (m) {
#pragma omp simd
    for (int64_t i = 0; i < size; i++) out[i] = (float)m[i] * x[i] + gate[i] * y[i];
  } else {
#pragma omp simd
    for (int64_t i = 0; i < size; i++) out[i] = x[i] + gate[i] * y[i];
  }
}

static inline void residual_rows(const residual_job *j, int64_t begin, int64_t end) {
  float buffer[5][SL_ROW];
  for (int64_t row = begin; row < end; row++)
    for (int64_t c = 0; c < j->C; c += SL_ROW) {
      const int64_t size = row_part(j->C, c), at = row * j->C + c;
      float *out = row_target(j->out, at, buffer[4]);
      part_sum(j, row, c, size, out, buffer);
      row_done(j->out, at, size, out);
    }
}

/* What the sum's gradient d gives y, the gate and the skip. */
static inline void part_branch(const residual_job *j, int64_t row, int64_t c0, int64_t size, const float *d,
                               float *dgate, float buffer[2][SL_ROW]) {
  const int64_t n = row / j->T, at = row * j->C + c0;
  if (dgate) {
    const float *y = row_read(j->y, at, size, buffer[0]);
#pragma omp simd
    for (int64_t i = 0; i < size; i++) dgate[i] += d[i] * y[i];
  }
  if (j->dy->data) {
    const float *gate = row_read(j->gate, n * j->gate->stride[0] + c0, size, buffer[0]);
    float *dy = row_target(j->dy, at, buffer[1]);
#pragma omp simd
    for (int64_t i = 0; i < size; i++) dy[i] = gate[i] * d[i];
    row_done(j->dy, at, size, dy);
  }
  if (j->dskip->data) {
    const uint8_t *m = row_mask(j->mask, n, c0);
    float *dskip = row_target(j->dskip, at, buffer[1]);
#pragma omp simd
    for (int64_t i = 0; i < size; i++) dskip[i] = (m ? 1.0f - (float)m[i] : 0.0f) * d[i];
    row_done(j->dskip, at, size, dskip);
  }
}

static inline void residual_backward_part(const residual_job *j, int64_t row, int64_t c0, int64_t size, float *dgate,
                                          float buffer[3][SL_ROW]) {
  const int64_t at = row * j->C + c0;
  const float *d = row_read(j->dout, at, size, buffer[2]);
  part_branch(j, row, c0, size, d, dgate, buffer);
  if (!j->dx->data) return;
  const uint8_t *m = row_mask(j->mask, row / j->T, c0);
  float *dx = row_target(j->dx, at, buffer[1]);
#pragma omp simd
  for (int64_t i = 0; i < size; i++) dx[i] = (m ? (float)m[i] : 1.0f) * d[i];
  row_done(j->dx, at, size, dx);
}

static inline void residual_backward_blocks(const residual_job *j, int64_t begin, int64_t end) {
  float buffer[3][SL_ROW];
  const int64_t blocks = sl_row_blocks(j->T), C = j->C;
  for (int64_t b = begin; b < end; b++) {
    const int64_t n = b / blocks, first = b % blocks * SL_ROW_BLOCK;
    const int64_t last = first + SL_ROW_BLOCK < j->T ? first + SL_ROW_BLOCK : j->T;
    float *dgate = j->partial ? j->partial + b * C : NULL;
    if (dgate) memset(dgate, 0, (size_t)C * sizeof *dgate);
    for (int64_t t = first; t < last; t++)
      for (int64_t c = 0; c < C; c += SL_ROW)
        residual_backward_part(j, n * j->T + t, c, row_part(C, c), dgate ? dgate + c : NULL, buffer);
  }
}

#ifdef SL_RESIDUAL_LOOPS
const sl_residual_loops SL_RESIDUAL_LOOPS = {residual_rows, residual_backward_blocks};
#endif

#endif
