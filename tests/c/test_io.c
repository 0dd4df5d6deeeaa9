/* Tensor files (safetensors, npz, npy): round trips, what numpy wrote, broken files, full disks, exhausted memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/random.h"
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
  snprintf(folder, sizeof folder, "/tmp/sluice-io-XXXXXX");
  return !mkdtemp(folder) || sl_context_new(&(sl_context_options){.threads = 2}, &ctx) != SL_STATUS_OK;
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

static void write_file(const char *path, const void *data, size_t size) {
  FILE *f = fopen(path, "wb");
  assert_non_null(f);
  assert_int_equal(fwrite(data, 1, size, f), size);
  assert_int_equal(fclose(f), 0);
}

/* 0, 1, 2 … */
static sl_tensor *counting(sl_dtype dtype, sl_shape shape) {
  sl_tensor *t;
  OK(sl_tensor_new(ctx, NULL, dtype, &shape, &t));
  char *p = sl_tensor_data(t);
  for (int64_t i = 0; i < sl_tensor_numel(t); i++) {
    sl_element_set(dtype, p + i * (int64_t)sl_dtype_size(dtype), (double)(dtype == SL_BOOL ? i % 2 : i));
  }
  return t;
}

static void add(sl_tensor_file *f, const char *name, sl_tensor *t) { /* takes t */
  OK(sl_tensor_file_add(f, name, t));
  sl_tensor_release(t);
}

/* All dtypes but bf16 if npz, odd shapes, and a transposed view. */
static sl_tensor_file *everything(bool npz) {
  sl_tensor_file *f;
  OK(sl_tensor_file_new(ctx, &f));
  for (int d = 0; d < SL_DTYPE_COUNT; d++) {
    if (!npz || d != SL_BF16) add(f, sl_dtype_name((sl_dtype)d), counting((sl_dtype)d, SL_SHAPE(3, 5)));
  }
  add(f, "scalar", counting(SL_I64, (sl_shape){0}));
  add(f, "line", counting(SL_U8, SL_SHAPE(7)));
  add(f, "empty", counting(SL_F32, SL_SHAPE(4, 0, 2)));
  add(f, "rank 8", counting(SL_I16, SL_SHAPE(1, 2, 1, 2, 1, 2, 1, 2)));
  sl_tensor *t = counting(SL_F32, SL_SHAPE(4, 6)), *turned;
  OK(sl_tensor_view_as(t, &SL_SHAPE(6, 4), (int64_t[]){1, 6}, 0, &turned));
  add(f, "turned", turned);
  sl_tensor_release(t);
  return f;
}

static sl_tensor_file *load(const char *path) {
  sl_tensor_file *f;
  if (sl_tensor_file_load(ctx, path, &f) != SL_STATUS_OK) fail_msg("%s", sl_error());
  return f;
}

static void assert_tensors_equal(const sl_tensor *a, const sl_tensor *b) {
  assert_int_equal(sl_tensor_dtype(a), sl_tensor_dtype(b));
  assert_string_equal(sl_shape_text(sl_tensor_shape(a)), sl_shape_text(sl_tensor_shape(b)));
  for (int64_t i = 0; i < sl_tensor_numel(a); i++) assert_true(sl_tensor_at(a, i) == sl_tensor_at(b, i));
}

static void assert_files_equal(const sl_tensor_file *a, const sl_tensor_file *b) {
  assert_int_equal(sl_tensor_file_count(a), sl_tensor_file_count(b));
  for (int64_t i = 0; i < sl_tensor_file_count(a); i++) {
    assert_string_equal(sl_tensor_file_name(a, i), sl_tensor_file_name(b, i));
    assert_tensors_equal(sl_tensor_file_tensor(a, i), sl_tensor_file_tensor(b, i));
  }
  assert_int_equal(sl_tensor_file_meta_count(a), sl_tensor_file_meta_count(b));
  for (int64_t i = 0; i < sl_tensor_file_meta_count(a); i++) {
    assert_string_equal(sl_tensor_file_meta_key(a, i), sl_tensor_file_meta_key(b, i));
    assert_string_equal(sl_tensor_file_meta_value(a, i), sl_tensor_file_meta_value(b, i));
  }
}

static void test_list(void **state) {
  (void)state;
  sl_tensor_file *f;
  OK(sl_tensor_file_new(ctx, &f));
  assert_null(sl_tensor_file_find(f, "x"));
  assert_null(sl_tensor_file_name(f, 0));
  char name[32];
  for (int i = 0; i < 1000; i++) {
    snprintf(name, sizeof name, "t.%d", i);
    add(f, name, counting(SL_I32, SL_SHAPE(i % 3)));
  }
  for (int i = 0; i < 1000; i++) {
    snprintf(name, sizeof name, "t.%d", i);
    assert_string_equal(sl_tensor_file_name(f, i), name);
    assert_ptr_equal(sl_tensor_file_find(f, name), sl_tensor_file_tensor(f, i));
  }
  FAILS(ARG, "two tensors \"t.7\"", sl_tensor_file_add(f, "t.7", sl_tensor_file_tensor(f, 0)));
  FAILS(ARG, "not UTF-8", sl_tensor_file_add(f, "\xc0\x80", sl_tensor_file_tensor(f, 0)));
  FAILS(ARG, "not UTF-8", sl_tensor_file_add(f, "\xed\xa0\x80", sl_tensor_file_tensor(f, 0)));
  OK(sl_tensor_file_set_meta(f, "a", "1"));
  OK(sl_tensor_file_set_meta(f, "b", "2"));
  OK(sl_tensor_file_set_meta(f, "a", "3"));
  assert_int_equal(sl_tensor_file_meta_count(f), 2);
  assert_string_equal(sl_tensor_file_meta(f, "a"), "3");
  assert_null(sl_tensor_file_meta(f, "c"));
  sl_tensor_file_free(f);
}

static void test_round_trip(void **state) {
  (void)state;
  for (int npz = 0; npz < 2; npz++) {
    const char *path = at(npz ? "a.npz" : "a.safetensors");
    sl_tensor_file *f = everything(npz), *g;
    if (!npz) {
      add(f,
          "gr\xc3\xb6\xc3\x9f"
          "e \"quoted\" \\ \n\x01 \xf0\x9f\x98\x80",
          counting(SL_U8, SL_SHAPE(2)));
      OK(sl_tensor_file_set_meta(f, "format", "pt"));
      OK(sl_tensor_file_set_meta(f, "z \"1\"", "{\"a\": \"\\u0001\\n\"}\t"));
      OK(sl_tensor_file_set_meta(f, "empty", ""));
    }
    OK(sl_tensor_file_save(path, f));
    g = load(path);
    assert_files_equal(f, g);
    sl_tensor_file_free(g);
    sl_tensor_file_free(f);
    unlink(path);
  }
  for (int npz = 0; npz < 2; npz++) { /* nothing at all */
    const char *path = at(npz ? "a.npz" : "a");
    sl_tensor_file *f, *g;
    OK(sl_tensor_file_new(ctx, &f));
    OK(sl_tensor_file_save(path, f));
    g = load(path);
    assert_files_equal(f, g);
    sl_tensor_file_free(g);
    sl_tensor_file_free(f);
    unlink(path);
  }
}

static void test_written_layout(void **state) {
  (void)state;
  sl_tensor_file *f;
  OK(sl_tensor_file_new(ctx, &f));
  add(f, "b", counting(SL_U8, SL_SHAPE(3)));
  add(f, "a", counting(SL_I64, SL_SHAPE(1)));
  OK(sl_tensor_file_set_meta(f, "k", "v"));
  OK(sl_tensor_file_save(at("x"), f));
  sl_tensor_file_free(f);
  void *data;
  size_t size;
  OK(sl_file_read(ctx, at("x"), &data, &size));
  const char *header =
      "{\"__metadata__\":{\"k\":\"v\"},\"b\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[8,11]},"
      "\"a\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[0,8]}}";
  size_t n = ((const uint8_t *)data)[0];
  assert_int_equal(n % 8, 0);
  assert_int_equal(size, 8 + n + 11);
  assert_memory_equal((char *)data + 8, header, strlen(header));
  sl_free(ctx, data);
  unlink(at("x"));
}

static void test_refused_saves(void **state) {
  (void)state;
  sl_tensor_file *f;
  OK(sl_tensor_file_new(ctx, &f));
  add(f, "w", counting(SL_BF16, SL_SHAPE(2)));
  FAILS(UNSUPPORTED, "numpy has no bf16", sl_tensor_file_save(at("x.npz"), f));
  OK(sl_tensor_file_set_meta(f, "epoch", "3"));
  FAILS(UNSUPPORTED, "npz holds no metadata (there is \"epoch\")", sl_tensor_file_save(at("x.npz"), f));
  FAILS(IO, "/nowhere/", sl_tensor_file_save("/nowhere/x.safetensors", f));
  add(f, "__metadata__", counting(SL_U8, SL_SHAPE(2)));
  FAILS(ARG, "__metadata__", sl_tensor_file_save(at("x"), f));
  sl_tensor_file_free(f);
  OK(sl_tensor_file_new(ctx, &f));
  add(f, "\xc3\xb6", counting(SL_U8, SL_SHAPE(2)));
  FAILS(UNSUPPORTED, "ASCII", sl_tensor_file_save(at("x.npz"), f));
  sl_tensor_file_free(f);
}

static void test_full_disk(void **state) {
  (void)state;
  char link_path[128];
  snprintf(link_path, sizeof link_path, "%s", at("full.npz"));
  assert_int_equal(symlink("/dev/full", link_path), 0);
  sl_tensor_file *f;
  OK(sl_tensor_file_new(ctx, &f));
  add(f, "w", counting(SL_F32, SL_SHAPE(1)));
  FAILS(IO, "/dev/full", sl_tensor_file_save("/dev/full", f));
  FAILS(IO, "/dev/full", sl_tensor_file_save(link_path, f));
  add(f, "large", counting(SL_F32, SL_SHAPE(100, 1000)));
  FAILS(IO, "/dev/full", sl_tensor_file_save("/dev/full", f));
  FAILS(IO, "No space", sl_tensor_file_save(link_path, f));
  sl_tensor_file_free(f);
  unlink(link_path);
}

/* --- safetensors: broken files --- */

/* A file of this header and data_bytes of zeros. */
static sl_status load_header(const char *header, size_t data_bytes) {
  uint8_t bytes[4096] = {0};
  size_t n = strlen(header);
  assert_true(n + 8 + data_bytes <= sizeof bytes);
  bytes[0] = (uint8_t)n;
  bytes[1] = (uint8_t)(n >> 8);
  memcpy(bytes + 8, header, n);
  write_file(at("x"), bytes, 8 + n + data_bytes);
  sl_tensor_file *f;
  sl_status status = sl_tensor_file_load(ctx, at("x"), &f);
  assert_true((f != NULL) == (status == SL_STATUS_OK));
  if (status != SL_STATUS_OK && !strstr(sl_error(), folder)) fail_msg("%s: lacks the path", sl_error());
  sl_tensor_file_free(f);
  unlink(at("x"));
  return status;
}

#define ENTRY(dtype, shape, offsets) "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void test_broken_headers(void **state) {
  (void)state;
  OK(load_header("{\"a\":" ENTRY("F32", "[2]", "[0,8]") "}  \n", 8));
  OK(load_header("{\"a\":{\"data_offsets\":[0,8],\"extra\":{\"x\":[1]},\"shape\":[2],\"dtype\":\"F32\"}}", 8));
  OK(load_header("{\"a\":" ENTRY("F32", "[1]", "[4,8]") ",\"b\":" ENTRY("F32", "[]", "[0,4]") "}", 8));
  static const struct {
    const char *header, *part;
    size_t bytes;
  } cases[] = {
      {"{", "no JSON", 0},
      {"{}x", "no JSON", 0},
      {"{}", "1 bytes of data", 1},
      {"{\"a\":3}", "\"a\" is no object", 0},
      {"{\"a\":{}}", "no dtype", 0},
      {"{\"a\":" ENTRY("Q7", "[2]", "[0,8]") "}", "unknown dtype \"Q7\"", 8},
      {"{\"a\":" ENTRY("F32", "2", "[0,8]") "}", "no shape", 8},
      {"{\"a\":" ENTRY("F32", "[-2]", "[0,8]") "}", "dimension 0", 8},
      {"{\"a\":" ENTRY("F32", "[1.5]", "[0,8]") "}", "dimension 0", 8},
      {"{\"a\":" ENTRY("F32", "[1e300]", "[0,8]") "}", "dimension 0", 8},
      {"{\"a\":" ENTRY("F32", "[\"2\"]", "[0,8]") "}", "dimension 0", 8},
      {"{\"a\":" ENTRY("F32", "[9007199254740991,9007199254740991]", "[0,8]") "}", "shape", 8},
      {"{\"a\":" ENTRY("F32", "[3]", "[0,8]") "}", "12 bytes, but has 8", 8},
      {"{\"a\":" ENTRY("F32", "[2]", "[0,8]") "}", "truncated", 7},
      {"{\"a\":" ENTRY("F32", "[2]", "[0,8]") "}", "the file has 9 bytes of data", 9},
      {"{\"a\":" ENTRY("F32", "[2]", "[8,0]") "}", "data_offsets", 8},
      {"{\"a\":" ENTRY("F32", "[2]", "[0]") "}", "data_offsets", 8},
      {"{\"a\":" ENTRY("F32", "[2]", "[-8,0]") "}", "data_offsets", 8},
      {"{\"a\":" ENTRY("F32", "[2]", "[0,8,8]") "}", "data_offsets", 8},
      {"{\"a\":" ENTRY("F32", "[2]", "[18446744073709551608,18446744073709551616]") "}", "data_offsets", 8},
      {"{\"a\":" ENTRY("F32", "[2]", "[0,8]") ",\"b\":" ENTRY("F32", "[2]", "[4,12]") "}", "overlap", 12},
      {"{\"a\":" ENTRY("F32", "[1]", "[0,4]") ",\"b\":" ENTRY("F32", "[1]", "[8,12]") "}", "a gap", 12},
      {"{\"a\":" ENTRY("F32", "[1]", "[0,4]") ",\"a\":" ENTRY("F32", "[1]", "[4,8]") "}", "two tensors \"a\"", 8},
      {"{\"__metadata__\":3}", "__metadata__ is no object", 0},
      {"{\"__metadata__\":{\"a\":3}}", "metadata \"a\" is no string", 0},
      {"{\"__metadata__\":{\"a\":\"\",\"a\":\"\"}}", "two metadata keys", 0},
      {"{\"__metadata__\":{},\"__metadata__\":{}}", "two __metadata__", 0},
      {"{\"\xff\":" ENTRY("F32", "[2]", "[0,8]") "}", "UTF-8", 8},
      {"{\"a\":[[[[[[[[[[]]]]]]]]]]}", "nested deeper", 0},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    FAILS(FORMAT, cases[i].part, load_header(cases[i].header, cases[i].bytes));
    assert_non_null(strstr(sl_error(), "broken safetensors"));
  }
  FAILS(UNSUPPORTED, "dtype U32", load_header("{\"a\":" ENTRY("U32", "[2]", "[0,8]") "}", 8));
  FAILS(UNSUPPORTED, "9 dimensions", load_header("{\"a\":" ENTRY("U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]") "}", 1));
}

static sl_status load_bytes(const void *data, size_t size) {
  write_file(at("x"), data, size);
  sl_tensor_file *f;
  sl_status status = sl_tensor_file_load(ctx, at("x"), &f);
  sl_tensor_file_free(f);
  unlink(at("x"));
  return status;
}

static void test_unknown_kinds(void **state) {
  (void)state;
  FAILS(FORMAT, "no safetensors, npz or npy", load_bytes("", 0));
  FAILS(FORMAT, "no safetensors, npz or npy", load_bytes("hello, this is a text\n", 22));
  FAILS(FORMAT, "no safetensors, npz or npy", load_bytes("\0\0\0\0\0\0\0", 7));
  FAILS(FORMAT, "more than", load_bytes("\xff\xff\xff\xff\xff\xff\xff\x7f{}", 10));
  FAILS(FORMAT, "truncated", load_bytes("\x03\0\0\0\0\0\0\0{}", 10));
  FAILS(UNSUPPORTED, "pickle", load_bytes("\x80\2}q\0.", 6));
  sl_tensor_file *f;
  FAILS(IO, "/nowhere", sl_tensor_file_load(ctx, "/nowhere", &f));
  FAILS(IO, "a folder", sl_tensor_file_load(ctx, "/tmp", &f));
}

/* The bytes of a saved file of all kinds of tensors; the caller frees. */
static uint8_t *saved(const char *name, bool npz, size_t *size) {
  sl_tensor_file *f = everything(npz);
  if (!npz) OK(sl_tensor_file_set_meta(f, "key", "value"));
  OK(sl_tensor_file_save(at(name), f));
  sl_tensor_file_free(f);
  void *data;
  OK(sl_file_read(ctx, at(name), &data, size));
  unlink(at(name));
  return data;
}

/* Loads every n-th truncation and many files with one to three bytes changed: OK where the change cannot be known
 * (numbers, names), else FORMAT or UNSUPPORTED. Returns how many loads failed. */
static int corrupt(uint8_t *data, size_t size, size_t step, int changes) {
  for (size_t n = 0; n < size; n += step) assert_int_equal(load_bytes(data, n), SL_STATUS_FORMAT);
  uint8_t *copy = malloc(size);
  assert_non_null(copy);
  int failures = 0;
  for (int k = 0; k < changes; k++) {
    uint32_t r[8];
    sl_random_bits((sl_rng_key){1, SL_STREAM_USER}, (uint32_t)k, 0, 0, 8, r);
    memcpy(copy, data, size);
    for (uint32_t j = 0; j <= r[0] % 3; j++) copy[r[1 + j] % size] ^= (uint8_t)(1 + r[4 + j] % 255);
    sl_status status = load_bytes(copy, size);
    if (status != SL_STATUS_OK && status != SL_STATUS_FORMAT && status != SL_STATUS_UNSUPPORTED) {
      fail_msg("change %d: %s: %s", k, sl_status_name(status), sl_error());
    }
    failures += status != SL_STATUS_OK;
  }
  free(copy);
  return failures;
}

static void test_corrupt_safetensors(void **state) {
  (void)state;
  size_t size;
  uint8_t *data = saved("x", false, &size);
  assert_true(corrupt(data, size, 3, 3000) > 1000);
  for (int bit = 0; bit < 64; bit++) { /* the header's length */
    data[bit / 8] ^= (uint8_t)(1 << bit % 8);
    assert_int_equal(load_bytes(data, size), SL_STATUS_FORMAT);
    data[bit / 8] ^= (uint8_t)(1 << bit % 8);
  }
  sl_free(ctx, data);
}

/* --- numpy's files --- */

static void test_numpy_npz(void **state) {
  (void)state;
  for (int k = 0; k < 2; k++) {
    sl_tensor_file *f = load(k ? "tests/data/io/deflated.npz" : "tests/data/io/stored.npz");
    static const struct {
      const char *name;
      sl_dtype dtype;
    } numbers[] = {{"f2", SL_F16}, {"f4", SL_F32}, {"f8", SL_F64}, {"i1", SL_I8},  {"i2", SL_I16},
                   {"i4", SL_I32}, {"i8", SL_I64}, {"u1", SL_U8},  {"b1", SL_BOOL}};
    assert_int_equal(sl_tensor_file_count(f), 13);
    for (int64_t i = 0; i < 9; i++) {
      const sl_tensor *t = sl_tensor_file_tensor(f, i);
      assert_string_equal(sl_tensor_file_name(f, i), numbers[i].name);
      assert_int_equal(sl_tensor_dtype(t), numbers[i].dtype);
      assert_true(sl_shape_equal(sl_tensor_shape(t), &SL_SHAPE(2, 3)));
      for (int j = 0; j < 6; j++) {
        double expected = numbers[i].dtype == SL_BOOL ? j % 2 : numbers[i].dtype == SL_U8 ? j : j - 2;
        assert_true(sl_tensor_at(t, j) == expected);
      }
    }
    const sl_tensor *fortran = sl_tensor_file_find(f, "fortran"), *scalar = sl_tensor_file_find(f, "scalar");
    assert_true(sl_shape_equal(sl_tensor_shape(fortran), &SL_SHAPE(2, 3, 4)));
    assert_true(sl_tensor_is_contiguous(fortran));
    for (int j = 0; j < 24; j++) assert_true(sl_tensor_at(fortran, j) == j - 2);
    assert_int_equal(sl_tensor_shape(scalar)->rank, 0);
    assert_true(sl_tensor_at(scalar, 0) == 7);
    assert_true(sl_shape_equal(sl_tensor_shape(sl_tensor_file_find(f, "empty")), &SL_SHAPE(0, 5)));
    assert_true(sl_shape_equal(sl_tensor_shape(sl_tensor_file_find(f, "line")), &SL_SHAPE(3)));
    sl_tensor_file_free(f);
  }
}

static void test_numpy_npy(void **state) {
  (void)state;
  for (int version = 1; version <= 3; version++) {
    char path[64];
    snprintf(path, sizeof path, "tests/data/io/version%d.npy", version);
    sl_tensor_file *f = load(path);
    const sl_tensor *t = sl_tensor_file_find(f, "arr_0");
    assert_int_equal(sl_tensor_dtype(t), SL_F32);
    for (int j = 0; j < 6; j++) assert_true(sl_tensor_at(t, j) == j - 2);
    sl_tensor_file_free(f);
  }
  sl_tensor_file *f;
  FAILS(UNSUPPORTED, "big-endian", sl_tensor_file_load(ctx, "tests/data/io/big_endian.npy", &f));
  FAILS(UNSUPPORTED, "\"<u4\"", sl_tensor_file_load(ctx, "tests/data/io/unsigned.npy", &f));
  FAILS(UNSUPPORTED, "structured", sl_tensor_file_load(ctx, "tests/data/io/structured.npz", &f));
}

/* An npy file of this header and so many bytes of zeros. */
static sl_status load_npy(const char *header, size_t data_bytes) {
  uint8_t bytes[1024] = "\x93NUMPY\1";
  size_t n = strlen(header);
  bytes[8] = (uint8_t)n;
  memcpy(bytes + 10, header, n);
  return load_bytes(bytes, 10 + n + data_bytes);
}

static void test_broken_npy(void **state) {
  (void)state;
  OK(load_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n", 8));
  OK(load_npy("{\"shape\":(2L ,1),'fortran_order':True,'descr':'=i4'}", 8));
  static const struct {
    const char *header, *part;
    size_t bytes;
  } cases[] = {
      {"", "no dictionary", 0},
      {"{'descr': '<f4', 'fortran_order': False}", "lacks shape", 0},
      {"{'descr': '<f4', 'shape': ()}", "lacks fortran_order", 0},
      {"{'descr': '<f4', 'descr': '<f4'}", "key \"descr\"", 0},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,)", "does not end", 8},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,)} x", "goes on", 8},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (-2,)}", "dimension 0", 8},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (2 2)}", "does not end", 8},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}", "too large", 8},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (4000000000000000000,9)}", "shape", 8},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000,)}", "truncated", 8},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}", "truncated", 8},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", "behind the data", 8},
      {"{'descr': '<f4', 'fortran_order': 1, 'shape': (2,)}", "fortran_order", 8},
      {"{'descr': 4, 'fortran_order': False, 'shape': (2,)}", "descr", 8},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    FAILS(FORMAT, cases[i].part, load_npy(cases[i].header, cases[i].bytes));
    assert_non_null(strstr(sl_error(), "broken npy"));
    assert_non_null(strstr(sl_error(), folder));
  }
  FAILS(UNSUPPORTED, "dimensions",
        load_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1)}", 4));
  FAILS(UNSUPPORTED, "\"<c8\"", load_npy("{'descr': '<c8', 'fortran_order': False, 'shape': (1,)}", 8));
}

static void test_corrupt_npz(void **state) {
  (void)state;
  size_t size;
  void *data;
  OK(sl_file_read(ctx, "tests/data/io/deflated.npz", &data, &size));
  assert_true(corrupt(data, size, 7, 500) > 100);
  sl_free(ctx, data);
  data = saved("x.npz", true, &size);
  assert_true(corrupt(data, size, 7, 500) > 100);
  /* One number changed: the checksum finds it. The first array begins 128 bytes into its entry. */
  uint8_t *magic = memmem(data, size, "\x93NUMPY", 6);
  assert_non_null(magic);
  magic[128 + 5] ^= 1;
  FAILS(FORMAT, "CRC", load_bytes(data, size));
  sl_free(ctx, data);
}

/* Every call of sl_alloc fails once: OOM each time, nothing leaks, no file appears. */
static void test_exhausted_memory(void **state) {
  (void)state;
  for (int npz = 0; npz < 2; npz++) {
    sl_tensor_file *f = everything(npz), *g;
    const char *path = at(npz ? "a.npz" : "a");
    sl_status status = SL_STATUS_OOM;
    for (int n = 0; status != SL_STATUS_OK; n++) {
      sl_context_fail_after(ctx, n);
      status = sl_tensor_file_save(path, f);
      sl_context_fail_after(ctx, -1);
      if (status != SL_STATUS_OK) assert_int_equal(status, SL_STATUS_OOM);
      assert_int_equal(access(path, F_OK) == 0, status == SL_STATUS_OK);
    }
    status = SL_STATUS_OOM;
    for (int n = 0; status != SL_STATUS_OK; n++) {
      uint64_t blocks = sl_context_memory(ctx).blocks;
      sl_context_fail_after(ctx, n);
      status = sl_tensor_file_load(ctx, path, &g);
      sl_context_fail_after(ctx, -1);
      if (status == SL_STATUS_OK) break;
      assert_int_equal(status, SL_STATUS_OOM);
      assert_int_equal(sl_context_memory(ctx).blocks, blocks);
    }
    assert_files_equal(f, g);
    sl_tensor_file_free(g);
    sl_tensor_file_free(f);
    unlink(path);
  }
}

static void test_golden(void **state) {
  (void)state;
  sl_tensor_file *f = load("tests/golden/dit_vanilla.safetensors"), *g;
  assert_true(sl_shape_equal(sl_tensor_shape(sl_tensor_file_find(f, "out")), &SL_SHAPE(6, 8, 8, 8)));
  assert_int_equal(sl_tensor_dtype(sl_tensor_file_find(f, "in.t")), SL_I64);
  assert_non_null(strstr(sl_tensor_file_meta(f, "config"), "\"hidden_size\""));
  OK(sl_tensor_file_save(at("copy"), f));
  g = load(at("copy"));
  assert_files_equal(f, g);
  sl_tensor_file_free(g);
  sl_tensor_file_free(f);
  unlink(at("copy"));
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
  const struct CMUnitTest tests[] = {
      TEST(test_list),
      TEST(test_round_trip),
      TEST(test_written_layout),
      TEST(test_refused_saves),
      TEST(test_full_disk),
      TEST(test_broken_headers),
      TEST(test_unknown_kinds),
      TEST(test_corrupt_safetensors),
      TEST(test_numpy_npz),
      TEST(test_numpy_npy),
      TEST(test_broken_npy),
      TEST(test_corrupt_npz),
      TEST(test_exhausted_memory),
      TEST(test_golden),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
