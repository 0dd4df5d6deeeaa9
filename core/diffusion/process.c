#include "diffusion/process.h"

#include <math.h>
#include <string.h>

#include "ops/ops.h"

sl_value *sl_diffusion_at(sl_diffusion *d, sl_diffusion_table table, sl_value *t, const sl_value *like) {
  if (!t || !like) return NULL;
  sl_graph *g = t->node->graph;
  sl_value *rows = sl_gather(sl_table(g, sl_diffusion_table_name(table), d->table[table]), t);
  int64_t dim[SL_MAX_RANK] = {t->shape.dim[0]};
  for (int i = 1; i < like->shape.rank; i++) dim[i] = 1;
  return like->shape.rank > 1 ? sl_reshape(rows, like->shape.rank, dim) : rows;
}
#define AT(name, t, like) sl_diffusion_at(d, SL_TABLE_##name, (t), (like))

sl_value *sl_diffusion_model_t(sl_diffusion *d, sl_value *t) {
  if (!t) return NULL;
  return sl_gather(sl_table(t->node->graph, "timestep_map", d->timestep_map), t);
}

/* --- q --- */

sl_value *sl_q_sample(sl_diffusion *d, sl_value *x0, sl_value *t, sl_value *noise) {
  return sl_add(sl_mul(AT(sqrt_alphas_cumprod, t, x0), x0), sl_mul(AT(sqrt_one_minus_alphas_cumprod, t, x0), noise));
}

sl_gaussian sl_q_mean_variance(sl_diffusion *d, sl_value *x0, sl_value *t) {
  sl_gaussian q = {0};
  q.mean = sl_mul(AT(sqrt_alphas_cumprod, t, x0), x0);
  q.log_variance = AT(log_one_minus_alphas_cumprod, t, t);
  q.variance = sl_add_scalar(sl_neg(AT(alphas_cumprod, t, t)), 1.0);
  return q;
}

static sl_value *posterior_mean(sl_diffusion *d, sl_value *x0, sl_value *xt, sl_value *t) {
  return sl_add(sl_mul(AT(posterior_mean_coef1, t, x0), x0), sl_mul(AT(posterior_mean_coef2, t, x0), xt));
}

sl_gaussian sl_q_posterior(sl_diffusion *d, sl_value *x0, sl_value *xt, sl_value *t) {
  return (sl_gaussian){.mean = posterior_mean(d, x0, xt, t),
                       .variance = AT(posterior_variance, t, t),
                       .log_variance = AT(posterior_log_variance_clipped, t, t)};
}

/* --- p --- */

/* out's channels: the prediction, then (learned variance) as many for the variance. */
static sl_value *prediction_part(sl_diffusion *d, sl_value *out, int part) {
  if (d->variance != SL_VARIANCE_LEARNED || !out) return out;
  int64_t c = out->shape.dim[1] / 2;
  return sl_slice(out, 1, part * c, part * c + c - 1, 1);
}

sl_value *sl_diffusion_prediction(sl_diffusion *d, sl_value *out) { return prediction_part(d, out, 0); }

static sl_value *log_variance(sl_diffusion *d, sl_value *out, sl_value *x, sl_value *t) {
  if (d->variance == SL_VARIANCE_FIXED_SMALL) return sl_expand(AT(posterior_log_variance_clipped, t, x), &x->shape);
  if (d->variance == SL_VARIANCE_FIXED_LARGE) return sl_expand(AT(fixed_large_log_variance, t, x), &x->shape);
  sl_value *f = sl_mul_scalar(sl_add_scalar(prediction_part(d, out, 1), 1.0), 0.5);
  return sl_add(sl_mul(f, AT(log_betas, t, x)),
                sl_mul(sl_add_scalar(sl_neg(f), 1.0), AT(posterior_log_variance_clipped, t, x)));
}

static sl_value *predict_xstart(sl_diffusion *d, sl_value *p, sl_value *x, sl_value *t) {
  switch (d->predict) {
    case SL_PREDICT_X0: return p;
    case SL_PREDICT_V:
      return sl_sub(sl_mul(AT(sqrt_alphas_cumprod, t, x), x), sl_mul(AT(sqrt_one_minus_alphas_cumprod, t, x), p));
    case SL_PREDICT_EPS: break;
  }
  return sl_sub(sl_mul(AT(sqrt_recip_alphas_cumprod, t, x), x), sl_mul(AT(sqrt_recipm1_alphas_cumprod, t, x), p));
}

sl_gaussian sl_p_mean_variance(sl_diffusion *d, sl_value *out, sl_value *x, sl_value *t, bool clip) {
  sl_gaussian p = {0};
  if (!out || !x || !t) return p;
  sl_value *x0 = predict_xstart(d, sl_diffusion_prediction(d, out), x, t);
  p.pred_xstart = clip ? sl_clamp(x0, -1.0, 1.0) : x0;
  p.mean = posterior_mean(d, p.pred_xstart, x, t);
  p.log_variance = log_variance(d, out, x, t);
  if (d->variance == SL_VARIANCE_FIXED_SMALL) { /* not the exponential of the clipped logarithm */
    p.variance = sl_expand(AT(posterior_variance, t, x), &x->shape);
  } else {
    p.variance = sl_exp(p.log_variance);
  }
  return p;
}

/* 0 where t is 0, else 1: no noise in the last step. [N,1,…]. */
static sl_value *not_last(sl_value *t, const sl_value *like) {
  if (!t || !like) return NULL;
  sl_value *m = sl_cast(sl_gt(t, sl_scalar(t->node->graph, 0, SL_I64)), SL_F32);
  int64_t dim[SL_MAX_RANK] = {t->shape.dim[0]};
  for (int i = 1; i < like->shape.rank; i++) dim[i] = 1;
  return sl_reshape(m, like->shape.rank, dim);
}

sl_value *sl_p_sample(sl_diffusion *d, sl_value *out, sl_value *x, sl_value *t, sl_value *noise, bool clip,
                      sl_value **pred_xstart) {
  sl_gaussian p = sl_p_mean_variance(d, out, x, t, clip);
  if (pred_xstart) *pred_xstart = p.pred_xstart;
  sl_value *sigma = sl_exp(sl_mul_scalar(p.log_variance, 0.5));
  return sl_add(p.mean, sl_mul(sl_mul(not_last(t, x), sigma), noise));
}

/* The noise that x and x0 imply. */
static sl_value *implied_eps(sl_diffusion *d, sl_value *x, sl_value *x0, sl_value *t) {
  return sl_div(sl_sub(sl_mul(AT(sqrt_recip_alphas_cumprod, t, x), x), x0), AT(sqrt_recipm1_alphas_cumprod, t, x));
}

sl_value *sl_ddim_sample(sl_diffusion *d, sl_value *out, sl_value *x, sl_value *t, sl_value *noise, double eta,
                         bool clip, sl_value **pred_xstart) {
  if (!out || !x || !t) return NULL;
  sl_value *x0 = predict_xstart(d, sl_diffusion_prediction(d, out), x, t);
  if (clip) x0 = sl_clamp(x0, -1.0, 1.0);
  if (pred_xstart) *pred_xstart = x0;
  sl_value *eps = implied_eps(d, x, x0, t), *prev = AT(alphas_cumprod_prev, t, x);
  sl_value *rest = sl_add_scalar(sl_neg(prev), 1.0); /* 1 - Aprev */
  if (eta == 0) return sl_add(sl_mul(x0, sl_sqrt(prev)), sl_mul(sl_sqrt(rest), eps));
  sl_value *a = AT(alphas_cumprod, t, x);
  sl_value *sigma = sl_mul(sl_sqrt(sl_div(rest, sl_add_scalar(sl_neg(a), 1.0))),
                           sl_sqrt(sl_add_scalar(sl_neg(sl_div(a, prev)), 1.0)));
  sigma = sl_mul_scalar(sigma, eta);
  sl_value *mean = sl_add(sl_mul(x0, sl_sqrt(prev)), sl_mul(sl_sqrt(sl_sub(rest, sl_square(sigma))), eps));
  return sl_add(mean, sl_mul(sl_mul(not_last(t, x), sigma), noise));
}

sl_value *sl_ddim_reverse(sl_diffusion *d, sl_value *out, sl_value *x, sl_value *t, bool clip, sl_value **pred_xstart) {
  if (!out || !x || !t) return NULL;
  sl_value *x0 = predict_xstart(d, sl_diffusion_prediction(d, out), x, t);
  if (clip) x0 = sl_clamp(x0, -1.0, 1.0);
  if (pred_xstart) *pred_xstart = x0;
  sl_value *next = AT(alphas_cumprod_next, t, x);
  return sl_add(sl_mul(x0, sl_sqrt(next)), sl_mul(sl_sqrt(sl_add_scalar(sl_neg(next), 1.0)), implied_eps(d, x, x0, t)));
}

/* --- the variational bound --- */

static sl_value *gaussian_kl(sl_value *mean1, sl_value *log1, sl_value *mean2, sl_value *log2) {
  sl_value *k = sl_add(sl_add_scalar(sl_sub(log2, log1), -1.0), sl_exp(sl_sub(log1, log2)));
  k = sl_add(k, sl_mul(sl_square(sl_sub(mean1, mean2)), sl_exp(sl_neg(log2))));
  return sl_mul_scalar(k, 0.5);
}

/* The standard normal's distribution function, in the references' tanh approximation. */
static sl_value *normal_cdf(sl_value *z) {
  sl_value *cube = sl_mul(sl_square(z), z);
  sl_value *u = sl_mul_scalar(sl_add(z, sl_mul_scalar(cube, 0.044715)), sqrt(2.0 / 3.14159265358979323846));
  return sl_mul_scalar(sl_add_scalar(sl_tanh(u), 1.0), 0.5);
}

/* -log p of 8-bit pixels under a Gaussian. */
static sl_value *discretized_nll(sl_value *x0, sl_value *mean, sl_value *log_scale) {
  if (!x0) return NULL;
  sl_graph *g = x0->node->graph;
  sl_value *centred = sl_sub(x0, mean), *inv = sl_exp(sl_neg(log_scale));
  sl_value *plus = normal_cdf(sl_mul(inv, sl_add_scalar(centred, 1.0 / 255.0)));
  sl_value *minus = normal_cdf(sl_mul(inv, sl_add_scalar(centred, -1.0 / 255.0)));
  sl_value *least = sl_scalar(g, 1e-12, SL_F32);
  sl_value *log_plus = sl_log(sl_maximum(plus, least));
  sl_value *log_rest = sl_log(sl_maximum(sl_add_scalar(sl_neg(minus), 1.0), least));
  sl_value *log_mid = sl_log(sl_maximum(sl_sub(plus, minus), least));
  sl_value *low = sl_lt(x0, sl_scalar(g, -0.999, SL_F32)), *high = sl_gt(x0, sl_scalar(g, 0.999, SL_F32));
  return sl_neg(sl_where(low, log_plus, sl_where(high, log_rest, log_mid)));
}

static sl_value *vb_of(sl_diffusion *d, sl_value *mean, sl_value *log_var, sl_value *x0, sl_value *xt, sl_value *t) {
  if (!mean || !log_var) return NULL;
  sl_value *true_mean = posterior_mean(d, x0, xt, t), *true_log = AT(posterior_log_variance_clipped, t, x0);
  sl_value *kl = sl_mean_rest(gaussian_kl(true_mean, true_log, mean, log_var));
  sl_value *nll = sl_mean_rest(discretized_nll(x0, mean, sl_mul_scalar(log_var, 0.5)));
  sl_value *first = sl_eq(t, sl_scalar(t->node->graph, 0, SL_I64));
  return sl_mul_scalar(sl_where(first, nll, kl), 1.0 / log(2.0));
}

sl_value *sl_vb_bpd(sl_diffusion *d, sl_value *out, sl_value *x0, sl_value *xt, sl_value *t, bool clip) {
  sl_gaussian p = sl_p_mean_variance(d, out, xt, t, clip);
  return vb_of(d, p.mean, p.log_variance, x0, xt, t);
}

/* --- training --- */

sl_value *sl_diffusion_target(sl_diffusion *d, sl_value *x0, sl_value *t, sl_value *noise) {
  switch (d->predict) {
    case SL_PREDICT_X0: return x0;
    case SL_PREDICT_V:
      return sl_sub(sl_mul(AT(sqrt_alphas_cumprod, t, x0), noise),
                    sl_mul(AT(sqrt_one_minus_alphas_cumprod, t, x0), x0));
    case SL_PREDICT_EPS: break;
  }
  return noise;
}

sl_losses sl_diffusion_losses(sl_diffusion *d, sl_value *out, sl_value *x0, sl_value *xt, sl_value *t, sl_value *noise,
                              sl_value *weight) {
  sl_losses l = {0};
  if (!out || !x0 || !xt || !t) return l;
  bool learned = d->variance == SL_VARIANCE_LEARNED;
  if (!noise && d->predict == SL_PREDICT_X0) noise = x0; /* its coefficient is 0 */
  sl_value *rows = sl_gather(sl_table(t->node->graph, "loss_rows", d->loss_rows), t);
  l.loss = sl_diffusion_loss(out, x0, xt, noise, rows, weight ? sl_gather(weight, t) : NULL, learned);
  l.mse = sl_output(l.loss, 1);
  l.vb = learned ? sl_output(l.loss, 2) : NULL;
  return l;
}
