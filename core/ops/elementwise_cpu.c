/* Elementwise kernels: f32 and bf16 by the loops of the machine's instruction set, integers by plain loops. */
#include <math.h>

#include "base/parallel.h"
#include "ops/strided_rows.h"

typedef struct job {
  sl_walk walk;
  int fn;
  double lo, hi;
} job;

static bool is_float(const sl_view *v) { return v->dtype == SL_F32 || v->dtype == SL_BF16; }

static sl_status run_job(sl_exec *e, job *j, void (*units)(void *user, int64_t begin, int64_t end, int thread)) {
  sl_parallel_for(e->ctx, j->walk.units, SL_WALK_GRAIN, units, j);
  return SL_STATUS_OK;
}

/* --- integers: arithmetic wraps around --- */

#define EACH(expr)                                                                                                     \
  for (int64_t i = 0; i < n; i++) y[i] = (expr);                                                                       \
  break
#define INTEGER_LOOPS(T, U)                                                                                            \
  static void unary_##T(int fn, T *y, const T *x, int64_t n) {                                                         \
    switch (fn) {                                                                                                      \
      case SL_UNARY_neg: EACH((T)(0 - (U)x[i]));                                                                       \
      case SL_UNARY_abs: EACH(x[i] > 0 ? x[i] : (T)(0 - (U)x[i]));                                                     \
      case SL_UNARY_sign: EACH(x[i] > 0 ? 1 : x[i] == 0 ? 0 : (T)-1);                                                  \
      case SL_UNARY_square: EACH((T)((U)x[i] * (U)x[i]));                                                              \
      case SL_UNARY_relu: EACH(x[i] > 0 ? x[i] : 0);                                                                   \
      default: EACH(x[i]); /* round, floor */                                                                          \
    }                                                                                                                  \
  }                                                                                                                    \
  static void clamp_##T(T *y, const T *x, T lo, T hi, int64_t n) {                                                     \
    for (int64_t i = 0; i < n; i++) y[i] = x[i] < lo ? lo : x[i] > hi ? hi : x[i];                                     \
  }                                                                                                                    \
  static void binary_##T(int fn, T *y, const T *a, int sa, const T *b, int sb, int64_t n) {                            \
    switch (fn) {                                                                                                      \
      case SL_BINARY_add: EACH((T)((U)a[i * sa] + (U)b[i * sb]));                                                      \
      case SL_BINARY_sub: EACH((T)((U)a[i * sa] - (U)b[i * sb]));                                                      \
      case SL_BINARY_mul: EACH((T)((U)a[i * sa] * (U)b[i * sb]));                                                      \
      case SL_BINARY_maximum: EACH(a[i * sa] > b[i * sb] ? a[i * sa] : b[i * sb]);                                     \
      default: EACH(a[i * sa] < b[i * sb] ? a[i * sa] : b[i * sb]);                                                    \
    }                                                                                                                  \
  }                                                                                                                    \
  static void compare_##T(int fn, uint8_t *y, const T *a, int sa, const T *b, int sb, int64_t n) {                     \
    switch (fn) {                                                                                                      \
      case SL_COMPARE_lt: EACH(a[i * sa] < b[i * sb]);                                                                 \
      case SL_COMPARE_le: EACH(a[i * sa] <= b[i * sb]);                                                                \
      case SL_COMPARE_gt: EACH(a[i * sa] > b[i * sb]);                                                                 \
      case SL_COMPARE_ge: EACH(a[i * sa] >= b[i * sb]);                                                                \
      case SL_COMPARE_eq: EACH(a[i * sa] == b[i * sb]);                                                                \
      default: EACH(a[i * sa] != b[i * sb]);                                                                           \
    }                                                                                                                  \
  }
INTEGER_LOOPS(uint8_t, uint32_t)
INTEGER_LOOPS(int32_t, uint32_t)
INTEGER_LOOPS(int64_t, uint64_t)
#undef EACH

/* --- one operand --- */

static void unary_units(void *user, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const job *j = user;
  const sl_walk *w = &j->walk;
  sl_row_buffer x, y;
  for (int64_t u = begin; u < end; u++) {
    sl_unit t = sl__walk_unit(w, u);
    float *to = sl__walk_target(w, &t, &y);
    w->loops->unary[j->fn](to, sl__walk_read_floats(w, &t, 1, &x), t.n);
    sl__walk_done(w, &t, to);
  }
}

/* Rows of one integer operand with stride 1. */
static const void *whole(const sl_walk *w, const sl_unit *t, int k, sl_row_buffer *buffer) {
  int stride;
  const void *p = sl__walk_read(w, t, k, buffer, &stride);
  if (stride || t->n == 1) return p;
  for (int64_t i = 0; i < t->n; i++) memcpy((char *)buffer + i * w->operand[k].size, p, (size_t)w->operand[k].size);
  return buffer;
}

static void unary_integer_units(void *user, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const job *j = user;
  const sl_walk *w = &j->walk;
  sl_row_buffer x, y;
  for (int64_t u = begin; u < end; u++) {
    sl_unit t = sl__walk_unit(w, u);
    void *to = sl__walk_target(w, &t, &y);
    const void *from = whole(w, &t, 1, &x);
    switch (w->operand[1].dtype) {
      case SL_U8: unary_uint8_t(j->fn, to, from, t.n); break;
      case SL_I32: unary_int32_t(j->fn, to, from, t.n); break;
      default: unary_int64_t(j->fn, to, from, t.n); break;
    }
    sl__walk_done(w, &t, to);
  }
}

sl_status sl_cpu_unary(sl_exec *e, int fn, const sl_view *y, const sl_view *x) {
  job j = {.walk = sl__walk_of(e->ctx, 2, (const sl_view *[]){y, x}), .fn = fn};
  return run_job(e, &j, is_float(x) ? unary_units : unary_integer_units);
}

static void unary_backward_units(void *user, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const job *j = user;
  const sl_walk *w = &j->walk;
  sl_row_buffer x, dy, dx;
  for (int64_t u = begin; u < end; u++) {
    sl_unit t = sl__walk_unit(w, u);
    float *to = sl__walk_target(w, &t, &dx);
    w->loops->unary_backward[j->fn](to, sl__walk_read_floats(w, &t, 1, &dy), sl__walk_read_floats(w, &t, 2, &x), t.n);
    sl__walk_done(w, &t, to);
  }
}

sl_status sl_cpu_unary_backward(sl_exec *e, int fn, const sl_view *dx, const sl_view *dy, const sl_view *x) {
  job j = {.walk = sl__walk_of(e->ctx, 3, (const sl_view *[]){dx, dy, x}), .fn = fn};
  return run_job(e, &j, unary_backward_units);
}

static void clamp_units(void *user, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const job *j = user;
  const sl_walk *w = &j->walk;
  sl_row_buffer x, y;
  for (int64_t u = begin; u < end; u++) {
    sl_unit t = sl__walk_unit(w, u);
    float *to = sl__walk_target(w, &t, &y);
    w->loops->clamp(to, sl__walk_read_floats(w, &t, 1, &x), (float)j->lo, (float)j->hi, t.n);
    sl__walk_done(w, &t, to);
  }
}

static void clamp_integer_units(void *user, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const job *j = user;
  const sl_walk *w = &j->walk;
  sl_dtype dtype = w->operand[1].dtype;
  sl_row_buffer x, y, bound; /* bounds rounded inwards, held to the dtype's range */
  sl_element_set(dtype, &bound.l[0], ceil(j->lo));
  sl_element_set(dtype, &bound.l[1], floor(j->hi));
  for (int64_t u = begin; u < end; u++) {
    sl_unit t = sl__walk_unit(w, u);
    void *to = sl__walk_target(w, &t, &y);
    const void *from = whole(w, &t, 1, &x);
    switch (dtype) {
      case SL_U8: clamp_uint8_t(to, from, bound.u[0], bound.u[8], t.n); break;
      case SL_I32: clamp_int32_t(to, from, bound.i[0], bound.i[2], t.n); break;
      default: clamp_int64_t(to, from, bound.l[0], bound.l[1], t.n); break;
    }
    sl__walk_done(w, &t, to);
  }
}

sl_status sl_cpu_clamp(sl_exec *e, const sl_view *y, const sl_view *x, double lo, double hi) {
  job j = {.walk = sl__walk_of(e->ctx, 2, (const sl_view *[]){y, x}), .lo = lo, .hi = hi};
  return run_job(e, &j, is_float(x) ? clamp_units : clamp_integer_units);
}

/* --- two operands --- */

/* Two rows of floats, at most one of them a single value. */
static void read_pair(const sl_walk *w, const sl_unit *t, sl_row_buffer *buffer, const float **a, int *sa,
                      const float **b, int *sb) {
  *a = sl__walk_read_float(w, t, 1, &buffer[0], sa);
  *b = sl__walk_read_float(w, t, 2, &buffer[1], sb);
  if (*sa || *sb) return;
  *b = sl__walk_read_floats(w, t, 2, &buffer[1]);
  *sb = 1;
}

static void binary_units(void *user, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const job *j = user;
  const sl_walk *w = &j->walk;
  sl_row_buffer in[2], y;
  const float *a, *b;
  int sa, sb;
  for (int64_t u = begin; u < end; u++) {
    sl_unit t = sl__walk_unit(w, u);
    float *to = sl__walk_target(w, &t, &y);
    read_pair(w, &t, in, &a, &sa, &b, &sb);
    w->loops->binary[j->fn](to, a, sa, b, sb, t.n);
    sl__walk_done(w, &t, to);
  }
}

static void binary_integer_units(void *user, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const job *j = user;
  const sl_walk *w = &j->walk;
  sl_row_buffer in[2], y;
  int sa, sb;
  for (int64_t u = begin; u < end; u++) {
    sl_unit t = sl__walk_unit(w, u);
    void *to = sl__walk_target(w, &t, &y);
    const void *a = sl__walk_read(w, &t, 1, &in[0], &sa), *b = sl__walk_read(w, &t, 2, &in[1], &sb);
    switch (w->operand[1].dtype) {
      case SL_U8: binary_uint8_t(j->fn, to, a, sa, b, sb, t.n); break;
      case SL_I32: binary_int32_t(j->fn, to, a, sa, b, sb, t.n); break;
      default: binary_int64_t(j->fn, to, a, sa, b, sb, t.n); break;
    }
    sl__walk_done(w, &t, to);
  }
}

sl_status sl_cpu_binary(sl_exec *e, int fn, const sl_view *y, const sl_view *a, const sl_view *b) {
  job j = {.walk = sl__walk_of(e->ctx, 3, (const sl_view *[]){y, a, b}), .fn = fn};
  return run_job(e, &j, is_float(a) ? binary_units : binary_integer_units);
}

static void compare_units(void *user, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const job *j = user;
  const sl_walk *w = &j->walk;
  sl_row_buffer in[2], y;
  int sa, sb;
  bool floats = w->operand[1].dtype == SL_F32 || w->operand[1].dtype == SL_BF16;
  for (int64_t u = begin; u < end; u++) {
    sl_unit t = sl__walk_unit(w, u);
    uint8_t *to = sl__walk_target(w, &t, &y);
    if (floats) {
      const float *fa, *fb;
      read_pair(w, &t, in, &fa, &sa, &fb, &sb);
      w->loops->compare[j->fn](to, fa, sa, fb, sb, t.n);
    } else {
      const void *a = sl__walk_read(w, &t, 1, &in[0], &sa), *b = sl__walk_read(w, &t, 2, &in[1], &sb);
      switch (w->operand[1].dtype) {
        case SL_U8: compare_uint8_t(j->fn, to, a, sa, b, sb, t.n); break;
        case SL_I32: compare_int32_t(j->fn, to, a, sa, b, sb, t.n); break;
        default: compare_int64_t(j->fn, to, a, sa, b, sb, t.n); break;
      }
    }
    sl__walk_done(w, &t, to);
  }
}

sl_status sl_cpu_compare(sl_exec *e, int fn, const sl_view *y, const sl_view *a, const sl_view *b) {
  job j = {.walk = sl__walk_of(e->ctx, 3, (const sl_view *[]){y, a, b}), .fn = fn};
  return run_job(e, &j, compare_units);
}

/* --- where --- */

static const uint8_t *truth(const sl_walk *w, const sl_unit *t, sl_row_buffer *gathered, uint8_t *mask) {
  const void *c = whole(w, t, 1, gathered);
#define NOT_ZERO(T)                                                                                                    \
  for (int64_t i = 0; i < t->n; i++) mask[i] = ((const T *)c)[i] != 0
  switch (w->operand[1].dtype) {
    case SL_U8: NOT_ZERO(uint8_t); break;
    case SL_I32: NOT_ZERO(int32_t); break;
    case SL_I64: NOT_ZERO(int64_t); break;
    case SL_F32: NOT_ZERO(float); break;
    default: /* bf16: not zero but for the sign */
      for (int64_t i = 0; i < t->n; i++) mask[i] = (((const uint16_t *)c)[i] & 0x7fff) != 0;
  }
#undef NOT_ZERO
  return mask;
}

static void where_units(void *user, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const job *j = user;
  const sl_walk *w = &j->walk;
  sl_row_buffer in[2], y;
  uint8_t mask[SL_ROW];
  int sa, sb;
  for (int64_t u = begin; u < end; u++) {
    sl_unit t = sl__walk_unit(w, u);
    const uint8_t *m = truth(w, &t, &in[0], mask);
    const void *a = sl__walk_read(w, &t, 2, &in[0], &sa), *b = sl__walk_read(w, &t, 3, &in[1], &sb);
    void *to = sl__walk_target(w, &t, &y);
#define CHOOSE(T)                                                                                                      \
  for (int64_t i = 0; i < t.n; i++) ((T *)to)[i] = m[i] ? ((const T *)a)[i * sa] : ((const T *)b)[i * sb]
    switch (w->operand[0].size) {
      case 1: CHOOSE(uint8_t); break;
      case 2: /* bf16 goes out by way of floats */
        for (int64_t i = 0; i < t.n; i++)
          ((float *)to)[i] = sl_bf16_to_f32(m[i] ? ((const uint16_t *)a)[i * sa] : ((const uint16_t *)b)[i * sb]);
        break;
      case 4: CHOOSE(uint32_t); break;
      default: CHOOSE(uint64_t); break;
    }
#undef CHOOSE
    sl__walk_done(w, &t, to);
  }
}

sl_status sl_cpu_where(sl_exec *e, const sl_view *y, const sl_view *c, const sl_view *a, const sl_view *b) {
  job j = {.walk = sl__walk_of(e->ctx, 4, (const sl_view *[]){y, c, a, b})};
  return run_job(e, &j, where_units);
}
