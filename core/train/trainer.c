/* A trainer: what it holds, what it draws, and its steps. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "ops/kernels.h"
#include "train/trainer_internal.h"

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

/* --- life --- */

static sl_status make_batch_tensors(sl_trainer *tr) {
  const sl_model_info *f = &tr->o.model->info;
  int64_t n = tr->o.batch, m = sl_train_micro_size(&tr->o);
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

static sl_tensor *retained(sl_tensor *t) { return t ? sl_tensor_retain(t) : NULL; }

sl_status sl_trainer_new(sl_context *ctx, const sl_train_options *o, sl_trainer **out) {
  *out = NULL;
  SL_TRY(sl_train_check(o));
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
  SL_GOTO(sl_train_compile(ctx, &tr->o, true, &tr->program));
  if (o->holdout) SL_GOTO(sl_train_compile(ctx, &tr->o, false, &tr->evaluation));
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
  sl_step step = {.seed = tr->o.seed,
                  .step = (uint32_t)tr->steps_done,
                  .first_sample = (uint32_t)(k * sl_train_micro_size(&tr->o))};
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

uint64_t sl_trainer_memory(const sl_trainer *tr) {
  return sl_program_arena_bytes(tr->program) + (tr->evaluation ? sl_program_arena_bytes(tr->evaluation) : 0) +
         sl_train_fixed_bytes(&tr->o);
}
