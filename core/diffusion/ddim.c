/* DDIM. Source: Song et al. 2021, equation 12; guided-diffusion ddim_sample. */
#include "diffusion/sampler.h"

static bool ddim_needs_noise(double eta) { return eta != 0; }

const sl_sampler_kind sl_sampler_ddim = {"ddim", sl_ddim_sample, ddim_needs_noise};
