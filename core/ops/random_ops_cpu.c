#include "base/parallel.h"
#include "base/random.h"
#include "ops/kernels.h"

#define PART 1024 /* elements drawn at a time; a multiple of 4, so that parts begin with whole counters */

typedef struct task {
  const sl_view *y, *x;
  sl_rng_key key;
  uint32_t first, step;
  int64_t per, parts; /* elements of a sample; parts of it */
  uint64_t offset;    /* first element of the draw: dropout's sites follow one another */
  bool normal;
  float p, scale;
} task;

static task task_of(const sl_exec *e, const sl_view *y, uint32_t stream) {
  int64_t n = y->shape.rank ? y->shape.dim[0] : 1, all = sl_shape_numel(&y->shape);
  task t = {.y = y,
            .key = {e->step->seed, stream},
            .first = e->step->first_sample,
            .step = e->step->step,
            .per = n ? all / n : 0};
  t.parts = (t.per + PART - 1) / PART;
  return t;
}

static int64_t part_size(const task *t, int64_t part) {
  return t->per - part * PART < PART ? t->per - part * PART : PART;
}

static void draw_parts(void *user, int64_t begin, int64_t end, int thread) {
  const task *t = user;
  (void)thread;
  for (int64_t k = begin; k < end; k++) {
    int64_t sample = k / t->parts, at = k % t->parts * PART;
    float *out = (float *)t->y->data + sample * t->per + at;
    uint32_t number = t->first + (uint32_t)sample;
    if (t->normal) {
      sl_random_normal(t->key, number, t->step, (uint64_t)at, part_size(t, k % t->parts), out);
    } else {
      sl_random_uniform(t->key, number, t->step, (uint64_t)at, part_size(t, k % t->parts), out);
    }
  }
}

static sl_status draw(sl_exec *e, const sl_view *y, int stream, bool normal) {
  task t = task_of(e, y, (uint32_t)stream);
  t.normal = normal;
  int64_t n = t.per ? sl_shape_numel(&y->shape) / t.per : 0;
  sl_parallel_for(e->ctx, n * t.parts, 8, draw_parts, &t);
  return SL_STATUS_OK;
}

sl_status sl_cpu_normal(sl_exec *e, const sl_view *y, int stream) { return draw(e, y, stream, true); }
sl_status sl_cpu_uniform(sl_exec *e, const sl_view *y, int stream) { return draw(e, y, stream, false); }

static void drop_parts(void *user, int64_t begin, int64_t end, int thread) {
  const task *t = user;
  (void)thread;
  float u[PART];
  for (int64_t k = begin; k < end; k++) {
    int64_t sample = k / t->parts, at = k % t->parts * PART, n = part_size(t, k % t->parts),
            from = sample * t->per + at;
    sl_random_uniform(t->key, t->first + (uint32_t)sample, t->step, t->offset + (uint64_t)at, n, u);
    if (t->y->dtype == SL_F32) {
      const float *x = (const float *)t->x->data + from;
      float *y = (float *)t->y->data + from;
      for (int64_t i = 0; i < n; i++) y[i] = u[i] < t->p ? 0.0f : x[i] * t->scale;
    } else {
      const uint16_t *x = (const uint16_t *)t->x->data + from;
      uint16_t *y = (uint16_t *)t->y->data + from;
      for (int64_t i = 0; i < n; i++)
        sl_element_set(SL_BF16, &y[i], u[i] < t->p ? 0.0 : sl_element_get(SL_BF16, &x[i]) * (double)t->scale);
    }
  }
}

sl_status sl_cpu_dropout(sl_exec *e, const sl_view *y, const sl_view *x, double p, int64_t site) {
  task t = task_of(e, y, SL_STREAM_DROPOUT);
  t.x = x;
  t.p = (float)p;
  t.scale = (float)(1 / (1 - p));
  t.offset = (uint64_t)site << 40; /* a site has 2^40 elements of a sample to itself */
  int64_t n = t.per ? sl_shape_numel(&y->shape) / t.per : 0;
  sl_parallel_for(e->ctx, n * t.parts, 8, drop_parts, &t);
  return SL_STATUS_OK;
}
