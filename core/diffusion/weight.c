/* Loss weights. */
#include "diffusion/weight.h"

#include <math.h>

static double min_snr(double snr, double gamma, sl_predict predict) {
  double least = snr < gamma ? snr : gamma;
  switch (predict) {
    case SL_PREDICT_X0: return least;
    case SL_PREDICT_V: return least / (snr + 1.0);
    case SL_PREDICT_EPS: break;
  }
  return least / snr;
}

static sl_status check_weight(const sl_weight *w) {
  if (w->kind == SL_WEIGHT_MIN_SNR)
    SL_REQUIRE(w->gamma > 0 && isfinite(w->gamma), ARG, "weight.min_snr: gamma is %g, expected a finite number above 0",
               w->gamma);
  if (w->kind == SL_WEIGHT_P2) {
    SL_REQUIRE(w->gamma >= 0 && isfinite(w->gamma), ARG, "weight.p2: gamma is %g, expected a finite number, 0 or above",
               w->gamma);
    SL_REQUIRE(w->k >= 0 && isfinite(w->k), ARG, "weight.p2: k is %g, expected a finite number, 0 or above", w->k);
  }
  if (w->kind == SL_WEIGHT_CUSTOM) SL_REQUIRE(w->fn, ARG, "weight.custom: the function is missing");
  return SL_STATUS_OK;
}

sl_status sl_weight_table(const sl_weight *w, const sl_schedule *s, sl_predict predict, double *out) {
  static const char *const names[] = {"constant", "min_snr", "p2", "custom"};
  SL_TRY(check_weight(w));
  for (int64_t i = 0; i < s->T; i++) {
    double snr = s->snr[i], value = 1.0;
    switch (w->kind) {
      case SL_WEIGHT_CONSTANT: break;
      case SL_WEIGHT_MIN_SNR: value = min_snr(snr, w->gamma, predict); break;
      case SL_WEIGHT_P2: value = 1.0 / pow(w->k + snr, w->gamma); break;
      case SL_WEIGHT_CUSTOM: SL_TRY(w->fn(w->user, s->timestep_map[i], snr, predict, &value)); break;
    }
    SL_REQUIRE(value >= 0 && isfinite(value), ARG,
               "weight.%s: the weight of t = %lld is %g, expected a finite number, 0 or above", names[w->kind],
               (long long)s->timestep_map[i], value);
    out[i] = value;
  }
  return SL_STATUS_OK;
}
