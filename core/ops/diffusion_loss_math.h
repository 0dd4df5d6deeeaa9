/* The diffusion's loss for one element, shared by C and CUDA: the squared error of what the network predicts, and the
 * variational bound, which trains the learned variance alone (the gradient of its mean by the network's output is
 * stopped). Source: openai/guided-diffusion gaussian_diffusion.py (training_losses, _vb_terms_bpd) and losses.py;
 * Nichol and Dhariwal 2021, L_hybrid. Sums and products stand in the order of diffusion/process.c, sl_vb_bpd: the bound
 * is a difference of like numbers. */
#ifndef SL_OPS_DIFFUSION_LOSS_MATH_H
#define SL_OPS_DIFFUSION_LOSS_MATH_H

#include <stdbool.h>

#include "ops/diffusion_loss.h"
#include "ops/elementwise_math.h"

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF /* as gcc in standard C: each product is rounded, as in the composed form */
#endif

/* A sample's elements are summed in parts of this many, then the parts in order: the result does not depend on threads.
 */
#define SL_LOSS_PART 4096
SL_HD int64_t sl_loss_parts(int64_t M) { return M <= SL_LOSS_PART ? 1 : (M + SL_LOSS_PART - 1) / SL_LOSS_PART; }

/* A row of the table in float. */
typedef struct sl_loss_row {
  float target_noise, target_x0, x_xt, x_out, mean_x, mean_xt, log_high, log_low;
  bool first;
} sl_loss_row;

SL_HD sl_loss_row sl_loss_row_of(const double *row) {
  sl_loss_row k;
  k.target_noise = (float)row[SL_LOSS_TARGET_NOISE], k.target_x0 = (float)row[SL_LOSS_TARGET_X0];
  k.x_xt = (float)row[SL_LOSS_X_XT], k.x_out = (float)row[SL_LOSS_X_OUT];
  k.mean_x = (float)row[SL_LOSS_MEAN_X], k.mean_xt = (float)row[SL_LOSS_MEAN_XT];
  k.log_high = (float)row[SL_LOSS_LOG_HIGH], k.log_low = (float)row[SL_LOSS_LOG_LOW];
  k.first = row[SL_LOSS_FIRST] >= 1.0;
  return k;
}

/* One element: the network's prediction p and, where the variance is learned, s beside it. By value: behind a pointer
 * it would keep the CPU's loops from becoming vectors. */
typedef struct sl_loss_point {
  float p, s, x0, xt, noise;
} sl_loss_point;

/* --- values --- */

/* The target less the prediction. */
SL_HD float sl_loss_miss(const sl_loss_row *k, sl_loss_point a) {
  return k->target_noise * a.noise + k->target_x0 * a.x0 - a.p;
}

SL_HD float sl_loss_mean(const sl_loss_row *k, sl_loss_point a) {
  const float x = k->x_xt * a.xt + k->x_out * a.p;
  return k->mean_x * x + k->mean_xt * a.xt;
}

/* The posterior's mean less the network's. */
SL_HD float sl_loss_gap(const sl_loss_row *k, sl_loss_point a) {
  return k->mean_x * a.x0 + k->mean_xt * a.xt - sl_loss_mean(k, a);
}

SL_HD float sl_loss_log_variance(const sl_loss_row *k, sl_loss_point a) {
  const float f = (a.s + 1.0f) * 0.5f;
  return f * k->log_high + (1.0f - f) * k->log_low;
}

/* KL divergence of the network's Gaussian from the posterior. */
SL_HD float sl_loss_kl(const sl_loss_row *k, sl_loss_point a) {
  const float v = sl_loss_log_variance(k, a), gap = sl_loss_gap(k, a);
  return (v - k->log_low - 1.0f + sl_expf(k->log_low - v) + gap * gap * sl_expf(-v)) * 0.5f;
}

/* The standard normal's distribution function in the references' tanh form, and its derivative. */
#define SL_LOSS_CDF_K 0.79788456080286536f
#define SL_LOSS_CDF_C 0.044715f
SL_HD float sl_loss_cdf(float z) { return (sl_tanhf((z + z * z * z * SL_LOSS_CDF_C) * SL_LOSS_CDF_K) + 1.0f) * 0.5f; }
SL_HD float sl_loss_cdf_d(float z) {
  const float u = (z + z * z * z * SL_LOSS_CDF_C) * SL_LOSS_CDF_K;
  return 0.5f * sl_tanh_d(u) * (SL_LOSS_CDF_K * (1.0f + 3.0f * SL_LOSS_CDF_C * z * z));
}

/* An 8-bit pixel: its value x0 and the half step to both sides of it, in units of the standard deviation. The last
 * pixels' ranges are open. */
#define SL_LOSS_HALF_STEP (1.0f / 255.0f)
#define SL_LOSS_LEAST 1e-12f
typedef struct sl_loss_pixel {
  float inverse, centred, plus, minus; /* 1 / deviation; x0 less the mean; both ends, normalised */
  bool lowest, highest;
} sl_loss_pixel;

SL_HD sl_loss_pixel sl_loss_pixel_of(const sl_loss_row *k, sl_loss_point a) {
  sl_loss_pixel x;
  x.inverse = sl_expf(sl_loss_log_variance(k, a) * -0.5f);
  x.centred = a.x0 - sl_loss_mean(k, a);
  x.plus = x.inverse * (x.centred + SL_LOSS_HALF_STEP), x.minus = x.inverse * (x.centred - SL_LOSS_HALF_STEP);
  x.lowest = a.x0 < -0.999f;
  x.highest = a.x0 > 0.999f;
  return x;
}

SL_HD float sl_loss_chance(sl_loss_pixel x) {
  const float plus = sl_loss_cdf(x.plus), minus = sl_loss_cdf(x.minus);
  return x.lowest ? plus : x.highest ? 1.0f - minus : plus - minus;
}

/* -log of its likelihood. */
SL_HD float sl_loss_nll(const sl_loss_row *k, sl_loss_point a) {
  const sl_loss_pixel x = sl_loss_pixel_of(k, a);
  return -logf(sl_maximum_f(sl_loss_chance(x), SL_LOSS_LEAST));
}

/* --- a sample's --- */

typedef struct sl_loss_result {
  float loss, mse, vb, error; /* error: mse without weight; vb in bits per dimension, 0 unless learned */
} sl_loss_result;
#define SL_LOSS_BITS 1.4426950408889634f /* 1 / ln 2 */

/* From the sums over its M elements; weight NULL: 1. */
SL_HD sl_loss_result sl_loss_finish(double squares, double bound, int64_t M, const float *weight, bool learned) {
  sl_loss_result r;
  r.error = (float)(squares / (double)M);
  r.mse = weight ? r.error * *weight : r.error;
  r.vb = learned ? (float)(bound / (double)M) * SL_LOSS_BITS : 0.0f;
  r.loss = learned ? r.mse + r.vb : r.mse;
  return r;
}

/* What a sample's incoming gradients (NULL: 0) and its weight (NULL: 1) give each element's terms. */
typedef struct sl_loss_scale {
  float square, bound; /* d loss / d (miss^2 / 2), and by the element's term of the bound */
} sl_loss_scale;

SL_HD sl_loss_scale sl_loss_scale_of(const float *dmse, const float *dvb, const float *weight, int64_t M) {
  sl_loss_scale g;
  g.square = dmse ? 2.0f * *dmse * (weight ? *weight : 1.0f) / (float)M : 0.0f;
  g.bound = dvb ? *dvb * SL_LOSS_BITS / (float)M : 0.0f;
  return g;
}

/* --- derivatives, in sl_loss_point's places --- */

SL_HD sl_loss_point sl_loss_square_d(const sl_loss_row *k, sl_loss_point a, float scale) {
  const float d = scale * sl_loss_miss(k, a);
  sl_loss_point r = {-d, 0.0f, k->target_x0 * d, 0.0f, k->target_noise * d};
  return r;
}

/* r and what the bound adds to it. p gets nothing: that is what is stopped. */
SL_HD sl_loss_point sl_loss_kl_d(const sl_loss_row *k, sl_loss_point a, float scale, sl_loss_point r) {
  const float v = sl_loss_log_variance(k, a), gap = sl_loss_gap(k, a), inverse = sl_expf(-v);
  const float d = scale * gap * inverse * k->mean_x;
  r.s += scale * 0.25f * (1.0f - sl_expf(k->log_low - v) - gap * gap * inverse) * (k->log_high - k->log_low);
  r.x0 += d;
  r.xt -= d * k->x_xt;
  return r;
}

SL_HD sl_loss_point sl_loss_nll_d(const sl_loss_row *k, sl_loss_point a, float scale, sl_loss_point r) {
  const sl_loss_pixel x = sl_loss_pixel_of(k, a);
  const float chance = sl_loss_chance(x), d = chance >= SL_LOSS_LEAST ? -scale / chance : 0.0f;
  const float plus = x.highest ? 0.0f : d * sl_loss_cdf_d(x.plus),
              minus = x.lowest ? 0.0f : -d * sl_loss_cdf_d(x.minus);
  const float centred = x.inverse * (plus + minus);
  r.s -= 0.25f * (plus * x.plus + minus * x.minus) * (k->log_high - k->log_low);
  r.x0 += centred;
  r.xt -= centred * (k->mean_x * k->x_xt + k->mean_xt);
  return r;
}

#endif
