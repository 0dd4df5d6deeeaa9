/* The diffusion's loss over parts of a sample, compiled once per instruction set: the file that includes this names the
 * table in SL_LOOPS. */
#ifndef SL_OPS_DIFFUSION_LOSS_LOOPS_H
#define SL_OPS_DIFFUSION_LOSS_LOOPS_H

#include "ops/diffusion_loss_math.h"
#include "ops/row_loops.h"

typedef struct loss_job {
  int64_t M; /* elements of a sample's x0; out has twice as many if the variance is learned */
  bool learned;
  const sl_view *out, *x0, *xt, *noise, *rows, *weight, *dmse, *dvb;
  const sl_view *grad; /* backward: of out, x0, xt, noise */
  double *partial;     /* forward: the sums of each part, of squares and of the bound's terms */
} loss_job;

typedef struct sl_diffusion_loss_loops {
  void (*forward)(const loss_job *j, int64_t begin, int64_t end); /* parts of N*parts */
  void (*backward)(const loss_job *j, int64_t begin, int64_t end);
} sl_diffusion_loss_loops;
extern const sl_diffusion_loss_loops sl__diffusion_loss_base, sl__diffusion_loss_avx2, sl__diffusion_loss_avx512;

/* Sample n's number in a view [N]; NULL where it is absent. */
static inline const float *loss_number(const sl_view *v, int64_t n) {
  return v->data ? (const float *)v->data + n * v->stride[0] : NULL;
}

#ifdef SL_LOOPS
typedef float loss_buffer[SL_LOSS_PART];

/* Where the elements of a part lie as floats. */
typedef struct loss_rows {
  const float *p, *s, *x0, *xt, *noise;
  int64_t n, at, out_at, size; /* sample, first element in x0 and in out, how many */
} loss_rows;

static loss_rows rows_of(const loss_job *j, int64_t part, loss_buffer *buffer) {
  const int64_t parts = sl_loss_parts(j->M), n = part / parts, first = part % parts * SL_LOSS_PART;
  const int64_t size = j->M - first < SL_LOSS_PART ? j->M - first : SL_LOSS_PART, at = n * j->M + first;
  loss_rows r = {.n = n, .at = at, .size = size};
  r.out_at = n * (j->learned ? 2 * j->M : j->M) + first;
  r.p = r.s = row_read(j->out, r.out_at, size, buffer[0]);
  if (j->learned) r.s = row_read(j->out, r.out_at + j->M, size, buffer[1]);
  r.x0 = row_read(j->x0, at, size, NULL), r.xt = row_read(j->xt, at, size, NULL);
  r.noise = row_read(j->noise, at, size, NULL);
  return r;
}

static inline sl_loss_point point_of(const loss_rows *r, int64_t i) {
  return (sl_loss_point){r->p[i], r->s[i], r->x0[i], r->xt[i], r->noise[i]};
}

static double total(const float *x, int64_t n) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; i++) sum += (double)x[i];
  return sum;
}

static void forward_part(const loss_job *j, int64_t part, loss_buffer *buffer) {
  const loss_rows r = rows_of(j, part, buffer);
  const sl_loss_row k = sl_loss_row_of((const double *)j->rows->data + r.n * SL_LOSS_COLUMNS);
  float *to = buffer[2];
  double *sums = j->partial + 2 * part;
#pragma omp simd
  for (int64_t i = 0; i < r.size; i++) {
    const float miss = sl_loss_miss(&k, point_of(&r, i));
    to[i] = miss * miss;
  }
  sums[0] = total(to, r.size), sums[1] = 0;
  if (!j->learned) return;
  if (k.first) {
    for (int64_t i = 0; i < r.size; i++) to[i] = sl_loss_nll(&k, point_of(&r, i));
  } else {
#pragma omp simd
    for (int64_t i = 0; i < r.size; i++) to[i] = sl_loss_kl(&k, point_of(&r, i));
  }
  sums[1] = total(to, r.size);
}

static void forward_parts(const loss_job *j, int64_t begin, int64_t end) {
  loss_buffer buffer[3];
  for (int64_t part = begin; part < end; part++) forward_part(j, part, buffer);
}

/* Gradients that nobody asked for go into a buffer. */
typedef struct loss_targets {
  float *p, *s, *x0, *xt, *noise;
} loss_targets;

static inline void put_point(const loss_targets *to, int64_t i, sl_loss_point d) {
  to->p[i] = d.p, to->s[i] = d.s, to->x0[i] = d.x0, to->xt[i] = d.xt, to->noise[i] = d.noise;
}

static float *target_of(const sl_view *v, int64_t at, float *buffer) {
  return v->data ? row_target(v, at, buffer) : buffer;
}

static void backward_part(const loss_job *j, int64_t part, loss_buffer *buffer) {
  const loss_rows r = rows_of(j, part, buffer);
  const sl_loss_row k = sl_loss_row_of((const double *)j->rows->data + r.n * SL_LOSS_COLUMNS);
  const sl_loss_scale g =
      sl_loss_scale_of(loss_number(j->dmse, r.n), loss_number(j->dvb, r.n), loss_number(j->weight, r.n), j->M);
  const loss_targets to = {.p = target_of(&j->grad[0], r.out_at, buffer[2]),
                           .s = j->learned ? target_of(&j->grad[0], r.out_at + j->M, buffer[3]) : buffer[3],
                           .x0 = target_of(&j->grad[1], r.at, buffer[4]),
                           .xt = target_of(&j->grad[2], r.at, buffer[5]),
                           .noise = target_of(&j->grad[3], r.at, buffer[6])};
  if (!j->learned || !j->dvb->data) {
#pragma omp simd
    for (int64_t i = 0; i < r.size; i++) put_point(&to, i, sl_loss_square_d(&k, point_of(&r, i), g.square));
  } else if (k.first) {
#pragma omp simd
    for (int64_t i = 0; i < r.size; i++) {
      const sl_loss_point a = point_of(&r, i);
      put_point(&to, i, sl_loss_nll_d(&k, a, g.bound, sl_loss_square_d(&k, a, g.square)));
    }
  } else {
#pragma omp simd
    for (int64_t i = 0; i < r.size; i++) {
      const sl_loss_point a = point_of(&r, i);
      put_point(&to, i, sl_loss_kl_d(&k, a, g.bound, sl_loss_square_d(&k, a, g.square)));
    }
  }
  if (!j->grad[0].data) return;
  row_done(&j->grad[0], r.out_at, r.size, to.p);
  if (j->learned) row_done(&j->grad[0], r.out_at + j->M, r.size, to.s);
}

static void backward_parts(const loss_job *j, int64_t begin, int64_t end) {
  loss_buffer buffer[7];
  for (int64_t part = begin; part < end; part++) backward_part(j, part, buffer);
}

const sl_diffusion_loss_loops SL_LOOPS = {forward_parts, backward_parts};
#endif

#endif
