/* Ancestral sampling. Source: Ho et al. 2020, Algorithm 2; guided-diffusion p_sample. */
#include <math.h>

#include "diffusion/sampler.h"

static void ddpm_row(const sl_diffusion *d, int64_t i, double eta, double *row) {
  const sl_schedule *s = d->schedule;
  (void)eta;
  row[SL_UPDATE_NEXT_X0] = s->posterior_mean_coef1[i];
  row[SL_UPDATE_NEXT_X] = s->posterior_mean_coef2[i];
  row[SL_UPDATE_SIGMA] = i > 0;
  if (d->variance == SL_VARIANCE_LEARNED) {
    row[SL_UPDATE_LOG_HIGH] = sl_diffusion_number(d, SL_TABLE_log_betas, i);
    row[SL_UPDATE_LOG_LOW] = s->posterior_log_variance_clipped[i];
  } else if (i > 0) {
    bool large = d->variance == SL_VARIANCE_FIXED_LARGE;
    row[SL_UPDATE_SIGMA] = exp(0.5 * (large ? sl_diffusion_number(d, SL_TABLE_fixed_large_log_variance, i)
                                            : s->posterior_log_variance_clipped[i]));
  }
}

static bool ddpm_needs_noise(double eta) {
  (void)eta;
  return true;
}

const sl_sampler_kind sl_sampler_ddpm = {"ddpm", ddpm_row, ddpm_needs_noise, .own_variance = true};
