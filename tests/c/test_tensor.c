/* Dtypes, shapes, tensors, their views, and strided copies with conversion. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "tensor/tensor.h"

static sl_context *ctx;
#define AT_SHAPE(...) ((sl_shape[]){SL_SHAPE(__VA_ARGS__)}) /* its address */
#define OK(expr) assert_int_equal(expr, SL_STATUS_OK)

static int setup(void **state) {
  (void)state;
  return sl_context_new(&(sl_context_options){.threads = 3}, &ctx) != SL_STATUS_OK;
}

static int teardown(void **state) { /* each test gives back all it took */
  (void)state;
  uint64_t blocks = sl_context_memory(ctx).blocks;
  sl_context_free(ctx);
  return blocks != 0;
}

/* 0, 1, 2 … */
static sl_tensor *counting(sl_dtype dtype, sl_shape shape) {
  sl_tensor *t;
  OK(sl_tensor_new(ctx, NULL, dtype, &shape, &t));
  char *p = sl_tensor_data(t);
  for (int64_t i = 0; i < sl_tensor_numel(t); i++) {
    sl_element_set(dtype, p + i * (int64_t)sl_dtype_size(dtype), (double)i);
  }
  return t;
}

static sl_tensor *permuted(sl_tensor *t, const int *order) {
  const sl_shape *s = sl_tensor_shape(t);
  sl_shape shape = {.rank = s->rank};
  int64_t stride[SL_MAX_RANK];
  for (int i = 0; i < s->rank; i++) {
    shape.dim[i] = s->dim[order[i]];
    stride[i] = sl_tensor_strides(t)[order[i]];
  }
  sl_tensor *out;
  OK(sl_tensor_view_as(t, &shape, stride, 0, &out));
  return out;
}

static void test_dtype_shape(void **state) {
  (void)state;
  sl_dtype d;
  assert_true(sl_dtype_from_name("bf16", &d) && d == SL_BF16);
  assert_true(sl_dtype_from_name("float32", &d) && d == SL_F32);
  assert_true(sl_dtype_from_name("uint8", &d) && d == SL_U8);
  assert_false(sl_dtype_from_name("f8", &d));
  assert_int_equal(sl_dtype_size(SL_I64), 8);
  assert_string_equal(sl_dtype_name(SL_BOOL), "bool");
  sl_shape a = SL_SHAPE(2, 1, 4), b = SL_SHAPE(3, 1), c, e = SL_SHAPE(2);
  assert_true(sl_shape_broadcast(&a, &b, &c));
  assert_string_equal(sl_shape_text(&c), "[2,3,4]");
  assert_false(sl_shape_broadcast(&a, &e, &c));
  assert_string_equal(sl_shape_text(&(sl_shape){.rank = 0}), "[]");
  sl_shape huge = SL_SHAPE(INT64_MAX / 4, 3), negative = SL_SHAPE(2, -1), deep = sl_shape_of(9, (int64_t[9]){0});
  assert_int_equal(sl_shape_check(&huge, 4, "x"), SL_STATUS_SHAPE);
  assert_int_equal(sl_shape_check(&negative, 4, "x"), SL_STATUS_SHAPE);
  assert_non_null(strstr(sl_error(), "x: dimension 2 of shape [2,-1]"));
  assert_int_equal(sl_shape_check(&deep, 4, "x"), SL_STATUS_SHAPE);
  const sl_device *dev;
  OK(sl_device_find(ctx, "cpu", &dev));
  assert_ptr_equal(dev, &sl_device_cpu);
  assert_int_equal(sl_device_find(ctx, "tpu", &dev), SL_STATUS_DEVICE);
  assert_non_null(strstr(sl_error(), "tpu"));
}

static void test_views(void **state) {
  (void)state;
  sl_tensor *t = counting(SL_F32, SL_SHAPE(2, 3, 4)), *v, *w, *r;
  OK(sl_tensor_select(t, 1, 2, &v)); /* [2,4] */
  assert_string_equal(sl_shape_text(sl_tensor_shape(v)), "[2,4]");
  assert_true(sl_tensor_at(v, 5) == 21);
  assert_false(sl_tensor_is_contiguous(v));
  OK(sl_tensor_narrow(v, 1, 1, 2, &w));
  assert_true(sl_tensor_at(w, 0) == 9 && sl_tensor_at(w, 3) == 22);
  OK(sl_tensor_reshape(w, AT_SHAPE(4), &r)); /* must copy */
  assert_true(sl_tensor_at(r, 3) == 22 && sl_tensor_is_contiguous(r));
  assert_ptr_not_equal(sl_tensor_data(r), sl_tensor_data(w));
  sl_tensor_release(r);
  OK(sl_tensor_reshape(w, AT_SHAPE(2, 1, 2, 1), &r)); /* a view */
  assert_ptr_equal(sl_tensor_data(r), sl_tensor_data(w));
  assert_true(sl_tensor_at(r, 3) == 22);
  sl_tensor_release(r);
  sl_tensor_release(t); /* the storage lives on in the views */
  assert_true(sl_tensor_at(w, 3) == 22);
  assert_int_equal(sl_tensor_select(v, 0, 2, &r), SL_STATUS_SHAPE);
  assert_null(r);
  assert_int_equal(sl_tensor_select(v, 2, 0, &r), SL_STATUS_SHAPE);
  assert_int_equal(sl_tensor_narrow(v, 1, 3, 2, &r), SL_STATUS_SHAPE);
  assert_int_equal(sl_tensor_reshape(v, AT_SHAPE(3), &r), SL_STATUS_SHAPE);
  assert_int_equal(sl_tensor_view_as(v, AT_SHAPE(20), NULL, 0, &r), SL_STATUS_SHAPE);
  assert_int_equal(sl_tensor_view_as(v, AT_SHAPE(2), (int64_t[]){-9}, 0, &r), SL_STATUS_SHAPE);
  sl_tensor_release(v);
  sl_tensor_release(w);
  sl_tensor_release(NULL);
}

/* Each element of the copy against sl_tensor_at of the source, which walks strides on its own. */
static void expect_copy(sl_tensor *src, sl_dtype dtype) {
  sl_tensor *dst;
  OK(sl_tensor_to(src, dtype, NULL, &dst));
  assert_true(sl_tensor_is_contiguous(dst));
  for (int64_t i = 0; i < sl_tensor_numel(src); i++) {
    double want = sl_tensor_at(src, i);
    unsigned char memory[8];
    sl_element_set(dtype, memory, want);
    want = sl_element_get(dtype, memory);
    if (sl_tensor_at(dst, i) != want) fail_msg("element %d: %g, expected %g", (int)i, sl_tensor_at(dst, i), want);
  }
  sl_tensor_release(dst);
}

static void test_strided_copies(void **state) {
  (void)state;
  static const int orders[][4] = {{0, 1, 2, 3}, {3, 2, 1, 0}, {0, 2, 3, 1}, {0, 3, 1, 2}, {2, 0, 1, 3}, {1, 0, 3, 2}};
  static const sl_dtype pairs[][2] = {{SL_F32, SL_F32}, {SL_F32, SL_BF16}, {SL_BF16, SL_F32}, {SL_I64, SL_F32},
                                      {SL_U8, SL_F32},  {SL_F32, SL_U8},   {SL_I64, SL_I32},  {SL_F16, SL_F64},
                                      {SL_F64, SL_F64}, {SL_I16, SL_I16},  {SL_U8, SL_BOOL},  {SL_I32, SL_I64}};
  for (size_t p = 0; p < sizeof pairs / sizeof *pairs; p++) {
    sl_tensor *t = counting(pairs[p][0], SL_SHAPE(3, 5, 35, 37));
    for (size_t k = 0; k < sizeof orders / sizeof *orders; k++) {
      sl_tensor *v = permuted(t, orders[k]), *n;
      expect_copy(v, pairs[p][1]);
      OK(sl_tensor_narrow(v, 2, 1, sl_tensor_shape(v)->dim[2] - 2, &n));
      expect_copy(n, pairs[p][1]);
      sl_tensor_release(n);
      sl_tensor_release(v);
    }
    sl_tensor_release(t);
  }
}

static void test_large_copies(void **state) { /* on several threads */
  (void)state;
  sl_tensor *t = counting(SL_F32, SL_SHAPE(700, 600)), *v = permuted(t, (int[]){1, 0});
  expect_copy(t, SL_F32);
  expect_copy(t, SL_BF16);
  expect_copy(v, SL_F32);
  expect_copy(v, SL_F64);
  sl_tensor_release(v);
  OK(sl_tensor_view_as(t, AT_SHAPE(420000), (int64_t[]){-1}, 419999, &v)); /* backwards */
  expect_copy(v, SL_F32);
  sl_tensor_release(v);
  OK(sl_tensor_view_as(t, AT_SHAPE(500, 600), (int64_t[]){0, 1}, 600, &v)); /* broadcast */
  expect_copy(v, SL_F32);
  sl_tensor_release(v);
  sl_tensor_release(t);
}

static void test_copy_into(void **state) {
  (void)state;
  sl_tensor *t, *column, *one, *overlapping, *first;
  OK(sl_tensor_zeros(ctx, NULL, SL_F32, AT_SHAPE(4, 3), &t));
  OK(sl_tensor_select(t, 1, 1, &column));
  int64_t seven = 7;
  OK(sl_tensor_from(ctx, SL_I64, 0, NULL, &seven, &one));
  uint64_t version = sl_tensor_version(t);
  OK(sl_tensor_copy(column, one)); /* a 0-d source fills */
  assert_true(sl_tensor_version(t) > version);
  for (int64_t i = 0; i < 12; i++) assert_true(sl_tensor_at(t, i) == (i % 3 == 1 ? 7 : 0));
  assert_int_equal(sl_tensor_copy(t, column), SL_STATUS_SHAPE);
  assert_non_null(strstr(sl_error(), "[4]"));
  sl_tensor_release(column);
  sl_tensor_release(one);
  sl_tensor_release(t);
  t = counting(SL_F32, SL_SHAPE(10)); /* source and destination share memory */
  OK(sl_tensor_narrow(t, 0, 0, 9, &first));
  OK(sl_tensor_narrow(t, 0, 1, 9, &overlapping));
  OK(sl_tensor_copy(overlapping, first));
  for (int64_t i = 1; i < 10; i++) assert_true(sl_tensor_at(t, i) == (double)(i - 1));
  sl_tensor_release(first);
  sl_tensor_release(overlapping);
  sl_tensor_release(t);
  OK(sl_tensor_new(ctx, NULL, SL_F32, AT_SHAPE(0, 3), &t));
  expect_copy(t, SL_BF16);
  sl_tensor_release(t);
}

static void test_conversions(void **state) {
  (void)state;
  float v[] = {-1.9f, 1.9f, 300.0f, NAN, 1e30f, -1e30f, INFINITY, 254.9f};
  sl_tensor *t, *u;
  OK(sl_tensor_from(ctx, SL_F32, 1, (int64_t[]){8}, v, &t));
  static const struct {
    sl_dtype dtype;
    double want[8];
  } rows[] = {
      {SL_U8, {0, 1, 255, 0, 255, 0, 255, 254}},
      {SL_I32, {-1, 1, 300, 0, INT32_MAX, INT32_MIN, INT32_MAX, 254}},
      {SL_I64, {-1, 1, 300, 0, 0x1p63, -0x1p63, 0x1p63, 254}},
      {SL_I8, {-1, 1, 127, 0, 127, -128, 127, 127}},
  };
  for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
    OK(sl_tensor_to(t, rows[k].dtype, NULL, &u));
    for (int i = 0; i < 8; i++) assert_true(sl_tensor_at(u, i) == rows[k].want[i]);
    sl_tensor_release(u);
  }
  sl_tensor_release(t);
}

static int released;
static void release(void *user) { released += *(int *)user; }

static void test_wrap(void **state) {
  (void)state;
  float memory[6] = {1, 2, 3, 4, 5, 6};
  int one = 1;
  sl_tensor *t, *v;
  OK(sl_tensor_wrap(ctx, SL_F32, AT_SHAPE(2, 3), memory, release, &one, &t));
  OK(sl_tensor_select(t, 0, 1, &v));
  sl_tensor_release(sl_tensor_retain(t));
  sl_tensor_release(t);
  assert_int_equal(released, 0);
  assert_ptr_equal(sl_tensor_data(v), memory + 3);
  sl_tensor_release(v);
  assert_int_equal(released, 1);
}

/* Lets 0, 1, 2 … allocations succeed until the whole task does: failures are reported and leak nothing. */
static sl_status task(void) {
  sl_tensor *t = NULL, *v = NULL, *r = NULL;
  float data[6] = {0};
  int one = 1;
  sl_status status;
  SL_GOTO(sl_tensor_from(ctx, SL_F32, 2, (int64_t[]){2, 3}, data, &t));
  SL_GOTO(sl_tensor_view_as(t, AT_SHAPE(3, 2), (int64_t[]){1, 3}, 0, &v));
  SL_GOTO(sl_tensor_reshape(v, AT_SHAPE(6), &r));
  sl_tensor_release(r);
  SL_GOTO(sl_tensor_wrap(ctx, SL_F32, AT_SHAPE(6), data, release, &one, &r));
done:
  sl_tensor_release(t);
  sl_tensor_release(v);
  sl_tensor_release(r);
  return status;
}

static void test_oom_ladder(void **state) {
  (void)state;
  sl_status status = SL_STATUS_OOM;
  int steps = 0;
  released = 0;
  for (; status != SL_STATUS_OK && steps < 100; steps++) {
    sl_context_fail_after(ctx, steps);
    status = task();
    assert_true(status == SL_STATUS_OK || status == SL_STATUS_OOM);
    assert_int_equal(released, status == SL_STATUS_OK); /* not released by a failed wrap */
    assert_int_equal(sl_context_memory(ctx).blocks, 0);
    assert_int_equal(sl_context_memory(ctx).bytes, 0);
  }
  sl_context_fail_after(ctx, -1);
  assert_true(steps > 5 && steps < 100);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_dtype_shape), TEST(test_views),       TEST(test_strided_copies), TEST(test_large_copies),
      TEST(test_copy_into),   TEST(test_conversions), TEST(test_wrap),           TEST(test_oom_ladder),
  };
  return cmocka_run_group_tests_name("tensor", tests, NULL, NULL);
}
