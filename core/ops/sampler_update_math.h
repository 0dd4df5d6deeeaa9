/* A sampling step for one element, shared by C and CUDA; the formulas stand in sampler_update.h. Products and sums in
 * the order of diffusion/process.c, sl_p_sample and sl_ddim_sample. */
#ifndef SL_OPS_SAMPLER_UPDATE_MATH_H
#define SL_OPS_SAMPLER_UPDATE_MATH_H

#include <stdbool.h>

#include "ops/elementwise_math.h"
#include "ops/sampler_update.h"

/* A row of the table in float. */
typedef struct sl_update_row {
  float x_x, x_out, e_x, e_div, next_x0, next_x, next_e, sigma, log_high, log_low;
} sl_update_row;

SL_HD sl_update_row sl_update_row_of(const double *row) {
  sl_update_row k;
  k.x_x = (float)row[SL_UPDATE_X_X], k.x_out = (float)row[SL_UPDATE_X_OUT];
  k.e_x = (float)row[SL_UPDATE_E_X], k.e_div = (float)row[SL_UPDATE_E_DIV];
  k.next_x0 = (float)row[SL_UPDATE_NEXT_X0], k.next_x = (float)row[SL_UPDATE_NEXT_X];
  k.next_e = (float)row[SL_UPDATE_NEXT_E], k.sigma = (float)row[SL_UPDATE_SIGMA];
  k.log_high = (float)row[SL_UPDATE_LOG_HIGH], k.log_low = (float)row[SL_UPDATE_LOG_LOW];
  return k;
}

/* The prediction with labels led away from that without. Source: Ho and Salimans 2022; DiT models.py, forward_with_cfg.
 */
SL_HD float sl_update_guide(float labelled, float unlabelled, float scale) {
  return unlabelled + scale * (labelled - unlabelled);
}

SL_HD float sl_update_x0(const sl_update_row *k, float p, float x, bool clip) {
  const float x0 = k->x_x * x + k->x_out * p;
  return clip ? sl_clamp_f(x0, -1.0f, 1.0f) : x0;
}

/* Factor of the noise where the variance is learned. */
SL_HD float sl_update_deviation(const sl_update_row *k, float v) {
  const float f = (v + 1.0f) * 0.5f;
  return k->sigma * sl_expf((f * k->log_high + (1.0f - f) * k->log_low) * 0.5f);
}

SL_HD float sl_update_next(const sl_update_row *k, float x0, float x, float deviation, float noise) {
  float mean = k->next_x0 * x0 + k->next_x * x;
  if (k->next_e != 0.0f) mean += k->next_e * ((k->e_x * x - x0) / k->e_div);
  return mean + deviation * noise;
}

#endif
