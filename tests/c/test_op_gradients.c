/* Gradients of views, copies, elementwise operations and reductions against central differences of the whole graph, in
 * checked programs. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "graph/program.h"
#include "ops/ops.h"

typedef sl_value *build_fn(sl_value **in);
#define UNARY_CASES(X)                                                                                                 \
  X(neg)                                                                                                               \
  X(abs)                                                                                                               \
  X(exp) X(log) X(sqrt) X(rsqrt) X(square) X(sin) X(cos) X(tanh) X(sigmoid) X(erf) X(relu) X(silu) X(gelu) X(gelu_erf)
#define BINARY_CASES(X) X(add) X(sub) X(mul) X(div) X(pow) X(maximum) X(minimum)
#define X(name)                                                                                                        \
  static sl_value *build_##name(sl_value **in) { return sl_op1(SL_OP_##name, in[0], NULL); }
UNARY_CASES(X)
#undef X
#define X(name)                                                                                                        \
  static sl_value *build_##name(sl_value **in) { return sl_op2(SL_OP_##name, in[0], in[1], NULL); }
BINARY_CASES(X)
#undef X
static sl_value *build_clamp(sl_value **in) { return sl_clamp(in[0], 0.7, 1.5); }
static sl_value *build_where(sl_value **in) {
  return sl_where(sl_gt(in[0], sl_scalar(in[0]->node->graph, 1, SL_F32)), in[1], in[2]);
}
static sl_value *build_views(sl_value **in) {
  return SL_RESHAPE(sl_slice(SL_PERMUTE(in[0], 2, 0, -2), 1, 0, -1, 2), -1, 2);
}
static sl_value *build_select(sl_value **in) { return sl_select(in[0], -2, -1); }
static sl_value *build_chunk(sl_value **in) {
  sl_value *c = sl_chunk(in[0], 3, -1);
  return sl_mul(sl_output(c, 0), sl_output(c, 2));
}
static sl_value *build_cat(sl_value **in) { return sl_cat(3, (sl_value *[]){in[0], in[1], in[0]}, 1); }
static sl_value *build_stack(sl_value **in) { return sl_stack(2, in, -1); }
static sl_value *build_pad(sl_value **in) { return sl_pad(in[0], 3, (int64_t[]){1, 0, 2}, (int64_t[]){0, 2, 0}, 1.5); }
static sl_value *build_place(sl_value **in) {
  return sl_op1(SL_OP_place, in[0], &(sl_attrs){.i = {3, 2, 8, 6, [9] = 1, 1, 3}});
}
static sl_value *build_flip(sl_value **in) { return sl_mul(sl_op1(SL_OP_flip, in[0], NULL), in[0]); }
static sl_value *build_cast(sl_value **in) { return sl_mul(sl_cast(sl_cast(in[0], SL_I32), SL_F32), in[0]); }
static sl_value *build_sum(sl_value **in) { return sl_sum(in[0], 2, (int[]){0, -1}, false); }
static sl_value *build_sum_kept(sl_value **in) { return sl_sum(in[0], 1, (int[]){1}, true); }
static sl_value *build_mean(sl_value **in) { return sl_mean_rest(in[0]); }
static sl_value *build_max(sl_value **in) { return sl_max(in[0], 1, (int[]){1}, false); }
static sl_value *build_min(sl_value **in) { return sl_op1(SL_OP_min, in[0], NULL); }
static sl_value *build_norm(sl_value **in) { return sl_op1(SL_OP_norm, in[0], &(sl_attrs){.i = {1, 2}}); }

static const struct {
  const char *name;
  build_fn *build;
  int n;
  sl_shape shape[3];
} cases[] = {
#define X(name) {#name, build_##name, 1, {{3, {2, 3, 6}}}},
    UNARY_CASES(X)
#undef X
#define X(name) {#name, build_##name, 2, {{3, {3, 1, 5}}, {2, {4, 1}}}},
        BINARY_CASES(X)
#undef X
            {"where", build_where, 3, {{3, {3, 1, 5}}, {2, {4, 1}}, {1, {5}}}},
#define ONE(name)                                                                                                      \
  {                                                                                                                    \
#name, build_##name, 1, {                                                                                          \
      {                                                                                                                \
        3, { 2, 3, 6 }                                                                                                 \
      }                                                                                                                \
    }                                                                                                                  \
  }
    ONE(clamp),
    ONE(views),
    ONE(select),
    ONE(chunk),
    ONE(pad),
    ONE(place),
    ONE(flip),
    ONE(cast),
    ONE(sum),
    ONE(sum_kept),
    ONE(mean),
    ONE(max),
    ONE(min),
    ONE(norm),
#undef ONE
    {"cat", build_cat, 2, {{3, {2, 3, 6}}, {3, {2, 3, 6}}}},
    {"stack", build_stack, 2, {{3, {2, 3, 6}}, {3, {2, 3, 6}}}},
};

#define OK(expr)                                                                                                       \
  if ((expr) != SL_STATUS_OK) fail_msg("%s: %s", name, sl_error())

/* A program with outputs sum(y^3 + y) and its gradients. */
static sl_program *program_of(sl_context *ctx, const char *name, build_fn *build, int n, const sl_shape *shape) {
  sl_graph *g;
  sl_program *p;
  sl_value *in[3], *d[3];
  char text[16];
  OK(sl_graph_new(ctx, &g));
  for (int i = 0; i < n; i++) {
    snprintf(text, sizeof text, "x%d", i);
    in[i] = sl_input(g, text, SL_F32, &shape[i]);
  }
  sl_value *y = build(in), *loss = sl_sum(sl_mul(y, sl_add_scalar(sl_mul(y, y), 1.0)), 0, NULL, false);
  OK(sl_graph_status(g));
  OK(sl_grad(g, loss, NULL, n, in, false, d));
  sl_graph_output(g, "loss", loss);
  for (int i = 0; i < n; i++) {
    snprintf(text, sizeof text, "d%d", i);
    sl_graph_output(g, text, d[i]);
  }
  OK(sl_graph_compile(g, &(sl_compile_options){.checked = true}, &p));
  sl_graph_release(g);
  return p;
}

static void check(sl_context *ctx, const char *name, build_fn *build, int n, const sl_shape *shape) {
  sl_program *p = program_of(ctx, name, build, n, shape);
  sl_tensor *x[3], *out[4], *slope;
  uint64_t state = 1;
  OK(sl_tensor_new(ctx, NULL, SL_F32, &(sl_shape){0}, &out[0]));
  for (int i = 0; i < n; i++) {
    OK(sl_tensor_new(ctx, NULL, SL_F32, &shape[i], &x[i]));
    OK(sl_tensor_new(ctx, NULL, SL_F32, &shape[i], &out[1 + i]));
    for (int64_t k = 0; k < sl_tensor_numel(x[i]); k++) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      ((float *)sl_tensor_data(x[i]))[k] = 0.3f + 1.7f * (float)(state >> 40) * 0x1p-24f;
    }
  }
  sl_run run = {.inputs = x, .outputs = out};
  for (int i = 0; i < n; i++) {
    OK(sl_program_run(p, &run));
    OK(sl_tensor_to(out[1 + i], SL_F32, NULL, &slope));
    for (int64_t k = 0; k < sl_tensor_numel(x[i]); k++) {
      float *at = (float *)sl_tensor_data(x[i]) + k, was = *at, up = was + 2e-3f, down = was - 2e-3f;
      *at = up;
      OK(sl_program_run(p, &run));
      double high = sl_tensor_at(out[0], 0);
      *at = down;
      OK(sl_program_run(p, &run));
      double low = sl_tensor_at(out[0], 0), want = (high - low) / ((double)up - (double)down),
             got = sl_tensor_at(slope, k);
      *at = was;
      if (!(fabs(want - got) < 0.02 * (1 + fabs(want) + 0.1 * fabs(high))))
        fail_msg("%s: d/d input %d element %d is %g, expected %g", name, i, (int)k, got, want);
    }
    sl_tensor_release(slope);
  }
  for (int i = 0; i < n; i++) sl_tensor_release(x[i]), sl_tensor_release(out[1 + i]);
  sl_tensor_release(out[0]);
  sl_program_free(p);
}

static void test_gradients(void **state) {
  (void)state;
  sl_context *ctx;
  assert_int_equal(sl_context_new(NULL, &ctx), SL_STATUS_OK);
  for (size_t k = 0; k < sizeof cases / sizeof *cases; k++)
    check(ctx, cases[k].name, cases[k].build, cases[k].n, cases[k].shape);
  assert_int_equal(sl_context_memory(ctx).blocks, 0);
  sl_context_free(ctx);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_gradients)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
