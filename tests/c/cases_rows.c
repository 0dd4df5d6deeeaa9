/* Rows by number, timesteps, and draws. */
#include <math.h>

#include "base/random.h"
#include "op_table.h"

static void naive_gather(const op_run *r) {
  int64_t width = sl_shape_numel(&r->in_shape[0]) / r->in_shape[0].dim[0], n = sl_shape_numel(&r->in_shape[1]);
  for (int64_t k = 0; k < n; k++)
    for (int64_t c = 0; c < width; c++) r->out[0][k * width + c] = r->in[0][(int64_t)r->in[1][k] * width + c];
}

static void naive_timestep_embedding(const op_run *r) {
  int64_t dim = r->attrs->i[0], half = dim / 2;
  for (int64_t k = 0; k < r->in_shape[0].dim[0]; k++)
    for (int64_t i = 0; i < dim; i++) {
      double f = exp(-log(r->attrs->f[0]) * (double)(i % half) / (double)half), t = r->in[0][k];
      r->out[0][k * dim + i] = i < half ? cos(t * f) : i < 2 * half ? sin(t * f) : 0;
    }
}

/* Seed 11, step 3, samples from 5 on, as the driver's step block says: the draws are those of base/random.h. */
static void check_draw(const op_run *r, bool normal) {
  int64_t n = r->out_shape[0].dim[0], per = sl_shape_numel(&r->out_shape[0]) / n;
  sl_rng_key key = {11, (uint32_t)r->attrs->i[SL_ATTR_LIST]};
  for (int64_t s = 0; s < n; s++)
    for (int64_t i = 0; i < per; i++) {
      float want;
      (normal ? sl_random_normal : sl_random_uniform)(key, 5 + (uint32_t)s, 3, (uint64_t)i, 1, &want);
      double *y = &r->out[0][s * per + i];
      if (*y != (double)want) *y = NAN;
    }
}
static void naive_normal(const op_run *r) { check_draw(r, true); }
static void naive_uniform(const op_run *r) { check_draw(r, false); }

/* What is kept is scaled; about p of it is dropped; which depends on the seed, the step, the sample and the site alone.
 */
static void naive_dropout(const op_run *r) {
  double p = r->attrs->f[0];
  int64_t n = r->in_shape[0].dim[0], per = sl_shape_numel(&r->in_shape[0]) / n;
  sl_rng_key key = {11, SL_STREAM_DROPOUT};
  for (int64_t s = 0; s < n; s++)
    for (int64_t i = 0; i < per; i++) {
      float u;
      sl_random_uniform(key, 5 + (uint32_t)s, 3, ((uint64_t)r->attrs->i[0] << 40) + (uint64_t)i, 1, &u);
      r->out[0][s * per + i] = u < (float)p ? 0 : r->in[0][s * per + i] / (1 - p);
    }
}

const op_case cases_rows[] = {
    {"gather", "", naive_gather, CASE_BF16, 0, 0, 2, {F32(6, 5), INDEX(6, 9)}},
    {"gather", "", naive_gather, 0, 0, 0, 2, {F32(4, 3, 2), INDEX(4, 2, 3)}},
    {"gather", "", naive_gather, 0, 0, 0, 2, {F32(7), INDEX(7, 4)}},
    {"timestep_embedding", "dim=16", naive_timestep_embedding, 0, 0, 1e-6, 1, {F32(5)}},
    {"timestep_embedding", "dim=9 max_period=100", naive_timestep_embedding, 0, 0, 1e-6, 1, {F32(3)}},
    {"timestep_embedding", "dim=32", naive_timestep_embedding, CASE_NO_GRAD, 0, 2e-5, 1, {INDEX(1000, 8)}},
    {"normal", "shape={3,1030}", naive_normal, CASE_NO_GRAD | CASE_RANDOM, 0, 0, 0, {ABSENT}},
    {"uniform", "shape={2,3,5} stream=2", naive_uniform, CASE_NO_GRAD | CASE_RANDOM, 0, 0, 0, {ABSENT}},
    {"dropout", "p=0.3 site=4", naive_dropout, CASE_BF16, 0, 0, 1, {F32(3, 4, 50)}},
    {"dropout", "p=0", naive_dropout, 0, 0, 0, 1, {F32(3, 5)}},
};

const op_refusal refusals_rows[] = {
    {"gather", "", "index", 2, {F32(6, 5), F32(3)}},           {"gather", "", "scalar", 2, {SCALAR, INDEX(6, 3)}},
    {"timestep_embedding", "dim=16", "[2,3]", 1, {F32(2, 3)}}, {"timestep_embedding", "dim=1", "dim", 1, {F32(3)}},
    {"dropout", "p=1", "dropout: p is 1", 1, {F32(2, 3)}},
};
OP_FAMILY(rows);
