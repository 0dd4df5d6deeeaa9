/* Loops over rows of the gated residual with the norm after it, compiled once per instruction set: the file that
 * includes this names the table in SL_RESIDUAL_ADALN_LOOPS. A row goes through the two ops' own loops one after the
 * other while it is in L1, so the numbers are theirs. */
#ifndef SL_OPS_RESIDUAL_ADALN_LOOPS_H
#define SL_OPS_RESIDUAL_ADALN_LOOPS_H

#include "ops/adaln_loops.h"
#include "ops/residual_adaln.h"
#include "ops/residual_loops.h"

/* sum.out is r, norm.prior what arrives at it. sum.partial [N, blocks, 3, C]: dshift, dscale and dgate of each block.
 */
typedef struct residual_adaln_job {
  residual_job sum;
  adaln_job norm;
  sl_dtype stream;
  sl_residual_share share;
  const sl_view *prior; /* gathered so far for x */
  bool gates;           /* dgate is asked for */
} residual_adaln_job;

typedef struct sl_residual_adaln_loops {
  void (*forward)(const residual_adaln_job *j, int64_t begin, int64_t end);  /* rows of N*T */
  void (*backward)(const residual_adaln_job *j, int64_t begin, int64_t end); /* blocks of N*blocks */
} sl_residual_adaln_loops;
extern const sl_residual_adaln_loops sl__residual_adaln_base, sl__residual_adaln_avx2, sl__residual_adaln_avx512;

typedef struct sum_source {
  const residual_adaln_job *job;
  float (*buffer)[SL_ROW]; /* four */
} sum_source;

/* Part of a row of r: computed, rounded and written at first; then read, unless nobody keeps it. */
static inline const float *read_sum(const void *from, int64_t row, int64_t c, int64_t size, bool again, float *buffer) {
  const sum_source *s = from;
  const residual_job *j = &s->job->sum;
  const int64_t at = row * j->C + c;
  if (again && j->out->data) return row_read(j->out, at, size, buffer);
  float *r = j->out->data ? row_target(j->out, at, buffer) : buffer;
  part_sum(j, row, c, size, r, s->buffer);
  row_rounded(s->job->stream, size, r);
  if (j->out->data) row_done(j->out, at, size, r);
  return r;
}

static void forward_rows(const residual_adaln_job *j, int64_t begin, int64_t end) {
  float buffer[9][SL_ROW];
  const sum_source source = {j, buffer + 5};
  for (int64_t row = begin; row < end; row++) adaln_row(&j->norm, read_sum, &source, row, buffer);
}

/* dx of part of a row from d, the gradient at r. */
static inline void write_dx(const residual_adaln_job *j, int64_t row, int64_t c, const float *d,
                            float buffer[2][SL_ROW]) {
  const residual_job *sum = &j->sum;
  const int64_t at = row * sum->C + c, size = row_part(sum->C, c);
  const uint8_t *m = j->share == SL_SHARE_WHOLE ? NULL : row_mask(sum->mask, row / sum->T, c);
  float *dx = row_target(sum->dx, at, buffer[0]);
  if (j->share == SL_SHARE_RESTORED) {
    const float *dr = row_read(j->norm.prior, at, size, buffer[1]);
#pragma omp simd
    for (int64_t i = 0; i < size; i++) dx[i] = (float)m[i] * d[i] + (1.0f - (float)m[i]) * dr[i];
  } else if (j->prior->data) {
    const float *prior = row_read(j->prior, at, size, buffer[1]);
#pragma omp simd
    for (int64_t i = 0; i < size; i++) dx[i] = prior[i] + (m ? (float)m[i] : 1.0f) * d[i];
  } else {
#pragma omp simd
    for (int64_t i = 0; i < size; i++) dx[i] = (m ? (float)m[i] : 1.0f) * d[i];
  }
  row_done(sum->dx, at, size, dx);
}

static inline void backward_row(const residual_adaln_job *j, int64_t n, int64_t row, float *partial,
                                float buffer[8][SL_ROW]) {
  const residual_job *sum = &j->sum;
  const int64_t C = sum->C;
  float *dshift = partial, *dscale = partial + C, *dgate = partial + 2 * C, s[2];
  adaln_part k = {NULL, NULL, NULL};
  gather_row(&j->norm, n, row, dshift, dscale, &k, s, buffer);
  if (!sum->dx->data && !sum->dy->data && !sum->dskip->data && !j->gates) return;
  for (int64_t c = 0; c < C; c += SL_ROW) {
    const int64_t size = row_part(C, c);
    if (C > SL_ROW) k = read_part(&j->norm, n, row, c, buffer);
    float *d = part_dx(&j->norm, &k, n, row, c, s, buffer);
    row_rounded(j->stream, size, d);
    part_branch(sum, row, c, size, d, j->gates ? dgate + c : NULL, buffer + 6);
    if (sum->dx->data) write_dx(j, row, c, d, buffer + 6);
  }
}

static void backward_blocks(const residual_adaln_job *j, int64_t begin, int64_t end) {
  float buffer[8][SL_ROW];
  const int64_t T = j->sum.T, C = j->sum.C, blocks = sl_row_blocks(T);
  for (int64_t b = begin; b < end; b++) {
    const int64_t n = b / blocks, first = b % blocks * SL_ROW_BLOCK;
    const int64_t last = first + SL_ROW_BLOCK < T ? first + SL_ROW_BLOCK : T;
    float *partial = j->sum.partial + 3 * b * C;
    memset(partial, 0, 3 * (size_t)C * sizeof *partial);
    for (int64_t t = first; t < last; t++) backward_row(j, n, n * T + t, partial, buffer);
  }
}

const sl_residual_adaln_loops SL_RESIDUAL_ADALN_LOOPS = {forward_rows, backward_blocks};

#endif
