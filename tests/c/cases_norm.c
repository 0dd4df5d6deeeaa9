/* LayerNorm, adaLN, the gated residual, and both in one. */
#include <math.h>

#include "op_table.h"

/* Mean and 1/sqrt(variance + eps) of x[C]. */
static void statistics(const double *x, int64_t C, double eps, double *mean, double *rstd) {
  double sum = 0, squares = 0;
  for (int64_t c = 0; c < C; c++) sum += x[c];
  *mean = sum / (double)C;
  for (int64_t c = 0; c < C; c++) squares += (x[c] - *mean) * (x[c] - *mean);
  *rstd = 1 / sqrt(squares / (double)C + eps);
}

static void naive_layer_norm(const op_run *r) {
  const sl_shape *s = &r->in_shape[0];
  int64_t C = s->dim[s->rank - 1], rows = sl_shape_numel(s) / C;
  for (int64_t i = 0; i < rows; i++) {
    double mean, rstd;
    statistics(r->in[0] + i * C, C, r->attrs->f[0], &mean, &rstd);
    for (int64_t c = 0; c < C; c++)
      r->out[0][i * C + c] =
          (r->in[0][i * C + c] - mean) * rstd * (r->in[1] ? r->in[1][c] : 1) + (r->in[2] ? r->in[2][c] : 0);
    r->out[1][i] = mean;
    r->out[2][i] = rstd;
  }
}

static void naive_adaln(const op_run *r) {
  const sl_shape *s = &r->in_shape[0];
  int64_t T = s->dim[1], C = s->dim[2];
  double row[1320];
  for (int64_t i = 0; i < s->dim[0] * T; i++) {
    int64_t n = i / T;
    double mean, rstd;
    for (int64_t c = 0; c < C; c++) row[c] = r->in[0][i * C + c] * (r->in[3] ? r->in[3][n * C + c] : 1);
    statistics(row, C, r->attrs->f[0], &mean, &rstd);
    for (int64_t c = 0; c < C; c++)
      r->out[0][i * C + c] = (row[c] - mean) * rstd * (1 + r->in[2][n * C + c]) + r->in[1][n * C + c];
    r->out[1][i] = mean;
    r->out[2][i] = rstd;
  }
}

static void naive_gated_residual(const op_run *r) {
  const sl_shape *s = &r->in_shape[0];
  int64_t T = s->dim[1], C = s->dim[2];
  for (int64_t i = 0; i < sl_shape_numel(s); i++) {
    int64_t at = i / (T * C) * C + i % C;
    double m = r->in[3] ? r->in[3][at] : 1, gated = r->in[2][at] * r->in[1][i];
    r->out[0][i] = r->in[4] ? r->in[0][i] + gated + (1 - m) * r->in[4][i] : m * r->in[0][i] + gated;
  }
}

/* x y gate shift scale mask skip next_mask -> r h mean rstd */
static void naive_residual_adaln(const op_run *r) {
  op_run sum = *r, norm = *r;
  double *const of_sum[] = {r->in[0], r->in[1], r->in[2], r->in[5], r->in[6]};
  double *const of_norm[] = {r->out[0], r->in[3], r->in[4], r->in[7]};
  for (int k = 0; k < 5; k++) sum.in[k] = of_sum[k];
  for (int k = 0; k < 4; k++) norm.in[k] = of_norm[k];
  for (int k = 0; k < 3; k++) norm.out[k] = r->out[1 + k];
  naive_gated_residual(&sum);
  naive_adaln(&norm);
}

/* All inputs of residual_adaln; mask, skip and next mask last. */
#define JOINED(n, t, c, ...)                                                                                           \
  { F32(n, t, c), F32(n, t, c), F32(n, c), F32(n, c), F32(n, c), __VA_ARGS__ }

const op_case cases_norm[] = {
    {"layer_norm", "", naive_layer_norm, CASE_BF16, 0, 0, 3, {F32(4, 33), F32(33), F32(33)}},
    {"layer_norm", "eps=1e-6", naive_layer_norm, 0, 0, 0, 3, {F32(2, 3, 7), ABSENT, ABSENT}},
    {"layer_norm", "", naive_layer_norm, CASE_NO_GRAD, 6, 0, 3, {F32(5, 9), ABSENT, F32(9)}},
    {"adaln", "", naive_adaln, CASE_BF16, 0, 0, 4, {F32(2, 3, 24), F32(2, 24), F32(2, 24), MASK(2, 24)}},
    {"adaln", "eps=1e-3", naive_adaln, 0, 0, 0, 4, {F32(3, 2, 37), F32(3, 37), F32(3, 37), ABSENT}},
    {"adaln", "", naive_adaln, CASE_NO_GRAD, 6, 0, 4, {F32(3, 2, 16), F32(3, 16), F32(3, 16), ABSENT}},
    {"gated_residual",
     "",
     naive_gated_residual,
     CASE_BF16,
     0,
     0,
     5,
     {F32(2, 3, 21), F32(2, 3, 21), F32(2, 21), ABSENT, ABSENT}},
    {"gated_residual",
     "",
     naive_gated_residual,
     0,
     0,
     0,
     5,
     {F32(2, 3, 20), F32(2, 3, 20), F32(2, 20), MASK(2, 20), ABSENT}},
    {"gated_residual",
     "",
     naive_gated_residual,
     0,
     0,
     0,
     5,
     {F32(2, 3, 9), F32(2, 3, 9), F32(2, 9), MASK(2, 9), F32(2, 3, 9)}},
    {"residual_adaln", "", naive_residual_adaln, CASE_BF16, 3, 0, 8, JOINED(2, 3, 24, ABSENT, ABSENT, ABSENT)},
    {"residual_adaln", "", naive_residual_adaln, CASE_BF16, 3, 0, 8,
     JOINED(2, 3, 32, MASK(2, 32), ABSENT, MASK(2, 32))},
    {"residual_adaln", "", naive_residual_adaln, CASE_BF16, 3, 0, 8,
     JOINED(2, 35, 24, MASK(2, 24), F32(2, 35, 24), MASK(2, 24))},
    {"residual_adaln", "eps=1e-3", naive_residual_adaln, CASE_BF16, 3, 0, 8,
     JOINED(3, 2, 37, MASK(3, 37), F32(3, 2, 37), ABSENT)},
    {"residual_adaln", "", naive_residual_adaln, 0, 2, 0, 8, JOINED(3, 2, 20, MASK(3, 20), ABSENT, MASK(3, 20))},
    {"residual_adaln", "", naive_residual_adaln, 0, 1, 0, 8, JOINED(3, 2, 20, MASK(3, 20), F32(3, 2, 20), ABSENT)},
    {"residual_adaln", "", naive_residual_adaln, CASE_NO_GRAD, 15, 0, 8, JOINED(3, 2, 16, ABSENT, ABSENT, MASK(3, 16))},
    {"residual_adaln", "", naive_residual_adaln, CASE_BF16, 3, 0, 8, JOINED(1, 2, 768, ABSENT, ABSENT, MASK(1, 768))},
    {"residual_adaln", "", naive_residual_adaln, CASE_BF16, 3, 0, 8,
     JOINED(1, 3, 1320, MASK(1, 1320), F32(1, 3, 1320), MASK(1, 1320))},
};

const op_refusal refusals_norm[] = {
    {"layer_norm", "", "w is", 3, {F32(4, 33), F32(32), ABSENT}},
    {"layer_norm", "", "scalar", 3, {SCALAR, ABSENT, ABSENT}},
    {"adaln", "", "shift", 3, {F32(2, 3, 24), F32(2, 23), F32(2, 24)}},
    {"adaln", "", "adaln", 3, {F32(3, 24), F32(3, 24), F32(3, 24)}},
    {"gated_residual", "", "gated_residual", 3, {F32(2, 3, 21), F32(2, 3, 20), F32(2, 21)}},
    {"gated_residual", "", "mask", 4, {F32(2, 3, 21), F32(2, 3, 21), F32(2, 21), MASK(3, 21)}},
    {"residual_adaln", "", "next_mask is u8 [3,21]", 8, JOINED(2, 3, 21, ABSENT, ABSENT, MASK(3, 21))},
    {"residual_adaln", "", "residual_adaln: skip", 8, JOINED(2, 3, 21, ABSENT, F32(2, 3, 20), ABSENT)},
    {"residual_adaln", "eps=0", "eps is 0", 8, JOINED(2, 3, 21, ABSENT, ABSENT, ABSENT)},
};
OP_FAMILY(norm);
