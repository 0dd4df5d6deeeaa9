/* Loss weights: tables over t. A weight multiplies the squared error of what the network predicts. */
#ifndef SL_DIFFUSION_WEIGHT_H
#define SL_DIFFUSION_WEIGHT_H

#include "diffusion/schedule.h"
#include "sluice/processes.h"

typedef enum sl_weight_kind {
  SL_WEIGHT_CONSTANT, /* 1 */
  /* With m = min(snr, gamma): m/snr for eps, m for x0, m/(snr + 1) for v. Hang et al. 2023, section 3.4. */
  SL_WEIGHT_MIN_SNR,
  /* 1 / (k + snr)^gamma, the same number whatever is predicted. Stated for eps: Choi et al. 2022, equation 8. */
  SL_WEIGHT_P2,
  SL_WEIGHT_CUSTOM,
} sl_weight_kind;

typedef struct sl_weight {
  sl_weight_kind kind;
  double gamma, k; /* min_snr: gamma > 0; p2: gamma >= 0, k >= 0 */
  /* custom: the weight of original timestep t; a status other than OK is handed on. */
  sl_status (*fn)(void *user, int64_t t, double snr, sl_predict predict, double *weight);
  void *user;
} sl_weight;

/* out [s->T], the weight of every step of s. ARG: gamma, k, or a weight that is negative or not finite, with its t. */
SL_MUST_USE sl_status sl_weight_table(const sl_weight *w, const sl_schedule *s, sl_predict predict, double *out);

#endif
