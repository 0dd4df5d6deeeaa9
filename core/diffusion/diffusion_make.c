/* The process from people's options. */
#include "diffusion/process.h"
#include "diffusion/respace.h"

#define MAX_STEPS 1000000

const char *const sl_predict_names[] = {"eps", "x0", "v", NULL};
const char *const sl_variance_names[] = {"learned", "fixed_small", "fixed_large", NULL};

static sl_status make_schedule(sl_context *ctx, const sl_process_options *o, int64_t T, sl_schedule **out) {
  SL_REQUIRE(T >= 1 && T <= MAX_STEPS, ARG, "diffusion: steps is %lld, expected 1 to %d", (long long)T, MAX_STEPS);
  if (o->betas) return sl_schedule_from_betas(ctx, o->betas, T, out);
  return sl_schedule_named(ctx, o->schedule ? o->schedule : "cosine", T, out);
}

sl_status sl_diffusion_make(sl_context *ctx, const sl_process_options *options, sl_diffusion **out) {
  *out = NULL;
  sl_process_options o = {0};
  if (options) o = *options;
  int64_t T = o.steps ? o.steps : 1000;
  SL_REQUIRE((unsigned)o.predict <= SL_PREDICT_V, ARG, "diffusion: predict is %d", (int)o.predict);
  SL_REQUIRE((unsigned)o.variance <= SL_VARIANCE_FIXED_LARGE, ARG, "diffusion: variance is %d", (int)o.variance);
  SL_REQUIRE(!o.betas || !o.schedule, ARG, "diffusion: schedule and betas are given; give one of them");
  SL_REQUIRE(!o.betas || o.steps, ARG, "diffusion: betas are given without steps, their number");
  sl_schedule *s = NULL;
  SL_TRY(make_schedule(ctx, &o, T, &s));
  if (o.respacing) {
    sl_schedule *full = s;
    sl_status status = sl_schedule_respace_spec(full, o.respacing, &s);
    sl_schedule_free(full);
    SL_TRY(status);
  }
  return sl_diffusion_new(ctx, s, T, o.predict, o.variance, out);
}

sl_status sl_diffusion_respace(const sl_diffusion *d, const char *respacing, sl_diffusion **out) {
  *out = NULL;
  SL_REQUIRE(respacing, ARG, "diffusion: respacing is NULL");
  sl_schedule *s = NULL;
  SL_TRY(sl_schedule_respace_spec(d->schedule, respacing, &s));
  return sl_diffusion_new(d->ctx, s, d->original_steps, d->predict, d->variance, out);
}

int64_t sl_diffusion_steps(const sl_diffusion *d) { return d->steps; }

int64_t sl_diffusion_original_steps(const sl_diffusion *d) { return d->original_steps; }
