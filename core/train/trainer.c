/* A trainer: what it holds, and its steps. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static sl_status make_density(sl_trainer *tr) {
  if (!tr->o.t_density) return SL_STATUS_OK;
  int64_t n = tr->o.diffusion->steps;
  tr->cumulative = sl_alloc(tr->ctx, (size_t)n * sizeof(double));
  if (!tr->cumulative) return SL_STATUS_OOM;
  double sum = 0;
  sl_tensor *density = NULL;
  SL_TRY(sl_tensor_on_host(tr->o.t_density, &density));
  for (int64_t i = 0; i < n; i++) tr->cumulative[i] = sum += sl_tensor_at(density, i);
  sl_tensor_release(density);
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
  tr->device = o->model->device;
  tr->exec = sl_exec_on(ctx, tr->device);
  sl_model_retain(o->model);
  sl_diffusion_retain(o->diffusion);
  if (o->data) sl_dataset_retain(o->data);
  if (o->holdout) sl_dataset_retain(o->holdout);
  if (o->loader_threads < 0) tr->o.loader_threads = o->data && sl_dataset_decodes(o->data) ? 1 : 0;
  tr->o.weight = retained(o->weight);
  tr->o.t_density = retained(o->t_density);
  tr->o.schedule = NULL;
  sl_status status;
  if (o->schedule) SL_GOTO(sl_tensor_on_host(o->schedule, &tr->o.schedule));
  SL_GOTO(sl_train_compile(ctx, &tr->o, true, &tr->program));
  if (o->holdout) SL_GOTO(sl_train_compile(ctx, &tr->o, false, &tr->evaluation));
  SL_GOTO(make_arrays(tr));
  SL_GOTO(sl__batch_make(tr));
  SL_GOTO(sl__update_make(tr));
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
  sl__update_free(tr);
  sl__batch_free(tr);
  sl_program_free(tr->program);
  sl_program_free(tr->evaluation);
  sl_tensor *all[] = {tr->params,     tr->grads,    tr->exp_avg,     tr->exp_avg_sq,
                      tr->kept_grads, tr->o.weight, tr->o.t_density, tr->o.schedule};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) sl_tensor_release(all[i]);
  for (int i = 0; i < SL_MAX_EMA; i++) sl_tensor_release(tr->ema[i]);
  sl_free(tr->ctx, tr->cumulative);
  sl_dataset_release(tr->o.data);
  sl_dataset_release(tr->o.holdout);
  sl_diffusion_release(tr->o.diffusion);
  sl_model_release(tr->o.model);
  sl_free(tr->ctx, tr);
}

/* --- a step --- */

typedef struct culprit {
  char name[256];
} culprit;

static bool find_nonfinite(void *user, const sl_trace *t) {
  culprit *c = user;
  if (!t->nonfinite) return true;
  int n = snprintf(c->name, sizeof c->name, "%.100s (%s)", t->name, t->node->op->name);
  if (t->node->place) snprintf(c->name + n, sizeof c->name - (size_t)n, ", computed at %.120s", t->node->place);
  return false;
}

/* What the batch itself brings that is not finite: images, or the noise that a caller gave. */
static bool name_given(const sl_host_batch *b, bool given, culprit *c) {
  static const struct {
    int in;
    const char *name;
  } parts[] = {{IN_X0, "images"}, {IN_NOISE, "noise"}};
  for (int i = 0; i < (given ? 2 : 1); i++) {
    const sl_tensor *t = b->in[parts[i].in];
    const float *p = t ? sl_tensor_data(t) : NULL;
    int64_t n = t ? sl_tensor_numel(t) : 0, rows = t ? sl_tensor_shape(t)->dim[0] : 1;
    for (int64_t k = 0; k < n; k++) {
      if (isfinite(p[k])) continue;
      snprintf(c->name, sizeof c->name, "in the batch's %s: %s in number %lld of %lld", parts[i].name,
               isnan(p[k]) ? "NaN" : "an infinity", (long long)(k / (n / rows)) + 1, (long long)rows);
      return true;
    }
  }
  return false;
}

/* Runs the step again in trace mode to name the first node that is not finite. */
static sl_status name_nonfinite(sl_trainer *tr, const sl_host_batch *b, bool given, double loss, double norm) {
  culprit c = {"the sum of the gradients"};
  bool found = name_given(b, given, &c);
  SL_TRY(sl__update_zero(tr)); /* micro-batches add to them: what is not finite there would be found first */
  for (int64_t k = 0; !found && k < tr->n_micro; k++)
    if (sl__update_micro(tr, k, find_nonfinite, &c) == SL_STATUS_CANCELLED) break;
  SL_TRY(sl__update_zero(tr));
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

static void count_bins(sl_trainer *tr, const sl_host_batch *b) {
  const float *loss = sl_tensor_data(tr->host_out[OUT_LOSS]);
  const int64_t *t = sl_tensor_data(b->in[IN_T]);
  for (int64_t k = 0; k < tr->o.batch; k++) {
    int64_t bin = t[k] * SL_T_BINS / tr->o.diffusion->steps;
    tr->bin_sum[bin] += loss[k];
    tr->bin_count[bin]++;
  }
}

static sl_status finish_step(sl_trainer *tr, const sl_host_batch *b, bool given, double lr, sl_step_result *r) {
  double squares = 0;
  SL_TRY(sl__update_fetch(tr, &squares));
  *r = (sl_step_result){.step = tr->steps_done + 1,
                        .loss = mean_of(tr->host_out[OUT_LOSS]),
                        .mse = mean_of(tr->host_out[OUT_MSE]),
                        .vb = mean_of(tr->host_out[OUT_VB]),
                        .grad_norm = sqrt(squares),
                        .lr = lr};
  if (!isfinite(r->grad_norm) || !isfinite(r->loss)) return name_nonfinite(tr, b, given, r->loss, r->grad_norm);
  count_bins(tr, b);
  tr->steps_done++;
  return SL_STATUS_OK;
}

/* While a GPU works on the batch, the next one is drawn. */
static sl_status run_step(sl_trainer *tr, const sl_host_batch *b, bool given, sl_step_result *r) {
  double lr = learning_rate(tr);
  sl_status status;
  SL_GOTO(sl__batch_bring(tr, b, given));
  SL_GOTO(sl__update_launch(tr, given, lr));
  if (!given) sl__batch_draw_ahead(tr);
  return finish_step(tr, b, given, lr, r);
done:
  if (sl__update_zero(tr) != SL_STATUS_OK) return SL_STATUS_DEVICE;
  return status;
}

sl_status sl_trainer_step(sl_trainer *tr, sl_step_result *r) {
  sl_host_batch *b = NULL;
  sl_status status = sl__batch_draw(tr, &b);
  if (status == SL_STATUS_OK) status = run_step(tr, b, false, r);
  if (status != SL_STATUS_OK) sl__batch_forget(tr);
  return status;
}

sl_status sl_trainer_step_on(sl_trainer *tr, const sl_batch *given, sl_step_result *r) {
  sl_host_batch *b = NULL;
  SL_REQUIRE(given, ARG, "train: the batch is NULL");
  SL_TRY(sl__batch_given(tr, given, &b));
  return run_step(tr, b, true, r);
}

/* --- reading --- */

sl_status sl_trainer_restore(sl_trainer *tr, int64_t steps) {
  SL_REQUIRE(steps >= 0, ARG, "train: %lld steps done, expected 0 or more", (long long)steps);
  tr->steps_done = steps;
  sl__batch_forget(tr);
  sl_tensor_bump(tr->params); /* they were written, past the trainer */
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
  return which >= 0 && which < N_OUT ? tr->host_out[which] : NULL;
}
sl_program *sl_trainer_program(sl_trainer *tr) { return tr->program; }

sl_status sl_trainer_keep_gradients(sl_trainer *tr) {
  if (tr->kept_grads) return SL_STATUS_OK;
  sl__update_changed(tr);
  return sl_tensor_zeros(tr->ctx, tr->device, SL_F32, sl_tensor_shape(tr->grads), &tr->kept_grads);
}

sl_tensor *sl_trainer_array(sl_trainer *tr, const char *name) {
  if (!name) return NULL;
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

/* Of bf16 copies: of the weights, and of every EMA that held-out losses are computed with. */
static uint64_t copies_bytes(const sl_trainer *tr) {
  uint64_t n = sl_program_shadowed(tr->program) ? 1 : 0;
  if (tr->evaluation && sl_program_shadowed(tr->evaluation)) n += (uint64_t)tr->o.n_ema;
  return n * (uint64_t)sl_tensor_numel(tr->params) * sizeof(uint16_t);
}

uint64_t sl_trainer_memory(const sl_trainer *tr) {
  return sl_program_arena_bytes(tr->program) + (tr->evaluation ? sl_program_arena_bytes(tr->evaluation) : 0) +
         sl_train_fixed_bytes(&tr->o) + copies_bytes(tr);
}
