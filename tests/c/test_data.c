/* Pictures (PNG) and data sets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/random.h"
#include "data/dataset.h"
#include "io/picture.h"
#include "io/png.h"
#include "io/tensor_file.h"

static sl_context *ctx;
static char folder[64];
#define OK(expr) assert_int_equal(expr, SL_STATUS_OK)
#define FAILS(status, part, expr)                                                                                      \
  do {                                                                                                                 \
    assert_int_equal(expr, SL_STATUS_##status);                                                                        \
    if (!strstr(sl_error(), part)) fail_msg("%s\n   lacks: %s", sl_error(), part);                                     \
  } while (0)

static int setup(void **state) {
  (void)state;
  snprintf(folder, sizeof folder, "/tmp/sluice-data-XXXXXX");
  return !mkdtemp(folder) || sl_context_new(&(sl_context_options){.threads = 3}, &ctx) != SL_STATUS_OK;
}

static int teardown(void **state) { /* each test gives back all it took, and leaves no file behind */
  (void)state;
  uint64_t blocks = sl_context_memory(ctx).blocks;
  sl_context_free(ctx);
  return blocks != 0 || rmdir(folder) != 0;
}

/* A path in the test's folder; one buffer. */
static const char *at(const char *name) {
  static char path[128];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return path;
}

static sl_tensor *filled(sl_dtype dtype, sl_shape shape, double from, double step, int64_t period) {
  sl_tensor *t;
  OK(sl_tensor_new(ctx, NULL, dtype, &shape, &t));
  char *p = sl_tensor_data(t);
  for (int64_t i = 0; i < sl_tensor_numel(t); i++) {
    sl_element_set(dtype, p + i * (int64_t)sl_dtype_size(dtype), from + step * (double)(i % period));
  }
  return t;
}

/* Writes, reads back. */
static sl_tensor *through_png(sl_tensor *images, const sl_png_options *o) {
  sl_tensor *t;
  if (sl_png_write_as(at("x.png"), images, o) != SL_STATUS_OK) fail_msg("%s", sl_error());
  if (sl_png_read(ctx, at("x.png"), &t) != SL_STATUS_OK) fail_msg("%s", sl_error());
  unlink(at("x.png"));
  return t;
}

static void test_png_bytes(void **state) {
  (void)state;
  for (int64_t c = 1; c <= 3; c += 2) {
    sl_tensor *t = filled(SL_U8, SL_SHAPE(5, 7, c), 0, 1, 256), *back = through_png(t, NULL);
    assert_true(sl_shape_equal(sl_tensor_shape(t), sl_tensor_shape(back)));
    assert_memory_equal(sl_tensor_data(t), sl_tensor_data(back), (size_t)(35 * c));
    sl_tensor_release(back);
    back = through_png(t, &(sl_png_options){.scale = 3});
    assert_true(sl_shape_equal(sl_tensor_shape(back), &SL_SHAPE(15, 21, c)));
    for (int64_t i = 0; i < 15 * 21 * c; i++) {
      int64_t y = i / c / 21, x = i / c % 21;
      assert_true(sl_tensor_at(back, i) == sl_tensor_at(t, (y / 3 * 7 + x / 3) * c + i % c));
    }
    sl_tensor_release(back);
    sl_tensor_release(t);
  }
}

static void test_png_quant(void **state) {
  (void)state;
  float x[] = {-1, 1, 0, -3, 3, 0.5f, -0.2f, 0.999f, 0.0039216f, NAN};
  uint8_t dit[] = {0, 255, 128, 0, 255, 191, 102, 255, 128, 0}, adm[] = {0, 255, 127, 0, 255, 191, 102, 254, 128, 0};
  sl_tensor *t;
  OK(sl_tensor_from(ctx, SL_F32, 3, (int64_t[]){1, 2, 5}, x, &t));
  for (int k = 0; k < 2; k++) {
    sl_tensor *back = through_png(t, &(sl_png_options){.quant = k ? SL_PNG_ADM : SL_PNG_DIT});
    assert_memory_equal(sl_tensor_data(back), k ? adm : dit, 10);
    sl_tensor_release(back);
  }
  sl_tensor_release(t);
  sl_png_quant quant;
  assert_true(sl_png_quant_from_name("adm", &quant) && quant == SL_PNG_ADM);
  assert_false(sl_png_quant_from_name("mad", &quant));
}

/* torchvision's make_grid, by its definition: picture k at (k / columns, k % columns), a frame of `pad` around each. */
static void check_grid(int64_t n, int columns, int pad) {
  int64_t c = 3, h = 4, w = 5, across = columns ? columns : (int64_t)ceil(sqrt((double)n)),
          p = pad < 0 ? 0
              : pad   ? pad
                      : 2;
  if (across > n) across = n;
  int64_t down = (n + across - 1) / across;
  sl_tensor *t = filled(SL_F32, SL_SHAPE(n, c, h, w), -1 + 2 / 255.0, 2 / 255.0, 250);
  sl_tensor *back = through_png(t, &(sl_png_options){.columns = columns, .pad = pad});
  sl_shape s = SL_SHAPE(down * (h + p) + p, across * (w + p) + p, c);
  assert_true(sl_shape_equal(sl_tensor_shape(back), &s));
  uint8_t *expected = calloc((size_t)sl_shape_numel(&s), 1);
  assert_non_null(expected);
  for (int64_t i = 0; i < n * c * h * w; i++) {
    int64_t x = i % w, y = i / w % h, ch = i / w / h % c, k = i / w / h / c;
    int64_t row = k / across * (h + p) + p + y, column = k % across * (w + p) + p + x;
    expected[(row * s.dim[1] + column) * c + ch] = (uint8_t)(i % 250 + 1);
  }
  assert_memory_equal(sl_tensor_data(back), expected, (size_t)sl_shape_numel(&s));
  free(expected);
  sl_tensor_release(back);
  sl_tensor_release(t);
}

static void test_png_grid(void **state) {
  (void)state;
  check_grid(7, 0, 0);
  check_grid(7, 4, 0);
  check_grid(3, 8, 1);
  check_grid(4, 2, -1);
  sl_tensor *t = filled(SL_BF16, SL_SHAPE(1, 1, 2, 2), 0, 0, 1), *back = through_png(t, NULL); /* one: no frame */
  assert_true(sl_shape_equal(sl_tensor_shape(back), &SL_SHAPE(2, 2, 1)));
  sl_tensor_release(back);
  sl_tensor_release(t);
}

static void test_png_refused(void **state) {
  (void)state;
  sl_tensor *latents = filled(SL_F32, SL_SHAPE(2, 4, 8, 8), 0, 0, 1),
            *bytes = filled(SL_U8, SL_SHAPE(2, 3, 8, 8), 0, 0, 1);
  sl_tensor *ints = filled(SL_I32, SL_SHAPE(3, 8, 8), 0, 0, 1), *flat = filled(SL_F32, SL_SHAPE(8, 8), 0, 0, 1);
  sl_tensor *none = filled(SL_F32, SL_SHAPE(0, 3, 8, 8), 0, 0, 1),
            *good = filled(SL_F32, SL_SHAPE(3, 64, 64), 0, 0.01, 150);
  FAILS(SHAPE, "latents", sl_png_write_as(at("x.png"), latents, NULL));
  FAILS(SHAPE, "8 channels; expected [N,H,W,C]", sl_png_write_as(at("x.png"), bytes, NULL));
  FAILS(DTYPE, "i32", sl_png_write_as(at("x.png"), ints, NULL));
  FAILS(SHAPE, "[8,8]", sl_png_write_as(at("x.png"), flat, NULL));
  FAILS(SHAPE, "nothing", sl_png_write_as(at("x.png"), none, NULL));
  FAILS(ARG, "columns is -1", sl_png_write_as(at("x.png"), good, &(sl_png_options){.columns = -1}));
  FAILS(ARG, "scale is -1", sl_png_write_as(at("x.png"), good, &(sl_png_options){.scale = -1}));
  FAILS(ARG, "n_text is -1", sl_png_write_as(at("x.png"), good, &(sl_png_options){.n_text = -1}));
  FAILS(ARG, "n_text is 2, but text is NULL", sl_png_write_as(at("x.png"), good, &(sl_png_options){.n_text = 2}));
  FAILS(ARG, "chunk 1 has a NULL",
        sl_png_write_as(at("x.png"), good, &(sl_png_options){.n_text = 1, .text = &(sl_png_text){"key", NULL}}));
  FAILS(IO, "/nowhere/", sl_png_write_as("/nowhere/x.png", good, NULL));
  FAILS(IO, "/dev/full", sl_png_write_as("/dev/full", good, NULL));
  sl_status status = SL_STATUS_OOM; /* each call of sl_alloc fails once */
  for (int n = 0; status != SL_STATUS_OK; n++) {
    uint64_t blocks = sl_context_memory(ctx).blocks;
    sl_context_fail_after(ctx, n);
    status = sl_png_write_as(at("x.png"), good, NULL);
    sl_context_fail_after(ctx, -1);
    if (status != SL_STATUS_OK) assert_int_equal(status, SL_STATUS_OOM);
    assert_int_equal(access(at("x.png"), F_OK) == 0, status == SL_STATUS_OK);
    assert_int_equal(sl_context_memory(ctx).blocks, blocks);
  }
  status = SL_STATUS_OOM;
  for (int n = 0; status != SL_STATUS_OK; n++) {
    uint64_t blocks = sl_context_memory(ctx).blocks;
    sl_tensor *t;
    sl_context_fail_after(ctx, n);
    status = sl_image_load(ctx, at("x.png"), &t);
    sl_context_fail_after(ctx, -1);
    if (status != SL_STATUS_OK) assert_int_equal(status, SL_STATUS_OOM);
    sl_tensor_release(t);
    assert_int_equal(sl_context_memory(ctx).blocks, blocks);
  }
  unlink(at("x.png"));
  for (int i = 0; i < 6; i++) sl_tensor_release((sl_tensor *[]){latents, bytes, ints, flat, none, good}[i]);
}

static sl_tensor *read_png(const char *path, sl_shape shape) {
  sl_tensor *t;
  if (sl_png_read(ctx, path, &t) != SL_STATUS_OK) fail_msg("%s", sl_error());
  assert_string_equal(sl_shape_text(sl_tensor_shape(t)), sl_shape_text(&shape));
  return t;
}

static void test_png_kinds(void **state) {
  (void)state;
  sl_tensor *t = read_png("tests/data/io/grey.png", SL_SHAPE(3, 4, 1));
  for (int i = 0; i < 12; i++) assert_true(sl_tensor_at(t, i) == i * 20);
  sl_tensor_release(t);
  t = read_png("tests/data/io/rgba.png", SL_SHAPE(3, 4, 4));
  for (int i = 0; i < 48; i++) assert_true(sl_tensor_at(t, i) == i * 5);
  sl_tensor_release(t);
  t = read_png("tests/data/io/grey16.png", SL_SHAPE(3, 4, 1));
  for (int i = 0; i < 12; i++) assert_true(fabs(sl_tensor_at(t, i) - i * 5000 / 257.0) <= 0.5);
  sl_tensor_release(t);
  t = read_png("tests/data/io/bits.png", SL_SHAPE(3, 4, 1));
  for (int i = 0; i < 12; i++) assert_true(sl_tensor_at(t, i) == i % 2 * 255);
  sl_tensor_release(t);
  t = read_png("tests/data/io/palette.png", SL_SHAPE(3, 4, 3));
  for (int i = 0; i < 36; i++) assert_true(sl_tensor_at(t, i) == (i / 3 % 3 * 3 + i % 3 + 1) * 10);
  sl_tensor_release(t);
  t = read_png("tests/data/io/interlaced.png", SL_SHAPE(9, 10, 3));
  for (int i = 0; i < 270; i++)
    assert_true(sl_tensor_at(t, i) == (i % 3 == 0 ? i / 30 : i % 3 == 1 ? i / 3 % 10 : 100));
  sl_tensor_release(t);
  OK(sl_image_load(ctx, "tests/data/io/rgba.png", &t));
  assert_true(sl_shape_equal(sl_tensor_shape(t), &SL_SHAPE(3, 3, 4)));
  for (int i = 0; i < 36; i++) assert_true(sl_tensor_at(t, i) == (float)((i % 12 * 4 + i / 12) * 5) / 127.5f - 1);
  sl_tensor_release(t);
  OK(sl_image_load(ctx, "tests/data/io/grey.png", &t));
  for (int i = 0; i < 36; i++) assert_true(sl_tensor_at(t, i) == (float)(i % 12 * 20) / 127.5f - 1);
  sl_tensor_release(t);
  FAILS(FORMAT, "no PNG", sl_png_read(ctx, "tests/data/io/adm.npz", &t));
  FAILS(IO, "/nowhere", sl_png_read(ctx, "/nowhere", &t));
}

static void test_png_broken(void **state) {
  (void)state;
  static const char *const files[] = {"rgba", "palette", "interlaced", "grey16"};
  for (int k = 0; k < 4; k++) {
    char path[64];
    snprintf(path, sizeof path, "tests/data/io/%s.png", files[k]);
    void *data;
    size_t size;
    OK(sl_file_read(ctx, path, &data, &size));
    for (size_t i = 0; i < size * 2; i++) { /* first truncated, then with one byte changed */
      uint8_t *bytes = data, keep = bytes[i % size];
      bytes[i % size] ^= (uint8_t)(i < size ? 0 : 1 + i * 37 % 255);
      FILE *f = fopen(at("x.png"), "wb");
      assert_non_null(f);
      size_t n = i < size ? i : size;
      assert_int_equal(fwrite(bytes, 1, n, f), n);
      fclose(f);
      bytes[i % size] = keep;
      sl_tensor *t;
      sl_status status = sl_png_read(ctx, at("x.png"), &t);
      if (i < size || status != SL_STATUS_OK) assert_int_equal(status, SL_STATUS_FORMAT);
      if (status != SL_STATUS_OK) assert_non_null(strstr(sl_error(), folder));
      sl_tensor_release(t);
    }
    sl_free(ctx, data);
  }
  unlink(at("x.png"));
}

/* --- data sets --- */

enum { N = 37 };

static void test_dataset_layouts(void **state) {
  (void)state;
  float out[60];
  sl_tensor *t = filled(SL_U8, SL_SHAPE(2, 3, 4, 5), 0, 1, 256);
  sl_dataset *d;
  OK(sl_dataset_from_tensors(t, NULL, &d));
  sl_shape s = sl_dataset_image_shape(d);
  assert_true(sl_shape_equal(&s, &SL_SHAPE(3, 4, 5)));
  assert_int_equal(sl_dataset_count(d), 2);
  assert_int_equal(sl_dataset_classes(d), 0);
  OK(sl_dataset_get(d, 1, false, out));
  for (int i = 0; i < 60; i++) assert_true(out[i] == (float)(60 + i) / 127.5f - 1.0f);
  OK(sl_dataset_get(d, 1, true, out));
  for (int i = 0; i < 60; i++) assert_true(out[i] == (float)(60 + i - i % 5 + (4 - i % 5)) / 127.5f - 1.0f);
  FAILS(ARG, "index is 2, expected 0 … 1", sl_dataset_get(d, 2, false, out));
  sl_dataset_release(d);
  sl_tensor_release(t);

  t = filled(SL_U8, SL_SHAPE(6, 4, 5), 0, 1, 256); /* [N,H,W] */
  OK(sl_dataset_from_tensors(t, NULL, &d));
  s = sl_dataset_image_shape(d);
  assert_true(sl_shape_equal(&s, &SL_SHAPE(1, 4, 5)));
  OK(sl_dataset_get(d, 2, false, out));
  for (int i = 0; i < 20; i++) assert_true(out[i] == (float)(40 + i) / 127.5f - 1.0f);
  sl_dataset_release(sl_dataset_retain(d));
  sl_dataset_release(d);
  sl_tensor_release(t);

  t = filled(SL_F64, SL_SHAPE(2, 1, 4, 5), -1, 0.125, 16);
  OK(sl_dataset_from_tensors(t, NULL, &d));
  OK(sl_dataset_get(d, 1, false, out));
  for (int i = 0; i < 20; i++) assert_true(out[i] == -1 + 0.125f * (float)((20 + i) % 16));
  sl_dataset_release(d);
  sl_tensor_release(t);

  OK(sl_dataset_from_npz(ctx, "tests/data/io/adm.npz", &d)); /* [N,H,W,C] */
  s = sl_dataset_image_shape(d);
  assert_true(sl_shape_equal(&s, &SL_SHAPE(3, 4, 5)));
  assert_int_equal(sl_dataset_classes(d), 4);
  assert_int_equal(sl_dataset_label(d, 0), 3);
  OK(sl_dataset_get(d, 1, false, out));
  for (int i = 0; i < 60; i++) assert_true(out[i] == (float)(60 + i % 20 * 3 + i / 20) / 127.5f - 1.0f);
  sl_dataset_release(d);
}

static void test_dataset_refused(void **state) {
  (void)state;
  sl_tensor *u8 = filled(SL_U8, SL_SHAPE(3, 4, 4), 0, 1, 256), *ints = filled(SL_I32, SL_SHAPE(3, 1, 4, 4), 0, 1, 9);
  sl_tensor *flat = filled(SL_F32, SL_SHAPE(3, 4, 4), 0, 0, 1), *none = filled(SL_U8, SL_SHAPE(0, 4, 4), 0, 0, 1);
  sl_tensor *negative = filled(SL_I64, SL_SHAPE(3), -1, 1, 3), *four = filled(SL_I64, SL_SHAPE(4), 0, 1, 4);
  sl_tensor *reals = filled(SL_F32, SL_SHAPE(3), 0, 1, 3);
  sl_dataset *d;
  FAILS(DTYPE, "images are i32", sl_dataset_from_tensors(ints, NULL, &d));
  FAILS(SHAPE, "f32 [3,4,4]", sl_dataset_from_tensors(flat, NULL, &d));
  FAILS(SHAPE, "[0,4,4]", sl_dataset_from_tensors(none, NULL, &d));
  FAILS(ARG, "label 0 is -1", sl_dataset_from_tensors(u8, negative, &d));
  FAILS(SHAPE, "labels are [4], expected [3]", sl_dataset_from_tensors(u8, four, &d));
  FAILS(DTYPE, "labels are f32", sl_dataset_from_tensors(u8, reals, &d));
  FAILS(FORMAT, "no array \"images\" or \"arr_0\"", sl_dataset_from_npz(ctx, "tests/data/io/stored.npz", &d));
  FAILS(FORMAT, "no safetensors, npz", sl_dataset_from_npz(ctx, "tests/data/io/grey.png", &d));
  assert_null(d);
  sl_status status = SL_STATUS_OOM; /* each call of sl_alloc fails once */
  for (int n = 0; status != SL_STATUS_OK; n++) {
    uint64_t blocks = sl_context_memory(ctx).blocks;
    sl_context_fail_after(ctx, n);
    status = sl_dataset_from_npz(ctx, "tests/data/io/adm.npz", &d);
    sl_context_fail_after(ctx, -1);
    if (status != SL_STATUS_OK) assert_int_equal(status, SL_STATUS_OOM);
    sl_dataset_release(d);
    assert_int_equal(sl_context_memory(ctx).blocks, blocks);
  }
  for (int i = 0; i < 7; i++) sl_tensor_release((sl_tensor *[]){u8, ints, flat, none, negative, four, reals}[i]);
}

/* Picture i is 2 x 2: i, i, 100 + i, 200; its label i % 10. */
static sl_dataset *numbered(void) {
  sl_tensor *images = filled(SL_U8, SL_SHAPE(N, 2, 2), 0, 0, 1), *labels = filled(SL_U8, SL_SHAPE(N), 0, 1, 10);
  uint8_t *p = sl_tensor_data(images);
  for (int i = 0; i < N; i++) memcpy(p + i * 4, (uint8_t[]){(uint8_t)i, (uint8_t)i, (uint8_t)(100 + i), 200}, 4);
  sl_dataset *d;
  OK(sl_dataset_from_tensors(images, labels, &d));
  sl_tensor_release(images);
  sl_tensor_release(labels);
  return d;
}

static int number_of(const float *image) { return (int)lroundf((image[0] + 1) * 127.5f); }

static void test_dataset_order(void **state) {
  (void)state;
  sl_dataset *d = numbered();
  float images[3 * N * 4], part[4];
  int64_t labels[3 * N], label;
  int order[3][N], flips = 0;
  OK(sl_dataset_batch(d, 5, 0, 3 * N, true, images, labels));
  for (int epoch = 0; epoch < 3; epoch++) {
    bool seen[N] = {0};
    for (int i = 0; i < N; i++) {
      int g = epoch * N + i, number = order[epoch][i] = number_of(images + g * 4);
      assert_true(number >= 0 && number < N && !seen[number]);
      seen[number] = true;
      assert_int_equal(labels[g], number % 10);
      assert_int_equal(number, sl_random_permute((sl_rng_key){5, SL_STREAM_ORDER}, (uint32_t)epoch, (uint64_t)i, N));
      bool flipped = images[g * 4 + 2] > images[g * 4 + 3];
      assert_true(images[g * 4 + (flipped ? 2 : 3)] == 200 / 127.5f - 1);
      flips += flipped;
      OK(sl_dataset_batch(d, 5, g, 1, true, part, &label)); /* a sample does not depend on its batch */
      assert_memory_equal(part, images + g * 4, sizeof part);
      assert_int_equal(label, labels[g]);
    }
  }
  assert_true(flips > N && flips < 2 * N); /* about half of 3 N */
  assert_memory_not_equal(order[0], order[1], sizeof order[0]);
  assert_memory_not_equal(order[1], order[2], sizeof order[0]);
  OK(sl_dataset_batch(d, 6, 0, N, false, images, NULL));
  int other[N];
  for (int i = 0; i < N; i++) {
    other[i] = number_of(images + i * 4);
    assert_true(images[i * 4 + 3] == 200 / 127.5f - 1);
  }
  assert_memory_not_equal(order[0], other, sizeof other);
  FAILS(ARG, "samples -1", sl_dataset_batch(d, 5, -1, 1, false, images, NULL));
  FAILS(ARG, "2^32", sl_dataset_batch(d, 5, INT64_MAX - 1, 1, false, images, NULL));
  OK(sl_dataset_batch(d, 5, ((int64_t)1 << 32) * N - 2, 1, false, images, NULL));
  sl_dataset_release(d);
}

static void test_digits(void **state) {
  (void)state;
  sl_dataset *d;
  OK(sl_dataset_from_npz(ctx, "tests/data/digits28.npz", &d));
  sl_shape s = sl_dataset_image_shape(d);
  assert_true(sl_shape_equal(&s, &SL_SHAPE(1, 28, 28)));
  assert_int_equal(sl_dataset_count(d), 10000);
  assert_int_equal(sl_dataset_classes(d), 10);
  static float images[64 * 28 * 28];
  int64_t labels[64];
  OK(sl_dataset_batch(d, 0, 9980, 64, false, images, labels));
  for (int i = 0; i < 64; i++) {
    assert_true(images[i * 28 * 28] == -1); /* digits do not reach the corner */
    assert_true(labels[i] >= 0 && labels[i] < 10);
  }
  sl_dataset_release(d);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
  const struct CMUnitTest tests[] = {
      TEST(test_png_bytes),     TEST(test_png_quant),  TEST(test_png_grid),        TEST(test_png_refused),
      TEST(test_png_kinds),     TEST(test_png_broken), TEST(test_dataset_layouts), TEST(test_dataset_refused),
      TEST(test_dataset_order), TEST(test_digits),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
