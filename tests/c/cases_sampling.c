/* A sampling step's update, against its formulas: Ho et al. 2020, algorithm 2 (eq. 11), Nichol and Dhariwal 2021, eq.
 * 15 (the learned variance), Song et al. 2021, eq. 12, and guidance, Ho and Salimans 2022, eq. 6. */
#include <math.h>

#include "op_table.h"
#include "ops/sampler_update.h"

static double guided(const op_run *r, int64_t at, int64_t without, bool led) {
  double labelled = r->in[0][at];
  return led ? (1 - r->in[4][0]) * r->in[0][without] + r->in[4][0] * labelled : labelled;
}

static void naive_sampler_update(const op_run *r) {
  const sl_shape *x = &r->in_shape[1];
  int64_t N = x->dim[0], C = x->dim[1], P = sl_shape_numel(x) / N / C, wide = r->in_shape[0].dim[1] * P;
  int64_t channels = r->attrs->i[2] ? r->attrs->i[2] : C;
  for (int64_t at = 0; at < N * C * P; at++) {
    int64_t n = at / (C * P), i = at % (C * P), out = n * wide + i;
    const double *row = r->in[2] + n * SL_UPDATE_COLUMNS;
    double p = guided(r, out, out + N * wide, r->in[4] && i / P < channels), sigma = row[SL_UPDATE_SIGMA];
    double x0 = row[SL_UPDATE_X_X] * r->in[1][at] + row[SL_UPDATE_X_OUT] * p;
    if (r->attrs->i[1]) x0 = fmin(fmax(x0, -1), 1);
    if (r->attrs->i[0]) {
      double f = (r->in[0][out + C * P] + 1) / 2;
      sigma *= sqrt(exp(f * row[SL_UPDATE_LOG_HIGH] + (1 - f) * row[SL_UPDATE_LOG_LOW]));
    }
    double implied = (row[SL_UPDATE_E_X] * r->in[1][at] - x0) / row[SL_UPDATE_E_DIV];
    r->out[1][at] = x0;
    r->out[0][at] = row[SL_UPDATE_NEXT_X0] * x0 + row[SL_UPDATE_NEXT_X] * r->in[1][at] +
                    row[SL_UPDATE_NEXT_E] * implied + (r->in[3] ? sigma * r->in[3][at] : 0);
  }
}

#define ROWS(gen, n)                                                                                                   \
  { SL_F64, gen, SHAPE_(n, SL_UPDATE_COLUMNS), 0 }
#define UPDATE(attrs, outs, ...)                                                                                       \
  {                                                                                                                    \
    "sampler_update", attrs, naive_sampler_update, CASE_NO_GRAD, outs, 0, 5, { __VA_ARGS__ }                           \
  }

const op_case cases_sampling[] = {
    UPDATE("learned=1", 0x3, F32(3, 4, 3, 5), F32(3, 2, 3, 5), ROWS(GEN_POSITIVE, 3), F32(3, 2, 3, 5), ABSENT),
    UPDATE("learned=1 clip=1", 0x3, F32(4, 8, 2, 2), F32(2, 4, 2, 2), ROWS(GEN_POSITIVE, 2), F32(2, 4, 2, 2), SCALAR),
    UPDATE("learned=1 channels=3", 0x3, F32(4, 8, 8, 6), F32(2, 4, 8, 6), ROWS(GEN_POSITIVE, 2), F32(2, 4, 8, 6),
           SCALAR),
    UPDATE("learned=1 channels=1", 0x3, F32(2, 6, 3), F32(1, 3, 3), ROWS(GEN_APART, 1), F32(1, 3, 3), SCALAR),
    UPDATE("channels=1", 0x3, F32(2, 4, 2), F32(1, 4, 2), ROWS(GEN_POSITIVE, 1), F32(1, 4, 2), SCALAR),
    UPDATE("learned=1", 0x3, F32(2, 8, 36, 37), F32(1, 4, 36, 37), ROWS(GEN_POSITIVE, 1), F32(1, 4, 36, 37), SCALAR),
    UPDATE("learned=1", 0x1, F32(2, 6, 33, 43), F32(2, 3, 33, 43), ROWS(GEN_APART, 2), F32(2, 3, 33, 43), ABSENT),
    UPDATE("", 0x3, F32(2, 6, 4, 4), F32(2, 3, 4, 4), ROWS(GEN_APART, 2), ABSENT, ABSENT), /* variance not read */
    UPDATE("clip=1", 0x3, F32(3, 2, 5), F32(3, 2, 5), ROWS(GEN_APART, 3), F32(3, 2, 5), ABSENT),
    UPDATE("", 0x2, F32(4, 1, 4), F32(2, 1, 4), ROWS(GEN_POSITIVE, 2), F32(2, 1, 4), SCALAR),
    UPDATE("", 0x3, F32(2, 2), F32(1, 2), ROWS(GEN_POSITIVE, 1), ABSENT, SCALAR),
    /* rows that begin between accesses of 16 bytes */
    UPDATE("learned=1", 0x3, F32(3, 6, 3, 3), F32(3, 3, 3, 3), ROWS(GEN_POSITIVE, 3), F32(3, 3, 3, 3), ABSENT),
};

#define REFUSED(attrs, words, ...)                                                                                     \
  {                                                                                                                    \
    "sampler_update", attrs, words, 5, { __VA_ARGS__ }                                                                 \
  }

const op_refusal refusals_sampling[] = {
    REFUSED("learned=1", "out is f32 [2,3,4], expected [2,6,4] as x is f32 [2,3,4], the variance is learned",
            F32(2, 3, 4), F32(2, 3, 4), ROWS(GEN_NORMAL, 2), ABSENT, ABSENT),
    REFUSED("", "out is f32 [2,3,4], expected [4,3,4] as x is f32 [2,3,4] and there is guidance", F32(2, 3, 4),
            F32(2, 3, 4), ROWS(GEN_NORMAL, 2), ABSENT, SCALAR),
    REFUSED("", "x is f32 [4], expected [N,C,…]", F32(4), F32(4), ROWS(GEN_NORMAL, 4), ABSENT, ABSENT),
    REFUSED("", "rows is f32 [2,10], expected f64 [2,10]", F32(2, 3), F32(2, 3), F32(2, 10), ABSENT, ABSENT),
    REFUSED("", "noise is f32 [1,3], expected the shape of x", F32(2, 3), F32(2, 3), ROWS(GEN_NORMAL, 2), F32(1, 3),
            ABSENT),
    REFUSED("", "scale is f32 [2], expected a number", F32(4, 3), F32(2, 3), ROWS(GEN_NORMAL, 2), ABSENT, F32(2)),
    REFUSED("channels=4", "channels is 4, expected 1 … 3", F32(4, 3), F32(2, 3), ROWS(GEN_NORMAL, 2), ABSENT, SCALAR),
};
OP_FAMILY(sampling);
