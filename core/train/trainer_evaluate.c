/* Losses over held-out images. */
#include "base/random.h"
#include "train/trainer_internal.h"

/* One micro-batch of held-out images from `first` on; behind the last one, the last again. */
static sl_status evaluate_part(sl_trainer *tr, int64_t first, sl_tensor *weights, sl_tensor **in, double *sum) {
  int64_t m = sl_train_micro_size(&tr->o), held = sl_dataset_count(tr->o.holdout);
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
  int64_t m = sl_train_micro_size(&tr->o), held = sl_dataset_count(tr->o.holdout);
  sl_shape image = SL_SHAPE(m, f->in_channels, f->height, f->width), row = SL_SHAPE(m);
  sl_tensor *t[N_IN + 1] = {0};
  double sum = 0;
  sl_status status;
  for (int i = 0; i <= N_IN; i++) {
    bool images = i == IN_X0 || i == IN_NOISE;
    SL_GOTO(sl_tensor_zeros(tr->ctx, tr->device->host, images || i == N_IN ? SL_F32 : SL_I64, images ? &image : &row,
                            &t[i]));
  }
  for (int64_t first = 0; first < held; first += m)
    SL_GOTO(evaluate_part(tr, first, weights ? weights : tr->params, t, &sum));
  *loss = sum / (double)held;
done:
  for (int i = 0; i <= N_IN; i++) sl_tensor_release(t[i]);
  return status;
}
