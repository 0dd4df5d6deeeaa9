/* A sampling step's update on the CPU: samples in parallel. */
#include <string.h>

#include "base/parallel.h"
#include "ops/kernels.h"
#include "ops/sampler_update_math.h"

enum { OUT, X, ROWS, NOISE, SCALE };
enum { NEXT, X0 };
enum { PART = 2048 }; /* elements of a sample that a thread takes at a time, and that stay in L1 */

typedef struct update_task {
  int64_t N, M, parts, guided, out_row; /* elements of an image; those that guidance leads; of a row of out */
  bool learned, clip;
  const float *out, *x, *noise, *scale;
  const double *rows;
  float *next, *x0;
} update_task;

/* The first n elements from p on, of which guidance leads `led`; p itself where it leads none. */
static const float *guide(const float *p, const float *without, float scale, int64_t led, int64_t n, float *buffer) {
  if (led <= 0) return p;
  if (led > n) led = n;
#pragma omp simd
  for (int64_t i = 0; i < led; i++) buffer[i] = sl_update_guide(p[i], without[i], scale);
  memcpy(buffer + led, p + led, (size_t)(n - led) * sizeof *p);
  return buffer;
}

static void update_part(const update_task *t, int64_t part) {
  float guided[PART], predicted[PART], deviation[PART];
  const int64_t n = part / t->parts, begin = part % t->parts * PART, at = n * t->M + begin;
  const int64_t size = t->M - begin < PART ? t->M - begin : PART;
  const sl_update_row k = sl_update_row_of(t->rows + n * SL_UPDATE_COLUMNS);
  const float *out = t->out + n * t->out_row + begin, *x = t->x + at, *noise = t->noise ? t->noise + at : NULL;
  const float *p = t->scale ? guide(out, out + t->N * t->out_row, *t->scale, t->guided - begin, size, guided) : out;
  float *x0 = t->x0 ? t->x0 + at : predicted, *next = t->next ? t->next + at : NULL;
#pragma omp simd
  for (int64_t i = 0; i < size; i++) x0[i] = sl_update_x0(&k, p[i], x[i], t->clip);
  if (!next) return;
  if (!noise) {
#pragma omp simd
    for (int64_t i = 0; i < size; i++) next[i] = sl_update_next(&k, x0[i], x[i], 0.0f, 0.0f);
    return;
  }
#pragma omp simd
  for (int64_t i = 0; i < size; i++) deviation[i] = t->learned ? sl_update_deviation(&k, out[t->M + i]) : k.sigma;
#pragma omp simd
  for (int64_t i = 0; i < size; i++) next[i] = sl_update_next(&k, x0[i], x[i], deviation[i], noise[i]);
}

static void update_parts(void *user, int64_t begin, int64_t end, int thread) {
  (void)thread;
  for (int64_t part = begin; part < end; part++) update_part(user, part);
}

sl_status sl_cpu_sampler_update(sl_exec *e, const sl_view *out, const sl_view *in, bool learned, bool clip,
                                int64_t channels) {
  const sl_shape *s = &in[X].shape;
  update_task t = {.N = s->dim[0], .M = 1, .learned = learned, .clip = clip};
  for (int i = 2; i < s->rank; i++) t.M *= s->dim[i];
  t.guided = in[SCALE].data ? channels * t.M : 0;
  t.out_row = in[OUT].shape.dim[1] * t.M;
  t.M *= s->dim[1];
  t.parts = (t.M + PART - 1) / PART;
  t.out = in[OUT].data, t.x = in[X].data, t.noise = in[NOISE].data, t.scale = in[SCALE].data, t.rows = in[ROWS].data;
  t.next = out[NEXT].data, t.x0 = out[X0].data;
  sl_parallel_for(e->ctx, t.N * t.parts, 2, update_parts, &t);
  return SL_STATUS_OK;
}
