/* Cases of the fused kernels, run on any table of kernels and compared: for test_fused.c and test_gpu_host.c. Buffers
 * have exactly the size that is used, so that a sanitizer sees an overrun; outputs start as NaN. */
#ifndef SL_TESTS_FUSED_CASE_H
#define SL_TESTS_FUSED_CASE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bf16.h"
#include "ops/adaln_math.h"
#include "ops/kernels.h"

typedef struct fused_case {
  int64_t N, T, C;
  sl_dtype x, y, rows; /* of the stream, of the branch, of shift, scale and gate */
  bool mask, extra;    /* extra: prior, or skip */
  bool chunks;         /* modulation as parts of [N,6C]; else dense */
  bool one_mask;       /* one row for all samples: stride 0 */
} fused_case;

static const fused_case fused_cases[] = {
    {1, 1, 1, SL_F32, SL_F32, SL_F32, false, false, false, false},
    {2, 5, 48, SL_F32, SL_F32, SL_F32, true, true, true, false},
    {3, 33, 20, SL_F32, SL_F32, SL_F32, true, false, true, true},
    {2, 64, 37, SL_F32, SL_F32, SL_F32, false, true, true, false},
    {1, 70, 260, SL_F32, SL_F32, SL_F32, true, true, false, false},
    {2, 9, 384, SL_F32, SL_BF16, SL_BF16, true, true, true, false},
    {2, 40, 72, SL_BF16, SL_BF16, SL_BF16, true, false, true, true},
    {1, 3, 31, SL_BF16, SL_F32, SL_F32, false, true, false, false},
    {1, 2, 4101, SL_F32, SL_F32, SL_F32, true, true, true, false},
    {1, 3, 2304, SL_BF16, SL_BF16, SL_F32, false, false, false, false},
    {0, 4, 8, SL_F32, SL_F32, SL_F32, true, true, false, false},
};
#define FUSED_CASES (int)(sizeof fused_cases / sizeof *fused_cases)

static inline double fused_random(uint64_t *state) {
  *state = *state * 6364136223846793005u + 1442695040888963407u;
  return (double)(*state >> 40) / 8388608.0 - 1.0;
}

static inline void *fused_buffer(size_t bytes) {
  void *p = malloc(bytes ? bytes : 1);
  assert_non_null(p);
  memset(p, 0xff, bytes);
  return p;
}

static inline size_t fused_width(sl_dtype d) { return d == SL_F32 ? 4 : d == SL_BF16 ? 2 : 1; }

static inline sl_view fused_view(sl_dtype d, int rank, const int64_t *dim) {
  sl_view v = {.dtype = d, .shape = {.rank = rank}};
  int64_t stride = 1;
  for (int i = rank - 1; i >= 0; i--) v.shape.dim[i] = dim[i], v.stride[i] = stride, stride *= dim[i];
  return v;
}

/* Element `at` of what v's buffer holds, in memory order. */
static inline double fused_at(const sl_view *v, int64_t at) {
  if (v->dtype == SL_F32) return ((const float *)v->data)[at];
  return v->dtype == SL_BF16 ? sl_bf16_to_f32(((const uint16_t *)v->data)[at]) : ((const uint8_t *)v->data)[at];
}

static inline sl_view fused_output(sl_dtype d, int rank, const int64_t *dim) {
  sl_view v = fused_view(d, rank, dim);
  int64_t n = 1;
  for (int i = 0; i < rank; i++) n *= dim[i];
  v.data = fused_buffer((size_t)n * fused_width(d));
  return v;
}

static inline void fused_set(sl_view *v, int64_t at, double value) {
  if (v->dtype == SL_F32) ((float *)v->data)[at] = (float)value;
  else if (v->dtype == SL_BF16) ((uint16_t *)v->data)[at] = sl_bf16_from_f32((float)value);
  else ((uint8_t *)v->data)[at] = value > 0.0;
}

static inline sl_view fused_input(sl_dtype d, int rank, const int64_t *dim, uint64_t seed) {
  sl_view v = fused_output(d, rank, dim);
  int64_t n = rank == 3 ? dim[0] * dim[1] * dim[2] : dim[0] * dim[1];
  for (int64_t i = 0; i < n; i++) fused_set(&v, i, fused_random(&seed) + (rank == 3 ? 0.5 : 0.0));
  return v;
}

/* [N,C] of the given dtype: its own, or part k of [N,6C]; *whole is what to free. */
static inline sl_view fused_rows(const fused_case *c, sl_dtype d, int k, uint64_t seed, void **whole) {
  int64_t width = c->chunks ? 6 * c->C : c->C;
  sl_view all = fused_input(d, 2, (int64_t[]){c->N, width}, seed);
  sl_view v = fused_view(d, 2, (int64_t[]){c->N, c->C});
  *whole = all.data;
  v.data = c->chunks && c->N ? (char *)all.data + (size_t)k * (size_t)c->C * fused_width(d) : (char *)all.data;
  v.stride[0] = width;
  return v;
}

typedef struct fused_data {
  sl_view in[6], out[6]; /* adaln: x shift scale mask dy extra -> y mean rstd dx dshift dscale */
                         /* residual: x y gate mask dout skip -> out dx dy dgate dskip */
  void *whole[6], *workspace;
} fused_data;

static inline void fused_free(fused_data *f) {
  for (int i = 0; i < 6; i++) {
    free(f->whole[i] ? f->whole[i] : f->in[i].data);
    free(f->out[i].data);
  }
  free(f->workspace);
}

static inline sl_view fused_mask(const fused_case *c) {
  sl_view v = {.dtype = SL_U8};
  if (!c->mask) return v;
  v = fused_input(SL_U8, 2, (int64_t[]){c->one_mask ? 1 : c->N, c->C}, 77);
  v.shape.dim[0] = c->N;
  if (c->one_mask) v.stride[0] = 0;
  return v;
}

static inline fused_data fused_adaln(const sl_kernels *k, sl_exec *e, const fused_case *c) {
  fused_data f = {0};
  const int64_t big[] = {c->N, c->T, c->C}, rows[] = {c->N, c->C};
  sl_view *in = f.in, *out = f.out;
  in[0] = fused_input(c->x, 3, big, 1);
  in[1] = fused_rows(c, c->rows, 0, 2, &f.whole[1]);
  in[2] = fused_rows(c, c->rows, 1, 3, &f.whole[2]);
  in[3] = fused_mask(c);
  in[4] = fused_input(c->y, 3, big, 4);
  if (c->extra) in[5] = fused_input(c->x, 3, big, 5);
  out[0] = fused_output(c->y, 3, big);
  out[1] = fused_output(SL_F32, 2, big);
  out[2] = fused_output(SL_F32, 2, big);
  out[3] = fused_output(c->x, 3, big);
  out[4] = fused_output(SL_F32, 2, rows);
  out[5] = fused_output(SL_F32, 2, rows);
  f.workspace = fused_buffer(sl_row_block_bytes(c->N, c->T, c->C, 2));
  if (k->adaln(e, &out[0], &out[1], &out[2], &in[0], &in[1], &in[2], &in[3], 1e-6) != SL_STATUS_OK)
    fail_msg("%s", sl_error());
  if (k->adaln_backward(e, &out[3], &out[4], &out[5], &in[4], &in[0], &in[2], &in[3], &out[1], &out[2], &in[5],
                        f.workspace) != SL_STATUS_OK)
    fail_msg("%s", sl_error());
  return f;
}

static inline fused_data fused_residual(const sl_kernels *k, sl_exec *e, const fused_case *c) {
  fused_data f = {0};
  const int64_t big[] = {c->N, c->T, c->C}, rows[] = {c->N, c->C};
  sl_view *in = f.in, *out = f.out;
  in[0] = fused_input(c->x, 3, big, 11);
  in[1] = fused_input(c->y, 3, big, 12);
  in[2] = fused_rows(c, c->rows, 5, 13, &f.whole[2]);
  in[3] = fused_mask(c);
  in[4] = fused_input(c->x, 3, big, 14);
  if (c->extra) in[5] = fused_input(c->x, 3, big, 15);
  out[0] = fused_output(c->x, 3, big);
  out[1] = fused_output(c->x, 3, big);
  out[2] = fused_output(c->y, 3, big);
  out[3] = fused_output(SL_F32, 2, rows);
  if (c->extra) out[4] = fused_output(c->x, 3, big);
  f.workspace = fused_buffer(sl_row_block_bytes(c->N, c->T, c->C, 1));
  if (k->gated_residual(e, &out[0], &in[0], &in[1], &in[2], &in[3], &in[5]) != SL_STATUS_OK) fail_msg("%s", sl_error());
  if (k->gated_residual_backward(e, &out[1], &out[2], &out[3], &out[4], &in[4], &in[1], &in[2], &in[3], f.workspace) !=
      SL_STATUS_OK)
    fail_msg("%s", sl_error());
  return f;
}

/* |a - b| <= 1e-5 of b's largest value; results rounded to bf16 may differ by one unit of their last place. */
static inline void fused_near(const char *what, int number, const sl_view *a, const double *b, int64_t n) {
  double top = 0.0;
  for (int64_t i = 0; i < n; i++) top = fmax(top, fabs(b[i]));
  for (int64_t i = 0; i < n; i++) {
    double bound = 1e-5 * top + (a->dtype == SL_BF16 ? fabs(b[i]) / 128.0 : 0.0);
    if (!(fabs(fused_at(a, i) - b[i]) <= bound))
      fail_msg("case %d: %s[%lld] is %.9g, expected %.9g", number, what, (long long)i, fused_at(a, i), b[i]);
  }
}

static inline int64_t fused_count(const sl_view *v) {
  int64_t n = 1;
  for (int i = 0; i < v->shape.rank; i++) n *= v->shape.dim[i];
  return n;
}

#endif
