/* DDIM. Source: Song et al. 2021, equation 12; guided-diffusion ddim_sample. */
#include <math.h>

#include "diffusion/sampler.h"

static void ddim_row(const sl_diffusion *d, int64_t i, double eta, double *row) {
  const sl_schedule *s = d->schedule;
  double a = s->alphas_cumprod[i], prev = s->alphas_cumprod_prev[i];
  double sigma = eta * sqrt((1 - prev) / (1 - a)) * sqrt(1 - a / prev);
  row[SL_UPDATE_E_X] = s->sqrt_recip_alphas_cumprod[i];
  row[SL_UPDATE_E_DIV] = s->sqrt_recipm1_alphas_cumprod[i];
  row[SL_UPDATE_NEXT_X0] = sqrt(prev);
  double rest = 1 - prev - sigma * sigma; /* below 0 by rounding alone where eta is 1 */
  row[SL_UPDATE_NEXT_E] = sqrt(eta <= 1 && rest < 0 ? 0 : rest);
  row[SL_UPDATE_SIGMA] = i > 0 ? sigma : 0;
}

static bool ddim_needs_noise(double eta) { return eta != 0; }

const sl_sampler_kind sl_sampler_ddim = {"ddim", ddim_row, ddim_needs_noise, .own_variance = false};
