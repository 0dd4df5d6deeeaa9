#include <math.h>

#include "base/parallel.h"
#include "base/random.h"
#include "ops/kernels.h"

#define PART 1024 /* elements drawn at a time; a multiple of 4, so that parts begin with whole counters */

typedef struct task {
  const sl_view *y, *x;
  sl_rng_key key;
  uint32_t first, step;
  int64_t per, parts; /* elements of a sample; parts of it */
  int64_t C, plane;   /* channels-last images: channels, pixels */
  uint64_t offset;    /* first element of the draw: dropout's sites follow one another */
  bool normal;
  float p, scale;
  int32_t limit; /* a draw is below p if its word's upper 23 bits are below this: sl_rng_uniform */
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

/* Channels-last images: the draws of up to 32 channels of some pixels become a word of bits for each pixel. */
enum { LANES = 32, PIXELS = 256 };

static void keep_bits(const task *t, int64_t sample, int64_t c0, int64_t channels, int64_t p0, int64_t pixels,
                      uint32_t *keep) {
  uint32_t words[LANES * PIXELS], number = t->first + (uint32_t)sample;
  uint64_t at = t->offset + (uint64_t)(c0 * t->plane + p0);
  bool whole = pixels == t->plane; /* then the channels' draws follow one another */
  for (int64_t c = 0; c < (whole ? 1 : channels); c++)
    sl_random_bits(t->key, number, t->step, at + (uint64_t)(c * t->plane), whole ? channels * pixels : pixels,
                   words + c * pixels);
  for (int64_t p = 0; p < pixels; p++) keep[p] = 0;
  for (int64_t c = 0; c < channels; c++)
#pragma omp simd
    for (int64_t p = 0; p < pixels; p++) keep[p] |= (uint32_t)((int32_t)(words[c * pixels + p] >> 9) >= t->limit) << c;
}

static void drop_columns(void *user, int64_t begin, int64_t end, int thread) {
  const task *t = user;
  uint32_t keep[PIXELS], bit[LANES];
  (void)thread;
  for (int c = 0; c < LANES; c++) bit[c] = UINT32_C(1) << c;
  for (int64_t k = begin; k < end; k++) {
    int64_t sample = k / t->parts, c0 = k % t->parts * LANES, n = t->C - c0 < LANES ? t->C - c0 : LANES;
    for (int64_t p0 = 0; p0 < t->plane; p0 += PIXELS) {
      int64_t pixels = t->plane - p0 < PIXELS ? t->plane - p0 : PIXELS;
      keep_bits(t, sample, c0, n, p0, pixels, keep);
      for (int64_t p = 0; p < pixels; p++) {
        int64_t at = sample * t->per + (p0 + p) * t->C + c0;
        const float *x = (const float *)t->x->data + at;
        float *y = (float *)t->y->data + at;
#pragma omp simd
        for (int64_t c = 0; c < n; c++) y[c] = keep[p] & bit[c] ? x[c] * t->scale : 0.0f;
      }
    }
  }
}

sl_status sl_cpu_dropout(sl_exec *e, const sl_view *y, const sl_view *x, double p, int64_t site) {
  task t = task_of(e, y, SL_STREAM_DROPOUT);
  t.x = x;
  t.p = (float)p;
  t.limit = (int32_t)ceil((double)t.p * 0x1p23 - 0.5);
  t.scale = (float)(1 / (1 - p));
  t.offset = (uint64_t)site << 40; /* a site has 2^40 elements of a sample to itself */
  int64_t n = t.per ? sl_shape_numel(&y->shape) / t.per : 0;
  if (y->shape.rank == 4 && y->stride[1] == 1 && y->stride[3] == y->shape.dim[1] && y->shape.dim[1] > 1) {
    t.C = y->shape.dim[1];
    t.plane = y->shape.dim[2] * y->shape.dim[3];
    t.parts = (t.C + LANES - 1) / LANES;
    sl_parallel_for(e->ctx, n * t.parts, 1, drop_columns, &t);
  } else {
    sl_parallel_for(e->ctx, n * t.parts, 8, drop_parts, &t);
  }
  return SL_STATUS_OK;
}
