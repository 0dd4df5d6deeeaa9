#include "diffusion/sampler_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "ops/ops.h"

enum { PROGRAMS = 8 };

static const sl_sampler_kind *const kinds[] = {&sl_sampler_ddpm, &sl_sampler_ddim};

sl_status sl_sampler_find(const char *name, const sl_sampler_kind **out) {
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
    if (!strcmp(kinds[i]->name, name)) {
      *out = kinds[i];
      return SL_STATUS_OK;
    }
  return sl_fail(SL_STATUS_ARG, "sampler: there is no \"%s\"; there are ddpm and ddim", name);
}

/* --- checks --- */

sl_status sl__sampler_check_images(const char *what, const sl_sampler_options *o, const sl_tensor *t,
                                   bool one_allowed) {
  const sl_model_info *f = &o->model->info;
  const sl_shape *s = sl_tensor_shape(t);
  bool rows = s->rank == 4 && (s->dim[0] == o->n || (one_allowed && s->dim[0] == 1));
  SL_REQUIRE(sl_tensor_dtype(t) == SL_F32 && rows && s->dim[1] == f->in_channels && s->dim[2] == f->height &&
                 s->dim[3] == f->width,
             SHAPE, "sample: %s is %s %s, expected f32 [%lld,%lld,%lld,%lld]", what, sl_dtype_name(sl_tensor_dtype(t)),
             sl_shape_text(s), (long long)o->n, (long long)f->in_channels, (long long)f->height, (long long)f->width);
  return SL_STATUS_OK;
}

static sl_status check_noise(const sl_sampler_options *o, int64_t steps) {
  const sl_shape *s = sl_tensor_shape(o->noise);
  if (s->rank != 5) return sl__sampler_check_images("noise", o, o->noise, false);
  SL_REQUIRE(s->dim[0] == steps + 1, SHAPE,
             "sample: noise is %s, expected %lld along its first dimension: x_T, then one per step", sl_shape_text(s),
             (long long)steps + 1);
  sl_tensor *first = NULL;
  SL_TRY(sl_tensor_select(o->noise, 0, 0, &first));
  sl_status status = sl__sampler_check_images("noise[1]", o, first, false);
  sl_tensor_release(first);
  return status;
}

static sl_status check_labels(const sl_sampler_options *o) {
  const sl_model_info *f = &o->model->info;
  if (!o->labels) {
    SL_REQUIRE(!f->classes || f->null_class || f->one_class, ARG,
               "sample: labels are not given, and the model has no null class (class_dropout = 0)");
    return SL_STATUS_OK;
  }
  SL_REQUIRE(f->classes, ARG, "sample: labels are given, but the model takes none");
  for (int64_t i = 0; i < o->n; i++)
    SL_REQUIRE(o->labels[i] >= 0 && o->labels[i] < f->classes + (f->null_class ? 1 : 0), ARG,
               "sample: label %lld is outside 0 … %lld", (long long)o->labels[i], (long long)f->classes - 1);
  return SL_STATUS_OK;
}

static sl_status check_options(const sl_sampler_options *o) {
  SL_REQUIRE(o->model && o->diffusion, ARG, "sample: model and diffusion must be given");
  const sl_model_info *f = &o->model->info;
  const sl_diffusion *d = o->diffusion;
  SL_REQUIRE(o->n > 0, ARG, "sample: n is %lld, expected at least 1", (long long)o->n);
  SL_REQUIRE(d->original_steps == f->timesteps, ARG,
             "sample: the diffusion has %lld steps, the model was made for timesteps = %lld",
             (long long)d->original_steps, (long long)f->timesteps);
  int64_t want = f->in_channels * (d->variance == SL_VARIANCE_LEARNED ? 2 : 1);
  SL_REQUIRE(f->out_channels == want, ARG,
             "sample: the model gives %lld channels, the diffusion (variance = \"%s\") expects %lld; learn_sigma and "
             "variance must agree",
             (long long)f->out_channels, d->variance == SL_VARIANCE_LEARNED ? "learned" : "fixed", (long long)want);
  SL_REQUIRE(o->cfg == 1 || f->null_class, ARG, "sample: cfg is %g, but the model has no null class (%s)", o->cfg,
             f->one_class ? "classes = 1" : "class_dropout = 0");
  SL_REQUIRE(o->cfg == 1 || o->labels, ARG, "sample: cfg is %g, but labels are not given", o->cfg);
  SL_REQUIRE(isfinite(o->cfg), ARG, "sample: cfg is %g, expected a finite number", o->cfg);
  SL_REQUIRE(o->cfg_channels >= 0 && o->cfg_channels <= f->in_channels, ARG,
             "sample: cfg_channels is %lld, expected 1 … %lld", (long long)o->cfg_channels, (long long)f->in_channels);
  SL_REQUIRE(o->eta >= 0 && isfinite(o->eta), ARG, "sample: eta is %g, expected 0 or more", o->eta);
  SL_REQUIRE(o->start >= 0 && o->start <= d->steps, ARG, "sample: start is %lld, expected 0 … %lld (steps)",
             (long long)o->start, (long long)d->steps);
  SL_REQUIRE((!o->mask && !o->start) || o->init, ARG, "sample: %s is given, so init (the known images) must be too",
             o->mask ? "mask" : "start");
  if (o->init) SL_TRY(sl__sampler_check_images("init", o, o->init, true));
  if (o->noise) SL_TRY(check_noise(o, o->start ? o->start : d->steps));
  return check_labels(o);
}

/* --- life --- */

static sl_shape image_shape(const sl_sampler *s) {
  const sl_model_info *f = &s->o.model->info;
  return SL_SHAPE(s->o.n, f->in_channels, f->height, f->width);
}

/* *t replaced by a copy where the model is, if it lies elsewhere. */
static sl_status bring(sl_sampler *s, sl_tensor **t) {
  sl_tensor *there = NULL;
  if (!*t || sl_tensor_device(*t)->gpu == s->device->gpu) return SL_STATUS_OK;
  SL_TRY(sl_tensor_to(*t, sl_tensor_dtype(*t), s->device, &there));
  sl_tensor_release(*t);
  *t = there;
  return SL_STATUS_OK;
}

static sl_status make_labels(sl_sampler *s) {
  const sl_model_info *f = &s->o.model->info;
  if (!f->classes) return SL_STATUS_OK;
  SL_TRY(sl_tensor_new(s->ctx, NULL, SL_I64, &SL_SHAPE(s->o.n), &s->labels));
  int64_t *y = sl_tensor_data(s->labels), null = f->one_class ? 0 : f->classes;
  for (int64_t i = 0; i < s->o.n; i++) y[i] = s->o.labels ? s->o.labels[i] : null;
  s->o.labels = NULL; /* the caller's; copied */
  return bring(s, &s->labels);
}

sl_status sl__sampler_exec(sl_sampler *s, sl_exec *e) {
  *e = sl_exec_on(s->ctx, s->device);
  return s->device->use ? s->device->use(s->device) : SL_STATUS_OK;
}

sl_status sl__sampler_draw(sl_sampler *s, sl_stream stream, uint32_t number, sl_tensor *out) {
  sl_step step = {.seed = s->o.seed, .step = number, .first_sample = (uint32_t)s->o.first};
  sl_exec e;
  sl_view y = sl_tensor_view(out);
  SL_TRY(sl__sampler_exec(s, &e));
  e.step = sl_tensor_data(s->step_block);
  SL_TRY(e.kernels->put(&e, sl_tensor_data(s->step_block), &step, sizeof step));
  return e.kernels->normal(&e, &y, (int)stream);
}

sl_status sl__sampler_given_noise(sl_sampler *s, int64_t which, sl_tensor *out) {
  if (sl_tensor_shape(s->o.noise)->rank == 4) return sl_tensor_copy(out, s->o.noise);
  sl_tensor *part = NULL;
  SL_TRY(sl_tensor_select(s->o.noise, 0, which, &part));
  sl_status status = sl_tensor_copy(out, part);
  sl_tensor_release(part);
  return status;
}

/* x = init noised to the first step's level. */
static sl_status noise_init(sl_sampler *s) {
  sl_tensor *t = NULL, *init = NULL, *noised = NULL;
  sl_status status = sl_tensor_new(s->ctx, NULL, SL_I64, &SL_SHAPE(s->o.n), &t);
  if (status != SL_STATUS_OK) return status;
  for (int64_t i = 0; i < s->o.n; i++) ((int64_t *)sl_tensor_data(t))[i] = s->steps - 1;
  sl_shape shape = image_shape(s);
  int64_t stride[SL_MAX_RANK];
  memcpy(stride, sl_tensor_strides(s->o.init), sizeof stride);
  if (sl_tensor_shape(s->o.init)->dim[0] == 1) stride[0] = 0;
  SL_GOTO(sl_tensor_view_as(s->o.init, &shape, stride, 0, &init));
  SL_GOTO(sl_diffusion_call(s->o.diffusion, SL_FN_Q_SAMPLE, (sl_diffusion_options){0},
                            (sl_tensor *[]){init, t, s->x[0]}, &noised));
  SL_GOTO(sl_tensor_copy(s->x[0], noised));
done:
  sl_tensor_release(t);
  sl_tensor_release(init);
  sl_tensor_release(noised);
  return status;
}

sl_status sl_sampler_rows(const sl_sampler_kind *kind, const sl_diffusion *d, int64_t steps, double eta,
                          sl_tensor **out) {
  sl_tensor *rows = NULL;
  *out = NULL;
  SL_TRY(sl_tensor_zeros(d->ctx, NULL, SL_F64, &SL_SHAPE(steps, SL_UPDATE_COLUMNS), &rows));
  double *row = sl_tensor_data(rows);
  for (int64_t i = 0; i < steps; i++, row += SL_UPDATE_COLUMNS) {
    row[SL_UPDATE_E_DIV] = 1;
    sl_diffusion_predicts(d, i, &row[SL_UPDATE_X_X], &row[SL_UPDATE_X_OUT]);
    kind->row(d, i, eta, row);
    if (isfinite(row[SL_UPDATE_NEXT_E]) && isfinite(row[SL_UPDATE_SIGMA])) continue;
    sl_tensor_release(rows);
    return sl_fail(SL_STATUS_ARG, "sample: eta is %g, too much for %s at step %lld of %lld; expected 0 … 1", eta,
                   kind->name, (long long)(steps - i), (long long)steps);
  }
  *out = rows;
  return SL_STATUS_OK;
}

static sl_status make_state(sl_sampler *s) {
  sl_shape shape = image_shape(s);
  const sl_device *dev = s->device;
  for (int i = 0; i < 2; i++) {
    SL_TRY(sl_tensor_new(s->ctx, dev, SL_F32, &shape, &s->x[i]));
    SL_TRY(sl_tensor_new(s->ctx, dev, SL_F32, &shape, &s->x0[i]));
  }
  if (s->o.kind->row) SL_TRY(sl_sampler_rows(s->o.kind, s->o.diffusion, s->steps, s->o.eta, &s->rows));
  SL_TRY(sl_tensor_zeros(s->ctx, dev, SL_F32, &shape, &s->noise));
  if (s->o.mask) SL_TRY(sl_tensor_new(s->ctx, dev, SL_F32, &shape, &s->known_noise));
  SL_TRY(sl_tensor_new(s->ctx, dev, SL_I64, &SL_SHAPE(s->o.n), &s->t));
  SL_TRY(sl_tensor_new(s->ctx, dev, SL_U8, &SL_SHAPE((int64_t)sizeof(sl_step)), &s->step_block));
  float scale = (float)s->o.cfg;
  SL_TRY(sl_tensor_from(s->ctx, SL_F32, 0, NULL, &scale, &s->scale));
  SL_TRY(bring(s, &s->scale));
  SL_TRY(bring(s, &s->o.init));
  SL_TRY(bring(s, &s->o.mask));
  SL_TRY(make_labels(s));
  SL_TRY(s->o.noise ? sl__sampler_given_noise(s, 0, s->x[0]) : sl__sampler_draw(s, SL_STREAM_SAMPLE_INIT, 0, s->x[0]));
  if (s->o.start) SL_TRY(noise_init(s));
  SL_TRY(sl_eager_new(s->ctx, PROGRAMS, &s->programs));
  if (s->o.cfg != 1) SL_TRY(sl__conditioning_new(s, true, &s->conditioning[1]));
  return sl__conditioning_new(s, false, &s->conditioning[0]);
}

static sl_tensor *retained(sl_tensor *t) { return t ? sl_tensor_retain(t) : NULL; }

sl_status sl_sampler_new(const sl_sampler_options *o, sl_sampler **out) {
  *out = NULL;
  SL_TRY(check_options(o));
  if (!o->params) sl_model_warn_fresh(o->model);
  sl_sampler *s = sl_alloc_zero(o->model->ctx, sizeof *s);
  if (!s) return SL_STATUS_OOM;
  s->ctx = o->model->ctx;
  s->device = o->params ? sl_tensor_device(o->params) : o->model->device;
  s->o = *o;
  if (!s->o.kind) s->o.kind = &sl_sampler_ddpm;
  sl_model_retain(o->model);
  sl_diffusion_retain(o->diffusion);
  if (o->whole) sl_diffusion_retain(o->whole);
  s->o.params = retained(o->params);
  s->o.noise = retained(o->noise);
  s->o.init = retained(o->init);
  s->o.mask = retained(o->mask);
  s->steps = o->start ? o->start : o->diffusion->steps;
  sl_status status = make_state(s);
  if (status == SL_STATUS_OK) {
    *out = s;
  } else {
    sl_sampler_free(s);
  }
  return status;
}

void sl_sampler_free(sl_sampler *s) {
  if (!s) return;
  sl_eager_free(s->programs);
  for (int i = 0; i < 2; i++) sl__conditioning_free(s->conditioning[i]);
  sl_tensor *all[] = {s->labels,  s->x[0],   s->x[1],        s->x0[0], s->x0[1],      s->seen,
                      s->seen0,   s->noise,  s->known_noise, s->t,     s->step_block, s->o.params,
                      s->o.noise, s->o.init, s->o.mask,      s->scale, s->rows,       s->out};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) sl_tensor_release(all[i]);
  sl_model_release(s->o.model);
  sl_diffusion_release(s->o.diffusion);
  if (s->o.whole) sl_diffusion_release(s->o.whole);
  sl_free(s->ctx, s);
}

/* --- looking at it --- */

int64_t sl_sampler_steps(const sl_sampler *s) { return s->steps; }
int64_t sl_sampler_i(const sl_sampler *s) { return s->done; }

int64_t sl_sampler_t(const sl_sampler *s) {
  int64_t i = s->done ? s->steps - s->done : s->steps - 1;
  return s->o.diffusion->schedule->timestep_map[i];
}

/* The caller's reference to *seen, which is a copy of t. */
static sl_status show(sl_tensor *t, sl_tensor **seen, sl_tensor **out) {
  *out = NULL;
  if (!*seen) SL_TRY(sl_tensor_to(t, SL_F32, NULL, seen));
  *out = sl_tensor_retain(*seen);
  return SL_STATUS_OK;
}

sl_status sl_sampler_x(sl_sampler *s, sl_tensor **out) { return show(s->x[0], &s->seen, out); }

sl_status sl_sampler_x0(sl_sampler *s, sl_tensor **out) {
  *out = NULL;
  return s->has_x0 ? show(s->x0[0], &s->seen0, out) : SL_STATUS_OK;
}

sl_status sl_sampler_set_x(sl_sampler *s, sl_tensor *x) {
  SL_TRY(sl__sampler_check_images("x", &s->o, x, false));
  return sl_tensor_copy(s->seen ? s->seen : s->x[0], x);
}
