/* Noise schedules: betas and everything that follows from them, in double.
 * Source: openai/guided-diffusion gaussian_diffusion.py; Ho et al. 2020; Nichol and Dhariwal 2021 (cosine).
 * t counts from 0 to T-1. */
#ifndef SL_DIFFUSION_SCHEDULE_H
#define SL_DIFFUSION_SCHEDULE_H

#include "base/context.h"

/* X(field): double [T] each. With a = 1 - beta and A = alphas_cumprod:
 * alphas_cumprod_prev begins with 1, alphas_cumprod_next ends with 0; posterior_variance = beta (1 - A_prev) / (1 - A);
 * posterior_log_variance_clipped is its log, element 0 replaced by element 1 (log beta_0 if T is 1);
 * posterior_mean_coef1 = beta sqrt(A_prev) / (1 - A), posterior_mean_coef2 = (1 - A_prev) sqrt(a) / (1 - A);
 * sqrt_recip = sqrt(1/A), sqrt_recipm1 = sqrt(1/A - 1); snr = A / (1 - A). All are finite. */
#define SL_SCHEDULE_FIELDS(X)                                                                                          \
  X(betas)                                                                                                             \
  X(alphas_cumprod)                                                                                                    \
  X(alphas_cumprod_prev)                                                                                               \
  X(alphas_cumprod_next)                                                                                               \
  X(sqrt_alphas_cumprod)                                                                                               \
  X(sqrt_one_minus_alphas_cumprod)                                                                                     \
  X(log_one_minus_alphas_cumprod)                                                                                      \
  X(sqrt_recip_alphas_cumprod)                                                                                         \
  X(sqrt_recipm1_alphas_cumprod)                                                                                       \
  X(posterior_variance)                                                                                                \
  X(posterior_log_variance_clipped)                                                                                    \
  X(posterior_mean_coef1)                                                                                              \
  X(posterior_mean_coef2)                                                                                              \
  X(snr)

typedef struct sl_schedule {
  sl_context *ctx;
  const char *name; /* "linear", "cosine", or "custom"; a respaced one keeps its name */
  int64_t T;
#define X(field) double *field;
  SL_SCHEDULE_FIELDS(X)
#undef X
  int64_t *timestep_map; /* [T]: the original timestep, what the network gets; 0 … T-1 unless respaced */
} sl_schedule;

/* The caller owns *out. ARG names T, or the first beta that is out of range.
 * linear: from 1e-4 to 0.02 in equal steps, times 1000/T (so T is at least 21);
 * cosine: beta_i = min(1 - f((i+1)/T) / f(i/T), 0.999), f(u) = cos((u + 0.008)/1.008 pi/2)^2 ("squaredcos_cap_v2"). */
SL_MUST_USE sl_status sl_schedule_linear(sl_context *ctx, int64_t T, sl_schedule **out);
SL_MUST_USE sl_status sl_schedule_cosine(sl_context *ctx, int64_t T, sl_schedule **out);
/* "linear", "cosine" or "squaredcos_cap_v2"; ARG lists the names. */
SL_MUST_USE sl_status sl_schedule_named(sl_context *ctx, const char *name, int64_t T, sl_schedule **out);
/* betas [T], copied, each above 0 and below 1. */
SL_MUST_USE sl_status sl_schedule_from_betas(sl_context *ctx, const double *betas, int64_t T, sl_schedule **out);
/* The library's own copy of a schedule's name; "custom" for any that it does not know, and for NULL. */
const char *sl_schedule_known_name(const char *name);
void sl_schedule_free(sl_schedule *s); /* NULL is allowed */

#endif
