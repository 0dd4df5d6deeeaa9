/* AdamW for one element, shared by C and CUDA. Source: Loshchilov and Hutter 2019, algorithm 2; torch.optim.AdamW. */
#ifndef SL_OPS_ADAMW_MATH_H
#define SL_OPS_ADAMW_MATH_H

#include <math.h>

#include "base/host_device.h"
#include "ops/kernels.h"

#define SL_SQUARES_BLOCKS 512 /* parts of a sum of squares, whatever computes them */
SL_HD int64_t sl_squares_part(int64_t n) { return ((n + SL_SQUARES_BLOCKS - 1) / SL_SQUARES_BLOCKS + 63) / 64 * 64; }

/* Constants rounded once from double: 1 - beta taken in float would be off by 1e-5 and more. */
typedef struct sl_adamw_f32 {
  float grad_scale, keep, beta1, rest1, beta2, rest2, rate, inverse_root2, eps;
  float decay[4], rest[4];
  double clip;
  bool leave_gradients;
} sl_adamw_f32;

static inline sl_adamw_f32 sl_adamw_round(const sl_adamw *a) {
  sl_adamw_f32 k;
  k.grad_scale = (float)a->grad_scale;
  k.keep = (float)(1.0 - a->lr * a->weight_decay);
  k.beta1 = (float)a->beta1, k.rest1 = (float)(1.0 - a->beta1);
  k.beta2 = (float)a->beta2, k.rest2 = (float)(1.0 - a->beta2);
  k.rate = (float)(a->lr / a->correction1);
  k.inverse_root2 = (float)(1.0 / sqrt(a->correction2));
  k.eps = (float)a->eps;
  k.clip = a->clip;
  k.leave_gradients = a->leave_gradients;
  for (int i = 0; i < 4; i++) k.decay[i] = (float)a->ema_decay[i], k.rest[i] = (float)(1.0 - a->ema_decay[i]);
  return k;
}

/* What gradients are multiplied by, from the sum of their squares (NULL: they are not clipped). False where that sum,
 * or that of the losses (NULL: not looked at), is not finite: then nothing is to be written. Source: torch's
 * clip_grad_norm_. */
SL_HD bool sl_adamw_scale(const sl_adamw_f32 *k, const double *gradients, const double *losses, float *scale) {
  *scale = k->grad_scale;
  if (losses && !(*losses - *losses == 0.0)) return false;
  if (!gradients) return true;
  if (!(*gradients - *gradients == 0.0)) return false;
  double norm = sqrt(*gradients) * (double)k->grad_scale;
  if (k->clip > 0.0 && norm > k->clip) *scale = (float)(k->clip / (norm + 1e-6)) * k->grad_scale;
  return true;
}

SL_HD void sl_adamw_element(const sl_adamw_f32 *k, float *p, float g, float *m, float *v) {
  float grad = g * k->grad_scale;
  float m1 = k->beta1 * *m + k->rest1 * grad, v1 = k->beta2 * *v + k->rest2 * (grad * grad);
  *m = m1, *v = v1;
  *p = k->keep * *p - k->rate * m1 / (sqrtf(v1) * k->inverse_root2 + k->eps);
}

SL_HD float sl_ema_element(float decay, float rest, float ema, float p) { return decay * ema + rest * p; }

#endif
