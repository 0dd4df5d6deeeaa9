/* Steps that a caller takes: what lies between two images that it computes itself. */
#include <stdio.h>

#include "diffusion/sampler_internal.h"
#include "ops/ops.h"

static bool own_needs_noise(double eta) {
  (void)eta;
  return false; /* it asks */
}

const sl_sampler_kind sl_sampler_own = {"own", NULL, own_needs_noise, .own_variance = false};

static bool find_in(sl_diffusion *d, int64_t t, int64_t *i) {
  if (!d) return false;
  for (*i = 0; *i < d->steps; ++*i)
    if (d->schedule->timestep_map[*i] == t) return true;
  return false;
}

sl_status sl_sampler_find_t(const sl_sampler *s, int64_t t, sl_diffusion **d, int64_t *i) {
  *d = s->o.diffusion;
  if (find_in(*d, t, i)) return SL_STATUS_OK;
  *d = s->o.whole;
  if (find_in(*d, t, i)) return SL_STATUS_OK;
  const sl_diffusion *some = s->o.diffusion;
  const int64_t *map = some->schedule->timestep_map;
  if (some->steps == some->original_steps || s->o.whole)
    return sl_fail(SL_STATUS_ARG, "sampler: t is %lld, expected 0 … %lld", (long long)t,
                   (long long)some->original_steps - 1);
  return sl_fail(SL_STATUS_ARG,
                 "sampler: t is %lld, expected one of the %lld timesteps of the respaced diffusion, from %lld to %lld "
                 "(a whole diffusion and steps = n allow every t)",
                 (long long)t, (long long)some->steps, (long long)map[0], (long long)map[some->steps - 1]);
}

/* --- the network --- */

sl_status sl__sampler_build_out(sl_sampler *s, sl_diffusion *d, bool guided, sl_graph *g, sl_value *const *in,
                                sl_value **out) {
  int64_t n = s->o.n, channels = s->o.cfg_channels ? s->o.cfg_channels : s->o.model->info.in_channels;
  sl_value *o;
  SL_TRY(sl__sampler_predict(s, d, guided, g, in[0], in[1], in[4], &o));
  *out = o = sl_cast(o, SL_F32);
  if (!guided || !o) return sl_graph_status(g);
  int64_t all = o->shape.dim[1];
  sl_value *with = sl_slice(o, 0, 0, n - 1, 1), *without = sl_slice(o, 0, n, 2 * n - 1, 1);
  sl_value *a = sl_slice(with, 1, 0, channels - 1, 1), *b = sl_slice(without, 1, 0, channels - 1, 1);
  *out = sl_add(b, sl_mul(in[3], sl_sub(a, b)));
  if (channels < all) *out = sl_cat(2, (sl_value *[]){*out, sl_slice(with, 1, channels, all - 1, 1)}, 1);
  return sl_graph_status(g);
}

typedef struct out_build {
  sl_sampler *s;
  sl_diffusion *d;
  bool guided;
  sl_conditioning *conditioning;
} out_build;

static sl_status build_out(void *user, sl_graph *g, int n_in, sl_value *const *in, int n_out, sl_value **out) {
  const out_build *b = user;
  (void)n_in, (void)n_out;
  if (b->conditioning) SL_TRY(sl__conditioning_tables(b->conditioning, g));
  SL_TRY(sl__sampler_build_out(b->s, b->d, b->guided, g, in, out));
  return b->conditioning ? sl__conditioning_use(b->conditioning, g, in[0]) : SL_STATUS_OK;
}

sl_status sl_sampler_predict(sl_sampler *s, sl_tensor *x, int64_t t, sl_tensor **out) {
  const sl_model_info *f = &s->o.model->info;
  out_build b = {.s = s, .guided = sl__sampler_guided(s, t)};
  int64_t i;
  *out = NULL;
  SL_TRY(sl__sampler_check_images("x", &s->o, x, false));
  SL_TRY(sl_sampler_find_t(s, t, &b.d, &i));
  if (!s->out)
    SL_TRY(sl_tensor_new(s->ctx, s->device, SL_F32, &SL_SHAPE(s->o.n, f->out_channels, f->height, f->width), &s->out));
  SL_TRY(sl_tensor_copy(s->x[1], x)); /* fixed places, so that recorded programs are replayed */
  SL_TRY(sl__sampler_fill_t(s, i));
  sl_run run = {.params = s->o.params, .outputs = &s->out};
  if (!run.params) SL_TRY(sl_model_weights(s->o.model, &run.params));
  if (b.d == s->o.diffusion) SL_TRY(sl__conditioning_at(s, run.params, i, &b.conditioning));
  sl_tensor *in[] = {s->x[1], s->t, NULL, s->scale, s->labels};
  char key[32];
  int n = snprintf(key, sizeof key, "out%d%d%d", (int)b.guided, b.d == s->o.whole, b.conditioning ? 1 : 0);
  SL_TRY(sl_eager_call(s->programs, key, (size_t)n, build_out, &b, 5, in, &run, 1, NULL));
  return sl_tensor_to(s->out, SL_F32, NULL, out);
}

/* --- noise --- */

sl_status sl_sampler_noise(sl_sampler *s, int64_t number, sl_tensor **out) {
  int64_t i = sl__sampler_next(s);
  *out = NULL;
  SL_REQUIRE(i >= 0, ARG, "sampler: all steps are done: there is no noise of a next one");
  bool given = s->o.noise && sl_tensor_shape(s->o.noise)->rank == 5;
  SL_REQUIRE(number >= 0 && number < 1000, ARG, "sampler: noise %lld, expected 1 … 1000", (long long)number + 1);
  SL_REQUIRE(!given || number == 0, ARG, "sampler: noise %lld of a step, but the noise that is given has one per step",
             (long long)number + 1);
  sl_tensor *z = NULL;
  SL_TRY(sl_tensor_new(s->ctx, s->device, SL_F32, sl_tensor_shape(s->x[0]), &z));
  uint32_t at = (uint32_t)(i + number * s->o.diffusion->steps);
  sl_status status =
      given ? sl__sampler_given_noise(s, 1 + s->done, z) : sl__sampler_draw(s, SL_STREAM_SAMPLE_STEP, at, z);
  if (status == SL_STATUS_OK) *out = z;
  else sl_tensor_release(z);
  return status;
}

/* --- the end of a step --- */

static sl_status build_known(void *user, sl_graph *g, int n_in, sl_value *const *in, int n_out, sl_value **out) {
  sl_sampler *s = user;
  (void)n_in, (void)n_out;
  out[0] = sl__sampler_keep_known(s, sl__sampler_next(s) == 0, in[0], in[1], in[2], in[3], in[4]);
  return sl_graph_status(g);
}

/* x[1] = x with the known part put in. */
static sl_status put_known(sl_sampler *s, sl_tensor *x, int64_t i) {
  sl_run run = {.outputs = &s->x[1]};
  SL_TRY(sl_tensor_copy(s->noise, x)); /* own samplers' noise is drawn elsewhere */
  SL_TRY(sl__sampler_draw(s, SL_STREAM_NOISE, (uint32_t)i, s->known_noise));
  SL_TRY(sl__sampler_fill_t(s, i));
  sl_tensor *in[] = {s->noise, s->t, s->o.init, s->o.mask, s->known_noise};
  const char *key = i == 0 ? "known1" : "known0";
  return sl_eager_call(s->programs, key, 6, build_known, s, 5, in, &run, 1, NULL);
}

sl_status sl_sampler_take(sl_sampler *s, sl_tensor *x, sl_tensor *x0) {
  int64_t i = sl__sampler_next(s);
  SL_REQUIRE(i >= 0, ARG, "sampler: all steps are done");
  SL_TRY(sl__sampler_check_images("the x that the step gives", &s->o, x, false));
  if (x0) SL_TRY(sl__sampler_check_images("x0", &s->o, x0, false));
  if (x0) SL_TRY(sl_tensor_copy(s->x0[1], x0));
  SL_TRY(s->o.mask ? put_known(s, x, i) : sl_tensor_copy(s->x[1], x));
  sl__sampler_advance(s, x0 != NULL);
  return SL_STATUS_OK;
}
