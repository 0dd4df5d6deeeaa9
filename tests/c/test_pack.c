/* Packs whose index lies under a digest that is right: each claim is refused in words, before memory is taken for it.
 */
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

#define XXH_INLINE_ALL
#include <xxhash.h>
#include <zstd.h>

#include "base/buffer.h"
#include "base/file.h"
#include "data/dataset.h"

static sl_context *ctx;
static char path[] = "/tmp/sluice-pack-XXXXXX";
#define OK(expr) assert_int_equal(expr, SL_STATUS_OK)

static int setup(void **state) {
  (void)state;
  int fd = mkstemp(path);
  return fd < 0 || close(fd) != 0 || sl_context_new(NULL, &ctx) != SL_STATUS_OK;
}

static int teardown(void **state) {
  (void)state;
  uint64_t blocks = sl_context_memory(ctx).blocks;
  sl_context_free(ctx);
  return blocks != 0 || unlink(path) != 0;
}

/* An index of two 1 x 2 x 2 images in one chunk, with labels and one class name; field by field, so that one can lie.
 */
typedef struct claims {
  uint64_t version, channels, height, width, flags, names, count, chunks;
  uint64_t offset, bytes, images, label, name_length, extra;
} claims;

static const uint8_t pixels[8] = {1, 2, 3, 4, 5, 6, 7, 8};
static const claims truth = {1, 1, 2, 2, 1, 1, 2, 1, 8, 0, 2, 0, 1, 0};

static void write_pack(claims c) {
  sl_buffer file = {.ctx = ctx}, index = {.ctx = ctx};
  char packed[256];
  size_t n = ZSTD_compress(packed, sizeof packed, pixels, sizeof pixels, 3);
  OK(sl_buffer_add(&file, "SLUICEPK", 8));
  OK(sl_buffer_add(&file, packed, n));
  uint64_t head[] = {c.version, c.channels, c.height, c.width, c.flags, c.names};
  for (int i = 0; i < 6; i++) OK(sl_buffer_add_integer(&index, head[i], 4));
  OK(sl_buffer_add_integer(&index, c.count, 8));
  OK(sl_buffer_add_integer(&index, c.chunks, 8));
  OK(sl_buffer_add_integer(&index, c.offset, 8));
  OK(sl_buffer_add_integer(&index, XXH3_64bits(packed, n), 8));
  OK(sl_buffer_add_integer(&index, c.bytes ? c.bytes : n, 4));
  OK(sl_buffer_add_integer(&index, c.images, 4));
  for (int i = 0; i < 2; i++) OK(sl_buffer_add_integer(&index, c.label, 4));
  OK(sl_buffer_add_integer(&index, c.name_length, 4));
  OK(sl_buffer_add(&index, "a", 1));
  OK(sl_buffer_add_integer(&index, 0, 4)); /* the note */
  if (c.extra) OK(sl_buffer_add_integer(&index, 0, (int)c.extra));
  uint64_t at = file.size, raw = index.size;
  n = ZSTD_compress(packed, sizeof packed, index.data, index.size, 3);
  assert_false(ZSTD_isError(n));
  OK(sl_buffer_add(&file, packed, n));
  uint64_t foot[] = {at, n, raw, XXH3_64bits(packed, n)};
  for (int i = 0; i < 4; i++) OK(sl_buffer_add_integer(&file, foot[i], 8));
  OK(sl_buffer_add(&file, "SLUICEPK", 8));
  sl_file_writer *w;
  OK(sl_file_writer_open(ctx, path, &w));
  OK(sl_file_write(w, file.data, file.size));
  OK(sl_file_commit(w));
  sl_free(ctx, file.data);
  sl_free(ctx, index.data);
}

static void test_truth(void **state) {
  (void)state;
  sl_dataset *d;
  uint8_t image[4];
  write_pack(truth);
  OK(sl_dataset_from_pack(ctx, path, false, &d));
  assert_int_equal(sl_dataset_count(d), 2);
  assert_string_equal(sl_dataset_class_name(d, 0), "a");
  OK(sl_dataset_bytes(d, 1, image));
  assert_memory_equal(image, pixels + 4, 4);
  sl_dataset_release(d);
}

static void refused(claims c, const char *part) {
  sl_dataset *d;
  write_pack(c);
  assert_int_not_equal(sl_dataset_from_pack(ctx, path, false, &d), SL_STATUS_OK);
  if (!strstr(sl_error(), part) || !strstr(sl_error(), path)) fail_msg("%s\n   lacks: %s", sl_error(), part);
}

static void test_lies(void **state) {
  (void)state;
#define LIE(field, value, part)                                                                                        \
  do {                                                                                                                 \
    claims c = truth;                                                                                                  \
    c.field = value;                                                                                                   \
    refused(c, part);                                                                                                  \
  } while (0)
  LIE(version, 2, "has version 2, this program reads 1");
  LIE(channels, 2, "its images are 2 x 2 x 2");
  LIE(height, 0, "its images are 1 x 0 x 2");
  LIE(width, 1u << 31, "its images are");
  LIE(count, 3, "its chunks hold 2 images, its index says 3");
  LIE(count, UINT64_MAX, "it claims");
  LIE(chunks, 1u << 30, "it claims");
  LIE(chunks, 0, "it claims");
  LIE(offset, 1, "chunk 1 lies at bytes 1");
  LIE(offset, UINT64_MAX, "chunk 1 lies at bytes");
  LIE(bytes, UINT32_MAX, "chunk 1 lies at bytes");
  LIE(images, UINT32_MAX, "chunk 1 claims");
  LIE(images, 0, "chunk 1 claims 0 images");
  LIE(label, 1, "label 1 is 1, there are 1 classes");
  LIE(label, UINT32_MAX, "label 1 is 4294967295");
  LIE(names, UINT32_MAX, "too short for what it claims");
  LIE(names, 2, "its index");
  LIE(flags, 3, "in its index ends behind it");
  LIE(flags, 8, "too short for what it claims");
  LIE(flags, 0, "too short for what it claims"); /* names without labels */
  LIE(name_length, UINT32_MAX, "a text in its index ends behind it");
  LIE(extra, 4, "bytes left over");
}

/* A chunk that is whole in the file but decodes to another size than its images have. */
static void test_size(void **state) {
  (void)state;
  claims c = truth;
  c.height = 3;
  uint8_t image[6];
  sl_dataset *d;
  write_pack(c);
  OK(sl_dataset_from_pack(ctx, path, false, &d));
  assert_int_equal(sl_dataset_bytes(d, 0, image), SL_STATUS_FORMAT);
  assert_non_null(strstr(sl_error(), "chunk 1 (images 1 to 2) is damaged"));
  sl_dataset_release(d);
}

/* Whatever allocation fails, nothing is lost and nothing leaks. */
static void test_memory(void **state) {
  (void)state;
  write_pack(truth);
  sl_status status = SL_STATUS_OOM;
  for (int n = 0; status != SL_STATUS_OK; n++) {
    sl_dataset *d;
    uint64_t before = sl_context_memory(ctx).blocks;
    sl_context_fail_after(ctx, n);
    status = sl_dataset_from_pack(ctx, path, false, &d);
    sl_context_fail_after(ctx, -1);
    if (status == SL_STATUS_OK) sl_dataset_release(d);
    else assert_int_equal(status, SL_STATUS_OOM);
    assert_int_equal(before, sl_context_memory(ctx).blocks);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_truth),
      cmocka_unit_test(test_lies),
      cmocka_unit_test(test_size),
      cmocka_unit_test(test_memory),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
