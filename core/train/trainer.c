#include "train/trainer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "data/loader.h"
#include "ops/kernels.h"
#include "ops/ops.h"

enum { IN_X0, IN_T, IN_Y, IN_NOISE, N_IN };
enum { OUT_LOSS, OUT_MSE, OUT_VB, N_OUT };

struct sl_trainer {
  sl_context *ctx;
  sl_train_options o;               /* objects retained */
  sl_program *program, *evaluation; /* evaluation: NULL without held-out images */
  sl_loader *loader;                /* NULL: made at the first step, or none wanted */
  sl_tensor *params, *grads, *exp_avg, *exp_avg_sq, *ema[SL_MAX_EMA], *kept_grads;
  sl_tensor *batch_in[N_IN];
  sl_tensor *batch_out[N_OUT];
  sl_tensor **micro; /* [micro-batch][inputs, outputs]: views of the batch */
  int64_t n_micro;
  double *cumulative; /* of t_density */
  int64_t steps_done;
  bool profiling;
  double bin_sum[SL_T_BINS];
  int64_t bin_count[SL_T_BINS];
};

sl_train_options sl_train_defaults(void) {
  return (sl_train_options){.lr = 1e-4,
                            .beta1 = 0.9,
                            .beta2 = 0.999,
                            .eps = 1e-8,
                            .n_ema = 1,
                            .ema_decay = {0.9999},
                            .ema_warmup = true,
                            .batch = 1,
                            .loader_threads = -1};
}

/* --- checks --- */

static sl_status check_table(const char *what, const sl_tensor *t, int64_t n, bool density) {
  if (!t) return SL_STATUS_OK;
  SL_REQUIRE(sl_tensor_dtype(t) == SL_F32 && sl_tensor_shape(t)->rank == 1 && sl_tensor_numel(t) == n &&
                 sl_tensor_is_contiguous(t),
             SHAPE, "train: %s is %s %s, expected f32 [%lld]", what, sl_dtype_name(sl_tensor_dtype(t)),
             sl_shape_text(sl_tensor_shape(t)), (long long)n);
  double sum = 0;
  for (int64_t i = 0; i < n; i++) {
    double v = sl_tensor_at(t, i);
    SL_REQUIRE(isfinite(v) && v >= 0, NUMERIC, "train: %s at t = %lld is %g, expected a finite number not below 0",
               what, (long long)i, v);
    sum += v;
  }
  SL_REQUIRE(!density || sum > 0, ARG, "train: %s is 0 everywhere", what);
  return SL_STATUS_OK;
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

static sl_status check_options(const sl_train_options *o) {
  SL_REQUIRE(o->model && o->diffusion, ARG, "train: model and diffusion must be given");
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
  SL_REQUIRE(o->loader_threads <= 64, ARG, "train: loader threads are %d, expected 0 … 64", o->loader_threads);
  SL_TRY(check_rates(o));
  SL_TRY(check_table("the loss weight", o->weight, o->diffusion->steps, false));
  SL_TRY(check_table("the density of t", o->t_density, o->diffusion->steps, true));
  SL_TRY(check_data(o, o->data));
  return check_data(o, o->holdout);
}

/* --- the gradient program --- */

static int64_t micro_size(const sl_train_options *o) { return o->micro_batch ? o->micro_batch : o->batch; }

static sl_status add_gradients(sl_builder *b, sl_value *loss, bool recompute) {
  sl_graph *g = b->g;
  sl_context *ctx = sl_graph_context(g);
  sl_value **wrt = sl_alloc(ctx, (size_t)(b->n_values + 1) * 2 * sizeof *wrt);
  if (!wrt) return SL_STATUS_OOM;
  sl_value **grads = wrt + b->n_values + 1;
  int n = 0;
  for (int i = 0; i < b->n_values; i++)
    if (b->values[i] && sl_params_get(b->params, i)->trainable) wrt[n++] = b->values[i];
  sl_status s = sl_grad(g, loss, NULL, n, wrt, recompute, grads);
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
static sl_status build_graph(const sl_train_options *o, bool training, sl_graph *g) {
  const sl_model_info *f = &o->model->info;
  int64_t n = micro_size(o);
  sl_shape image = SL_SHAPE(n, f->in_channels, f->height, f->width);
  sl_builder b;
  SL_TRY(sl_builder_init(&b, g, o->model->params, false));
  b.training = training;
  b.recompute = training && o->recompute;
  sl_precision_use(o->precision, &b);
  sl_value *x0 = sl_input(g, "x0", SL_F32, &image), *t = sl_input(g, "t", SL_I64, &SL_SHAPE(n));
  sl_value *y = sl_input(g, "y", SL_I64, &SL_SHAPE(n)), *noise = sl_input(g, "noise", SL_F32, &image);
  sl_losses l = describe_loss(o, &b, x0, t, f->classes ? y : NULL, noise);
  sl_status s = sl_graph_status(g);
  if (s == SL_STATUS_OK && training) {
    /* The gradient of the batch's mean loss, gathered over micro-batches. */
    sl_value *total = sl_mul_scalar(sl_sum(l.loss, 0, NULL, false), 1.0 / o->batch);
    s = add_gradients(&b, total, o->recompute);
  }
  sl_builder_clear(&b);
  SL_TRY(s);
  sl_graph_output(g, "loss", l.loss);
  if (!training) return sl_graph_status(g);
  sl_graph_output(g, "mse", l.mse ? l.mse : sl_mul_scalar(l.loss, 0.0));
  sl_graph_output(g, "vb", l.vb ? l.vb : sl_mul_scalar(l.loss, 0.0));
  return sl_graph_status(g);
}

/* --- life --- */

static sl_status make_batch_tensors(sl_trainer *tr) {
  const sl_model_info *f = &tr->o.model->info;
  int64_t n = tr->o.batch, m = micro_size(&tr->o);
  sl_shape image = SL_SHAPE(n, f->in_channels, f->height, f->width), row = SL_SHAPE(n);
  SL_TRY(sl_tensor_new(tr->ctx, NULL, SL_F32, &image, &tr->batch_in[IN_X0]));
  SL_TRY(sl_tensor_new(tr->ctx, NULL, SL_I64, &row, &tr->batch_in[IN_T]));
  SL_TRY(sl_tensor_zeros(tr->ctx, NULL, SL_I64, &row, &tr->batch_in[IN_Y]));
  SL_TRY(sl_tensor_new(tr->ctx, NULL, SL_F32, &image, &tr->batch_in[IN_NOISE]));
  for (int k = 0; k < N_OUT; k++) SL_TRY(sl_tensor_zeros(tr->ctx, NULL, SL_F32, &row, &tr->batch_out[k]));
  tr->n_micro = n / m;
  tr->micro = sl_alloc_zero(tr->ctx, (size_t)tr->n_micro * (N_IN + N_OUT) * sizeof *tr->micro);
  if (!tr->micro) return SL_STATUS_OOM;
  for (int64_t k = 0; k < tr->n_micro; k++)
    for (int i = 0; i < N_IN + N_OUT; i++) {
      sl_tensor *whole = i < N_IN ? tr->batch_in[i] : tr->batch_out[i - N_IN];
      SL_TRY(sl_tensor_narrow(whole, 0, k * m, m, &tr->micro[k * (N_IN + N_OUT) + i]));
    }
  return SL_STATUS_OK;
}

static sl_status make_density(sl_trainer *tr) {
  if (!tr->o.t_density) return SL_STATUS_OK;
  int64_t n = tr->o.diffusion->steps;
  tr->cumulative = sl_alloc(tr->ctx, (size_t)n * sizeof(double));
  if (!tr->cumulative) return SL_STATUS_OOM;
  double sum = 0;
  for (int64_t i = 0; i < n; i++) tr->cumulative[i] = sum += sl_tensor_at(tr->o.t_density, i);
  return SL_STATUS_OK;
}

static sl_status make_arrays(sl_trainer *tr) {
  sl_params *p = tr->o.model->params;
  SL_TRY(sl_model_weights(tr->o.model, &tr->params));
  sl_tensor_retain(tr->params);
  tr->o.model->ready = true;
  SL_TRY(sl_params_array(p, &tr->grads));
  SL_TRY(sl_params_array(p, &tr->exp_avg));
  SL_TRY(sl_params_array(p, &tr->exp_avg_sq));
  for (int i = 0; i < tr->o.n_ema; i++) {
    SL_TRY(sl_params_array(p, &tr->ema[i]));
    SL_TRY(sl_tensor_copy(tr->ema[i], tr->params));
  }
  return SL_STATUS_OK;
}

static sl_status make_program(sl_trainer *tr, bool training, sl_program **out) {
  sl_graph *g = NULL;
  SL_TRY(sl_graph_new(tr->ctx, &g));
  sl_status s = build_graph(&tr->o, training, g);
  if (s == SL_STATUS_OK) s = sl_graph_compile(g, NULL, out);
  sl_graph_release(g);
  return s;
}

static sl_tensor *retained(sl_tensor *t) { return t ? sl_tensor_retain(t) : NULL; }

sl_status sl_trainer_new(sl_context *ctx, const sl_train_options *o, sl_trainer **out) {
  *out = NULL;
  SL_TRY(check_options(o));
  sl_trainer *tr = sl_alloc_zero(ctx, sizeof *tr);
  if (!tr) return SL_STATUS_OOM;
  tr->ctx = ctx;
  tr->o = *o;
  sl_model_retain(o->model);
  sl_diffusion_retain(o->diffusion);
  if (o->data) sl_dataset_retain(o->data);
  if (o->holdout) sl_dataset_retain(o->holdout);
  if (o->loader_threads < 0) tr->o.loader_threads = o->data && sl_dataset_decodes(o->data) ? 1 : 0;
  tr->o.weight = retained(o->weight);
  tr->o.t_density = retained(o->t_density);
  tr->o.schedule = retained(o->schedule);
  sl_status status;
  SL_GOTO(make_program(tr, true, &tr->program));
  if (o->holdout) SL_GOTO(make_program(tr, false, &tr->evaluation));
  SL_GOTO(make_arrays(tr));
  SL_GOTO(make_batch_tensors(tr));
  SL_GOTO(make_density(tr));
  *out = tr;
  return SL_STATUS_OK;
done:
  sl_trainer_free(tr);
  return status;
}

void sl_trainer_free(sl_trainer *tr) {
  if (!tr) return;
  sl_loader_free(tr->loader);
  sl_program_free(tr->program);
  sl_program_free(tr->evaluation);
  sl_tensor *all[] = {tr->params,     tr->grads,    tr->exp_avg,     tr->exp_avg_sq,
                      tr->kept_grads, tr->o.weight, tr->o.t_density, tr->o.schedule};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) sl_tensor_release(all[i]);
  for (int i = 0; i < SL_MAX_EMA; i++) sl_tensor_release(tr->ema[i]);
  for (int64_t i = 0; tr->micro && i < tr->n_micro * (N_IN + N_OUT); i++) sl_tensor_release(tr->micro[i]);
  sl_free(tr->ctx, tr->micro);
  for (int i = 0; i < N_IN; i++) sl_tensor_release(tr->batch_in[i]);
  for (int i = 0; i < N_OUT; i++) sl_tensor_release(tr->batch_out[i]);
  sl_free(tr->ctx, tr->cumulative);
  sl_dataset_release(tr->o.data);
  sl_dataset_release(tr->o.holdout);
  sl_diffusion_release(tr->o.diffusion);
  sl_model_release(tr->o.model);
  sl_free(tr->ctx, tr);
}

/* --- draws --- */

static int64_t draw_t(const sl_trainer *tr, int64_t place) {
  sl_rng_key key = {tr->o.seed, SL_STREAM_TIMESTEP};
  uint32_t step = (uint32_t)tr->steps_done;
  int64_t n = tr->o.diffusion->steps;
  if (!tr->cumulative) return (int64_t)sl_random_below(key, (uint32_t)place, step, 0, (uint32_t)n);
  float u;
  sl_random_uniform(key, (uint32_t)place, step, 0, 1, &u);
  double want = (double)u * tr->cumulative[n - 1];
  int64_t lo = 0, hi = n - 1; /* the first t whose cumulative density exceeds want */
  while (lo < hi) {
    int64_t mid = (lo + hi) / 2;
    if (tr->cumulative[mid] > want) {
      hi = mid;
    } else {
      lo = mid + 1;
    }
  }
  return lo;
}

static void drop_labels(const sl_trainer *tr, int64_t *y) {
  const sl_model_info *f = &tr->o.model->info;
  if (f->one_class) memset(y, 0, (size_t)tr->o.batch * sizeof *y);
  if (!f->null_class) return;
  for (int64_t k = 0; k < tr->o.batch; k++) {
    float u;
    sl_random_uniform((sl_rng_key){tr->o.seed, SL_STREAM_LABEL_DROPOUT}, (uint32_t)k, (uint32_t)tr->steps_done, 0, 1,
                      &u);
    if (u < f->class_dropout) y[k] = f->classes;
  }
}

/* The step's images and labels, from the threads that read ahead if there are any. */
static sl_status read_images(sl_trainer *tr, float *x0, int64_t *y) {
  const sl_train_options *o = &tr->o;
  int64_t first = tr->steps_done * o->batch;
  if (!o->loader_threads) return sl_dataset_batch(o->data, o->seed, first, o->batch, o->flip, x0, y);
  if (!tr->loader)
    SL_TRY(
        sl_loader_new(o->data, &(sl_stream_part){o->seed, first, o->batch, o->flip}, o->loader_threads, &tr->loader));
  return sl_loader_next(tr->loader, x0, y);
}

static sl_status draw_batch(sl_trainer *tr) {
  SL_REQUIRE(tr->o.data, ARG, "train: there is no data set; give each step its batch");
  float *x0 = sl_tensor_data(tr->batch_in[IN_X0]), *noise = sl_tensor_data(tr->batch_in[IN_NOISE]);
  int64_t *t = sl_tensor_data(tr->batch_in[IN_T]), *y = sl_tensor_data(tr->batch_in[IN_Y]), n = tr->o.batch;
  SL_TRY(read_images(tr, x0, y));
  drop_labels(tr, y);
  int64_t per = sl_tensor_numel(tr->batch_in[IN_NOISE]) / n;
  for (int64_t k = 0; k < n; k++) {
    t[k] = draw_t(tr, k);
    sl_random_normal((sl_rng_key){tr->o.seed, SL_STREAM_NOISE}, (uint32_t)k, (uint32_t)tr->steps_done, 0, per,
                     noise + k * per);
  }
  return SL_STATUS_OK;
}

/* --- a step --- */

static sl_status run_micro(sl_trainer *tr, int64_t k, bool (*trace)(void *, const sl_trace *), void *user) {
  sl_tensor **views = tr->micro + k * (N_IN + N_OUT);
  sl_step step = {
      .seed = tr->o.seed, .step = (uint32_t)tr->steps_done, .first_sample = (uint32_t)(k * micro_size(&tr->o))};
  sl_run run = {.inputs = views,
                .outputs = views + N_IN,
                .params = tr->params,
                .grads = tr->grads,
                .step = &step,
                .trace = trace,
                .user = user,
                .profile = tr->profiling};
  return sl_program_run(tr->program, &run);
}

static void zero_gradients(sl_trainer *tr) {
  memset(sl_tensor_data(tr->grads), 0, (size_t)sl_tensor_numel(tr->grads) * sizeof(float));
}

typedef struct culprit {
  char name[128];
} culprit;

static bool find_nonfinite(void *user, const sl_trace *t) {
  culprit *c = user;
  if (!t->nonfinite) return true;
  snprintf(c->name, sizeof c->name, "%s (%s)", t->name, t->node->op->name);
  return false;
}

/* Runs the step again in trace mode to name the first node that is not finite. */
static sl_status name_nonfinite(sl_trainer *tr, double loss, double norm) {
  culprit c = {"the sum of the gradients"};
  for (int64_t k = 0; k < tr->n_micro; k++)
    if (run_micro(tr, k, find_nonfinite, &c) == SL_STATUS_CANCELLED) break;
  zero_gradients(tr);
  return sl_fail(SL_STATUS_NUMERIC,
                 "train: step %lld is not finite (loss %g, gradient norm %g); the first such value is %s. The weights "
                 "are as they were",
                 (long long)tr->steps_done + 1, loss, norm, c.name);
}

static double mean_of(sl_tensor *t) {
  const float *p = sl_tensor_data(t);
  int64_t n = sl_tensor_numel(t);
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += p[i];
  return sum / (double)n;
}

static double learning_rate(const sl_trainer *tr) {
  if (!tr->o.schedule) return tr->o.lr;
  int64_t n = sl_tensor_numel(tr->o.schedule), at = tr->steps_done < n ? tr->steps_done : n - 1;
  return tr->o.lr * sl_tensor_at(tr->o.schedule, at);
}

static sl_status update(sl_trainer *tr, double norm, double lr) {
  const sl_train_options *o = &tr->o;
  double k = (double)tr->steps_done + 1, n = k;
  sl_adamw a = {.lr = lr,
                .beta1 = o->beta1,
                .beta2 = o->beta2,
                .eps = o->eps,
                .weight_decay = o->weight_decay,
                .correction1 = (1 - pow(o->beta1, k)),
                .correction2 = (1 - pow(o->beta2, k)),
                .grad_scale = 1};
  if (o->clip > 0 && norm > o->clip) a.grad_scale = o->clip / (norm + 1e-6); /* as torch's clip_grad_norm_ */
  float *ema[SL_MAX_EMA];
  for (int i = 0; i < o->n_ema; i++) {
    double warm = (1 + n) / (10 + n);
    a.ema_decay[i] = o->ema_warmup && warm < o->ema_decay[i] ? warm : o->ema_decay[i];
    ema[i] = sl_tensor_data(tr->ema[i]);
  }
  sl_exec e = {tr->ctx, &sl_device_cpu, sl_kernels_of(&sl_device_cpu), NULL, NULL};
  SL_TRY(e.kernels->adamw_ema(&e, &a, sl_params_trainable_elements(o->model->params), sl_tensor_data(tr->params),
                              sl_tensor_data(tr->grads), sl_tensor_data(tr->exp_avg), sl_tensor_data(tr->exp_avg_sq),
                              o->n_ema, ema));
  sl_tensor_bump(tr->params);
  for (int i = 0; i < o->n_ema; i++) sl_tensor_bump(tr->ema[i]);
  return SL_STATUS_OK;
}

static void count_bins(sl_trainer *tr) {
  const float *loss = sl_tensor_data(tr->batch_out[OUT_LOSS]);
  const int64_t *t = sl_tensor_data(tr->batch_in[IN_T]);
  for (int64_t k = 0; k < tr->o.batch; k++) {
    int64_t bin = t[k] * SL_T_BINS / tr->o.diffusion->steps;
    tr->bin_sum[bin] += loss[k];
    tr->bin_count[bin]++;
  }
}

static sl_status finish_step(sl_trainer *tr, sl_step_result *r) {
  sl_exec e = {tr->ctx, &sl_device_cpu, sl_kernels_of(&sl_device_cpu), NULL, NULL};
  double squares = 0;
  SL_TRY(e.kernels->sum_of_squares(&e, sl_params_trainable_elements(tr->o.model->params), sl_tensor_data(tr->grads),
                                   &squares));
  *r = (sl_step_result){.step = tr->steps_done + 1,
                        .loss = mean_of(tr->batch_out[OUT_LOSS]),
                        .mse = mean_of(tr->batch_out[OUT_MSE]),
                        .vb = mean_of(tr->batch_out[OUT_VB]),
                        .grad_norm = sqrt(squares),
                        .lr = learning_rate(tr)};
  if (!isfinite(r->grad_norm) || !isfinite(r->loss)) return name_nonfinite(tr, r->loss, r->grad_norm);
  if (tr->kept_grads) SL_TRY(sl_tensor_copy(tr->kept_grads, tr->grads));
  SL_TRY(update(tr, r->grad_norm, r->lr));
  count_bins(tr);
  tr->steps_done++;
  return SL_STATUS_OK;
}

static sl_status run_step(sl_trainer *tr, sl_step_result *r) {
  for (int64_t k = 0; k < tr->n_micro; k++) {
    sl_status s = run_micro(tr, k, NULL, NULL);
    if (s == SL_STATUS_OK) continue;
    zero_gradients(tr);
    return s;
  }
  return finish_step(tr, r);
}

/* A step that did not happen leaves the loader a batch ahead. */
static void drop_loader(sl_trainer *tr) {
  sl_loader_free(tr->loader);
  tr->loader = NULL;
}

sl_status sl_trainer_step(sl_trainer *tr, sl_step_result *r) {
  sl_status status = draw_batch(tr);
  if (status == SL_STATUS_OK) status = run_step(tr, r);
  if (status != SL_STATUS_OK) drop_loader(tr);
  return status;
}

sl_status sl_trainer_step_on(sl_trainer *tr, const sl_batch *b, sl_step_result *r) {
  sl_tensor *given[N_IN] = {b->x0, b->t, b->y, b->noise};
  static const char *const names[] = {"x0", "t", "y", "noise"};
  for (int k = 0; k < N_IN; k++) {
    if (k == IN_Y && !given[k]) continue;
    SL_REQUIRE(given[k], ARG, "train: the batch's %s is missing", names[k]);
    SL_REQUIRE(sl_shape_equal(sl_tensor_shape(given[k]), sl_tensor_shape(tr->batch_in[k])), SHAPE,
               "train: the batch's %s is %s, expected %s", names[k], sl_shape_text(sl_tensor_shape(given[k])),
               sl_shape_text(sl_tensor_shape(tr->batch_in[k])));
    SL_TRY(sl_tensor_copy(tr->batch_in[k], given[k]));
  }
  const sl_model_info *f = &tr->o.model->info;
  int64_t *t = sl_tensor_data(tr->batch_in[IN_T]), *y = sl_tensor_data(tr->batch_in[IN_Y]);
  for (int64_t k = 0; k < tr->o.batch; k++) {
    SL_REQUIRE(t[k] >= 0 && t[k] < tr->o.diffusion->steps, ARG, "train: t is %lld, expected 0 … %lld", (long long)t[k],
               (long long)tr->o.diffusion->steps - 1);
    if (!b->y) y[k] = f->one_class ? 0 : f->classes;
    SL_REQUIRE(!f->classes || (y[k] >= 0 && y[k] < f->classes + (f->null_class ? 1 : 0)), ARG,
               "train: label %lld is outside 0 … %lld", (long long)y[k], (long long)f->classes - 1);
  }
  return run_step(tr, r);
}

/* --- held-out images --- */

/* One micro-batch of held-out images from `first` on; behind the last one, the last again. */
static sl_status evaluate_part(sl_trainer *tr, int64_t first, sl_tensor *weights, sl_tensor **in, double *sum) {
  int64_t m = micro_size(&tr->o), held = sl_dataset_count(tr->o.holdout);
  float *x0 = sl_tensor_data(in[IN_X0]), *noise = sl_tensor_data(in[IN_NOISE]);
  int64_t *t = sl_tensor_data(in[IN_T]), *y = sl_tensor_data(in[IN_Y]), per = sl_tensor_numel(in[IN_X0]) / m;
  for (int64_t k = 0; k < m; k++) {
    int64_t i = first + k < held ? first + k : held - 1;
    SL_TRY(sl_dataset_get(tr->o.holdout, i, false, x0 + k * per));
    y[k] = tr->o.model->info.one_class ? 0 : sl_dataset_label(tr->o.holdout, i);
    t[k] = (int64_t)(((double)i + 0.5) / (double)held * (double)tr->o.diffusion->steps);
    sl_random_normal((sl_rng_key){0, SL_STREAM_HOLDOUT}, (uint32_t)i, 0, 0, per, noise + k * per);
  }
  sl_step step = {0};
  sl_run run = {.inputs = in, .outputs = in + N_IN, .params = weights, .step = &step};
  SL_TRY(sl_program_run(tr->evaluation, &run));
  const float *loss = sl_tensor_data(in[N_IN]);
  for (int64_t k = 0; k < m && first + k < held; k++) *sum += loss[k];
  return SL_STATUS_OK;
}

sl_status sl_trainer_evaluate(sl_trainer *tr, sl_tensor *weights, double *loss) {
  *loss = 0;
  SL_REQUIRE(tr->evaluation, ARG, "train: there are no held-out images");
  const sl_model_info *f = &tr->o.model->info;
  int64_t m = micro_size(&tr->o), held = sl_dataset_count(tr->o.holdout);
  sl_shape image = SL_SHAPE(m, f->in_channels, f->height, f->width), row = SL_SHAPE(m);
  sl_tensor *t[N_IN + 1] = {0};
  double sum = 0;
  sl_status status;
  for (int i = 0; i <= N_IN; i++) {
    bool images = i == IN_X0 || i == IN_NOISE;
    SL_GOTO(sl_tensor_zeros(tr->ctx, NULL, images || i == N_IN ? SL_F32 : SL_I64, images ? &image : &row, &t[i]));
  }
  for (int64_t first = 0; first < held; first += m)
    SL_GOTO(evaluate_part(tr, first, weights ? weights : tr->params, t, &sum));
  *loss = sum / (double)held;
done:
  for (int i = 0; i <= N_IN; i++) sl_tensor_release(t[i]);
  return status;
}

/* --- reading --- */

sl_status sl_trainer_restore(sl_trainer *tr, int64_t steps) {
  SL_REQUIRE(steps >= 0, ARG, "train: %lld steps done, expected 0 or more", (long long)steps);
  tr->steps_done = steps;
  drop_loader(tr);
  return SL_STATUS_OK;
}

void sl_trainer_take_bins(sl_trainer *tr, double sum[SL_T_BINS], int64_t count[SL_T_BINS]) {
  memcpy(sum, tr->bin_sum, sizeof tr->bin_sum);
  memcpy(count, tr->bin_count, sizeof tr->bin_count);
  memset(tr->bin_sum, 0, sizeof tr->bin_sum);
  memset(tr->bin_count, 0, sizeof tr->bin_count);
}

int64_t sl_trainer_steps_done(const sl_trainer *tr) { return tr->steps_done; }
sl_tensor *sl_trainer_per_sample(sl_trainer *tr, int which) {
  return which >= 0 && which < N_OUT ? tr->batch_out[which] : NULL;
}
sl_program *sl_trainer_program(sl_trainer *tr) { return tr->program; }

sl_status sl_trainer_keep_gradients(sl_trainer *tr) {
  return tr->kept_grads ? SL_STATUS_OK : sl_params_array(tr->o.model->params, &tr->kept_grads);
}

sl_tensor *sl_trainer_array(sl_trainer *tr, const char *name) {
  if (!strcmp(name, "params")) return tr->params;
  if (!strcmp(name, "exp_avg")) return tr->exp_avg;
  if (!strcmp(name, "exp_avg_sq")) return tr->exp_avg_sq;
  if (!strcmp(name, "grads")) return tr->kept_grads;
  int i;
  if (sscanf(name, "ema.%d", &i) == 1 && i >= 0 && i < tr->o.n_ema) return tr->ema[i];
  return NULL;
}

bool sl_trainer_profiling(sl_trainer *tr) {
  bool before = tr->profiling;
  tr->profiling = true;
  return before;
}

static uint64_t fixed_bytes(const sl_train_options *o) {
  const sl_model_info *f = &o->model->info;
  uint64_t arrays = 4 + (uint64_t)o->n_ema;
  uint64_t image = (uint64_t)(f->in_channels * f->height * f->width) * sizeof(float);
  uint64_t bytes = arrays * (uint64_t)sl_params_elements(o->model->params) * sizeof(float) +
                   (uint64_t)o->batch * (2 * image + 2 * 8 + 3 * 4);
  if (!o->data || !sl_dataset_decodes(o->data)) return bytes;
  int threads = o->loader_threads < 0 ? 1 : o->loader_threads;
  return bytes + sl_dataset_memory(o->data) + (threads ? sl_loader_memory(o->data, o->batch, threads) : 0);
}

uint64_t sl_trainer_memory(const sl_trainer *tr) {
  return sl_program_arena_bytes(tr->program) + (tr->evaluation ? sl_program_arena_bytes(tr->evaluation) : 0) +
         fixed_bytes(&tr->o);
}

static sl_status forecast_program(sl_context *ctx, const sl_train_options *o, bool training, uint64_t *bytes) {
  sl_graph *g = NULL;
  uint64_t arena = 0;
  SL_TRY(sl_graph_new(ctx, &g));
  sl_status s = build_graph(o, training, g);
  if (s == SL_STATUS_OK) s = sl_graph_forecast(g, &arena);
  sl_graph_release(g);
  *bytes += arena;
  return s;
}

sl_status sl_train_forecast(sl_context *ctx, const sl_train_options *o, uint64_t *bytes) {
  *bytes = 0;
  SL_TRY(check_options(o));
  uint64_t sum = fixed_bytes(o);
  SL_TRY(forecast_program(ctx, o, true, &sum));
  if (o->holdout) SL_TRY(forecast_program(ctx, o, false, &sum));
  *bytes = sum;
  return SL_STATUS_OK;
}
