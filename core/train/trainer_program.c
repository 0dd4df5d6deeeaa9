/* From options to programs: checks, the graph of a micro-batch, and what all of it will take. */
#include <math.h>

#include "ops/ops.h"
#include "train/trainer_internal.h"

static const double KEEP_SHARE = 0.9; /* of a GPU's memory that may go to keeping what could be computed again */

/* --- checks --- */

static sl_status check_values(const char *what, const sl_tensor *t, bool density) {
  double sum = 0;
  for (int64_t i = 0; i < sl_tensor_numel(t); i++) {
    double v = sl_tensor_at(t, i);
    SL_REQUIRE(isfinite(v) && v >= 0, NUMERIC, "train: %s at t = %lld is %g, expected a finite number not below 0",
               what, (long long)i, v);
    sum += v;
  }
  SL_REQUIRE(!density || sum > 0, ARG, "train: %s is 0 everywhere", what);
  return SL_STATUS_OK;
}

static sl_status check_table(const char *what, sl_tensor *t, int64_t n, bool density) {
  if (!t) return SL_STATUS_OK;
  SL_REQUIRE(sl_tensor_dtype(t) == SL_F32 && sl_tensor_shape(t)->rank == 1 && sl_tensor_numel(t) == n &&
                 sl_tensor_is_contiguous(t),
             SHAPE, "train: %s is %s %s, expected f32 [%lld]", what, sl_dtype_name(sl_tensor_dtype(t)),
             sl_shape_text(sl_tensor_shape(t)), (long long)n);
  sl_tensor *host = NULL;
  SL_TRY(sl_tensor_on_host(t, &host));
  sl_status status = check_values(what, host, density);
  sl_tensor_release(host);
  return status;
}

static sl_status check_schedule(sl_tensor *t) {
  if (!t) return SL_STATUS_OK;
  SL_REQUIRE(sl_tensor_dtype(t) == SL_F32 && sl_tensor_shape(t)->rank == 1 && sl_tensor_numel(t) > 0, SHAPE,
             "optimizer: schedule is %s %s, expected f32 [steps of training]", sl_dtype_name(sl_tensor_dtype(t)),
             sl_shape_text(sl_tensor_shape(t)));
  sl_tensor *host = NULL;
  SL_TRY(sl_tensor_on_host(t, &host));
  sl_status status = SL_STATUS_OK;
  for (int64_t i = 0; i < sl_tensor_numel(host) && status == SL_STATUS_OK; i++)
    if (!isfinite(sl_tensor_at(host, i)))
      status = sl_fail(SL_STATUS_NUMERIC, "optimizer: schedule at step %lld is %g, expected a finite number",
                       (long long)i, sl_tensor_at(host, i));
  sl_tensor_release(host);
  return status;
}

static sl_status check_rates(const sl_train_options *o) {
  SL_REQUIRE(o->lr >= 0 && isfinite(o->lr), ARG, "optimizer: lr is %g, expected 0 or more", o->lr);
  SL_REQUIRE(o->beta1 >= 0 && o->beta1 < 1 && o->beta2 >= 0 && o->beta2 < 1, ARG,
             "optimizer: betas are {%g, %g}, expected 0 … below 1", o->beta1, o->beta2);
  SL_REQUIRE(o->eps > 0, ARG, "optimizer: eps is %g, expected more than 0", o->eps);
  SL_REQUIRE(o->weight_decay >= 0, ARG, "optimizer: weight_decay is %g, expected 0 or more", o->weight_decay);
  SL_REQUIRE(o->clip >= 0, ARG, "optimizer: clip is %g, expected 0 (none) or more", o->clip);
  SL_REQUIRE(o->n_ema >= 0 && o->n_ema <= SL_MAX_EMA, ARG, "ema: %d decays, at most %d", o->n_ema, SL_MAX_EMA);
  for (int i = 0; i < o->n_ema; i++)
    SL_REQUIRE(o->ema_decay[i] >= 0 && o->ema_decay[i] <= 1, ARG, "ema: decay is %g, expected 0 … 1", o->ema_decay[i]);
  return SL_STATUS_OK;
}

static sl_status check_data(const sl_train_options *o, const sl_dataset *data) {
  if (!data) return SL_STATUS_OK;
  const sl_model_info *f = &o->model->info;
  const sl_shape s = sl_dataset_image_shape(data);
  SL_REQUIRE(s.dim[0] == f->in_channels && s.dim[1] == f->height && s.dim[2] == f->width, SHAPE,
             "train: the data's images are %s, the model takes [%lld,%lld,%lld]", sl_shape_text(&s),
             (long long)f->in_channels, (long long)f->height, (long long)f->width);
  SL_REQUIRE(sl_dataset_count(data) > 0, ARG, "train: the data set is empty");
  SL_REQUIRE(f->classes <= 1 || sl_dataset_classes(data) <= f->classes, ARG,
             "train: the data has labels up to %lld, the model has %lld classes",
             (long long)sl_dataset_classes(data) - 1, (long long)f->classes);
  SL_REQUIRE(f->classes <= 1 || sl_dataset_classes(data) > 0, ARG,
             "train: the model has %lld classes, but the data has no labels", (long long)f->classes);
  return SL_STATUS_OK;
}

sl_status sl_train_check(const sl_train_options *o) {
  SL_REQUIRE(o && o->model && o->diffusion, ARG, "train: model and diffusion must be given");
  const sl_model_info *f = &o->model->info;
  SL_REQUIRE(o->diffusion->original_steps == f->timesteps, ARG,
             "train: the diffusion has %lld steps, the model was made for timesteps = %lld",
             (long long)o->diffusion->original_steps, (long long)f->timesteps);
  bool learned = o->diffusion->variance == SL_VARIANCE_LEARNED;
  SL_REQUIRE(learned == f->learn_sigma, ARG,
             "train: the model has learn_sigma = %s, the diffusion variance = \"%s\": they must agree",
             f->learn_sigma ? "true" : "false", learned ? "learned" : "fixed");
  SL_REQUIRE(o->batch > 0, ARG, "train: batch is %lld, expected at least 1", (long long)o->batch);
  SL_REQUIRE(o->micro_batch >= 0 && (o->micro_batch == 0 || o->batch % o->micro_batch == 0), ARG,
             "train: micro_batch is %lld, expected a divisor of batch %lld", (long long)o->micro_batch,
             (long long)o->batch);
  SL_TRY(sl_precision_check("train", o->precision));
  SL_REQUIRE(
      o->recompute == SL_RECOMPUTE_NONE || o->recompute == SL_RECOMPUTE_LIGHT || o->recompute == SL_RECOMPUTE_SEGMENTS,
      ARG, "train: recompute is %d, expected one of SL_RECOMPUTE", (int)o->recompute);
  SL_REQUIRE(o->loader_threads <= 64, ARG, "train: loader threads are %d, expected 0 … 64", o->loader_threads);
  SL_TRY(check_rates(o));
  SL_TRY(check_schedule(o->schedule));
  SL_TRY(check_table("the loss weight", o->weight, o->diffusion->steps, false));
  SL_TRY(check_table("the density of t", o->t_density, o->diffusion->steps, true));
  SL_TRY(check_data(o, o->data));
  return check_data(o, o->holdout);
}

/* --- the gradient program --- */

int64_t sl_train_micro_size(const sl_train_options *o) { return o->micro_batch ? o->micro_batch : o->batch; }

static sl_status add_gradients(sl_builder *b, sl_value *loss, sl_recompute recompute) {
  sl_graph *g = b->g;
  sl_context *ctx = sl_graph_context(g);
  sl_value **wrt = sl_alloc(ctx, (size_t)(b->n_values + 1) * 2 * sizeof *wrt);
  if (!wrt) return SL_STATUS_OOM;
  sl_value **grads = wrt + b->n_values + 1;
  int n = 0;
  for (int i = 0; i < b->n_values; i++)
    if (b->values[i] && sl_params_get(b->params, i)->trainable) wrt[n++] = b->values[i];
  bool learns = false;
  sl_status s = sl_graph_depends(g, loss, n, wrt, &learns);
  if (s == SL_STATUS_OK && !n) s = sl_fail(SL_STATUS_ARG, "train: the model has no parameter that could be trained");
  else if (s == SL_STATUS_OK && !learns)
    s = sl_fail(SL_STATUS_ARG,
                "loss: it does not depend on the model's output, so that nothing would be learned; expected a "
                "function of s.out");
  if (s == SL_STATUS_OK) s = sl_grad(g, loss, NULL, n, wrt, recompute, grads);
  for (int i = 0; s == SL_STATUS_OK && i < n; i++) sl_graph_accumulate(g, wrt[i], grads[i]);
  sl_free(ctx, wrt);
  return s == SL_STATUS_OK ? sl_graph_status(g) : s;
}

static sl_losses describe_loss(const sl_train_options *o, sl_builder *b, sl_value *x0, sl_value *t, sl_value *y,
                               sl_value *noise) {
  sl_diffusion *d = o->diffusion;
  sl_value *xt = sl_name(sl_q_sample(d, x0, t, noise), "xt");
  sl_value *out = sl_model_build(o->model, b, xt, sl_diffusion_model_t(d, t), y);
  sl_value *weight = o->weight ? sl_table(b->g, "tables.weight", o->weight) : NULL;
  if (!o->loss) return sl_diffusion_losses(d, out, x0, xt, t, noise, weight);
  sl_losses l = {0};
  if (sl_graph_broken(b->g)) return l;
  sl_loss_inputs in = {b, d, out, x0, xt, t, noise, weight};
  l.loss = o->loss(o->loss_user, b->g, &in);
  if (l.loss && (l.loss->shape.rank != 1 || l.loss->shape.dim[0] != t->shape.dim[0] || l.loss->dtype != SL_F32))
    l.loss = sl_graph_fail(
        b->g, sl_fail(SL_STATUS_SHAPE, "loss: the function returned %s, expected one loss per sample, f32 [%lld]",
                      sl_value_text(l.loss), (long long)t->shape.dim[0]));
  return l;
}

/* The loss of a micro-batch, with its gradients (training) or without. */
static sl_status build_graph(const sl_train_options *o, sl_recompute recompute, bool training, sl_graph *g) {
  const sl_model_info *f = &o->model->info;
  int64_t n = sl_train_micro_size(o);
  sl_shape image = SL_SHAPE(n, f->in_channels, f->height, f->width);
  sl_builder b;
  SL_TRY(sl_builder_init(&b, g, o->model->params, false));
  b.training = training;
  if (n == o->batch) sl_graph_fresh_gradients(g);
  b.recompute = training && recompute == SL_RECOMPUTE_SEGMENTS;
  sl_precision_use(o->precision, &b);
  sl_value *x0 = sl_input(g, "x0", SL_F32, &image), *t = sl_input(g, "t", SL_I64, &SL_SHAPE(n));
  sl_value *y = sl_input(g, "y", SL_I64, &SL_SHAPE(n)), *noise = sl_input(g, "noise", SL_F32, &image);
  sl_losses l = describe_loss(o, &b, x0, t, f->classes ? y : NULL, noise);
  sl_status s = sl_graph_status(g);
  if (s == SL_STATUS_OK && training) {
    /* The gradient of the batch's mean loss, gathered over micro-batches. */
    sl_value *total = sl_mul_scalar(sl_sum(l.loss, 0, NULL, false), 1.0 / o->batch);
    s = add_gradients(&b, total, recompute);
  }
  sl_builder_clear(&b);
  SL_TRY(s);
  sl_graph_output(g, "loss", l.loss);
  if (!training) return sl_graph_status(g);
  sl_graph_output(g, "mse", l.mse ? l.mse : sl_mul_scalar(l.loss, 0.0));
  sl_graph_output(g, "vb", l.vb ? l.vb : sl_mul_scalar(l.loss, 0.0));
  return sl_graph_status(g);
}

/* --- memory --- */

uint64_t sl_train_fixed_bytes(const sl_train_options *o) {
  const sl_model_info *f = &o->model->info;
  uint64_t arrays = 4 + (uint64_t)o->n_ema;
  uint64_t image = (uint64_t)(f->in_channels * f->height * f->width) * sizeof(float);
  uint64_t bytes = arrays * (uint64_t)sl_params_elements(o->model->params) * sizeof(float) +
                   (uint64_t)o->batch * (2 * image + 2 * 8 + 3 * 4);
  if (!o->data || !sl_dataset_decodes(o->data)) return bytes;
  int threads = o->loader_threads < 0 ? 1 : o->loader_threads;
  return bytes + sl_dataset_memory(o->data) + (threads ? sl_loader_memory(o->data, o->batch, threads) : 0);
}

/* copies: how many arrays a program of this kind reads in bf16 besides, if it reads such copies at all. */
static sl_status forecast_program(sl_context *ctx, const sl_train_options *o, sl_recompute recompute, bool training,
                                  int copies, uint64_t *bytes) {
  sl_graph *g = NULL;
  uint64_t arena = 0;
  bool shadowed = false;
  SL_TRY(sl_graph_new(ctx, &g));
  sl_graph_set_device(g, o->model->device);
  sl_status s = build_graph(o, recompute, training, g);
  if (s == SL_STATUS_OK) s = sl_graph_forecast(g, &arena, &shadowed);
  sl_graph_release(g);
  *bytes += arena;
  if (shadowed) *bytes += (uint64_t)copies * (uint64_t)sl_params_elements(o->model->params) * sizeof(uint16_t);
  return s;
}

static sl_status forecast(sl_context *ctx, const sl_train_options *o, sl_recompute recompute, uint64_t *bytes) {
  *bytes = sl_train_fixed_bytes(o);
  SL_TRY(forecast_program(ctx, o, recompute, true, 1, bytes)); /* the weights'; held-out losses are every EMA's, too */
  return o->holdout ? forecast_program(ctx, o, recompute, false, o->n_ema, bytes) : SL_STATUS_OK;
}

/* Left to choose, a GPU's backward keeps everything if that fits, which is faster, and else computes norms and
 * activations again. The memory that there is decides, not what is free: the choice shows in last bits, and a run is to
 * repeat. */
static sl_status choose_recompute(sl_context *ctx, const sl_train_options *o, sl_recompute *out) {
  const sl_device *dev = o->model->device;
  sl_device_memory memory;
  uint64_t bytes;
  *out = o->recompute;
  if (o->recompute != SL_RECOMPUTE_NONE || o->keep_all || !dev->gpu) return SL_STATUS_OK;
  SL_TRY(forecast(ctx, o, SL_RECOMPUTE_NONE, &bytes));
  SL_TRY(dev->memory(dev, &memory));
  if ((double)bytes > KEEP_SHARE * (double)memory.total) *out = SL_RECOMPUTE_LIGHT;
  return SL_STATUS_OK;
}

sl_status sl_train_forecast(sl_context *ctx, const sl_train_options *o, uint64_t *bytes) {
  sl_recompute recompute;
  *bytes = 0;
  SL_TRY(sl_train_check(o));
  SL_TRY(choose_recompute(ctx, o, &recompute));
  return forecast(ctx, o, recompute, bytes);
}

sl_status sl_train_compile(sl_context *ctx, const sl_train_options *o, bool training, sl_program **out) {
  sl_graph *g = NULL;
  sl_recompute recompute;
  SL_TRY(choose_recompute(ctx, o, &recompute));
  SL_TRY(sl_graph_new(ctx, &g));
  sl_graph_set_device(g, o->model->device);
  sl_status s = build_graph(o, recompute, training, g);
  if (s == SL_STATUS_OK) s = sl_graph_compile(g, NULL, out);
  sl_graph_release(g);
  return s;
}
