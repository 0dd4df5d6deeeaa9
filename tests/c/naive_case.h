/* A graph against its definition in double: values on every instruction set and number of threads, gradients against
 * central differences of the definition. Each test program that includes this is one translation unit. */
#ifndef SL_TESTS_NAIVE_CASE_H
#define SL_TESTS_NAIVE_CASE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "graph/program.h"
#include "ops/ops.h"

enum { MOST_INPUTS = 4 };

typedef struct naive_case {
  const char *name;
  int n;                       /* inputs */
  sl_dtype dtype[MOST_INPUTS]; /* u8 inputs hold 0 and 1 and have no gradient */
  sl_shape shape[MOST_INPUTS];
  sl_shape out;   /* of y */
  const void *of; /* what build and define need */
  /* Output 0 on graph values; NULL with an error in the graph. */
  sl_value *(*build)(const void *of, sl_value *const *in);
  /* The same on dense doubles. */
  void (*define)(const void *of, double *const *in, double *y);
  double tolerance; /* relative to the norm; 0: f32's */
} naive_case;

typedef struct fixture {
  sl_context *ctx;
  sl_eager *eager;
} fixture;

static uint64_t random_state = 1;

static double draw(double lo, double hi) {
  random_state = random_state * 6364136223846793005u + 1442695040888963407u;
  return lo + (hi - lo) * (double)(random_state >> 11) * 0x1p-53;
}

static inline sl_tensor *draw_tensor(fixture *f, sl_dtype dtype, const sl_shape *shape) {
  sl_tensor *t;
  assert_int_equal(sl_tensor_new(f->ctx, NULL, dtype, shape, &t), SL_STATUS_OK);
  for (int64_t i = 0; i < sl_tensor_numel(t); i++)
    sl_element_set(dtype, (char *)sl_tensor_data(t) + (size_t)i * sl_dtype_size(dtype),
                   dtype == SL_U8 ? (double)(draw(0, 3) > 1) : draw(-1.5, 1.5));
  return t;
}

static inline double *doubles(const sl_tensor *t) {
  double *d = malloc(sizeof(double) * (size_t)(sl_tensor_numel(t) + 1));
  assert_non_null(d);
  for (int64_t i = 0; i < sl_tensor_numel(t); i++) d[i] = sl_tensor_at(t, i);
  return d;
}

/* y, then the gradient of each float input, the seed being the last input. */
static inline sl_status build_case(void *user, sl_graph *g, int n_in, sl_value *const *in, int n_out, sl_value **out) {
  const naive_case *c = user;
  sl_value *wrt[MOST_INPUTS];
  int n = 0;
  out[0] = c->build(c->of, in);
  for (int i = 0; i < c->n; i++)
    if (c->dtype[i] != SL_U8) wrt[n++] = in[i];
  if (!out[0]) return sl_graph_status(g);
  assert_int_equal(n_out, n + 1);
  return sl_grad(g, out[0], in[n_in - 1], n, wrt, false, out + 1);
}

static inline void check_close(const char *name, const char *what, const sl_tensor *t, const double *want,
                               double tolerance) {
  double error = 0, norm = 0;
  int64_t n = sl_tensor_numel(t);
  for (int64_t i = 0; i < n; i++) {
    double d = sl_tensor_at(t, i) - want[i];
    error += d * d;
    norm += want[i] * want[i];
  }
  if (!(sqrt(error) <= tolerance * sqrt(norm) + 1e-7 * sqrt((double)n)))
    fail_msg("%s: %s is off by %g of %g", name, what, sqrt(error), sqrt(norm));
}

static inline double loss_of(const naive_case *c, double *const *in, const double *seed, double *y) {
  double sum = 0;
  c->define(c->of, in, y);
  for (int64_t i = 0; i < sl_shape_numel(&c->out); i++) sum += seed[i] * y[i];
  return sum;
}

enum { MOST_LOOKED_AT = 80 };

/* Every how many elements of an input the gradient is looked at. */
static inline int64_t stride_of(int64_t n) { return n > 40 ? n / 37 : 1; }

/* Those elements of the gradient of input i, by central differences. */
static inline void differences(const naive_case *c, int i, double *const *in, const double *seed, double *y,
                               double *want) {
  const double h = 1e-4;
  int64_t n = sl_shape_numel(&c->shape[i]), step = stride_of(n);
  for (int64_t k = 0; k < n; k += step) {
    double x = in[i][k];
    in[i][k] = x + h;
    double up = loss_of(c, in, seed, y);
    in[i][k] = x - h;
    *want++ = (up - loss_of(c, in, seed, y)) / (2 * h);
    in[i][k] = x;
  }
}

static inline void check_gradient(const naive_case *c, int i, const sl_tensor *dx, const double *want,
                                  double tolerance) {
  double error = 0, norm = 0, count = 0;
  int64_t n = sl_tensor_numel(dx), step = stride_of(n);
  for (int64_t k = 0; k < n; k += step, want++, count++) {
    double d = sl_tensor_at(dx, k) - *want;
    error += d * d;
    norm += *want * *want;
  }
  if (!(sqrt(error) <= tolerance * sqrt(norm) + 1e-6 * sqrt(count)))
    fail_msg("%s: the gradient of input %d is off by %g of %g", c->name, i, sqrt(error), sqrt(norm));
}

static inline void check_case(fixture *f, naive_case c) {
  sl_tensor *in[MOST_INPUTS + 1], *out[MOST_INPUTS + 1] = {NULL};
  double *values[MOST_INPUTS], tolerance = c.tolerance > 0 ? c.tolerance : 2e-6;
  int n_out = 1;
  for (int i = 0; i < c.n; i++) {
    in[i] = draw_tensor(f, c.dtype[i], &c.shape[i]);
    values[i] = doubles(in[i]);
    n_out += c.dtype[i] != SL_U8;
  }
  in[c.n] = draw_tensor(f, c.dtype[0], &c.out);
  double *seed = doubles(in[c.n]), *y = malloc(sizeof(double) * (size_t)(sl_shape_numel(&c.out) + 1));
  assert_non_null(y);
  double want[MOST_INPUTS][MOST_LOOKED_AT];
  for (int i = 0; i < c.n; i++)
    if (c.dtype[i] != SL_U8) differences(&c, i, values, seed, y, want[i]);
  c.define(c.of, values, y);
  for (int isa = SL_ISA_BASE; isa <= (int)sl_isa_machine(); isa++)
    for (int threads = 1; threads <= 3; threads += 2) {
      sl_context_set_isa(f->ctx, (sl_isa)isa);
      sl_context_set_threads(f->ctx, threads);
      sl_eager *fresh;
      assert_int_equal(sl_eager_new(f->ctx, 4, &fresh), SL_STATUS_OK);
      if (sl_eager_call(fresh, &c, sizeof c, build_case, &c, c.n + 1, in, NULL, n_out, out) != SL_STATUS_OK)
        fail_msg("%s: %s", c.name, sl_error());
      sl_eager_free(fresh);
      if (!sl_shape_equal(sl_tensor_shape(out[0]), &c.out))
        fail_msg("%s: y is %s", c.name, sl_shape_text(sl_tensor_shape(out[0])));
      check_close(c.name, "y", out[0], y, tolerance);
      for (int i = 0, k = 1; i < c.n; i++)
        if (c.dtype[i] != SL_U8) check_gradient(&c, i, out[k++], want[i], 4 * tolerance);
      for (int k = 0; k < n_out; k++) sl_tensor_release(out[k]);
    }
  for (int i = 0; i < c.n; i++) free(values[i]);
  for (int i = 0; i <= c.n; i++) sl_tensor_release(in[i]);
  free(seed);
  free(y);
}

/* Building must fail with this status, and the text must hold these words. */
static inline void check_refused(fixture *f, sl_status want, const char *words, int n, const sl_dtype *dtype,
                                 const sl_shape *shape, sl_value *(*build)(sl_value *const *in)) {
  sl_graph *g;
  sl_value *in[MOST_INPUTS];
  assert_int_equal(sl_graph_new(f->ctx, &g), SL_STATUS_OK);
  for (int i = 0; i < n; i++) in[i] = sl_input(g, (const char *[]){"x0", "x1", "x2", "x3"}[i], dtype[i], &shape[i]);
  assert_null(build(in));
  assert_int_equal(sl_graph_status(g), want);
  if (!strstr(sl_error(), words)) fail_msg("\"%s\" does not say \"%s\"", sl_error(), words);
  sl_graph_release(g);
}

static inline int setup(void **state) {
  static fixture f;
  assert_int_equal(sl_context_new(&(sl_context_options){.threads = 2}, &f.ctx), SL_STATUS_OK);
  assert_int_equal(sl_eager_new(f.ctx, 16, &f.eager), SL_STATUS_OK);
  *state = &f;
  return 0;
}

static inline int teardown(void **state) {
  fixture *f = *state;
  sl_eager_free(f->eager);
  assert_int_equal(sl_context_memory(f->ctx).blocks, 0);
  sl_context_free(f->ctx);
  return 0;
}

#endif
