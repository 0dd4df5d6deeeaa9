/* matmul and linear against their definitions: broadcasting, vectors, transposed and strided operands, activations,
 * bf16. */
#include "naive_case.h"

typedef struct operands {
  sl_shape a, b;
  int swap_a, swap_b; /* 1: the last two dimensions of the input are the other way round; 2: the first two are */
} operands;

static sl_shape swapped(sl_shape s, int how) {
  int i = how == 2 ? 0 : s.rank - 2;
  if (how == 0) return s;
  int64_t d = s.dim[i];
  s.dim[i] = s.dim[i + 1];
  s.dim[i + 1] = d;
  return s;
}

static sl_value *swap_value(sl_value *v, int how) {
  int dims[SL_MAX_RANK], r = v->shape.rank, i = how == 2 ? 0 : r - 2;
  for (int k = 0; k < r; k++) dims[k] = k;
  if (how == 0) return v;
  dims[i] = i + 1;
  dims[i + 1] = i;
  return sl_permute(v, r, dims);
}

/* Element `index` (one number per dimension of s) of an input of the swapped layout. */
static int64_t at(sl_shape s, int how, const int64_t *index) {
  sl_shape given = swapped(s, how);
  int64_t stride[SL_MAX_RANK], sum = 0;
  sl_shape_strides(&given, stride);
  int k = how == 2 ? 0 : s.rank - 2;
  for (int i = 0; i < s.rank; i++) sum += index[i] * stride[how == 0 ? i : i == k ? k + 1 : i == k + 1 ? k : i];
  return sum;
}

/* Position of (leading number, row, column) in an operand that broadcasts to the leading dimensions `lead`. */
static int64_t element(sl_shape s, int how, sl_shape lead, int64_t number, int64_t row, int64_t col) {
  int64_t index[SL_MAX_RANK] = {0};
  for (int i = lead.rank; i-- > 0; number /= lead.dim[i]) {
    int k = i - (lead.rank - (s.rank - 2));
    if (k >= 0) index[k] = s.dim[k] == 1 ? 0 : number % lead.dim[i];
  }
  index[s.rank - 2] = row;
  index[s.rank - 1] = col;
  return at(s, how, index);
}

static sl_shape as_matrix(sl_shape s, bool column) {
  if (s.rank > 1) return s;
  return column ? SL_SHAPE(s.dim[0], 1) : SL_SHAPE(1, s.dim[0]);
}

static sl_shape leading(const operands *o) {
  sl_shape a = as_matrix(o->a, false), b = as_matrix(o->b, true), lead;
  a.rank -= 2;
  b.rank -= 2;
  assert_true(sl_shape_broadcast(&a, &b, &lead));
  return lead;
}

static sl_shape result(const operands *o) {
  sl_shape s = leading(o);
  if (o->a.rank > 1) s.dim[s.rank++] = o->a.dim[o->a.rank - 2];
  if (o->b.rank > 1) s.dim[s.rank++] = o->b.dim[o->b.rank - 1];
  return s;
}

static void define_matmul(const void *of, double *const *in, double *y) {
  const operands *o = of;
  sl_shape lead = leading(o), a = as_matrix(o->a, false), b = as_matrix(o->b, true);
  int64_t M = a.dim[a.rank - 2], K = a.dim[a.rank - 1], P = b.dim[b.rank - 1], batch = sl_shape_numel(&lead);
  for (int64_t i = 0; i < batch * M * P; i++) {
    int64_t n = i / (M * P), row = i / P % M, col = i % P;
    y[i] = 0;
    for (int64_t k = 0; k < K; k++)
      y[i] += in[0][element(a, o->swap_a, lead, n, row, k)] * in[1][element(b, o->swap_b, lead, n, k, col)];
  }
}

static sl_value *build_matmul(const void *of, sl_value *const *in) {
  const operands *o = of;
  return sl_matmul(swap_value(in[0], o->swap_a), swap_value(in[1], o->swap_b));
}

static void check_matmul(fixture *f, operands o, sl_dtype dtype) {
  char name[96];
  snprintf(name, sizeof name, "matmul %s %s", sl_shape_text(&o.a), sl_shape_text(&o.b));
  naive_case c = {.name = name,
                  .n = 2,
                  .dtype = {dtype, dtype},
                  .shape = {swapped(o.a, o.swap_a), swapped(o.b, o.swap_b)},
                  .of = &o,
                  .build = build_matmul,
                  .define = define_matmul,
                  .tolerance = dtype == SL_BF16 ? 8e-3 : 0};
  c.out = result(&o);
  check_case(f, c);
}

static void test_matmul_shapes(void **state) {
  check_matmul(*state, (operands){SL_SHAPE(3, 5), SL_SHAPE(5, 7), 0, 0}, SL_F32);
  check_matmul(*state, (operands){SL_SHAPE(1, 1), SL_SHAPE(1, 1), 0, 0}, SL_F32);
  check_matmul(*state, (operands){SL_SHAPE(2, 3, 5), SL_SHAPE(2, 5, 4), 0, 0}, SL_F32);
  check_matmul(*state, (operands){SL_SHAPE(2, 3, 5), SL_SHAPE(5, 4), 0, 0}, SL_F32);
  check_matmul(*state, (operands){SL_SHAPE(3, 5), SL_SHAPE(4, 5, 2), 0, 0}, SL_F32);
  check_matmul(*state, (operands){SL_SHAPE(2, 1, 3, 5), SL_SHAPE(4, 5, 2), 0, 0}, SL_F32);
  check_matmul(*state, (operands){SL_SHAPE(2, 3, 17, 9), SL_SHAPE(2, 3, 9, 33), 0, 0}, SL_F32);
  check_matmul(*state, (operands){SL_SHAPE(130, 20), SL_SHAPE(20, 72), 0, 0}, SL_F32);
}

static void test_matmul_vectors(void **state) {
  check_matmul(*state, (operands){SL_SHAPE(5), SL_SHAPE(5), 0, 0}, SL_F32);
  check_matmul(*state, (operands){SL_SHAPE(5), SL_SHAPE(5, 3), 0, 0}, SL_F32);
  check_matmul(*state, (operands){SL_SHAPE(3, 5), SL_SHAPE(5), 0, 0}, SL_F32);
  check_matmul(*state, (operands){SL_SHAPE(2, 3, 5), SL_SHAPE(5), 0, 0}, SL_F32);
  check_matmul(*state, (operands){SL_SHAPE(5), SL_SHAPE(2, 5, 3), 0, 0}, SL_F32);
}

static void test_matmul_layouts(void **state) {
  for (int a = 0; a <= 2; a++)
    for (int b = 0; b <= 2; b++) check_matmul(*state, (operands){SL_SHAPE(3, 70, 9), SL_SHAPE(3, 9, 11), a, b}, SL_F32);
  check_matmul(*state, (operands){SL_SHAPE(100, 33), SL_SHAPE(33, 65), 0, 1}, SL_F32); /* packed weights */
  check_matmul(*state, (operands){SL_SHAPE(3, 1, 9), SL_SHAPE(9, 1), 1, 1}, SL_F32);
}

static void test_matmul_bf16(void **state) {
  check_matmul(*state, (operands){SL_SHAPE(2, 70, 33), SL_SHAPE(33, 40), 0, 1}, SL_BF16);
  check_matmul(*state, (operands){SL_SHAPE(3, 5, 8), SL_SHAPE(3, 8, 4), 1, 0}, SL_BF16);
}

/* --- linear --- */

typedef struct layer {
  sl_shape x;
  int64_t P;
  sl_act act;
  bool rows_apart; /* x is half of a wider value */
} layer;

static double activation(sl_act act, double x) {
  double u = sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x);
  if (act == SL_ACT_GELU) return 0.5 * x * (1 + tanh(u));
  if (act == SL_ACT_GELU_ERF) return 0.5 * x * (1 + erf(x / sqrt(2)));
  return act == SL_ACT_SILU ? x / (1 + exp(-x)) : x;
}

static void define_linear(const void *of, double *const *in, double *y) {
  const layer *l = of;
  int64_t K = l->x.dim[l->x.rank - 1], rows = sl_shape_numel(&l->x) / K, stride = l->rows_apart ? 2 * K : K;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t p = 0; p < l->P; p++) {
      double sum = in[2] ? in[2][p] : 0;
      for (int64_t k = 0; k < K; k++) sum += in[0][r * stride + k] * in[1][p * K + k];
      *y++ = activation(l->act, sum);
    }
}

static sl_value *layer_input(const layer *l, sl_value *x) {
  return l->rows_apart ? sl_slice(x, -1, 0, l->x.dim[l->x.rank - 1] - 1, 1) : x;
}

static sl_value *build_linear(const void *of, sl_value *const *in) {
  const layer *l = of;
  return sl_linear(layer_input(l, in[0]), in[1], in[2], l->act);
}

static sl_value *build_without_bias(const void *of, sl_value *const *in) {
  const layer *l = of;
  return sl_linear(layer_input(l, in[0]), in[1], NULL, l->act);
}

static void define_without_bias(const void *of, double *const *in, double *y) {
  define_linear(of, (double *[]){in[0], in[1], NULL}, y);
}

static void check_linear(fixture *f, layer l, bool bias, sl_dtype dtype) {
  char name[96];
  snprintf(name, sizeof name, "linear %s to %d, activation %d", sl_shape_text(&l.x), (int)l.P, (int)l.act);
  int64_t K = l.x.dim[l.x.rank - 1];
  sl_shape given = l.x;
  if (l.rows_apart) given.dim[l.x.rank - 1] *= 2;
  naive_case c = {.name = name,
                  .n = bias ? 3 : 2,
                  .dtype = {dtype, dtype, dtype},
                  .shape = {given, SL_SHAPE(l.P, K), SL_SHAPE(l.P)},
                  .out = l.x,
                  .of = &l,
                  .build = bias ? build_linear : build_without_bias,
                  .define = bias ? define_linear : define_without_bias,
                  .tolerance = dtype == SL_BF16 ? 2e-2 : 0};
  c.out.dim[l.x.rank - 1] = l.P;
  check_case(f, c);
}

static void test_linear_shapes(void **state) {
  check_linear(*state, (layer){SL_SHAPE(3, 5), 7, SL_ACT_NONE, false}, true, SL_F32);
  check_linear(*state, (layer){SL_SHAPE(5), 7, SL_ACT_NONE, false}, true, SL_F32);
  check_linear(*state, (layer){SL_SHAPE(2, 3, 4, 5), 1, SL_ACT_NONE, false}, false, SL_F32);
  check_linear(*state, (layer){SL_SHAPE(8, 33), 150, SL_ACT_NONE, false}, true, SL_F32);
  check_linear(*state, (layer){SL_SHAPE(2, 80, 48), 144, SL_ACT_NONE, false}, true, SL_F32);
  check_linear(*state, (layer){SL_SHAPE(2, 3, 9), 4, SL_ACT_NONE, true}, true, SL_F32);
}

static void test_linear_activations(void **state) {
  for (sl_act act = SL_ACT_GELU; act <= SL_ACT_SILU; act++) {
    check_linear(*state, (layer){SL_SHAPE(2, 3, 9), 11, act, false}, true, SL_F32);
    check_linear(*state, (layer){SL_SHAPE(70, 12), 40, act, true}, false, SL_F32);
  }
}

static void test_linear_bf16(void **state) {
  check_linear(*state, (layer){SL_SHAPE(2, 40, 24), 20, SL_ACT_NONE, false}, true, SL_BF16);
  check_linear(*state, (layer){SL_SHAPE(3, 24), 20, SL_ACT_GELU, false}, true, SL_BF16);
}

/* The value before the activation, and the gradients of both outputs together. */
static sl_status build_both(void *user, sl_graph *g, int n_in, sl_value *const *in, int n_out, sl_value **out) {
  (void)user, (void)n_in, (void)n_out;
  out[0] = sl_linear(in[0], in[1], NULL, SL_ACT_SILU);
  out[1] = sl_output(out[0], 1);
  return sl_grad(g, sl_add(sl_sum(out[0], 0, NULL, false), sl_sum(out[1], 0, NULL, false)), NULL, 1, in, false,
                 out + 2);
}

static void test_linear_before_activation(void **state) {
  fixture *f = *state;
  sl_tensor *in[2], *out[3];
  assert_int_equal(sl_tensor_from(f->ctx, SL_F32, 2, (int64_t[]){1, 2}, (float[]){1, 2}, &in[0]), SL_STATUS_OK);
  assert_int_equal(sl_tensor_from(f->ctx, SL_F32, 2, (int64_t[]){1, 2}, (float[]){3, -1}, &in[1]), SL_STATUS_OK);
  if (sl_eager_call(f->eager, "both", 4, build_both, NULL, 2, in, NULL, 3, out)) fail_msg("%s", sl_error());
  double s = 1 / (1 + exp(-1.0)), slope = s + s * (1 - s) + 1;
  assert_true(fabs(sl_tensor_at(out[0], 0) - s) < 1e-6);
  assert_true(sl_tensor_at(out[1], 0) == 1);
  assert_true(fabs(sl_tensor_at(out[2], 0) - 3 * slope) < 1e-5 && fabs(sl_tensor_at(out[2], 1) + slope) < 1e-5);
  for (int i = 0; i < 2; i++) sl_tensor_release(in[i]);
  for (int i = 0; i < 3; i++) sl_tensor_release(out[i]);
}

/* Parameters' gradients are added into the flat array, that of a weight by the product itself. */
static void test_accumulated(void **state) {
  fixture *f = *state;
  sl_graph *g;
  sl_program *p;
  sl_shape xs = SL_SHAPE(3, 2), ws = SL_SHAPE(1, 2), bs = SL_SHAPE(1), flat = SL_SHAPE(3);
  assert_int_equal(sl_graph_new(f->ctx, &g), SL_STATUS_OK);
  sl_value *x = sl_input(g, "x", SL_F32, &xs), *d[2];
  sl_value *w[] = {sl_param_value(g, 0, 0, "w", &ws), sl_param_value(g, 1, 2, "b", &bs)};
  sl_value *y = sl_linear(x, w[0], w[1], SL_ACT_NONE);
  assert_int_equal(sl_grad(g, sl_sum(y, 0, NULL, false), NULL, 2, w, false, d), SL_STATUS_OK);
  for (int i = 0; i < 2; i++) sl_graph_accumulate(g, w[i], d[i]);
  assert_int_equal(sl_graph_compile(g, NULL, &p), SL_STATUS_OK);
  sl_tensor *in, *params, *grads;
  assert_int_equal(sl_tensor_from(f->ctx, SL_F32, 2, xs.dim, (float[]){1, 2, 3, 4, 5, 6}, &in), SL_STATUS_OK);
  assert_int_equal(sl_tensor_zeros(f->ctx, NULL, SL_F32, &flat, &params), SL_STATUS_OK);
  assert_int_equal(sl_tensor_from(f->ctx, SL_F32, 1, flat.dim, (float[]){100, 200, 300}, &grads), SL_STATUS_OK);
  for (int i = 1; i <= 3; i++) {
    if (sl_program_run(p, &(sl_run){.inputs = &in, .params = params, .grads = grads})) fail_msg("%s", sl_error());
    assert_true(sl_tensor_at(grads, 0) == 100 + 9 * i);
    assert_true(sl_tensor_at(grads, 1) == 200 + 12 * i);
    assert_true(sl_tensor_at(grads, 2) == 300 + 3 * i);
  }
  sl_tensor_release(in);
  sl_tensor_release(params);
  sl_tensor_release(grads);
  sl_program_free(p);
  sl_graph_release(g);
}

static sl_value *refused_matmul(sl_value *const *in) { return sl_matmul(in[0], in[1]); }
static sl_value *refused_linear(sl_value *const *in) { return sl_linear(in[0], in[1], in[2], SL_ACT_NONE); }

static void test_refusals(void **state) {
  const sl_dtype f32[] = {SL_F32, SL_F32, SL_F32}, ints[] = {SL_I64, SL_F32, SL_F32};
  sl_shape b = SL_SHAPE(4);
  check_refused(*state, SL_STATUS_SHAPE, "a is [2,3] and b [4,2]", 2, f32, (sl_shape[]){SL_SHAPE(2, 3), SL_SHAPE(4, 2)},
                refused_matmul);
  check_refused(*state, SL_STATUS_SHAPE, "do not broadcast", 2, f32, (sl_shape[]){SL_SHAPE(2, 3, 4), SL_SHAPE(3, 4, 2)},
                refused_matmul);
  check_refused(*state, SL_STATUS_SHAPE, "a is a scalar", 2, f32, (sl_shape[]){{0}, SL_SHAPE(4, 2)}, refused_matmul);
  check_refused(*state, SL_STATUS_DTYPE, "a is i64", 2, ints, (sl_shape[]){SL_SHAPE(2, 3), SL_SHAPE(3, 2)},
                refused_matmul);
  check_refused(*state, SL_STATUS_SHAPE, "last dimensions differ", 3, f32,
                (sl_shape[]){SL_SHAPE(2, 3), SL_SHAPE(4, 2), b}, refused_linear);
  check_refused(*state, SL_STATUS_SHAPE, "expected [P,K]", 3, f32, (sl_shape[]){SL_SHAPE(2, 3), SL_SHAPE(3), b},
                refused_linear);
  check_refused(*state, SL_STATUS_SHAPE, "b is [4], expected [5]", 3, f32,
                (sl_shape[]){SL_SHAPE(2, 3), SL_SHAPE(5, 3), b}, refused_linear);
  check_refused(*state, SL_STATUS_DTYPE, "x is i64", 3, ints, (sl_shape[]){SL_SHAPE(2, 3), SL_SHAPE(4, 3), b},
                refused_linear);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_matmul_shapes, setup, teardown),
      cmocka_unit_test_setup_teardown(test_matmul_vectors, setup, teardown),
      cmocka_unit_test_setup_teardown(test_matmul_layouts, setup, teardown),
      cmocka_unit_test_setup_teardown(test_matmul_bf16, setup, teardown),
      cmocka_unit_test_setup_teardown(test_linear_shapes, setup, teardown),
      cmocka_unit_test_setup_teardown(test_linear_activations, setup, teardown),
      cmocka_unit_test_setup_teardown(test_linear_bf16, setup, teardown),
      cmocka_unit_test_setup_teardown(test_linear_before_activation, setup, teardown),
      cmocka_unit_test_setup_teardown(test_accumulated, setup, teardown),
      cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
  };
  return cmocka_run_group_tests_name("products", tests, NULL, NULL);
}
