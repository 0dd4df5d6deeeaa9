/* Elementwise loops and reductions where the op table does not look: every instruction set, extremes, promotion of
 * dtypes, integer arithmetic, layouts, any number of threads. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "graph/program.h"
#include "ops/ops.h"

typedef struct fixture {
  sl_context *ctx;
  sl_eager *eager;
} fixture;

static int setup(void **state) {
  static fixture f;
  assert_int_equal(sl_context_new(&(sl_context_options){.threads = 3}, &f.ctx), SL_STATUS_OK);
  assert_int_equal(sl_eager_new(f.ctx, 64, &f.eager), SL_STATUS_OK);
  *state = &f;
  return 0;
}

static int teardown(void **state) {
  fixture *f = *state;
  sl_eager_free(f->eager);
  assert_int_equal(sl_context_memory(f->ctx).blocks, 0);
  sl_context_free(f->ctx);
  return 0;
}

static sl_tensor *apply(fixture *f, const char *op, int n, sl_tensor *const *in, const sl_attrs *a) {
  sl_tensor *out = NULL;
  sl_status s = sl_eager_apply(f->eager, sl_op_find(op), n, in, a, NULL, 1, &out);
  if (s != SL_STATUS_OK) fail_msg("%s: %s", op, sl_error());
  return out;
}

/* Numbers from a fixed sequence in [lo, hi]. */
static sl_tensor *numbers(fixture *f, sl_dtype dtype, const sl_shape *shape, double lo, double hi) {
  sl_tensor *t;
  assert_int_equal(sl_tensor_new(f->ctx, NULL, dtype, shape, &t), SL_STATUS_OK);
  uint64_t x = 1;
  for (int64_t i = 0; i < sl_tensor_numel(t); i++) {
    x = x * 6364136223846793005u + 1442695040888963407u;
    sl_element_set(dtype, (char *)sl_tensor_data(t) + (size_t)i * sl_dtype_size(dtype),
                   lo + (hi - lo) * (double)(x >> 11) * 0x1p-53);
  }
  return t;
}

/* The same storage with its dimensions in reverse order. */
static sl_tensor *reversed(sl_tensor *t) {
  const sl_shape *s = sl_tensor_shape(t);
  sl_shape r = {.rank = s->rank};
  int64_t stride[SL_MAX_RANK];
  for (int i = 0; i < s->rank; i++) {
    r.dim[i] = s->dim[s->rank - 1 - i];
    stride[i] = sl_tensor_strides(t)[s->rank - 1 - i];
  }
  sl_tensor *v;
  assert_int_equal(sl_tensor_view_as(t, &r, stride, 0, &v), SL_STATUS_OK);
  sl_tensor_release(t);
  return v;
}

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double silu(double x) { return x * sigmoid(x); }
static double gelu(double x) { return x * sigmoid(2 * sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x)); }
static double gelu_erf(double x) { return 0.5 * x * erfc(-x / sqrt(2)); }
static double rsqrt(double x) { return 1 / sqrt(x); }

static void test_accuracy(void **state) {
  static const struct {
    const char *op;
    double (*exact)(double);
    double lo, hi, tolerance; /* relative */
  } cases[] = {{"exp", exp, -87, 88, 3e-7},   {"tanh", tanh, -5, 5, 3e-7}, {"sigmoid", sigmoid, -80, 20, 4e-7},
               {"silu", silu, -30, 30, 5e-7}, {"gelu", gelu, -3, 5, 2e-6}, {"gelu_erf", gelu_erf, -3, 5, 2e-6},
               {"log", log, 0.01, 0.9, 2e-7}, {"sqrt", sqrt, 0, 10, 2e-7}, {"rsqrt", rsqrt, 0.1, 10, 2e-7},
               {"sin", sin, -3, 3, 1e-6},     {"cos", cos, -1, 1, 3e-7},   {"erf", erf, -3, 3, 4e-7}};
  fixture *f = *state;
  for (int isa = SL_ISA_BASE; isa <= (int)sl_isa_machine(); isa++)
    for (int way = 0; way < 4; way++)
      for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        bool half = way & 1;
        sl_context_set_isa(f->ctx, (sl_isa)isa);
        sl_tensor *x = numbers(f, half ? SL_BF16 : SL_F32, &SL_SHAPE(37, 1031), cases[k].lo, cases[k].hi);
        if (way & 2) x = reversed(x);
        sl_tensor *y = apply(f, cases[k].op, 1, &x, NULL);
        double worst = 0;
        for (int64_t i = 0; i < sl_tensor_numel(y); i++) {
          double want = cases[k].exact(sl_tensor_at(x, i)),
                 error = fabs(sl_tensor_at(y, i) - want) / (fabs(want) + 1e-30);
          if (!(error <= worst)) worst = error;
        }
        if (!(worst < (half ? 0.0045 : cases[k].tolerance)))
          fail_msg("%s, %s, way %d: relative error %g", cases[k].op, sl_isa_name((sl_isa)isa), way, worst);
        sl_tensor_release(x);
        sl_tensor_release(y);
      }
  sl_context_set_isa(f->ctx, sl_isa_machine());
}

static void test_extremes(void **state) {
  fixture *f = *state;
  const float in[] = {NAN, INFINITY, -INFINITY, 89, -104, -95, 200, -200, 0.0f, -0.0f, 1e-40f};
  enum { N = sizeof in / sizeof *in };
  sl_tensor *x;
  assert_int_equal(sl_tensor_from(f->ctx, SL_F32, 1, (int64_t[]){N}, in, &x), SL_STATUS_OK);
  for (int isa = SL_ISA_BASE; isa <= (int)sl_isa_machine(); isa++) {
    sl_context_set_isa(f->ctx, (sl_isa)isa);
    sl_tensor *e = apply(f, "exp", 1, &x, NULL), *t = apply(f, "tanh", 1, &x, NULL), *m = apply(f, "max", 1, &x, NULL);
    for (int i = 0; i < N; i++) {
      float want = expf(in[i]), got = (float)sl_tensor_at(e, i);
      assert_true(isnan(want) ? isnan(got) : want == got || fabsf(want - got) <= 3e-45f);
      want = tanhf(in[i]), got = (float)sl_tensor_at(t, i);
      assert_true(isnan(want) ? isnan(got) : want == got);
    }
    assert_true(isnan(sl_tensor_at(m, 0)));
    sl_tensor_release(e);
    sl_tensor_release(t);
    sl_tensor_release(m);
  }
  sl_tensor_release(x);
}

static void test_promotion(void **state) {
  fixture *f = *state;
  sl_graph *g;
  assert_int_equal(sl_graph_new(f->ctx, &g), SL_STATUS_OK);
  sl_value *u8 = sl_input(g, "u", SL_U8, &SL_SHAPE(2, 3)), *i32 = sl_input(g, "i", SL_I32, &SL_SHAPE(3));
  sl_value *half = sl_input(g, "h", SL_BF16, &SL_SHAPE(2, 1)), *f32 = sl_input(g, "f", SL_F32, &SL_SHAPE(1));
  assert_int_equal(sl_add(u8, i32)->dtype, SL_I32);
  assert_int_equal(sl_add(i32, half)->dtype, SL_BF16);
  assert_int_equal(sl_add(half, f32)->dtype, SL_F32);
  assert_int_equal(sl_mul_scalar(half, 2.5)->dtype, SL_BF16);
  assert_int_equal(sl_mul_scalar(i32, 2.0)->dtype, SL_I32);
  assert_int_equal(sl_mul_scalar(i32, 2.5)->dtype, SL_F32);
  assert_int_equal(sl_add_scalar(u8, 300)->dtype, SL_I32);
  assert_int_equal(sl_div(i32, u8)->dtype, SL_F32);
  assert_int_equal(sl_pow(i32, i32)->dtype, SL_F32);
  assert_int_equal(sl_exp(u8)->dtype, SL_F32);
  assert_int_equal(sl_neg(i32)->dtype, SL_I32);
  assert_int_equal(sl_lt(half, f32)->dtype, SL_U8);
  assert_int_equal(sl_where(f32, u8, half)->dtype, SL_BF16);
  assert_int_equal(sl_sum(u8, 0, NULL, false)->dtype, SL_I64);
  assert_int_equal(sl_mean(u8, 0, NULL, false)->dtype, SL_F32);
  assert_int_equal(sl_sum(half, 0, NULL, false)->dtype, SL_BF16);
  assert_true(sl_shape_equal(&sl_mul(u8, half)->shape, &SL_SHAPE(2, 3)));
  assert_int_equal(sl_graph_status(g), SL_STATUS_OK);
  sl_graph_release(g);
}

static void test_integers(void **state) {
  fixture *f = *state;
  static const sl_dtype dtypes[] = {SL_U8, SL_I32, SL_I64};
  for (int k = 0; k < 3; k++) {
    double lo = dtypes[k] == SL_U8 ? 0 : -9;
    sl_tensor *a = numbers(f, dtypes[k], &SL_SHAPE(5, 7), lo, 9),
              *b = reversed(numbers(f, dtypes[k], &SL_SHAPE(7, 5), lo, 9));
    sl_tensor *ab[] = {a, b}, *s = apply(f, "sub", 2, ab, NULL), *m = apply(f, "maximum", 2, ab, NULL),
              *l = apply(f, "le", 2, ab, NULL);
    sl_tensor *q = apply(f, "square", 1, &b, NULL), *c = apply(f, "clamp", 1, &b, &(sl_attrs){.f = {-1.5, 2.5}});
    sl_tensor *w = apply(f, "where", 3, (sl_tensor *[]){l, a, b}, NULL), *sum = apply(f, "sum", 1, &b, NULL);
    double total = 0;
    for (int64_t i = 0; i < 35; i++) {
      double x = sl_tensor_at(a, i), y = sl_tensor_at(b, i), difference = x - y;
      if (dtypes[k] == SL_U8 && difference < 0) difference += 256; /* wraps around */
      assert_true(sl_tensor_at(s, i) == difference);
      assert_true(sl_tensor_at(m, i) == fmax(x, y));
      assert_true(sl_tensor_at(l, i) == (x <= y));
      assert_true(sl_tensor_at(q, i) == y * y);
      assert_true(sl_tensor_at(c, i) == (y < -1 ? -1 : y > 2 ? 2 : y));
      assert_true(sl_tensor_at(w, i) == fmin(x, y));
      total += y;
    }
    assert_true(sl_tensor_at(sum, 0) == total);
    sl_tensor *all[] = {a, b, s, m, l, q, c, w, sum};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) sl_tensor_release(all[i]);
  }
}

/* The reduction of x over the dimensions marked, in double. */
static void reduce_naive(const sl_tensor *x, int op, const bool *reduced, double *out, int64_t *count) {
  const sl_shape *s = sl_tensor_shape(x);
  for (int64_t i = 0; i < sl_tensor_numel(x); i++) {
    int64_t rest = i, at = 0, step = 1;
    for (int k = s->rank; k-- > 0;) {
      if (!reduced[k]) at += rest % s->dim[k] * step, step *= s->dim[k];
      rest /= s->dim[k];
    }
    double v = sl_tensor_at(x, i);
    if (op < 2) out[at] += v;
    else if (count[at] == 0 || (op == 2 ? v > out[at] : v < out[at])) out[at] = v;
    count[at]++;
  }
}

static void check_reduction(fixture *f, int op, sl_tensor *x, unsigned mask) {
  static const char *const names[] = {"sum", "mean", "max", "min"};
  const sl_shape *s = sl_tensor_shape(x);
  sl_attrs a = {{0}, {0}};
  bool reduced[SL_MAX_RANK] = {false};
  for (int i = 0; i < s->rank; i++)
    if (mask >> i & 1) a.i[1 + a.i[0]++] = i, reduced[i] = true;
  sl_tensor *y[2];
  for (int k = 0; k < 2; k++) {
    sl_context_set_threads(f->ctx, k ? 3 : 1);
    y[k] = apply(f, names[op], 1, &x, &a);
  }
  int64_t n = sl_tensor_numel(y[0]);
  double *want = calloc((size_t)n, sizeof *want);
  int64_t *count = calloc((size_t)n, sizeof *count);
  reduce_naive(x, op, reduced, want, count);
  for (int64_t i = 0; i < n; i++) {
    double w = op == 1 ? want[i] / (double)count[i] : want[i], got = sl_tensor_at(y[0], i);
    double scale = fabs(w) + (op < 2 ? 0.01 * sqrt((double)count[i]) : 0);
    if (!(fabs(got - w) <= (sl_tensor_dtype(x) == SL_BF16 ? 5e-3 : 1e-4) * scale))
      fail_msg("%s of %s over mask %u: %g, expected %g", names[op], sl_shape_text(s), mask, got, w);
    assert_true(got == sl_tensor_at(y[1], i)); /* whatever the number of threads */
  }
  free(want);
  free(count);
  sl_tensor_release(y[0]);
  sl_tensor_release(y[1]);
}

static void test_reductions(void **state) {
  fixture *f = *state;
  static const sl_dtype dtypes[] = {SL_F32, SL_BF16, SL_I32};
  const sl_shape shapes[] = {SL_SHAPE(7, 300, 5), SL_SHAPE(700, 300), SL_SHAPE(1030, 30), SL_SHAPE(3, 1)};
  for (int k = 0; k < 4; k++)
    for (int d = 0; d < 3; d++)
      for (int turned = 0; turned < 2; turned++) {
        sl_tensor *x = numbers(f, dtypes[d], &shapes[k], -10, 10);
        if (turned) x = reversed(x);
        for (int op = 0; op < 4; op++)
          for (unsigned mask = 1; mask < 1u << shapes[k].rank; mask++) check_reduction(f, op, x, mask);
        sl_tensor_release(x);
      }
}

static void test_errors(void **state) {
  fixture *f = *state;
  sl_tensor *x = numbers(f, SL_F32, &SL_SHAPE(2, 3), 0, 1), *y = numbers(f, SL_F32, &SL_SHAPE(4), 0, 1), *out = NULL;
  const struct {
    const char *op;
    int n;
    sl_attrs a;
    const char *text;
  } cases[] = {
      {"reshape", 1, {.i = {2, 4, 2}}, "reshape: x is [2,3], 6 elements, cannot become [4,2]"},
      {"add", 2, {{0}, {0}}, "add: a is f32 [2,3] and b is f32 [4]: their shapes do not fit together"},
      {"permute", 1, {.i = {2, 0, 0}}, "permute: dims names dimension 1 twice"},
      {"slice",
       1,
       {.i = {1, 0, 3, 1}},
       "slice: positions 1 to 4 (the last included) of dimension 2 leave x, which is f32 [2,3]"},
      {"sum", 1, {.i = {1, 2}}, "sum: dim is 3, expected 1 to 2 or -2 to -1, as x is f32 [2,3]"},
      {"clamp", 1, {.f = {2, 1}}, "clamp: lo is 2 and hi is 1, expected lo <= hi"},
  };
  for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
    sl_tensor *in[] = {x, y};
    sl_status s = sl_eager_apply(f->eager, sl_op_find(cases[k].op), cases[k].n, in, &cases[k].a, NULL, 1, &out);
    assert_int_not_equal(s, SL_STATUS_OK);
    assert_null(out);
    assert_string_equal(sl_error(), cases[k].text);
  }
  sl_tensor_release(x);
  sl_tensor_release(y);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_accuracy), cmocka_unit_test(test_extremes),   cmocka_unit_test(test_promotion),
      cmocka_unit_test(test_integers), cmocka_unit_test(test_reductions), cmocka_unit_test(test_errors),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
