/* Noise schedules. */
#include "diffusion/schedule.h"

#include <math.h>
#include <string.h>

#define MAX_STEPS ((int64_t)1 << 24)
#define PI 3.14159265358979323846

enum {
  FIELD_COUNT = 0
#define X(field) +1
  SL_SCHEDULE_FIELDS(X)
#undef X
};

static sl_status schedule_alloc(sl_context *ctx, int64_t T, sl_schedule **out) {
  SL_REQUIRE(T >= 1 && T <= MAX_STEPS, ARG, "schedule: steps is %lld, expected 1 … %lld", (long long)T,
             (long long)MAX_STEPS);
  sl_schedule *s = sl_alloc_zero(ctx, sizeof *s);
  if (!s) return SL_STATUS_OOM;
  s->ctx = ctx;
  s->T = T;
  s->name = "custom";
  double *block = sl_alloc(ctx, (size_t)T * FIELD_COUNT * sizeof *block);
  s->timestep_map = sl_alloc(ctx, (size_t)T * sizeof *s->timestep_map);
  s->betas = block; /* the owner of the block: the first field */
  if (!block || !s->timestep_map) {
    sl_schedule_free(s);
    return SL_STATUS_OOM;
  }
#define X(field) s->field = block, block += T;
  SL_SCHEDULE_FIELDS(X)
#undef X
  for (int64_t i = 0; i < T; i++) s->timestep_map[i] = i;
  *out = s;
  return SL_STATUS_OK;
}

void sl_schedule_free(sl_schedule *s) {
  if (!s) return;
  sl_free(s->ctx, s->betas);
  sl_free(s->ctx, s->timestep_map);
  sl_free(s->ctx, s);
}

static sl_status fill_cumprod(sl_schedule *s) {
  double A = 1.0;
  for (int64_t i = 0; i < s->T; i++) {
    double beta = s->betas[i];
    SL_REQUIRE(beta > 0 && beta < 1, ARG, "schedule: beta at i = %lld is %g, expected above 0 and below 1",
               (long long)i, beta);
    s->alphas_cumprod_prev[i] = A;
    A *= 1.0 - beta;
    SL_REQUIRE(A < 1, ARG, "schedule: beta at i = %lld is %g, so small that 1 - beta rounds to 1", (long long)i, beta);
    /* 1/A would leave the range of float32, in which networks compute. */
    SL_REQUIRE(A > 1e-37, ARG, "schedule: alphas_cumprod falls to %g at i = %lld: the betas are too large", A,
               (long long)i);
    s->alphas_cumprod[i] = A;
    if (i > 0) s->alphas_cumprod_next[i - 1] = A;
  }
  s->alphas_cumprod_next[s->T - 1] = 0.0;
  return SL_STATUS_OK;
}

/* Everything from the betas. */
static sl_status fill_fields(sl_schedule *s) {
  SL_TRY(fill_cumprod(s));
  for (int64_t i = 0; i < s->T; i++) {
    double beta = s->betas[i], A = s->alphas_cumprod[i], prev = s->alphas_cumprod_prev[i];
    s->sqrt_alphas_cumprod[i] = sqrt(A);
    s->sqrt_one_minus_alphas_cumprod[i] = sqrt(1.0 - A);
    s->log_one_minus_alphas_cumprod[i] = log(1.0 - A);
    s->sqrt_recip_alphas_cumprod[i] = sqrt(1.0 / A);
    s->sqrt_recipm1_alphas_cumprod[i] = sqrt(1.0 / A - 1.0);
    s->posterior_variance[i] = beta * (1.0 - prev) / (1.0 - A);
    s->posterior_mean_coef1[i] = beta * sqrt(prev) / (1.0 - A);
    s->posterior_mean_coef2[i] = (1.0 - prev) * sqrt(1.0 - beta) / (1.0 - A);
    s->snr[i] = A / (1.0 - A);
    if (i > 0) s->posterior_log_variance_clipped[i] = log(s->posterior_variance[i]);
  }
  /* The posterior's variance is 0 at t = 0, its log infinite. */
  s->posterior_log_variance_clipped[0] = s->T > 1 ? s->posterior_log_variance_clipped[1] : log(s->betas[0]);
  return SL_STATUS_OK;
}

const char *sl_schedule_known_name(const char *name) {
  if (name && !strcmp(name, "linear")) return "linear";
  return name && !strcmp(name, "cosine") ? "cosine" : "custom";
}

static sl_status finish(sl_schedule *s, sl_schedule **out) {
  sl_status status = fill_fields(s);
  if (status == SL_STATUS_OK) {
    *out = s;
  } else {
    sl_schedule_free(s);
  }
  return status;
}

sl_status sl_schedule_linear(sl_context *ctx, int64_t T, sl_schedule **out) {
  *out = NULL;
  SL_REQUIRE(T > 20, ARG, "schedule: steps is %lld, but a linear schedule scales its betas by 1000/steps: at least 21",
             (long long)T);
  sl_schedule *s;
  SL_TRY(schedule_alloc(ctx, T, &s));
  s->name = "linear";
  double scale = 1000.0 / (double)T, first = scale * 0.0001, last = scale * 0.02;
  double step = (last - first) / (double)(T - 1);
  for (int64_t i = 0; i < T; i++) s->betas[i] = i == T - 1 ? last : (double)i * step + first;
  return finish(s, out);
}

static double cosine_alpha_bar(double u) {
  double c = cos((u + 0.008) / 1.008 * PI / 2);
  return c * c;
}

sl_status sl_schedule_cosine(sl_context *ctx, int64_t T, sl_schedule **out) {
  *out = NULL;
  sl_schedule *s;
  SL_TRY(schedule_alloc(ctx, T, &s));
  s->name = "cosine";
  for (int64_t i = 0; i < T; i++) {
    double beta = 1.0 - cosine_alpha_bar((double)(i + 1) / (double)T) / cosine_alpha_bar((double)i / (double)T);
    s->betas[i] = beta < 0.999 ? beta : 0.999;
  }
  return finish(s, out);
}

sl_status sl_schedule_named(sl_context *ctx, const char *name, int64_t T, sl_schedule **out) {
  *out = NULL;
  if (!strcmp(name, "linear")) return sl_schedule_linear(ctx, T, out);
  if (!strcmp(name, "cosine") || !strcmp(name, "squaredcos_cap_v2")) return sl_schedule_cosine(ctx, T, out);
  return sl_fail(SL_STATUS_ARG, "schedule is \"%s\", expected \"linear\" or \"cosine\"", name);
}

sl_status sl_schedule_from_betas(sl_context *ctx, const double *betas, int64_t T, sl_schedule **out) {
  *out = NULL;
  sl_schedule *s;
  SL_TRY(schedule_alloc(ctx, T, &s));
  memcpy(s->betas, betas, (size_t)T * sizeof *betas);
  return finish(s, out);
}
