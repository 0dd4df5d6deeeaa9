/* The graph engine: building, gradients, planning, running, checks, recomputation, trace, cache. */
#include "on_context.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph/program.h"
#include "ops/ops.h"
#include "ops/residual_adaln.h"

static sl_graph *graph_new(void) {
  sl_graph *g = NULL;
  OK(sl_graph_new(ctx, &g));
  return g;
}

static sl_tensor *floats(int64_t n, const float *v) {
  sl_tensor *t = NULL;
  OK(sl_tensor_from(ctx, SL_F32, 1, &n, v, &t));
  return t;
}

static const float *data_of(sl_tensor *t) { return sl_tensor_data(t); }

/* y = sum((x w)^2) and its gradient by w, added to what is there or written over it. */
static void gradient_runs(bool fresh) {
  sl_graph *g = graph_new();
  if (fresh) sl_graph_fresh_gradients(g);
  sl_value *x = sl_input(g, "x", SL_F32, &SL_SHAPE(3)), *w = sl_param_value(g, 0, 0, "w", &SL_SHAPE(3));
  sl_value *loss = sl_sum(sl_square(sl_mul(x, w)), 0, NULL, false), *dw = NULL;
  OK(sl_grad(g, loss, NULL, 1, &w, false, &dw));
  sl_graph_accumulate(g, w, dw);
  sl_graph_output(g, "loss", loss);
  sl_program *p = NULL;
  OK(sl_graph_compile(g, NULL, &p));
  sl_graph_release(g);
  sl_tensor *in = floats(3, (float[]){1, 2, 3}), *params = floats(3, (float[]){4, 5, 6}),
            *grads = floats(3, (float[]){1, 1, 1});
  sl_tensor *out = NULL;
  OK(sl_tensor_new(ctx, NULL, SL_F32, &(sl_shape){0}, &out));
  sl_run run = {.inputs = &in, .outputs = &out, .params = params, .grads = grads};
  for (int k = 1; k <= 2; k++) {
    OK(sl_program_run(p, &run));
    assert_float_equal(data_of(out)[0], 16 + 100 + 324, 1e-3);
    const float want[] = {8, 40, 108}; /* 2 x^2 w */
    for (int i = 0; i < 3; i++) assert_float_equal(data_of(grads)[i], fresh ? want[i] : 1 + (float)k * want[i], 1e-3);
  }
  sl_memory before = sl_context_memory(ctx);
  for (int k = 0; k < 3; k++) OK(sl_program_run(p, &run));
  assert_int_equal(sl_context_memory(ctx).calls, before.calls); /* a running program calls no allocator */
  sl_program_free(p);
  sl_tensor_release(in);
  sl_tensor_release(params);
  sl_tensor_release(grads);
  sl_tensor_release(out);
}

static void test_gradient_accumulates(void **state) {
  (void)state;
  gradient_runs(false);
  gradient_runs(true);
}

/* a + b where a lies row-major and ends, and b, and so the sum, channels last: the sum may not be written over a. */
static void test_in_place_needs_one_order(void **state) {
  (void)state;
  sl_graph *g = graph_new();
  sl_value *x = sl_input(g, "x", SL_F32, &SL_SHAPE(2, 32, 24, 24));
  sl_value *b = SL_PERMUTE(sl_mul_scalar(sl_contiguous(SL_PERMUTE(x, 0, 2, 3, 1)), 3), 0, 3, 1, 2);
  sl_value *sum = sl_add(sl_neg(x), b);
  assert_false(sl_value_is_dense(sum));
  sl_graph_output(g, "y", sl_contiguous(sl_neg(sum)));
  sl_program *p = NULL;
  OK(sl_graph_compile(g, NULL, &p));
  sl_graph_release(g);
  sl_tensor *in = NULL, *out = NULL;
  OK(sl_tensor_zeros(ctx, NULL, SL_F32, &SL_SHAPE(2, 32, 24, 24), &in));
  for (int i = 0; i < 2 * 32 * 24 * 24; i++) ((float *)sl_tensor_data(in))[i] = (float)i;
  sl_run run = {.inputs = &in};
  OK(sl_program_call(p, &run, 1, &out));
  for (int i = 0; i < 2 * 32 * 24 * 24; i++) assert_float_equal(data_of(out)[i], -2.0f * (float)i, 0);
  sl_program_free(p);
  sl_tensor_release(in);
  sl_tensor_release(out);
}

static void test_errors_are_kept(void **state) {
  (void)state;
  sl_graph *g = graph_new();
  sl_value *a = sl_input(g, "a", SL_F32, &SL_SHAPE(2, 3)), *b = sl_input(g, "b", SL_F32, &SL_SHAPE(4, 3));
  assert_null(sl_add(a, b));
  assert_null(sl_mul(NULL, a));
  sl_program *p = NULL;
  assert_int_equal(sl_graph_compile(g, NULL, &p), SL_STATUS_SHAPE);
  assert_non_null(strstr(sl_error(), "[2,3]"));
  assert_null(p);
  sl_graph_release(g);
}

static void test_bindings_are_checked(void **state) {
  (void)state;
  sl_graph *g = graph_new();
  sl_value *a = sl_input(g, "a", SL_F32, &SL_SHAPE(3));
  sl_graph_output(g, "y", sl_exp(a));
  sl_program *p = NULL;
  OK(sl_graph_compile(g, NULL, &p));
  sl_graph_release(g);
  sl_tensor *wrong = floats(2, (float[]){1, 2}), *out = floats(3, (float[]){0, 0, 0});
  sl_run run = {.inputs = &wrong, .outputs = &out};
  assert_int_equal(sl_program_run(p, &run), SL_STATUS_SHAPE);
  assert_non_null(strstr(sl_error(), "input a is f32 [2], expected f32 [3]"));
  run.inputs = NULL;
  assert_int_equal(sl_program_run(p, &run), SL_STATUS_ARG);
  sl_context_cancel(ctx);
  run.inputs = &out;
  sl_tensor *other = floats(3, (float[]){0, 0, 0});
  run.outputs = &other;
  assert_int_equal(sl_program_run(p, &run), SL_STATUS_CANCELLED);
  sl_context_cancel_clear(ctx);
  sl_program_free(p);
  sl_tensor_release(wrong);
  sl_tensor_release(out);
  sl_tensor_release(other);
}

/* --- planted faults: ops that do wrong on purpose --- */

static sl_status infer_same(sl_node *n) {
  n->out[0].dtype = n->in[0]->dtype;
  n->out[0].shape = n->in[0]->shape;
  return SL_STATUS_OK;
}

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define WITH_ASAN 1
#endif

#ifndef WITH_ASAN
static sl_status run_over(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                          void *workspace) {
  (void)e, (void)n, (void)state, (void)workspace;
  int64_t count = sl_shape_numel(&out->shape);
  for (int64_t i = 0; i <= count; i++) ((float *)out->data)[i] = ((const float *)in->data)[0]; /* one too many */
  return SL_STATUS_OK;
}
#endif

static sl_status run_nothing(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                             void *workspace) {
  (void)e, (void)n, (void)out, (void)in, (void)state, (void)workspace;
  return SL_STATUS_OK;
}

static sl_status run_planted(const sl_op *op, sl_tensor **result) {
  sl_graph *g = graph_new();
  sl_value *x = sl_input(g, "x", SL_F32, &SL_SHAPE(16));
  sl_value *bad = sl_apply(g, op, 1, &x, NULL);
  sl_graph_output(g, "y", sl_add_scalar(bad, 1.0));
  sl_program *p = NULL;
  OK(sl_graph_compile(g, &(sl_compile_options){.checked = true}, &p));
  sl_graph_release(g);
  sl_tensor *in = NULL;
  OK(sl_tensor_zeros(ctx, NULL, SL_F32, &SL_SHAPE(16), &in));
  sl_run run = {.inputs = &in};
  sl_status s = sl_program_call(p, &run, 1, result);
  sl_program_free(p);
  sl_tensor_release(in);
  return s;
}

static void test_overrun_is_caught(void **state) {
  (void)state;
#ifdef WITH_ASAN
  skip(); /* AddressSanitizer stops at the write itself */
#else
  static const sl_op_rules rules = {.infer = infer_same, .run = run_over};
  static const sl_op op = {"overrun", "x", "", 1, 0, &rules};
  sl_tensor *out = NULL;
  assert_int_equal(run_planted(&op, &out), SL_STATUS_INTERNAL);
  assert_non_null(strstr(sl_error(), "wrote outside its output"));
#endif
}

static void test_unwritten_output_is_nan(void **state) {
  (void)state;
  static const sl_op_rules rules = {.infer = infer_same, .run = run_nothing};
  static const sl_op op = {"lazy", "x", "", 1, 0, &rules};
  sl_tensor *out = NULL;
  OK(run_planted(&op, &out));
  for (int i = 0; i < 16; i++) assert_true(isnan(data_of(out)[i]));
  sl_tensor_release(out);
}

/* --- recomputation --- */

/* Four blocks of y = tanh(x w) w; the gradient by w, and the arena's size. */
static void chain_gradient(bool recompute, float *grad, uint64_t *arena) {
  enum { N = 64 };
  sl_graph *g = graph_new();
  sl_value *x = sl_input(g, "x", SL_F32, &SL_SHAPE(N, N)), *w = sl_param_value(g, 0, 0, "w", &SL_SHAPE(N, N));
  sl_value *h = x;
  for (int k = 0; k < 4; k++) {
    sl_segment_begin(g);
    for (int j = 0; j < 4; j++) h = sl_tanh(sl_add(sl_mul(h, w), h));
    sl_segment_end(g);
  }
  sl_value *loss = sl_sum(sl_square(h), 0, NULL, false), *dw = NULL;
  OK(sl_grad(g, loss, NULL, 1, &w, recompute, &dw));
  sl_graph_accumulate(g, w, dw);
  sl_graph_output(g, "loss", loss);
  uint64_t forecast = 0;
  OK(sl_graph_forecast(g, &forecast, NULL));
  sl_program *p = NULL;
  OK(sl_graph_compile(g, NULL, &p));
  *arena = forecast;
  if (!getenv("SLUICE_CHECKED")) assert_true(sl_program_arena_bytes(p) >= forecast);
  sl_graph_release(g);
  sl_tensor *in = NULL, *params = NULL, *grads = NULL, *out = NULL;
  OK(sl_tensor_new(ctx, NULL, SL_F32, &SL_SHAPE(N, N), &in));
  OK(sl_tensor_new(ctx, NULL, SL_F32, &SL_SHAPE(N * N), &params));
  OK(sl_tensor_zeros(ctx, NULL, SL_F32, &SL_SHAPE(N * N), &grads));
  for (int i = 0; i < N * N; i++) {
    ((float *)sl_tensor_data(in))[i] = sinf((float)i);
    ((float *)sl_tensor_data(params))[i] = cosf((float)i);
  }
  sl_run run = {.inputs = &in, .params = params, .grads = grads};
  OK(sl_program_call(p, &run, 1, &out));
  memcpy(grad, sl_tensor_data(grads), N * N * sizeof(float));
  sl_program_free(p);
  sl_tensor_release(in);
  sl_tensor_release(params);
  sl_tensor_release(grads);
  sl_tensor_release(out);
}

static void test_recompute_is_the_same_with_less_memory(void **state) {
  (void)state;
  static float a[64 * 64], b[64 * 64];
  uint64_t keep, less;
  chain_gradient(false, a, &keep);
  chain_gradient(true, b, &less);
  assert_memory_equal(a, b, sizeof a);
  assert_true(less < keep * 3 / 4);
}

/* --- what can be computed beforehand --- */

/* x varies, c does not: y = x m + silu(m) + exp(c), m = c w. */
static sl_value *conditioned(sl_graph *g, sl_value *x, sl_value *c, sl_value *w, sl_value **m, sl_value **act) {
  *m = sl_matmul(c, w);
  *act = sl_silu(*m);
  sl_value *y = sl_add(sl_add(sl_mul(x, *m), *act), sl_exp(c));
  sl_graph_output(g, "y", y);
  return y;
}

static void run_conditioned(sl_graph *g, sl_tensor **in, sl_tensor **out) {
  sl_program *p = NULL;
  OK(sl_graph_compile(g, NULL, &p));
  OK(sl_program_call(p, &(sl_run){.inputs = in}, 1, out));
  sl_program_free(p);
}

static void test_frontier(void **state) {
  enum { N = 2 };
  (void)state;
  const float values[3][N * N] = {{1, 2, 3, 4}, {0.5f, -1, 0.25f, 2}, {1, -2, 0.5f, 0.75f}};
  sl_tensor *in[3], *plain = NULL, *early = NULL;
  for (int i = 0; i < 3; i++) OK(sl_tensor_from(ctx, SL_F32, 2, (int64_t[]){N, N}, values[i], &in[i]));
  for (int replaced = 0; replaced < 2; replaced++) {
    sl_graph *g = graph_new();
    sl_value *v[3], *m, *act, *found[4], *tables[2];
    sl_tensor *known[2] = {NULL};
    for (int i = 0; i < 3; i++) v[i] = sl_input(g, (const char *[]){"x", "c", "w"}[i], SL_F32, &SL_SHAPE(N, N));
    for (int i = 0; i < 2; i++) {
      OK(sl_tensor_zeros(ctx, NULL, SL_F32, &SL_SHAPE(N, N), &known[i]));
      tables[i] = sl_table(g, "known", known[i]);
    }
    conditioned(g, v[0], v[1], v[2], &m, &act);
    int n = 0;
    OK(sl_graph_frontier(g, 1, v, 4, found, &n));
    assert_int_equal(n, 2); /* exp(c) took no product */
    assert_ptr_equal(found[0], m);
    assert_ptr_equal(found[1], act);
    OK(sl_graph_frontier(g, 2, v, 4, found, &n));
    assert_int_equal(n, 0); /* c varies, too */
    OK(sl_graph_frontier(g, 1, v, 1, found, &n));
    assert_int_equal(n, 2); /* told, though only one has room */
    if (replaced) {
      for (int i = 0; i < N * N; i++) {
        float sum = 0;
        for (int k = 0; k < N; k++) sum += values[1][i / N * N + k] * values[2][k * N + i % N];
        ((float *)sl_tensor_data(known[0]))[i] = sum;
        ((float *)sl_tensor_data(known[1]))[i] = sum / (1 + expf(-sum));
      }
      sl_graph_replace(g, m, tables[0]);
      sl_graph_replace(g, act, tables[1]);
    }
    int64_t macs = sl_graph_macs(g);
    assert_int_equal(macs, replaced ? 0 : N * N * N);
    run_conditioned(g, in, replaced ? &early : &plain);
    sl_graph_release(g);
    for (int i = 0; i < 2; i++) sl_tensor_release(known[i]);
  }
  for (int i = 0; i < N * N; i++) assert_float_equal(data_of(early)[i], data_of(plain)[i], 1e-5);
  for (int i = 0; i < 3; i++) sl_tensor_release(in[i]);
  sl_tensor_release(plain);
  sl_tensor_release(early);
}

/* --- looking at graphs --- */

typedef struct seen {
  int n;
  char first_bad[64];
} seen;

static bool watch(void *user, const sl_trace *t) {
  seen *s = user;
  s->n++;
  if (t->nonfinite && !s->first_bad[0]) strncpy(s->first_bad, t->name, sizeof s->first_bad - 1);
  return true;
}

/* The name of an output beside the first is that of a view of it. */
static bool watch_names(void *user, const sl_trace *t) {
  char *all = user;
  if (t->output < 2) snprintf(all + strlen(all), 128 - strlen(all), "%s ", t->name);
  return true;
}

static void test_trace_names_both_outputs(void **state) {
  (void)state;
  sl_graph *g = graph_new();
  sl_value *x = sl_input(g, "x", SL_F32, &SL_SHAPE(1, 2, 4)), *c = sl_input(g, "c", SL_F32, &SL_SHAPE(1, 4));
  sl_residual_adaln_parts parts = {.gate = c, .shift = c, .scale = c};
  sl_value *r = sl_name(sl_residual_adaln(x, x, &parts, 1e-6), "residual"), *h = sl_output(r, 1);
  sl_value *named = sl_name(sl_reshape(h, h->shape.rank, h->shape.dim), "norm");
  sl_graph_output(g, "y", sl_name(sl_add(r, named), "sum"));
  sl_program *p = NULL;
  OK(sl_graph_compile(g, NULL, &p));
  sl_graph_release(g);
  sl_tensor *in[2], *out = NULL;
  OK(sl_tensor_from(ctx, SL_F32, 3, (int64_t[]){1, 2, 4}, (float[]){1, 2, 3, 4, 5, 6, 7, 9}, &in[0]));
  OK(sl_tensor_from(ctx, SL_F32, 2, (int64_t[]){1, 4}, (float[]){1, 2, 3, 4}, &in[1]));
  char names[128] = "";
  OK(sl_program_call(p, &(sl_run){.inputs = in, .trace = watch_names, .user = names}, 1, &out));
  assert_string_equal(names, "residual norm sum ");
  sl_program_free(p);
  for (int i = 0; i < 2; i++) sl_tensor_release(in[i]);
  sl_tensor_release(out);
}

static void test_trace_names_the_first_nonfinite(void **state) {
  (void)state;
  sl_graph *g = graph_new();
  sl_value *x = sl_input(g, "x", SL_F32, &SL_SHAPE(4));
  sl_scope_push(g, "blocks.3");
  sl_value *y = sl_name(sl_log(x), "attn.qkv");
  sl_scope_pop(g);
  sl_graph_output(g, "y", sl_exp(sl_mul(y, y)));
  char *dot = NULL;
  OK(sl_graph_dot(g, &dot));
  assert_non_null(strstr(dot, "blocks.3.attn.qkv"));
  sl_free(ctx, dot);
  sl_program *p = NULL;
  OK(sl_graph_compile(g, NULL, &p));
  sl_graph_release(g);
  sl_tensor *in = floats(4, (float[]){1, 2, 0, 4}), *out = NULL;
  seen s = {0};
  sl_run run = {.inputs = &in, .trace = watch, .user = &s};
  OK(sl_program_call(p, &run, 1, &out));
  assert_string_equal(s.first_bad, "blocks.3.attn.qkv");
  assert_true(s.n >= 3);
  sl_program_free(p);
  sl_tensor_release(in);
  sl_tensor_release(out);
}

static void test_eager_cache_is_bounded(void **state) {
  (void)state;
  sl_eager *e = NULL;
  OK(sl_eager_new(ctx, 4, &e));
  for (int round = 0; round < 3; round++)
    for (int64_t n = 1; n <= 10; n++) {
      sl_tensor *in = NULL, *out = NULL;
      OK(sl_tensor_zeros(ctx, NULL, SL_F32, &SL_SHAPE(n), &in));
      OK(sl_eager_apply(e, sl_op_find("exp"), 1, &in, NULL, NULL, 1, &out));
      assert_float_equal(data_of(out)[n - 1], 1, 1e-6);
      sl_tensor_release(in);
      sl_tensor_release(out);
    }
  sl_eager_free(e);
}

static void test_allocation_failures_leak_nothing(void **state) {
  (void)state;
  sl_memory before = sl_context_memory(ctx);
  bool finished = false;
  for (int64_t n = 0; n < 2000 && !finished; n++) { /* the n-th allocation and all after it fail */
    sl_context_fail_after(ctx, n);
    sl_graph *g = NULL;
    sl_program *p = NULL;
    sl_status s = sl_graph_new(ctx, &g);
    if (s == SL_STATUS_OK) {
      sl_value *x = sl_input(g, "x", SL_F32, &SL_SHAPE(4)), *w = sl_param_value(g, 0, 0, "w", &SL_SHAPE(4)), *dw = NULL;
      sl_value *loss = sl_sum(sl_mul(x, w), 0, NULL, false);
      s = sl_grad(g, loss, NULL, 1, &w, false, &dw);
      if (s == SL_STATUS_OK) sl_graph_accumulate(g, w, dw);
      sl_graph_output(g, "loss", loss);
      s = sl_graph_compile(g, NULL, &p);
      finished = s == SL_STATUS_OK;
      if (!finished) assert_int_equal(s, SL_STATUS_OOM);
    }
    sl_context_fail_after(ctx, -1);
    sl_program_free(p);
    sl_graph_release(g);
    assert_int_equal(sl_context_memory(ctx).bytes, before.bytes);
  }
  assert_true(finished);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_gradient_accumulates),
      cmocka_unit_test(test_in_place_needs_one_order),
      cmocka_unit_test(test_errors_are_kept),
      cmocka_unit_test(test_bindings_are_checked),
      cmocka_unit_test(test_overrun_is_caught),
      cmocka_unit_test(test_unwritten_output_is_nan),
      cmocka_unit_test(test_recompute_is_the_same_with_less_memory),
      cmocka_unit_test(test_frontier),
      cmocka_unit_test(test_trace_names_both_outputs),
      cmocka_unit_test(test_trace_names_the_first_nonfinite),
      cmocka_unit_test(test_eager_cache_is_bounded),
      cmocka_unit_test(test_allocation_failures_leak_nothing),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
