/* A sampling step's update on the CPU: samples in parallel. */
#include "base/parallel.h"
#include "ops/kernels.h"
#include "ops/sampler_update_math.h"

enum { OUT, X, ROWS, NOISE, SCALE };
enum { NEXT, X0 };
enum { PART = 4096 }; /* elements of a sample that a thread takes at a time */

typedef struct update_task {
  int64_t N, M, parts, guided, out_row; /* elements of an image; those that guidance leads; of a row of out */
  bool learned, clip;
  const float *out, *x, *noise, *scale;
  const double *rows;
  float *next, *x0;
} update_task;

static void update_part(const update_task *t, int64_t part) {
  const int64_t n = part / t->parts, begin = part % t->parts * PART;
  const int64_t end = t->M - begin < PART ? t->M : begin + PART;
  const sl_update_row k = sl_update_row_of(t->rows + n * SL_UPDATE_COLUMNS);
  const float *p = t->out + n * t->out_row, *without = t->scale ? p + t->N * t->out_row : p;
  const float *v = p + t->M, *x = t->x + n * t->M, *noise = t->noise ? t->noise + n * t->M : NULL;
  float *next = t->next ? t->next + n * t->M : NULL, *x0 = t->x0 ? t->x0 + n * t->M : NULL;
  const float scale = t->scale ? *t->scale : 1.0f;
  for (int64_t i = begin; i < end; i++) {
    const float guided = i < t->guided ? sl_update_guide(p[i], without[i], scale) : p[i];
    const float predicted = sl_update_x0(&k, guided, x[i], t->clip);
    if (x0) x0[i] = predicted;
    if (!next) continue;
    const float deviation = noise && t->learned ? sl_update_deviation(&k, v[i]) : k.sigma;
    next[i] = sl_update_next(&k, predicted, x[i], deviation, noise ? noise[i] : 0.0f);
  }
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
