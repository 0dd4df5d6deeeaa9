/* The diffusion's loss, against its formulas: Nichol and Dhariwal 2021, L_hybrid (eq. 16, its bound by eq. 4-7, the
 * mean's gradient stopped), with the likelihood of 8-bit pixels of Ho et al. 2020, eq. 13. */
#include <math.h>

#include "op_table.h"
#include "ops/diffusion_loss.h"

typedef struct pixel {
  double prediction, sigma_out, x0, xt, noise;
} pixel;

/* The references' approximation of the normal distribution function. */
static double below(double z) { return 0.5 * (1 + tanh(sqrt(2 / acos(-1.0)) * (z + 0.044715 * z * z * z))); }

static double log_likelihood(double x0, double mean, double sigma) {
  double up = below((x0 - mean + 1 / 255.0) / sigma), down = below((x0 - mean - 1 / 255.0) / sigma);
  if (x0 < -0.999) down = 0;
  if (x0 > 0.999) up = 1;
  return log(fmax(up - down, 1e-12));
}

/* One pixel's term of the bound in bits, with the prediction that the mean is made of. */
static double bound_of(const double *row, const pixel *p, double prediction) {
  double fraction = (p->sigma_out + 1) / 2;
  double variance = exp(fraction * row[SL_LOSS_LOG_HIGH] + (1 - fraction) * row[SL_LOSS_LOG_LOW]);
  double x0 = row[SL_LOSS_X_XT] * p->xt + row[SL_LOSS_X_OUT] * prediction;
  double mean = row[SL_LOSS_MEAN_X] * x0 + row[SL_LOSS_MEAN_XT] * p->xt;
  double truth = row[SL_LOSS_MEAN_X] * p->x0 + row[SL_LOSS_MEAN_XT] * p->xt, low = exp(row[SL_LOSS_LOG_LOW]);
  if (row[SL_LOSS_FIRST] >= 1) return -log_likelihood(p->x0, mean, sqrt(variance)) / log(2);
  return 0.5 * (log(variance / low) + (low + (truth - mean) * (truth - mean)) / variance - 1) / log(2);
}

/* The driver takes central differences, moving a number at a time by 1e-5; a stopped gradient is a prediction that
 * stays where it was: this keeps what it was first seen as. */
static const double *still(const double *out, int64_t n) {
  static double kept[1 << 14];
  static int64_t n_kept;
  bool moved = n != n_kept;
  for (int64_t i = 0; i < n && !moved; i++) moved = fabs(out[i] - kept[i]) > 2e-5;
  for (int64_t i = 0; i < n && moved; i++) kept[i] = out[i];
  n_kept = n;
  return kept;
}

static void naive_diffusion_loss(const op_run *r) {
  int64_t N = r->in_shape[1].dim[0], M = sl_shape_numel(&r->in_shape[1]) / N, learned = r->attrs->i[0];
  const double *predictions = still(r->in[0], sl_shape_numel(&r->in_shape[0]));
  for (int64_t n = 0; n < N; n++) {
    const double *row = r->in[4] + n * SL_LOSS_COLUMNS;
    double squares = 0, bound = 0, weight = r->in[5] ? r->in[5][n] : 1;
    for (int64_t i = 0; i < M; i++) {
      int64_t at = n * M + i, out = n * (learned ? 2 : 1) * M + i;
      pixel p = {r->in[0][out], learned ? r->in[0][out + M] : 0, r->in[1][at], r->in[2][at], r->in[3][at]};
      double target = row[SL_LOSS_TARGET_NOISE] * p.noise + row[SL_LOSS_TARGET_X0] * p.x0;
      squares += (target - p.prediction) * (target - p.prediction);
      if (learned) bound += bound_of(row, &p, predictions[out]);
    }
    r->out[3][n] = squares / (double)M;
    r->out[1][n] = weight * r->out[3][n];
    r->out[2][n] = bound / (double)M;
    r->out[0][n] = r->out[1][n] + r->out[2][n];
  }
}

#define ROWS(gen, n)                                                                                                   \
  { SL_F64, gen, SHAPE_(n, SL_LOSS_COLUMNS), 0 }
#define LOSS(attrs, flags, outs, tolerance, ...)                                                                       \
  {                                                                                                                    \
    "diffusion_loss", attrs, naive_diffusion_loss, flags, outs, tolerance, 6, { __VA_ARGS__ }                          \
  }

/* Outputs: with the last, backward is given gradients that are weighted already. GEN_APART's rows of up to 3 samples
 * are below 1: no sample is the first step's. GEN_MASK's are 0 or 1: most are. Pixels near the middle then, as in float
 * the likelihood of others has few digits. */
const op_case cases_loss[] = {
    LOSS("learned=1", CASE_BF16, 0xf, 0, F32(3, 4, 3, 5), F32(3, 2, 3, 5), F32(3, 2, 3, 5), F32(3, 2, 3, 5),
         ROWS(GEN_APART, 3), F32(3)),
    LOSS("learned=1", 0, 0x7, 0, F32(1, 2, 1, 1), F32(1, 1, 1, 1), F32(1, 1, 1, 1), F32(1, 1, 1, 1), ROWS(GEN_APART, 1),
         ABSENT),
    LOSS("learned=1", 0, 0x7, 0, F32(2, 6, 5), F32(2, 3, 5), F32(2, 3, 5), F32(2, 3, 5), ROWS(GEN_APART, 2), ABSENT),
    LOSS("learned=1", 0, 0xf, 0, F32(2, 4, 2, 1, 3), F32(2, 2, 2, 1, 3), F32(2, 2, 2, 1, 3), F32(2, 2, 2, 1, 3),
         ROWS(GEN_APART, 2), F32(2)),
    LOSS("learned=1", 0, 0x7, 0, F32(1, 6, 33, 43), F32(1, 3, 33, 43), F32(1, 3, 33, 43), F32(1, 3, 33, 43),
         ROWS(GEN_APART, 1), F32(1)),
    LOSS("learned=1", CASE_BF16, 0x7, 0, F32(1, 8, 36, 36), F32(1, 4, 36, 36), F32(1, 4, 36, 36), F32(1, 4, 36, 36),
         ROWS(GEN_APART, 1), ABSENT),
    LOSS("learned=1", CASE_BF16, 0x7, 2e-5, APART(4, 2, 2, 2), APART(4, 1, 2, 2), APART(4, 1, 2, 2), F32(4, 1, 2, 2),
         ROWS(GEN_MASK, 4), F32(4)),
    LOSS("learned=1", 0, 0x7, 2e-5, APART(5, 2, 1, 3), POS(5, 1, 1, 3), APART(5, 1, 1, 3), F32(5, 1, 1, 3),
         ROWS(GEN_MASK, 5), ABSENT),
    LOSS("learned=1", 0, 0x7, 2e-5, APART(3, 2, 1, 4), F32(3, 1, 1, 4), APART(3, 1, 1, 4), F32(3, 1, 1, 4),
         ROWS(GEN_MASK, 3), F32(3)),
    LOSS("learned=1", 0, 0x2, 0, F32(2, 2, 3), F32(2, 1, 3), F32(2, 1, 3), F32(2, 1, 3), ROWS(GEN_APART, 2), F32(2)),
    LOSS("learned=1", 0, 0x4, 0, F32(2, 2, 3), F32(2, 1, 3), F32(2, 1, 3), F32(2, 1, 3), ROWS(GEN_APART, 2), F32(2)),
    LOSS("", CASE_BF16, 0x7, 0, F32(3, 2, 3, 3), F32(3, 2, 3, 3), F32(3, 2, 3, 3), F32(3, 2, 3, 3), ROWS(GEN_NORMAL, 3),
         F32(3)),
    LOSS("", 0, 0x7, 0, F32(2, 4, 32, 33), F32(2, 4, 32, 33), F32(2, 4, 32, 33), F32(2, 4, 32, 33), ROWS(GEN_NORMAL, 2),
         F32(2)),
    LOSS("", 0, 0xf, 0, F32(1), F32(1), F32(1), F32(1), ROWS(GEN_POSITIVE, 1), F32(1)),
};

#define REFUSED(attrs, words, ...)                                                                                     \
  {                                                                                                                    \
    "diffusion_loss", attrs, words, 6, { __VA_ARGS__ }                                                                 \
  }

const op_refusal refusals_loss[] = {
    REFUSED("learned=1", "out is f32 [2,3,4], expected [2,6,4]", F32(2, 3, 4), F32(2, 3, 4), F32(2, 3, 4), F32(2, 3, 4),
            ROWS(GEN_NORMAL, 2), ABSENT),
    REFUSED("", "out is f32 [2,6], expected [2,3]", F32(2, 6), F32(2, 3), F32(2, 3), F32(2, 3), ROWS(GEN_NORMAL, 2),
            ABSENT),
    REFUSED("learned=1", "x0 is f32 [4], expected [N,C,…]", F32(4), F32(4), F32(4), F32(4), ROWS(GEN_NORMAL, 4),
            ABSENT),
    REFUSED("", "noise is f32 [1,3]", F32(2, 3), F32(2, 3), F32(2, 3), F32(1, 3), ROWS(GEN_NORMAL, 2), ABSENT),
    REFUSED("", "rows is f32 [2,9], expected f64 [2,9]", F32(2, 3), F32(2, 3), F32(2, 3), F32(2, 3), F32(2, 9), ABSENT),
    REFUSED("", "weight is f32 [3], expected f32 [2]", F32(2, 3), F32(2, 3), F32(2, 3), F32(2, 3), ROWS(GEN_NORMAL, 2),
            F32(3)),
};
OP_FAMILY(loss);
