/* The optimizer's loops, compiled once per instruction set: the file that includes this names the table in SL_LOOPS. */
#ifndef SL_OPS_ADAMW_LOOPS_H
#define SL_OPS_ADAMW_LOOPS_H

#include "base/bf16.h"
#include "ops/adamw_math.h"

typedef struct adamw_job {
  sl_adamw_f32 k;
  float *p, *g, *m, *v;
  int n_ema;
  float *const *ema;
  uint16_t *p16; /* bf16 copy of p, or NULL */
} adamw_job;

typedef struct sl_adamw_loops {
  void (*update)(const adamw_job *j, int64_t begin, int64_t end); /* elements */
  double (*squares)(const float *x, int64_t n);
} sl_adamw_loops;
extern const sl_adamw_loops sl__adamw_base, sl__adamw_avx2, sl__adamw_avx512;

#define ADAMW_PART 1024 /* parameters of a part are still in L1 when the averages read them */

static void update(const adamw_job *j, int64_t begin, int64_t end) {
  const sl_adamw_f32 k = j->k;
  for (int64_t at = begin; at < end; at += ADAMW_PART) {
    const int64_t n = end - at < ADAMW_PART ? end - at : ADAMW_PART;
    float *p = j->p + at, *g = j->g + at, *m = j->m + at, *v = j->v + at;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) sl_adamw_element(&k, &p[i], g[i], &m[i], &v[i]);
    if (!k.leave_gradients) memset(g, 0, (size_t)n * sizeof *g);
    for (int64_t i = 0; j->p16 && i < n; i++) j->p16[at + i] = sl_bf16_from_f32(p[i]);
    for (int e = 0; e < j->n_ema; e++) {
      float *ema = j->ema[e] + at;
      const float decay = k.decay[e], rest = k.rest[e];
#pragma omp simd
      for (int64_t i = 0; i < n; i++) ema[i] = sl_ema_element(decay, rest, ema[i], p[i]);
    }
  }
}

static double squares(const float *x, int64_t n) {
  double s = 0.0;
#pragma omp simd reduction(+ : s)
  for (int64_t i = 0; i < n; i++) s += (double)x[i] * (double)x[i];
  return s;
}

#ifdef SL_LOOPS
const sl_adamw_loops SL_LOOPS = {update, squares};
#endif

#endif
