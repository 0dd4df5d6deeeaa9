#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>
#include <zstd.h>

#include "base/buffer.h"
#include "base/file.h"
#include "data/dataset.h"
#include "data/pack_format.h"

enum { CHUNK_BYTES = 256 << 10 }; /* about: small enough for random reading, large enough to pack well */

static sl_status put_text(sl_buffer *b, const char *text) {
  size_t n = text ? strlen(text) : 0;
  SL_TRY(sl_buffer_add_integer(b, n, 4));
  return sl_buffer_add(b, text, n);
}

/* A job: what is written goes through `w`; `table` gathers the index. */
typedef struct job {
  sl_context *ctx;
  const sl_dataset *d;
  const sl_pack_options *o;
  int level;
  sl_file_writer *w;
  uint64_t at; /* bytes written */
  sl_buffer table;
  int64_t per_chunk, chunks;
  uint8_t *raw, *packed;
  size_t raw_bytes, packed_room;
} job;

static sl_status write_bytes(job *j, const void *data, size_t n) {
  j->at += n;
  return sl_file_write(j->w, data, n);
}

static sl_status compress(job *j, const void *from, size_t n, size_t *bytes) {
  *bytes = ZSTD_compress(j->packed, j->packed_room, from, n, j->level);
  SL_REQUIRE(!ZSTD_isError(*bytes), INTERNAL, "pack: zstd: %s", ZSTD_getErrorName(*bytes));
  return SL_STATUS_OK;
}

static sl_status write_chunk(job *j, int64_t first, int64_t n) {
  size_t image = j->raw_bytes / (size_t)j->per_chunk, bytes;
  for (int64_t i = 0; i < n; i++) SL_TRY(sl_dataset_bytes(j->d, first + i, j->raw + (size_t)i * image));
  SL_TRY(compress(j, j->raw, (size_t)n * image, &bytes));
  SL_TRY(sl_buffer_add_integer(&j->table, j->at, 8));
  SL_TRY(sl_buffer_add_integer(&j->table, XXH3_64bits(j->packed, bytes), 8));
  SL_TRY(sl_buffer_add_integer(&j->table, bytes, 4));
  SL_TRY(sl_buffer_add_integer(&j->table, (uint64_t)n, 4));
  j->chunks++;
  return write_bytes(j, j->packed, bytes);
}

static sl_status write_chunks(job *j) {
  int64_t count = sl_dataset_count(j->d);
  for (int64_t first = 0; first < count; first += j->per_chunk) {
    int64_t n = count - first < j->per_chunk ? count - first : j->per_chunk;
    SL_TRY(write_chunk(j, first, n));
    bool go_on = !j->o->progress || j->o->progress(j->o->user, first + n, count);
    SL_REQUIRE(go_on && !sl_context_cancelled(j->ctx), CANCELLED, "pack: cancelled after %lld of %lld images",
               (long long)(first + n), (long long)count);
  }
  return SL_STATUS_OK;
}

static bool has_captions(const sl_dataset *d) {
  for (int64_t i = 0; i < sl_dataset_count(d); i++)
    if (sl_dataset_caption(d, i)) return true;
  return false;
}

static sl_status build_index(job *j, sl_buffer *b) {
  const sl_dataset *d = j->d;
  sl_shape s = sl_dataset_image_shape(d);
  int64_t count = sl_dataset_count(d), classes = sl_dataset_classes(d),
          names = sl_dataset_class_name(d, 0) ? classes : 0;
  bool captions = has_captions(d);
  SL_TRY(sl_buffer_add_integer(b, SL_PACK_VERSION, 4));
  for (int i = 0; i < 3; i++) SL_TRY(sl_buffer_add_integer(b, (uint64_t)s.dim[i], 4));
  SL_TRY(sl_buffer_add_integer(b, (classes ? SL_PACK_LABELS : 0u) | (captions ? SL_PACK_CAPTIONS : 0u), 4));
  SL_TRY(sl_buffer_add_integer(b, (uint64_t)names, 4));
  SL_TRY(sl_buffer_add_integer(b, (uint64_t)count, 8));
  SL_TRY(sl_buffer_add_integer(b, (uint64_t)j->chunks, 8));
  SL_TRY(sl_buffer_add(b, j->table.data, j->table.size));
  for (int64_t i = 0; classes && i < count; i++) SL_TRY(sl_buffer_add_integer(b, (uint64_t)sl_dataset_label(d, i), 4));
  for (int64_t k = 0; k < names; k++) SL_TRY(put_text(b, sl_dataset_class_name(d, k)));
  for (int64_t i = 0; captions && i < count; i++) SL_TRY(put_text(b, sl_dataset_caption(d, i)));
  return put_text(b, j->o->note ? j->o->note : sl_dataset_note(d));
}

static sl_status write_index(job *j) {
  sl_buffer b = {.ctx = j->ctx}, footer = {.ctx = j->ctx};
  size_t bytes;
  sl_status status;
  SL_GOTO(build_index(j, &b));
  sl_free(j->ctx, j->packed);
  j->packed_room = ZSTD_compressBound(b.size);
  j->packed = sl_alloc(j->ctx, j->packed_room);
  SL_GOTO(j->packed ? SL_STATUS_OK : SL_STATUS_OOM);
  SL_GOTO(compress(j, b.data, b.size, &bytes));
  uint64_t fields[] = {j->at, bytes, b.size, XXH3_64bits(j->packed, bytes)};
  SL_GOTO(write_bytes(j, j->packed, bytes));
  for (int i = 0; i < 4; i++) SL_GOTO(sl_buffer_add_integer(&footer, fields[i], 8));
  SL_GOTO(sl_buffer_add(&footer, SL_PACK_MAGIC, SL_PACK_MAGIC_BYTES));
  SL_GOTO(write_bytes(j, footer.data, footer.size));
done:
  sl_free(j->ctx, b.data);
  sl_free(j->ctx, footer.data);
  return status;
}

static sl_status write_all(job *j) {
  sl_shape s = sl_dataset_image_shape(j->d);
  int64_t image = sl_shape_numel(&s);
  j->per_chunk = image < CHUNK_BYTES ? CHUNK_BYTES / image : 1;
  j->raw_bytes = (size_t)(j->per_chunk * image);
  j->packed_room = ZSTD_compressBound(j->raw_bytes);
  j->raw = sl_alloc(j->ctx, j->raw_bytes);
  j->packed = sl_alloc(j->ctx, j->packed_room);
  if (!j->raw || !j->packed) return SL_STATUS_OOM;
  SL_TRY(write_bytes(j, SL_PACK_MAGIC, SL_PACK_MAGIC_BYTES));
  SL_TRY(write_chunks(j));
  return write_index(j);
}

sl_status sl_dataset_write_pack(const sl_dataset *d, const char *path, const sl_pack_options *options) {
  static const sl_pack_options none = {0};
  const sl_pack_options *o = options ? options : &none;
  SL_REQUIRE(sl_dataset_is_bytes(d), DTYPE, "pack: the images are floats, a pack holds bytes (u8)");
  SL_REQUIRE(o->level >= 0 && o->level <= 19, ARG, "pack: level is %d, expected 1 … 19", o->level);
  sl_shape s = sl_dataset_image_shape(d);
  SL_REQUIRE(s.dim[0] == 1 || s.dim[0] == 3, SHAPE, "pack: the images are %s, expected 1 or 3 channels",
             sl_shape_text(&s));
  job j = {.ctx = sl_dataset_context(d), .d = d, .o = o, .level = o->level ? o->level : 19};
  j.table.ctx = j.ctx;
  sl_status status = sl_file_writer_open(j.ctx, path, &j.w);
  if (status == SL_STATUS_OK) {
    status = write_all(&j);
    if (status == SL_STATUS_OK) status = sl_file_commit(j.w);
    else sl_file_abort(j.w);
  }
  sl_free(j.ctx, j.table.data);
  sl_free(j.ctx, j.raw);
  sl_free(j.ctx, j.packed);
  return status;
}
