/* What a training step launches, and what comes back of it. On a GPU the whole of it is recorded once and replayed: all
 * that changes from step to step lies in the device's memory and is put there before. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/random.h"
#include "ops/adamw_math.h"
#include "train/trainer_internal.h"

enum { SQUARES = 1 + SL_SQUARES_BLOCKS }; /* doubles of one sum with its parts: of the gradients, then of the losses */

static sl_status bytes_on(sl_trainer *tr, size_t bytes, sl_tensor **out) {
  return sl_tensor_zeros(tr->ctx, tr->device, SL_U8, &SL_SHAPE((int64_t)bytes), out);
}

sl_status sl__update_make(sl_trainer *tr) {
  SL_TRY(bytes_on(tr, (size_t)tr->n_micro * sizeof(sl_step), &tr->steps));
  SL_TRY(bytes_on(tr, sizeof(sl_adamw_f32), &tr->rates));
  SL_TRY(sl_tensor_zeros(tr->ctx, tr->device, SL_F64, &SL_SHAPE(2 * SQUARES), &tr->squares));
  for (int i = 0; i < N_OUT; i++) {
    if (!tr->device->gpu) tr->host_out[i] = sl_tensor_retain(tr->batch_out[i]);
    else SL_TRY(sl_tensor_zeros(tr->ctx, tr->device->host, SL_F32, &SL_SHAPE(tr->o.batch), &tr->host_out[i]));
  }
  if (!tr->device->gpu) {
    tr->host_squares = sl_tensor_retain(tr->squares);
    return SL_STATUS_OK;
  }
  return sl_tensor_zeros(tr->ctx, tr->device->host, SL_F64, &SL_SHAPE(2 * SQUARES), &tr->host_squares);
}

void sl__update_free(sl_trainer *tr) {
  sl__update_changed(tr);
  sl_tensor *all[] = {tr->steps, tr->rates, tr->squares, tr->host_squares};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) sl_tensor_release(all[i]);
  for (int i = 0; i < N_OUT; i++) sl_tensor_release(tr->host_out[i]);
}

void sl__update_changed(sl_trainer *tr) {
  if (tr->recording) tr->device->record_free(tr->device, tr->recording);
  tr->recording = NULL;
}

/* --- what changes from step to step --- */

static sl_step step_of(const sl_trainer *tr, int64_t k) {
  return (sl_step){.seed = tr->o.seed,
                   .step = (uint32_t)tr->steps_done,
                   .first_sample = (uint32_t)(k * sl_train_micro_size(&tr->o))};
}

static const sl_step *step_there(const sl_trainer *tr, int64_t k) { return (sl_step *)sl_tensor_data(tr->steps) + k; }

static sl_adamw_f32 rates_of(const sl_trainer *tr, double lr) {
  const sl_train_options *o = &tr->o;
  double k = (double)tr->steps_done + 1;
  sl_adamw a = {.lr = lr,
                .beta1 = o->beta1,
                .beta2 = o->beta2,
                .eps = o->eps,
                .weight_decay = o->weight_decay,
                .correction1 = 1 - pow(o->beta1, k),
                .correction2 = 1 - pow(o->beta2, k),
                .grad_scale = 1,
                .clip = o->clip,
                .leave_gradients = tr->n_micro == 1};
  for (int i = 0; i < o->n_ema; i++) {
    double warm = (1 + k) / (10 + k);
    a.ema_decay[i] = o->ema_warmup && warm < o->ema_decay[i] ? warm : o->ema_decay[i];
  }
  return sl_adamw_round(&a);
}

static sl_status put_changes(sl_trainer *tr, double lr) {
  sl_exec *e = &tr->exec;
  sl_adamw_f32 rates = rates_of(tr, lr);
  for (int64_t k = 0; k < tr->n_micro; k++) {
    sl_step step = step_of(tr, k);
    SL_TRY(e->kernels->put(e, (void *)(uintptr_t)step_there(tr, k), &step, sizeof step));
  }
  return e->kernels->put(e, sl_tensor_data(tr->rates), &rates, sizeof rates);
}

/* --- what is launched --- */

sl_status sl__update_micro(sl_trainer *tr, int64_t k, bool (*trace)(void *, const sl_trace *), void *user) {
  sl_tensor **views = tr->micro + k * (N_IN + N_OUT);
  const sl_step *step = step_there(tr, k);
  bool gpu = tr->device->gpu != NULL;
  sl_run run = {.inputs = views,
                .outputs = views + N_IN,
                .params = tr->params,
                .grads = tr->grads,
                .step = gpu ? NULL : step,
                .device_step = gpu ? step : NULL,
                .trace = trace,
                .user = user,
                .profile = tr->profiling};
  return sl_program_run(tr->program, &run);
}

sl_status sl__update_zero(sl_trainer *tr) {
  size_t bytes = (size_t)sl_tensor_numel(tr->grads) * sizeof(float);
  return tr->device->fill(tr->device, sl_tensor_data(tr->grads), 0, bytes, NULL);
}

static sl_status draw_noise(sl_trainer *tr) {
  sl_view noise = sl_tensor_view(tr->batch_in[IN_NOISE]);
  tr->exec.step = step_there(tr, 0);
  return tr->exec.kernels->normal(&tr->exec, &noise, SL_STREAM_NOISE);
}

static sl_status update(sl_trainer *tr) {
  const sl_train_options *o = &tr->o;
  sl_exec *e = &tr->exec;
  double *gradients = sl_tensor_data(tr->squares), *losses = gradients + SQUARES;
  int64_t n = sl_params_trainable_elements(o->model->params);
  float *ema[SL_MAX_EMA];
  sl_tensor *shadow = NULL;
  bool fresh = false;
  if (sl_program_shadowed(tr->program)) SL_TRY(sl_tensor_shadow(tr->params, &shadow, &fresh));
  for (int i = 0; i < o->n_ema; i++) ema[i] = sl_tensor_data(tr->ema[i]);
  SL_TRY(e->kernels->sum_of_squares(e, n, sl_tensor_data(tr->grads), gradients));
  SL_TRY(e->kernels->sum_of_squares(e, o->batch, sl_tensor_data(tr->batch_out[OUT_LOSS]), losses));
  if (tr->kept_grads) SL_TRY(sl_tensor_copy(tr->kept_grads, tr->grads));
  return e->kernels->adamw_ema(e, sl_tensor_data(tr->rates), n, sl_tensor_data(tr->params), sl_tensor_data(tr->grads),
                               sl_tensor_data(tr->exp_avg), sl_tensor_data(tr->exp_avg_sq), o->n_ema, ema,
                               shadow ? sl_tensor_data(shadow) : NULL, gradients, losses);
}

static sl_status launch_all(sl_trainer *tr, bool given) {
  if (!given) SL_TRY(draw_noise(tr));
  for (int64_t k = 0; k < tr->n_micro; k++) SL_TRY(sl__update_micro(tr, k, NULL, NULL));
  return update(tr);
}

/* --- recording --- */

/* Whether this step may be recorded or replayed: an ordinary one, after one that went through the launches. */
static bool recordable(const sl_trainer *tr, bool given) {
  const sl_device *dev = tr->device;
  return dev->gpu && dev->record_begin && tr->warm && !tr->unrecordable && !given && !tr->profiling &&
         sl_program_recordable(tr->program);
}

static sl_status record(sl_trainer *tr) {
  const sl_device *dev = tr->device;
  void *recording = NULL;
  SL_TRY(dev->record_begin(dev));
  dev->gpu->recording = true;
  sl_status ran = launch_all(tr, false);
  dev->gpu->recording = false;
  char why[512] = ""; /* what failed first; that the recording is then broken says less */
  if (ran != SL_STATUS_OK) snprintf(why, sizeof why, "%s", sl_error());
  sl_status ended = dev->record_end(dev, &recording);
  if (ran != SL_STATUS_OK) (void)sl_fail(ran, "%s", why);
  tr->recording = ran == SL_STATUS_OK && ended == SL_STATUS_OK ? recording : NULL;
  if (recording && !tr->recording) dev->record_free(dev, recording);
  return ran == SL_STATUS_OK ? ended : ran;
}

/* The program's tables and bf16 parameters must be there before: a recording only holds launches. */
static sl_status replay(sl_trainer *tr, bool *done) {
  *done = false;
  SL_TRY(sl_program_refresh(tr->program, tr->params));
  if (!tr->recording) {
    sl_status s = record(tr);
    if (s == SL_STATUS_CANCELLED) return s;
    if (s != SL_STATUS_OK) {
      tr->unrecordable = true;
      sl_context_log(tr->ctx, "a training step cannot be recorded (%s); it is launched piece by piece", sl_error());
      return SL_STATUS_OK;
    }
  }
  *done = true;
  return tr->device->replay(tr->device, tr->recording);
}

static void count_versions(sl_trainer *tr) {
  sl_tensor_bump(tr->params);
  if (sl_program_shadowed(tr->program)) sl_tensor_shadow_fresh(tr->params); /* the update wrote it, too */
  for (int i = 0; i < tr->o.n_ema; i++) sl_tensor_bump(tr->ema[i]);
}

sl_status sl__update_launch(sl_trainer *tr, bool given, double lr) {
  bool done = false;
  if (tr->device->use) SL_TRY(tr->device->use(tr->device));
  if (sl_context_cancelled(tr->ctx)) return sl_fail(SL_STATUS_CANCELLED, "stopped on request");
  SL_TRY(put_changes(tr, lr));
  if (recordable(tr, given)) SL_TRY(replay(tr, &done));
  if (!done) SL_TRY(launch_all(tr, given));
  tr->warm = true;
  count_versions(tr);
  return SL_STATUS_OK;
}

static sl_status bring_back(sl_trainer *tr, sl_tensor *to, const sl_tensor *from) {
  size_t bytes = (size_t)sl_tensor_numel(to) * sl_dtype_size(sl_tensor_dtype(to));
  return tr->device->copy_out(tr->device, sl_tensor_data(to), sl_tensor_data(from), bytes, tr->exec.stream);
}

sl_status sl__update_fetch(sl_trainer *tr, double *squares) {
  if (tr->device->gpu) {
    for (int i = 0; i < N_OUT; i++) SL_TRY(bring_back(tr, tr->host_out[i], tr->batch_out[i]));
    SL_TRY(bring_back(tr, tr->host_squares, tr->squares));
    SL_TRY(tr->device->sync(tr->device, NULL));
  }
  *squares = *(const double *)sl_tensor_data(tr->host_squares);
  return SL_STATUS_OK;
}
