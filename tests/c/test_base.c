/* Status texts, the context's memory, parallel ranges, random numbers, bf16 and f16, checked files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include <dirent.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bf16.h"
#include "base/context.h"
#include "base/file.h"
#include "base/parallel.h"
#include "base/random.h"

static sl_context *new_context(const sl_context_options *o) {
  sl_context *ctx;
  assert_int_equal(sl_context_new(o, &ctx), SL_STATUS_OK);
  return ctx;
}

static void test_status(void **state) {
  (void)state;
  assert_string_equal(sl_status_name(SL_STATUS_SHAPE), "SHAPE");
  assert_int_equal(sl_fail(SL_STATUS_ARG, "beta is %d", 3), SL_STATUS_ARG);
  assert_string_equal(sl_error(), "beta is 3");
  assert_int_equal(sl_fail_context(SL_STATUS_ARG, "block %d", 2), SL_STATUS_ARG);
  assert_string_equal(sl_error(), "block 2: beta is 3");
  (void)sl_fail(SL_STATUS_IO, "again: %s", sl_error());
  assert_string_equal(sl_error(), "again: block 2: beta is 3");
}

static int pressed;
static void *held;
static void press(void *user) {
  pressed++;
  if (held) sl_free(*(sl_context **)user, held);
  held = NULL;
}

static void test_memory(void **state) {
  (void)state;
  sl_context *ctx;
  sl_context_options o = {.memory_limit = 1000, .pressure = press, .user = &ctx};
  ctx = new_context(&o);
  held = sl_alloc(ctx, 600);
  assert_non_null(held);
  assert_int_equal((uintptr_t)held % 64, 0);
  void *p = sl_alloc(ctx, 500); /* fits after the hook has freed the first */
  assert_non_null(p);
  assert_int_equal(pressed, 1);
  assert_null(sl_alloc(ctx, 501));
  assert_int_equal(pressed, 2);
  assert_non_null(strstr(sl_error(), "501"));
  assert_non_null(strstr(sl_error(), "500"));
  assert_non_null(strstr(sl_error(), "1000"));
  memset(p, 7, 500);
  char *q = sl_realloc(ctx, p, 501);
  assert_null(q); /* both would be alive for a moment: the old one stays */
  q = sl_alloc(ctx, 0);
  assert_non_null(q);
  sl_free(ctx, q);
  assert_int_equal(((char *)p)[499], 7);
  sl_free(ctx, p);
  assert_null(sl_alloc(ctx, SIZE_MAX - 3));
  sl_memory m = sl_context_memory(ctx);
  assert_int_equal(m.bytes, 0);
  assert_int_equal(m.blocks, 0);
  assert_int_equal(m.peak_bytes, 600);
  sl_context_fail_after(ctx, 2);
  void *a = sl_alloc(ctx, 1), *b = sl_alloc_zero(ctx, 1);
  assert_non_null(a);
  assert_non_null(b);
  assert_null(sl_alloc(ctx, 1));
  assert_null(sl_alloc(ctx, 1));
  sl_context_fail_after(ctx, -1);
  char *s = sl_strdup(ctx, "abc");
  assert_string_equal(s, "abc");
  sl_free(ctx, a);
  sl_free(ctx, b);
  sl_free(ctx, s);
  sl_free(ctx, NULL);
  sl_context_free(ctx);
}

static void test_context(void **state) {
  (void)state;
  sl_context *ctx;
  assert_int_equal(sl_context_new(&(sl_context_options){.threads = -1}, &ctx), SL_STATUS_ARG);
  assert_null(ctx);
  ctx = new_context(NULL);
  assert_true(sl_context_threads(ctx) >= 1);
  sl_context_set_threads(ctx, -5);
  assert_int_equal(sl_context_threads(ctx), 1);
  assert_false(sl_context_cancelled(ctx));
  sl_context_cancel(ctx);
  assert_true(sl_context_cancelled(ctx));
  sl_context_cancel_clear(ctx);
  assert_false(sl_context_cancelled(ctx));
  sl_context_set_isa(ctx, SL_ISA_AVX512);
  assert_int_equal(sl_context_isa(ctx), sl_isa_machine());
  sl_context_set_isa(ctx, SL_ISA_BASE);
  assert_string_equal(sl_isa_name(sl_context_isa(ctx)), "base");
  sl_context_free(ctx);
  setenv("SLUICE_ISA", "base", 1);
  ctx = new_context(NULL);
  assert_int_equal(sl_context_isa(ctx), SL_ISA_BASE);
  unsetenv("SLUICE_ISA");
  sl_context_free(ctx);
}

enum { ITEMS = 1003 };
static atomic_int seen[ITEMS];
static atomic_int calls;
static void count(void *user, int64_t begin, int64_t end, int thread) {
  (void)user;
  assert_true(thread >= 0);
  atomic_fetch_add(&calls, 1);
  for (int64_t i = begin; i < end; i++) atomic_fetch_add(&seen[i], 1);
}

static void test_parallel(void **state) {
  (void)state;
  sl_context *ctx = new_context(NULL);
  int expected[] = {1, 2, 3, 7};
  for (int k = 0; k < 4; k++) {
    sl_context_set_threads(ctx, expected[k]);
    for (int i = 0; i < ITEMS; i++) atomic_store(&seen[i], 0);
    atomic_store(&calls, 0);
    sl_parallel_for(ctx, ITEMS, 10, count, NULL);
    for (int i = 0; i < ITEMS; i++) assert_int_equal(atomic_load(&seen[i]), 1);
    assert_int_equal(atomic_load(&calls), expected[k]);
  }
  atomic_store(&calls, 0);
  sl_parallel_for(ctx, 19, 10, count, NULL); /* fewer than two grains */
  assert_int_equal(atomic_load(&calls), 1);
  sl_parallel_for(ctx, 0, 10, count, NULL);
  assert_int_equal(atomic_load(&calls), 1);
  sl_context_free(ctx);
}

/* Known answers of Random123 1.14, kat_vectors, philox4x32 10. */
static void test_philox(void **state) {
  (void)state;
  uint32_t r[4];
  sl_philox((sl_rng_key){0, 0}, 0, 0, 0, r);
  assert_memory_equal(r, ((uint32_t[]){0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}), sizeof r);
  sl_philox((sl_rng_key){~0u, ~0u}, ~UINT64_C(0), ~0u, ~0u, r);
  assert_memory_equal(r, ((uint32_t[]){0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}), sizeof r);
  sl_philox((sl_rng_key){0xa4093822, 0x299f31d0}, UINT64_C(0x85a308d3243f6a88), 0x13198a2e, 0x03707344, r);
  assert_memory_equal(r, ((uint32_t[]){0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}), sizeof r);
}

static void test_draws(void **state) {
  (void)state;
  enum { N = 200000 };
  float *x = malloc(N * sizeof *x), *part = malloc(N * sizeof *part);
  uint32_t *bits = malloc(N * sizeof *bits);
  sl_rng_key key = {42, SL_STREAM_NOISE};
  sl_random_normal(key, 3, 9, 0, N, x);
  sl_random_bits(key, 3, 9, 0, N, bits);
  for (int i = 0; i < N; i += 4) { /* many blocks at once are the blocks one by one */
    uint32_t one[4];
    sl_philox(key, (uint64_t)i / 4, 3, 9, one);
    assert_memory_equal(bits + i, one, sizeof one);
  }
  uint64_t carry = (UINT64_C(1) << 32) - 3; /* the counter's lower word overflows within a draw */
  sl_random_bits(key, 3, 9, 4 * carry, 1000, bits);
  for (int i = 0; i < 1000; i += 4) {
    uint32_t one[4];
    sl_philox(key, carry + (uint64_t)i / 4, 3, 9, one);
    assert_memory_equal(bits + i, one, sizeof one);
  }
  sl_random_bits(key, 3, 9, 0, N, bits);
  double m[5] = {0}, worst = 0;
  for (int i = 0; i < N; i++) {
    for (int k = 1; k < 5; k++) m[k] += pow((double)x[i], k) / N;
    double u0 = ((bits[i & ~1] >> 9) + 0.5) * 0x1p-23, u1 = ((bits[i | 1] >> 9) + 0.5) * 0x1p-23;
    double r = sqrt(-2 * log(u0)), want = r * (i & 1 ? sin(2 * M_PI * u1) : cos(2 * M_PI * u1));
    worst = fmax(worst, fabs(want - (double)x[i]) / r);
  }
  assert_true(worst < 5e-7);
  assert_true(fabs(m[1]) < 0.01 && fabs(m[2] - 1) < 0.02 && fabs(m[3]) < 0.05 && fabs(m[4] - 3) < 0.1);
  for (int first = 1; first < 6; first++) { /* any window of a draw is the same draw */
    sl_random_normal(key, 3, 9, (uint64_t)first, 1000, part);
    assert_memory_equal(part, x + first, 1000 * sizeof *x);
  }
  sl_random_uniform(key, 0, 0, 0, N, x);
  double mean = 0;
  for (int i = 0; i < N; i++) {
    assert_true(x[i] > 0 && x[i] < 1);
    mean += (double)x[i] / N;
  }
  assert_true(fabs(mean - 0.5) < 0.005);
  for (uint64_t i = 0; i < 100; i++) assert_true(sl_random_below(key, 0, 0, i, 7) < 7);
  free(x);
  free(part);
  free(bits);
}

static void test_permute(void **state) {
  (void)state;
  static const uint64_t sizes[] = {1, 2, 3, 10, 64, 65, 1000, 4097};
  for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
    uint64_t n = sizes[k], moved = 0;
    bool *hit = calloc(n, 1);
    for (uint64_t i = 0; i < n; i++) {
      uint64_t j = sl_random_permute((sl_rng_key){1, SL_STREAM_ORDER}, 5, i, n);
      assert_true(j < n && !hit[j]);
      hit[j] = true;
      moved += j != sl_random_permute((sl_rng_key){1, SL_STREAM_ORDER}, 6, i, n);
    }
    assert_true(n < 64 || moved > n / 2);
    free(hit);
  }
}

static void test_halves(void **state) {
  (void)state;
  for (uint32_t h = 0; h < 65536; h++) {
    float b = sl_bf16_to_f32((sl_bf16)h), f = sl_f16_to_f32((sl_f16)h);
    if (!isnan(b)) assert_int_equal(sl_bf16_from_f32(b), h);
    if (!isnan(f)) assert_int_equal(sl_f16_from_f32(f), h);
    else assert_true(isnan(sl_f16_to_f32(sl_f16_from_f32(f))));
  }
  assert_int_equal(sl_f16_from_f32(65519.0f), 0x7bff);
  assert_int_equal(sl_f16_from_f32(65520.0f), 0x7c00);
  assert_int_equal(sl_f16_from_f32(1.0f + 0x1p-11f), 0x3c00); /* a tie, to even */
  assert_int_equal(sl_f16_from_f32(1.0f + 3 * 0x1p-11f), 0x3c02);
  assert_int_equal(sl_f16_from_f32(-0x1p-25f), 0x8000);
  assert_int_equal(sl_f16_from_f32(0x1.8p-25f), 0x0001);
  assert_int_equal(sl_bf16_from_f32(1.0f + 0x1p-8f), 0x3f80);
  assert_true(isnan(sl_bf16_to_f32(sl_bf16_from_f32(NAN))));
}

static int entries(const char *folder) {
  int n = 0;
  DIR *d = opendir(folder);
  while (readdir(d)) n++;
  closedir(d);
  return n - 2; /* . and .. */
}

static void write_file(sl_context *ctx, const char *path, const char *text) {
  sl_file_writer *w;
  assert_int_equal(sl_file_writer_open(ctx, path, &w), SL_STATUS_OK);
  assert_int_equal(sl_file_write(w, text, strlen(text)), SL_STATUS_OK);
  assert_int_equal(sl_file_commit(w), SL_STATUS_OK);
}

static void expect_file(sl_context *ctx, const char *path, const char *text) {
  void *data;
  size_t size;
  assert_int_equal(sl_file_read(ctx, path, &data, &size), SL_STATUS_OK);
  assert_int_equal(size, strlen(text));
  assert_string_equal(data, text);
  sl_free(ctx, data);
}

static void test_file(void **state) {
  (void)state;
  sl_context *ctx = new_context(NULL);
  char root[] = "/tmp/sluice-test-XXXXXX", folder[64], path[80];
  assert_non_null(mkdtemp(root));
  snprintf(folder, sizeof folder, "%s/a/b", root);
  assert_int_equal(sl_make_dirs(folder), SL_STATUS_OK);
  assert_int_equal(sl_make_dirs(folder), SL_STATUS_OK);
  snprintf(path, sizeof path, "%s/f", folder);
  write_file(ctx, path, "old");
  sl_file_writer *w;
  assert_int_equal(sl_file_writer_open(ctx, path, &w), SL_STATUS_OK);
  assert_int_equal(sl_file_write(w, "new", 3), SL_STATUS_OK);
  expect_file(ctx, path, "old"); /* until commit */
  sl_file_abort(w);
  expect_file(ctx, path, "old");
  assert_int_equal(entries(folder), 1);
  assert_int_equal(chmod(path, 0600), 0);
  write_file(ctx, path, "newer");
  expect_file(ctx, path, "newer");
  assert_int_equal(entries(folder), 1);
  struct stat st;
  assert_int_equal(stat(path, &st), 0);
  assert_int_equal(st.st_mode & 0777, 0600);
  sl_file_map map;
  assert_int_equal(sl_file_map_open(path, &map), SL_STATUS_OK);
  assert_int_equal(map.size, 5);
  assert_memory_equal(map.data, "newer", 5);
  sl_file_map_close(&map);
  assert_int_equal(sl_file_map_open(folder, &map), SL_STATUS_IO);
  assert_int_equal(sl_file_map_open("/dev/null", &map), SL_STATUS_IO);
  /* A target that cannot be replaced: the error names it, and no temporary file stays. */
  assert_int_equal(sl_file_writer_open(ctx, "/nowhere/f", &w), SL_STATUS_IO);
  assert_null(w);
  assert_non_null(strstr(sl_error(), "/nowhere/f"));
  void *data;
  size_t size;
  assert_int_equal(sl_file_read(ctx, "/nowhere/f", &data, &size), SL_STATUS_IO);
  assert_non_null(strstr(sl_error(), "No such file"));
  assert_int_equal(sl_make_dirs(path), SL_STATUS_IO);
  sl_context_fail_after(ctx, 2);
  assert_int_equal(sl_file_writer_open(ctx, path, &w), SL_STATUS_OOM);
  sl_context_fail_after(ctx, -1);
  assert_int_equal(entries(folder), 1);
  unlink(path);
  rmdir(folder);
  snprintf(folder, sizeof folder, "%s/a", root);
  rmdir(folder);
  rmdir(root);
  assert_int_equal(sl_context_memory(ctx).blocks, 0);
  sl_context_free(ctx);
}

static void test_disk_full(void **state) {
  (void)state;
  if (access("/dev/full", W_OK) != 0) skip();
  sl_context *ctx = new_context(NULL);
  sl_file_writer *w;
  assert_int_equal(sl_file_writer_open(ctx, "/dev/full", &w), SL_STATUS_OK);
  assert_int_equal(sl_file_write(w, "x", 1), SL_STATUS_OK); /* waits in the buffer */
  assert_int_equal(sl_file_commit(w), SL_STATUS_IO);
  assert_non_null(strstr(sl_error(), "/dev/full"));
  assert_non_null(strstr(sl_error(), "No space left"));
  static char large[1 << 17];
  assert_int_equal(sl_file_writer_open(ctx, "/dev/full", &w), SL_STATUS_OK);
  assert_int_equal(sl_file_write(w, large, sizeof large), SL_STATUS_IO);
  assert_int_equal(sl_file_write(w, large, 1), SL_STATUS_IO);
  assert_int_equal(sl_file_commit(w), SL_STATUS_IO);
  struct stat st;
  assert_int_equal(stat("/dev/full", &st), 0);
  assert_true(S_ISCHR(st.st_mode)); /* a device is written, never replaced */
  assert_int_equal(sl_context_memory(ctx).blocks, 0);
  sl_context_free(ctx);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_status),    cmocka_unit_test(test_memory), cmocka_unit_test(test_context),
      cmocka_unit_test(test_parallel),  cmocka_unit_test(test_philox), cmocka_unit_test(test_draws),
      cmocka_unit_test(test_permute),   cmocka_unit_test(test_halves), cmocka_unit_test(test_file),
      cmocka_unit_test(test_disk_full),
  };
  return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
