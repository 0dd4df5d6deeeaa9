/* sl_sample: options to images, in batches. */
#include "diffusion/sample_images.h"

#include <stdio.h>

#include "base/random.h"

#define BATCH 64
#define MAX_IMAGES INT32_MAX /* draws know an image by 32 bits */

/* --- what a model's checkpoint stores --- */

typedef struct store {
  sl_diffusion *diffusion;
  sl_averages averages;
  sl_sample_options options; /* what they point to is this store's, too */
  sl_settings settings;
} store;

static void free_store(sl_context *ctx, void *sample) {
  store *s = sample;
  sl_diffusion_release(s->diffusion);
  for (int i = 0; i < s->averages.n; i++) sl_tensor_release(s->averages.weights[i]);
  sl_free(ctx, s->settings.label_list);
  sl_free(ctx, s->settings.sampler);
  sl_free(ctx, s);
}

static sl_status choose_average(const sl_averages *a, double ema, sl_tensor **out) {
  *out = NULL;
  if (ema < 0 || !a->n) return SL_STATUS_OK; /* "none"; or an export, whose weights may be those of the EMA named */
  if (ema == 0) *out = a->weights[0];        /* none is named: the first */
  if (*out) return SL_STATUS_OK;
  for (int i = 0; i < a->n; i++)
    if (a->decay[i] == ema) *out = a->weights[i];
  SL_REQUIRE(*out, FORMAT, "sample: ema is %g, which is none of the %d that are there", ema, a->n);
  return SL_STATUS_OK;
}

sl_status sl_sample_keep(sl_model *m, sl_diffusion *d, const sl_averages *averages, const char *settings) {
  store *s = sl_alloc_zero(m->ctx, sizeof *s);
  if (!s) return SL_STATUS_OOM;
  s->options = sl_sample_defaults(NULL);
  s->options.diffusion = s->diffusion = sl_diffusion_retain(d);
  s->averages = *averages;
  for (int i = 0; i < averages->n; i++) sl_tensor_retain(averages->weights[i]);
  sl_status status = sl_sample_read_settings(m->ctx, settings, &s->options, &s->settings);
  if (status == SL_STATUS_OK) status = choose_average(&s->averages, s->settings.ema, &s->options.weights);
  if (status != SL_STATUS_OK) {
    free_store(m->ctx, s);
    return status;
  }
  if (m->sample) m->free_sample(m->ctx, m->sample);
  m->sample = s;
  m->free_sample = free_store;
  return SL_STATUS_OK;
}

sl_sample_options sl_sample_defaults(const sl_model *m) {
  if (m && m->sample) return ((const store *)m->sample)->options;
  return (sl_sample_options){.n = 1, .cfg = 1, .cfg_lo = 1, .cfg_hi = 0};
}

int sl_sample_averages(const sl_model *m) { return m->sample ? ((const store *)m->sample)->averages.n : 0; }

sl_status sl_sample_average(const sl_model *m, int i, double *decay, sl_tensor **weights) {
  *weights = NULL;
  SL_REQUIRE(i >= 0 && i < sl_sample_averages(m), ARG, "sample: average %d of %d", i, sl_sample_averages(m));
  const sl_averages *a = &((const store *)m->sample)->averages;
  *decay = a->decay[i];
  *weights = a->weights[i];
  return SL_STATUS_OK;
}

/* --- labels --- */

static sl_status check_n(int64_t n) {
  SL_REQUIRE(n >= 1 && n <= MAX_IMAGES, ARG, "sample: n is %lld, expected 1 to %d", (long long)n, MAX_IMAGES);
  return SL_STATUS_OK;
}

static int64_t label_of(const sl_sample_options *o, int64_t classes, int64_t k) {
  sl_rng_key key = {o->seed, SL_STREAM_SAMPLE_LABEL};
  switch (o->labels) {
    case SL_LABELS_BALANCED: return k % classes;
    case SL_LABELS_UNIFORM: return sl_random_below(key, (uint32_t)k, 0, 0, (uint32_t)classes);
    case SL_LABELS_ONE: return o->label;
    case SL_LABELS_LIST: return o->label_list[k];
    default: return -1;
  }
}

sl_status sl_sample_labels(const sl_model *m, const sl_sample_options *options, int64_t *labels) {
  sl_sample_options o = options ? *options : sl_sample_defaults(m);
  SL_TRY(check_n(o.n));
  SL_REQUIRE((unsigned)o.labels <= SL_LABELS_LIST, ARG, "sample: labels is %d, which is none of sl_labels",
             (int)o.labels);
  SL_REQUIRE(o.labels == SL_LABELS_NONE || m->info.classes, ARG, "sample: labels are given, but the model takes none");
  if (o.labels == SL_LABELS_LIST) {
    SL_REQUIRE(o.label_list, ARG, "sample: labels is SL_LABELS_LIST, but label_list is NULL");
    SL_REQUIRE(o.label_count == o.n, ARG, "sample: %lld labels for n = %lld images", (long long)o.label_count,
               (long long)o.n);
  }
  for (int64_t k = 0; k < o.n; k++) labels[k] = label_of(&o, m->info.classes, k);
  return SL_STATUS_OK;
}

/* --- images --- */

typedef struct run {
  sl_model *model;
  sl_sample_options o;
  sl_sampler_options sampler; /* of a batch; what stands in it is borrowed */
  sl_diffusion *respaced;     /* owned, or NULL */
  sl_tensor *moved;           /* o.weights on the model's device: owned, or NULL */
  int64_t *labels;            /* [n rounded up to whole batches]: the last one again and again */
  int64_t batch, batches;
  sl_tensor *images;
} run;

static sl_status check(const run *r) {
  const sl_sample_options *o = &r->o;
  SL_TRY(check_n(o->n));
  SL_REQUIRE(o->batch >= 0, ARG, "sample: batch is %lld, expected at least 1, or 0 for %d", (long long)o->batch, BATCH);
  SL_REQUIRE(o->diffusion, ARG,
             "sample: diffusion is NULL, and the model comes from no checkpoint that stores one; make one with "
             "sl_diffusion_make");
  SL_REQUIRE(!o->init || o->mask || o->start, ARG,
             "sample: init is given, but neither start (the step to begin from) nor mask, so it would change nothing");
  return SL_STATUS_OK;
}

static sl_status settle_diffusion(run *r) {
  sl_diffusion *d = r->o.diffusion;
  int64_t n = r->o.steps;
  if (!n) return SL_STATUS_OK;
  SL_REQUIRE(d->steps == d->original_steps, ARG,
             "sample: steps is %lld, but the diffusion is respaced already (%lld of %lld steps)", (long long)n,
             (long long)d->steps, (long long)d->original_steps);
  SL_REQUIRE(n >= 1 && n <= d->steps, ARG, "sample: steps is %lld, expected 1 to %lld", (long long)n,
             (long long)d->steps);
  char spec[24];
  snprintf(spec, sizeof spec, "%lld", (long long)n);
  return sl_diffusion_respace(d, spec, &r->respaced);
}

static sl_status settle_weights(run *r) {
  if (!r->o.weights || sl_tensor_device(r->o.weights) == r->model->device) return SL_STATUS_OK;
  return sl_tensor_to(r->o.weights, SL_F32, r->model->device, &r->moved);
}

/* A batch beyond the last image is padded, so that one compiled program serves all of them. */
static sl_status settle_labels(run *r) {
  int64_t n = r->o.n, all = r->batch * r->batches;
  r->labels = sl_alloc(r->model->ctx, (size_t)all * sizeof *r->labels);
  if (!r->labels) return SL_STATUS_OOM;
  SL_TRY(sl_sample_labels(r->model, &r->o, r->labels));
  for (int64_t k = n; k < all; k++) r->labels[k] = r->labels[n - 1];
  return SL_STATUS_OK;
}

static sl_status settle(run *r) {
  SL_TRY(check(r));
  const sl_sample_options *o = &r->o;
  r->batch = o->batch ? o->batch : BATCH;
  if (o->noise || o->init || o->mask || o->n < r->batch) r->batch = o->n;
  r->batches = (o->n + r->batch - 1) / r->batch;
  SL_TRY(settle_diffusion(r));
  SL_TRY(settle_weights(r));
  SL_TRY(settle_labels(r));
  r->sampler = (sl_sampler_options){.model = r->model,
                                    .params = r->moved ? r->moved : o->weights,
                                    .diffusion = r->respaced ? r->respaced : o->diffusion,
                                    .n = r->batch,
                                    .cfg = o->cfg,
                                    .cfg_channels = o->cfg_channels,
                                    .cfg_lo = o->cfg_lo,
                                    .cfg_hi = o->cfg_hi,
                                    .eta = o->eta,
                                    .clip = o->clip,
                                    .precision = o->precision,
                                    .seed = o->seed,
                                    .noise = o->noise,
                                    .init = o->init,
                                    .start = o->start,
                                    .mask = o->mask};
  return sl_sampler_find(o->sampler ? o->sampler : "ddpm", &r->sampler.kind);
}

static sl_status call_hook(const run *r, sl_sampler *s, int64_t first) {
  if (!r->o.step) return SL_STATUS_OK;
  int64_t steps = sl_sampler_steps(s), i = sl_sampler_i(s);
  sl_sample_step at = {.sampler = s,
                       .first = first,
                       .count = r->batch,
                       .n = r->o.n,
                       .i = i,
                       .steps = steps,
                       .t = sl_sampler_t(s),
                       .done = first / r->batch * steps + i,
                       .all = r->batches * steps};
  if (r->o.step(r->o.user, &at)) return SL_STATUS_OK;
  return sl_fail(SL_STATUS_CANCELLED, "sample: stopped by its hook after step %lld of %lld", (long long)at.done,
                 (long long)at.all);
}

/* The sampler's images to their rows of the result. */
static sl_status take_images(const run *r, sl_sampler *s, int64_t first) {
  int64_t n = r->o.n - first < r->batch ? r->o.n - first : r->batch;
  sl_tensor *x = NULL, *host = NULL, *from = NULL, *to = NULL;
  sl_status status;
  SL_GOTO(sl_sampler_x(s, &x));
  SL_GOTO(sl_tensor_on_host(x, &host));
  SL_GOTO(sl_tensor_narrow(host, 0, 0, n, &from));
  SL_GOTO(sl_tensor_narrow(r->images, 0, first, n, &to));
  status = sl_tensor_copy(to, from);
done:
  sl_tensor_release(to);
  sl_tensor_release(from);
  sl_tensor_release(host);
  sl_tensor_release(x);
  return status;
}

static sl_status draw_batch(run *r, int64_t first) {
  sl_sampler *s = NULL;
  r->sampler.first = first;
  r->sampler.labels = r->o.labels == SL_LABELS_NONE ? NULL : r->labels + first;
  SL_TRY(sl_sampler_new(&r->sampler, &s));
  bool done = false;
  sl_status status = sl_sampler_step(s, &done);
  while (status == SL_STATUS_OK && !done) {
    status = call_hook(r, s, first);
    if (status == SL_STATUS_OK) status = sl_sampler_step(s, &done);
  }
  if (status == SL_STATUS_OK) status = take_images(r, s, first);
  sl_sampler_free(s);
  return status;
}

sl_status sl_sample(sl_model *m, const sl_sample_options *options, sl_tensor **images) {
  *images = NULL;
  SL_REQUIRE(m, ARG, "sample: model is NULL");
  run r = {.model = m, .o = options ? *options : sl_sample_defaults(m)};
  if (!r.o.diffusion) r.o.diffusion = sl_sample_defaults(m).diffusion;
  const sl_model_info *i = &m->info;
  sl_status status;
  SL_GOTO(settle(&r));
  SL_GOTO(sl_tensor_new(m->ctx, NULL, SL_F32, &SL_SHAPE(r.o.n, i->in_channels, i->height, i->width), &r.images));
  for (int64_t first = 0; first < r.o.n; first += r.batch) SL_GOTO(draw_batch(&r, first));
  *images = r.images;
  r.images = NULL;
done:
  sl_tensor_release(r.images);
  sl_tensor_release(r.moved);
  sl_diffusion_release(r.respaced);
  sl_free(m->ctx, r.labels);
  return status;
}
