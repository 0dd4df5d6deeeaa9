/* Cases of the fused kernels, run on any table of kernels and compared: for test_fused.c and test_gpu_host*.c. Buffers
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
#include "ops/residual_adaln.h"

typedef struct fused_case {
  int64_t N, T, C;
  sl_dtype x, y, rows; /* of the stream, of the branch, of shift, scale and gate */
  bool mask, extra;    /* extra: prior, or skip */
  bool chunks;         /* modulation as parts of [N,6C]; else dense */
  bool one_mask;       /* one row for all samples: stride 0 */
  unsigned joined;     /* of residual_adaln, below */
} fused_case;

/* What residual_adaln's cases vary. */
enum {
  FUSED_NEXT_MASK = 1,
  FUSED_NO_DR = 2,    /* nothing arrives at r itself */
  FUSED_PRIOR = 4,    /* x has a gradient from elsewhere */
  FUSED_RESTORED = 8, /* SL_SHARE_RESTORED: with a mask, without skip and prior */
  FUSED_UNUSED_R = 16,
  FUSED_IN_PLACE = 32, /* r in x's memory, dx in that of dr */
  FUSED_VARIANTS = 64
};

static const fused_case fused_cases[] = {
    {1, 1, 1, SL_F32, SL_F32, SL_F32, false, false, false, false, 0},
    {2, 5, 48, SL_F32, SL_F32, SL_F32, true, true, true, false, 0},
    {3, 33, 20, SL_F32, SL_F32, SL_F32, true, false, true, true, 0},
    {2, 64, 37, SL_F32, SL_F32, SL_F32, false, true, true, false, 0},
    {1, 70, 260, SL_F32, SL_F32, SL_F32, true, true, false, false, 0},
    {2, 9, 384, SL_F32, SL_BF16, SL_BF16, true, true, true, false, 0},
    {2, 40, 72, SL_BF16, SL_BF16, SL_BF16, true, false, true, true, 0},
    {1, 3, 31, SL_BF16, SL_F32, SL_F32, false, true, false, false, 0},
    {1, 2, 4101, SL_F32, SL_F32, SL_F32, true, true, true, false, 0},
    {1, 3, 2304, SL_BF16, SL_BF16, SL_F32, false, false, false, false, 0},
    {1, 5, 1024, SL_BF16, SL_BF16, SL_BF16, true, true, true, false, 0},
    {1, 2, 1152, SL_F32, SL_BF16, SL_BF16, true, false, true, false, 0},
    {2, 3, 768, SL_F32, SL_F32, SL_F32, false, false, true, false, 0},
    {0, 4, 8, SL_F32, SL_F32, SL_F32, true, true, false, false, 0},
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

enum { FUSED_MOST = SL_RA_INPUTS + SL_RAB_INPUTS, FUSED_JOINED_OUT = 4 + 6 };

typedef struct fused_data {
  /* adaln: x shift scale mask dy extra -> y mean rstd dx dshift dscale
   * residual: x y gate mask dout skip -> out dx dy dgate dskip
   * residual_adaln: its row's inputs, then its backward's -> its outputs, then its backward's */
  sl_view in[FUSED_MOST], out[FUSED_JOINED_OUT];
  void *whole[FUSED_MOST], *workspace;
  bool borrowed[FUSED_MOST]; /* is another's memory */
} fused_data;

static inline void fused_free(fused_data *f) {
  for (int i = 0; i < FUSED_MOST; i++)
    if (!f->borrowed[i]) free(f->whole[i] ? f->whole[i] : f->in[i].data);
  for (int i = 0; i < FUSED_JOINED_OUT; i++) free(f->out[i].data);
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

/* Whether the case, so varied, is one of its own. */
static inline bool fused_joined_is(const fused_case *c) {
  const unsigned v = c->joined;
  if (v & FUSED_RESTORED && (!c->mask || c->extra || v & (FUSED_PRIOR | FUSED_NO_DR))) return false;
  return !(v & FUSED_IN_PLACE && v & (FUSED_UNUSED_R | FUSED_NO_DR));
}

static inline sl_residual_share fused_share(const fused_case *c) {
  if (c->joined & FUSED_RESTORED) return SL_SHARE_RESTORED;
  return c->mask && !c->extra ? SL_SHARE_MASKED : SL_SHARE_WHOLE;
}

/* Inputs of residual_adaln and of its backward, of which r, mean and rstd are made by the first; outputs as NaN. */
static inline fused_data fused_joined_data(const fused_case *c) {
  fused_data f = {0};
  const int64_t big[] = {c->N, c->T, c->C}, rows[] = {c->N, c->C};
  sl_view *in = f.in, *back = f.in + SL_RA_INPUTS, *out = f.out, *d = f.out + 4;
  static const int part[] = {[SL_RA_GATE] = 2, [SL_RA_SHIFT] = 3, [SL_RA_SCALE] = 4};
  in[SL_RA_X] = fused_input(c->x, 3, big, 21);
  in[SL_RA_Y] = fused_input(c->y, 3, big, 22);
  for (int k = SL_RA_GATE; k <= SL_RA_SCALE; k++)
    in[k] = fused_rows(c, c->rows, part[k], 23 + (uint64_t)k, &f.whole[k]);
  in[SL_RA_MASK] = fused_mask(c);
  if (c->extra) in[SL_RA_SKIP] = fused_input(c->x, 3, big, 30);
  if (c->joined & FUSED_NEXT_MASK) in[SL_RA_NEXT_MASK] = fused_input(SL_U8, 2, rows, 31);
  if (!(c->joined & FUSED_NO_DR)) back[SL_RAB_DR] = fused_input(c->x, 3, big, 32);
  back[SL_RAB_DH] = fused_input(c->rows, 3, big, 33);
  if (c->joined & FUSED_PRIOR) back[SL_RAB_PRIOR] = fused_input(c->x, 3, big, 34);
  out[SL_RA_R] = fused_output(c->x, 3, big);
  out[SL_RA_H] = fused_output(c->rows, 3, big);
  for (int k = SL_RA_MEAN; k <= SL_RA_RSTD; k++) out[k] = fused_output(SL_F32, 2, big);
  d[SL_RAB_DX] = fused_output(c->x, 3, big);
  d[SL_RAB_DY] = fused_output(c->y, 3, big);
  if (c->mask && c->extra) d[SL_RAB_DSKIP] = fused_output(c->x, 3, big);
  static const int sums[] = {SL_RAB_DGATE, SL_RAB_DSHIFT, SL_RAB_DSCALE};
  for (int k = 0; k < 3; k++) d[sums[k]] = fused_output(SL_F32, 2, rows);
  static const int same[][2] = {{SL_RAB_Y, SL_RA_Y},
                                {SL_RAB_GATE, SL_RA_GATE},
                                {SL_RAB_SCALE, SL_RA_SCALE},
                                {SL_RAB_MASK, SL_RA_MASK},
                                {SL_RAB_NEXT_MASK, SL_RA_NEXT_MASK}};
  static const int made[][2] = {{SL_RAB_R, SL_RA_R}, {SL_RAB_MEAN, SL_RA_MEAN}, {SL_RAB_RSTD, SL_RA_RSTD}};
  for (int k = 0; k < 5; k++) back[same[k][0]] = in[same[k][1]], f.borrowed[SL_RA_INPUTS + same[k][0]] = true;
  for (int k = 0; k < 3; k++) back[made[k][0]] = out[made[k][1]], f.borrowed[SL_RA_INPUTS + made[k][0]] = true;
  f.workspace = fused_buffer(sl_row_block_bytes(c->N, c->T, c->C, 3));
  return f;
}

static inline fused_data fused_joined(const sl_kernels *k, sl_exec *e, const fused_case *c) {
  fused_data f = fused_joined_data(c);
  sl_view in[FUSED_MOST], out[FUSED_JOINED_OUT], none = {.dtype = c->x, .shape = f.out[SL_RA_R].shape};
  memcpy(in, f.in, sizeof in), memcpy(out, f.out, sizeof out);
  if (c->joined & FUSED_IN_PLACE) { /* what is read lies in the outputs' memory */
    memcpy(out[SL_RA_R].data, in[SL_RA_X].data, (size_t)(c->N * c->T * c->C) * fused_width(c->x));
    memcpy(out[4 + SL_RAB_DX].data, in[SL_RA_INPUTS + SL_RAB_DR].data,
           (size_t)(c->N * c->T * c->C) * fused_width(c->x));
    in[SL_RA_X].data = out[SL_RA_R].data, in[SL_RA_INPUTS + SL_RAB_DR].data = out[4 + SL_RAB_DX].data;
  }
  if (k->residual_adaln(e, out, in, 1e-6) != SL_STATUS_OK) fail_msg("%s", sl_error());
  if (c->joined & FUSED_UNUSED_R) { /* once more: the same without it */
    sl_view again[4] = {none, fused_output(c->rows, 3, out[SL_RA_H].shape.dim), out[SL_RA_MEAN], out[SL_RA_RSTD]};
    if (k->residual_adaln(e, again, in, 1e-6) != SL_STATUS_OK) fail_msg("%s", sl_error());
    free(f.out[SL_RA_H].data);
    f.out[SL_RA_H].data = again[SL_RA_H].data;
  }
  if (k->residual_adaln_backward(e, out + 4, in + SL_RA_INPUTS, (int)fused_share(c), f.workspace) != SL_STATUS_OK)
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
