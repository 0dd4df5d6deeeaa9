/* Ancestral sampling. Source: Ho et al. 2020, Algorithm 2; guided-diffusion p_sample. */
#include "diffusion/sampler.h"

static sl_value *ddpm_step(sl_diffusion *d, sl_value *out, sl_value *x, sl_value *t, sl_value *noise, double eta,
                           bool clip, sl_value **pred_xstart) {
  (void)eta;
  return sl_p_sample(d, out, x, t, noise, clip, pred_xstart);
}

static bool ddpm_needs_noise(double eta) {
  (void)eta;
  return true;
}

const sl_sampler_kind sl_sampler_ddpm = {"ddpm", ddpm_step, ddpm_needs_noise};
