/* A training step's batch: images read, timesteps and dropped labels drawn, and all of it brought to the device. */
#include <string.h>

#include "base/random.h"
#include "train/trainer_internal.h"

/* --- life --- */

static sl_status new_host(sl_trainer *tr, int i, sl_tensor **out) {
  const sl_tensor *like = tr->batch_in[i];
  return sl_tensor_new(tr->ctx, tr->device->host, sl_tensor_dtype(like), sl_tensor_shape(like), out);
}

static sl_status make_host(sl_trainer *tr) {
  for (int k = 0; k < 2; k++) tr->host[k].step = -1;
  for (int i = 0; i < N_IN; i++) {
    if (!tr->device->gpu) tr->host[0].in[i] = sl_tensor_retain(tr->batch_in[i]);
    for (int k = 0; k < 2 && tr->device->gpu && i != IN_NOISE; k++) SL_TRY(new_host(tr, i, &tr->host[k].in[i]));
  }
  return SL_STATUS_OK;
}

sl_status sl__batch_make(sl_trainer *tr) {
  const sl_model_info *f = &tr->o.model->info;
  const sl_device *dev = tr->device;
  int64_t n = tr->o.batch, m = sl_train_micro_size(&tr->o);
  sl_shape image = SL_SHAPE(n, f->in_channels, f->height, f->width), row = SL_SHAPE(n);
  SL_TRY(sl_tensor_new(tr->ctx, dev, SL_F32, &image, &tr->batch_in[IN_X0]));
  SL_TRY(sl_tensor_new(tr->ctx, dev, SL_I64, &row, &tr->batch_in[IN_T]));
  SL_TRY(sl_tensor_zeros(tr->ctx, dev, SL_I64, &row, &tr->batch_in[IN_Y]));
  SL_TRY(sl_tensor_new(tr->ctx, dev, SL_F32, &image, &tr->batch_in[IN_NOISE]));
  for (int k = 0; k < N_OUT; k++) SL_TRY(sl_tensor_zeros(tr->ctx, dev, SL_F32, &row, &tr->batch_out[k]));
  SL_TRY(make_host(tr));
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

void sl__batch_free(sl_trainer *tr) {
  for (int64_t i = 0; tr->micro && i < tr->n_micro * (N_IN + N_OUT); i++) sl_tensor_release(tr->micro[i]);
  sl_free(tr->ctx, tr->micro);
  for (int i = 0; i < N_IN; i++) {
    sl_tensor_release(tr->batch_in[i]);
    for (int k = 0; k < 2; k++) sl_tensor_release(tr->host[k].in[i]);
  }
  for (int i = 0; i < N_OUT; i++) sl_tensor_release(tr->batch_out[i]);
}

/* --- draws: all by the number of the step --- */

static int64_t draw_t(const sl_trainer *tr, int64_t place, int64_t number) {
  sl_rng_key key = {tr->o.seed, SL_STREAM_TIMESTEP};
  uint32_t step = (uint32_t)number;
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

static void drop_labels(const sl_trainer *tr, int64_t number, int64_t *y) {
  const sl_model_info *f = &tr->o.model->info;
  if (f->one_class) memset(y, 0, (size_t)tr->o.batch * sizeof *y);
  if (!f->null_class) return;
  for (int64_t k = 0; k < tr->o.batch; k++) {
    float u;
    sl_random_uniform((sl_rng_key){tr->o.seed, SL_STREAM_LABEL_DROPOUT}, (uint32_t)k, (uint32_t)number, 0, 1, &u);
    if (u < f->class_dropout) y[k] = f->classes;
  }
}

/* A step's images and labels, from the threads that read ahead if there are any. */
static sl_status read_images(sl_trainer *tr, int64_t number, float *x0, int64_t *y) {
  const sl_train_options *o = &tr->o;
  int64_t first = number * o->batch;
  if (!o->loader_threads) return sl_dataset_batch(o->data, o->seed, first, o->batch, o->flip, x0, y);
  if (!tr->loader)
    SL_TRY(
        sl_loader_new(o->data, &(sl_stream_part){o->seed, first, o->batch, o->flip}, o->loader_threads, &tr->loader));
  return sl_loader_next(tr->loader, x0, y);
}

static sl_status fill(sl_trainer *tr, sl_host_batch *b, int64_t number) {
  int64_t *t = sl_tensor_data(b->in[IN_T]), *y = sl_tensor_data(b->in[IN_Y]);
  b->step = -1;
  SL_TRY(read_images(tr, number, sl_tensor_data(b->in[IN_X0]), y));
  drop_labels(tr, number, y);
  for (int64_t k = 0; k < tr->o.batch; k++) t[k] = draw_t(tr, k, number);
  b->step = number;
  return SL_STATUS_OK;
}

/* The host's batch of a step: of a GPU's two the one whose turn it is. */
static sl_host_batch *turn(sl_trainer *tr, int64_t number) { return &tr->host[tr->device->gpu ? number % 2 : 0]; }

sl_status sl__batch_draw(sl_trainer *tr, sl_host_batch **out) {
  SL_REQUIRE(tr->o.data, ARG, "train: there is no data set; give each step its batch");
  *out = turn(tr, tr->steps_done);
  bool ahead = tr->device->gpu && (*out)->step == tr->steps_done;
  return ahead ? SL_STATUS_OK : fill(tr, *out, tr->steps_done);
}

void sl__batch_draw_ahead(sl_trainer *tr) {
  if (!tr->device->gpu || !tr->o.data) return;
  if (fill(tr, turn(tr, tr->steps_done + 1), tr->steps_done + 1) != SL_STATUS_OK) sl__batch_forget(tr);
}

void sl__batch_forget(sl_trainer *tr) {
  for (int k = 0; k < 2; k++) tr->host[k].step = -1;
  sl_loader_free(tr->loader);
  tr->loader = NULL;
}

/* --- given --- */

static sl_status check_conditions(const sl_trainer *tr, const sl_host_batch *h, bool labels) {
  const sl_model_info *f = &tr->o.model->info;
  int64_t *t = sl_tensor_data(h->in[IN_T]), *y = sl_tensor_data(h->in[IN_Y]);
  for (int64_t k = 0; k < tr->o.batch; k++) {
    SL_REQUIRE(t[k] >= 0 && t[k] < tr->o.diffusion->steps, ARG, "train: t is %lld, expected 0 … %lld", (long long)t[k],
               (long long)tr->o.diffusion->steps - 1);
    if (!labels) y[k] = f->one_class ? 0 : f->classes;
    SL_REQUIRE(!f->classes || (y[k] >= 0 && y[k] < f->classes + (f->null_class ? 1 : 0)), ARG,
               "train: label %lld is outside 0 … %lld", (long long)y[k], (long long)f->classes - 1);
  }
  return SL_STATUS_OK;
}

sl_status sl__batch_given(sl_trainer *tr, const sl_batch *b, sl_host_batch **out) {
  sl_tensor *given[N_IN] = {b->x0, b->t, b->y, b->noise};
  static const char *const names[] = {"x0", "t", "y", "noise"};
  sl_host_batch *h = turn(tr, tr->steps_done);
  *out = h;
  sl__batch_forget(tr);
  if (!h->in[IN_NOISE]) SL_TRY(new_host(tr, IN_NOISE, &h->in[IN_NOISE]));
  for (int k = 0; k < N_IN; k++) {
    if (k == IN_Y && !given[k]) continue;
    SL_REQUIRE(given[k], ARG, "train: the batch's %s is missing", names[k]);
    SL_REQUIRE(sl_shape_equal(sl_tensor_shape(given[k]), sl_tensor_shape(tr->batch_in[k])), SHAPE,
               "train: the batch's %s is %s, expected %s", names[k], sl_shape_text(sl_tensor_shape(given[k])),
               sl_shape_text(sl_tensor_shape(tr->batch_in[k])));
    SL_TRY(sl_tensor_copy(h->in[k], given[k]));
  }
  return check_conditions(tr, h, b->y != NULL);
}

sl_status sl__batch_bring(sl_trainer *tr, const sl_host_batch *b, bool noise) {
  const sl_device *dev = tr->device;
  for (int i = 0; dev->gpu && i < N_IN; i++) {
    if (i == IN_NOISE && !noise) continue;
    size_t bytes = (size_t)sl_tensor_numel(b->in[i]) * sl_dtype_size(sl_tensor_dtype(b->in[i]));
    SL_TRY(dev->copy_in(dev, sl_tensor_data(tr->batch_in[i]), sl_tensor_data(b->in[i]), bytes, tr->exec.stream));
  }
  return SL_STATUS_OK;
}
