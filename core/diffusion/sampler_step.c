#include <stdio.h>

#include "diffusion/sampler_internal.h"
#include "ops/kernels.h"
#include "ops/ops.h"

typedef struct step_build {
  sl_sampler *s;
  bool guided, last;
  sl_conditioning *conditioning; /* computed beforehand, or NULL */
} step_build;

sl_status sl__sampler_predict(sl_sampler *s, sl_diffusion *d, bool guided, sl_graph *g, sl_value *x, sl_value *t,
                              sl_value *y, sl_value **out) {
  sl_model *m = s->o.model;
  sl_value *model_t = sl_diffusion_model_t(d, t);
  sl_builder b;
  SL_TRY(sl_builder_init(&b, g, m->params, false));
  sl_precision_use(s->o.precision, &b);
  if (guided) {
    sl_value *null = sl_expand(sl_scalar(g, (double)m->info.classes, SL_I64), &y->shape);
    x = sl_cat(2, (sl_value *[]){x, x}, 0);
    model_t = sl_cat(2, (sl_value *[]){model_t, model_t}, 0);
    y = sl_cat(2, (sl_value *[]){y, null}, 0);
  }
  *out = sl_model_build(m, &b, x, model_t, y);
  sl_builder_clear(&b);
  return sl_graph_status(g);
}

sl_value *sl__sampler_keep_known(sl_sampler *s, bool last, sl_value *next, sl_value *t, sl_value *init, sl_value *mask,
                                 sl_value *noise) {
  if (!t) return NULL;
  sl_diffusion *d = s->o.diffusion;
  sl_value *known = init;
  if (!last)
    known = sl_q_sample(d, sl_expand(init, &next->shape), sl_sub(t, sl_scalar(t->node->graph, 1, SL_I64)), noise);
  return sl_add(sl_mul(mask, next), sl_mul(sl_add_scalar(sl_neg(mask), 1.0), known));
}

/* in: x, t, noise, scale, y (NULL without classes), then init, mask, known noise of an in-painting. */
static sl_status build_step(void *user, sl_graph *g, int n_in, sl_value *const *in, int n_out, sl_value **out) {
  const step_build *sb = user;
  sl_sampler *s = sb->s;
  (void)n_in, (void)n_out;
  sl_diffusion *d = s->o.diffusion;
  sl_value *x = in[0], *t = in[1], *o;
  if (sb->conditioning) SL_TRY(sl__conditioning_tables(sb->conditioning, g));
  SL_TRY(sl__sampler_predict(s, d, sb->guided, g, x, t, in[4], &o));
  if (sb->conditioning) SL_TRY(sl__conditioning_use(sb->conditioning, g, x));
  bool noisy = s->o.kind->needs_noise(s->o.eta);
  bool learned = s->o.kind->own_variance && d->variance == SL_VARIANCE_LEARNED;
  sl_value *rows = sl_gather(sl_table(g, "sampler_rows", s->rows), t);
  out[0] = sl_sampler_update(o, x, rows, noisy ? in[2] : NULL, sb->guided ? in[3] : NULL, s->o.cfg_channels, learned,
                             s->o.clip);
  out[1] = sl_output(out[0], 1);
  if (in[5] && out[0]) out[0] = sl__sampler_keep_known(s, sb->last, out[0], t, in[5], in[6], in[7]);
  return sl_graph_status(g);
}

/* The program of a step; of a caller's own sampler that of the network. */
static sl_status build_forecast(sl_sampler *s, bool guided, sl_graph *g, sl_value *const *in, sl_value **out) {
  step_build b = {s, guided, false, NULL};
  return s->o.kind == &sl_sampler_own ? sl__sampler_build_out(s, s->o.diffusion, guided, g, in, &out[0])
                                      : build_step(&b, g, 8, in, 2, out);
}

static sl_status forecast_step(sl_sampler *s, bool guided, uint64_t *bytes, bool *shadowed) {
  sl_shape row = SL_SHAPE(s->o.n);
  sl_tensor *t[] = {s->x[0],   NULL,          s->noise, s->scale, s->labels, s->o.mask ? s->o.init : NULL,
                    s->o.mask, s->known_noise};
  sl_value *in[8] = {0}, *out[2] = {NULL, NULL};
  sl_graph *g = NULL;
  uint64_t arena = 0;
  bool reads_copy = false;
  SL_TRY(sl_graph_new(s->ctx, &g));
  sl_graph_set_device(g, s->device);
  for (int i = 0; i < 8; i++) {
    char name[16];
    snprintf(name, sizeof name, "x%d", i);
    if (i == 1) in[i] = sl_input(g, name, SL_I64, &row);
    else if (t[i]) in[i] = sl_input(g, name, sl_tensor_dtype(t[i]), sl_tensor_shape(t[i]));
  }
  sl_status status = build_forecast(s, guided, g, in, out);
  if (status == SL_STATUS_OK) {
    sl_graph_output(g, "x", out[0]);
    if (out[1]) sl_graph_output(g, "x0", out[1]);
    status = sl_graph_forecast(g, &arena, &reads_copy);
  }
  sl_graph_release(g);
  *bytes += arena;
  *shadowed |= reads_copy;
  return status;
}

sl_status sl_sampler_forecast(sl_sampler *s, uint64_t *bytes) {
  *bytes = 0;
  bool shadowed = false, guided = s->o.cfg != 1, sometimes = guided && s->o.cfg_lo <= s->o.cfg_hi;
  uint64_t sum = 2 * (uint64_t)sl_tensor_numel(s->x[0]) * sizeof(float); /* x and x0 to look at; the rest is there */
  for (int i = 0; i < 2; i++) sum += sl__conditioning_bytes(s->conditioning[i]);
  if (guided) SL_TRY(forecast_step(s, true, &sum, &shadowed));
  if (!guided || sometimes) SL_TRY(forecast_step(s, false, &sum, &shadowed));
  sl_tensor *params = s->o.params;
  if (shadowed && !params) SL_TRY(sl_model_weights(s->o.model, &params));
  if (shadowed && !sl_tensor_has_shadow(params))
    sum += (uint64_t)sl_params_elements(s->o.model->params) * sizeof(uint16_t);
  *bytes = sum;
  return SL_STATUS_OK;
}

bool sl__sampler_guided(const sl_sampler *s, int64_t t) {
  if (s->o.cfg == 1) return false;
  return s->o.cfg_lo > s->o.cfg_hi || ((double)t >= s->o.cfg_lo && (double)t <= s->o.cfg_hi);
}

int64_t sl__sampler_next(const sl_sampler *s) { return s->steps - 1 - s->done; }

static sl_status prepare_noise(sl_sampler *s, int64_t i) {
  if (s->known_noise) SL_TRY(sl__sampler_draw(s, SL_STREAM_NOISE, (uint32_t)i, s->known_noise));
  if (!s->o.kind->needs_noise(s->o.eta)) return SL_STATUS_OK;
  if (s->o.noise && sl_tensor_shape(s->o.noise)->rank == 5) return sl__sampler_given_noise(s, 1 + s->done, s->noise);
  return sl__sampler_draw(s, SL_STREAM_SAMPLE_STEP, (uint32_t)i, s->noise);
}

sl_status sl__sampler_fill_t(sl_sampler *s, int64_t i) {
  sl_exec e;
  sl_view t = sl_tensor_view(s->t);
  SL_TRY(sl__sampler_exec(s, &e));
  return e.kernels->fill(&e, &t, (double)i);
}

static void swap(sl_tensor **pair) {
  sl_tensor *t = pair[0];
  pair[0] = pair[1];
  pair[1] = t;
}

void sl__sampler_advance(sl_sampler *s, bool has_x0) {
  swap(s->x);
  swap(s->x0);
  sl_tensor_release(s->seen);
  sl_tensor_release(s->seen0);
  s->seen = s->seen0 = NULL;
  s->has_x0 = has_x0;
  s->done++;
}

sl_status sl_sampler_step(sl_sampler *s, bool *done) {
  *done = s->done >= s->steps;
  if (*done) return SL_STATUS_OK;
  SL_REQUIRE(s->o.kind != &sl_sampler_own, ARG, "sample: the steps of this sampler are its caller's to take");
  int64_t i = sl__sampler_next(s);
  SL_TRY(prepare_noise(s, i));
  if (s->seen) SL_TRY(sl_tensor_copy(s->x[0], s->seen)); /* it may have been written to */
  SL_TRY(sl__sampler_fill_t(s, i));
  step_build b = {s, sl__sampler_guided(s, s->o.diffusion->schedule->timestep_map[i]), i == 0, NULL};
  sl_run run = {.params = s->o.params, .outputs = (sl_tensor *[]){s->x[1], s->x0[1]}};
  if (!run.params) SL_TRY(sl_model_weights(s->o.model, &run.params));
  SL_TRY(sl__conditioning_at(s, run.params, i, &b.conditioning));
  sl_tensor *in[] = {s->x[0],   s->t,          s->noise, s->scale, s->labels, s->o.mask ? s->o.init : NULL,
                     s->o.mask, s->known_noise};
  char key[32];
  int n = snprintf(key, sizeof key, "%d%d%d", (int)b.guided, (int)(s->o.mask && b.last), b.conditioning ? 1 : 0);
  SL_TRY(sl_eager_call(s->programs, key, (size_t)n, build_step, &b, 8, in, &run, 2, NULL));
  sl__sampler_advance(s, true);
  return SL_STATUS_OK;
}
