#include <inttypes.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>
#include <zstd.h>

#include "base/file.h"
#include "data/dataset_internal.h"
#include "data/pack_format.h"

enum { MAX_CHUNK = 1 << 30, ZSTD_RATIO = 1 << 15 /* zstd's best: a block of 128 KiB in 4 bytes */ };

typedef struct chunk {
  uint64_t offset, digest;
  uint32_t bytes;
} chunk;

typedef struct pack {
  sl_context *ctx;
  char *path, *note;
  sl_file_map map;
  chunk *chunks;
} pack;

#define BROKEN(cond, ...) SL_REQUIRE(cond, FORMAT, __VA_ARGS__) /* the caller adds the path */

static void free_pack(sl_source *s) {
  pack *p = s->data;
  sl_file_map_close(&p->map);
  sl_free(p->ctx, p->chunks);
  sl_free(p->ctx, p->path);
  sl_free(p->ctx, p->note);
  sl_free(p->ctx, p);
}

static sl_status decode(sl_source *s, int64_t number, uint8_t *out) {
  pack *p = s->data;
  const chunk *c = &p->chunks[number];
  size_t want = (size_t)(s->first[number + 1] - s->first[number]) * (size_t)sl_source_image_bytes(s);
  const uint8_t *from = p->map.data + c->offset;
  bool ok = XXH3_64bits(from, c->bytes) == c->digest && ZSTD_decompress(out, want, from, c->bytes) == want;
  SL_REQUIRE(ok, FORMAT, "%s: chunk %lld (images %lld to %lld) is damaged", p->path, (long long)number + 1,
             (long long)s->first[number] + 1, (long long)s->first[number + 1]);
  return SL_STATUS_OK;
}

static const sl_source_kind pack_kind = {"pack", decode, free_pack};

const char *sl_pack_note(const sl_source *s) {
  return s->kind == &pack_kind && ((pack *)s->data)->note ? ((pack *)s->data)->note : "";
}

/* --- the index --- */

typedef struct cursor {
  const uint8_t *at, *end;
  bool ended; /* something was asked for behind the end */
} cursor;

static uint64_t take(cursor *c, int bytes) {
  uint64_t v = 0;
  if (c->end - c->at < bytes) {
    c->ended = true;
    return 0;
  }
  for (int i = bytes - 1; i >= 0; i--) v = v << 8 | c->at[i];
  c->at += bytes;
  return v;
}

static sl_status take_text(sl_context *ctx, cursor *c, char **out) {
  uint64_t n = take(c, 4);
  BROKEN(!c->ended && n <= (uint64_t)(c->end - c->at), "a text in its index ends behind it");
  *out = sl_alloc(ctx, (size_t)n + 1);
  if (!*out) return SL_STATUS_OOM;
  memcpy(*out, c->at, (size_t)n);
  (*out)[n] = 0;
  c->at += n;
  return SL_STATUS_OK;
}

static sl_status take_chunks(sl_source *s, pack *p, cursor *c, uint64_t data_end) {
  p->chunks = sl_alloc(s->ctx, (size_t)s->chunks * sizeof *p->chunks);
  s->first = sl_alloc(s->ctx, (size_t)(s->chunks + 1) * sizeof *s->first);
  if (!p->chunks || !s->first) return SL_STATUS_OOM;
  uint64_t image = (uint64_t)sl_source_image_bytes(s), total = 0;
  for (int64_t i = 0; i < s->chunks; i++) {
    chunk *k = &p->chunks[i];
    k->offset = take(c, 8);
    k->digest = take(c, 8);
    k->bytes = (uint32_t)take(c, 4);
    uint64_t images = take(c, 4);
    BROKEN(k->offset >= SL_PACK_MAGIC_BYTES && k->offset <= data_end && k->bytes <= data_end - k->offset,
           "chunk %" PRId64 " lies at bytes %" PRIu64 " and %u more, its data end at %" PRIu64, i + 1, k->offset,
           k->bytes, data_end);
    BROKEN(images > 0 && images * image <= MAX_CHUNK && images * image / ZSTD_RATIO <= k->bytes,
           "chunk %" PRId64 " claims %" PRIu64 " images in %u bytes", i + 1, images, k->bytes);
    s->first[i] = (int64_t)total;
    total += images;
  }
  s->first[s->chunks] = (int64_t)total;
  BROKEN(total == (uint64_t)s->count, "its chunks hold %" PRIu64 " images, its index says %" PRId64, total, s->count);
  return SL_STATUS_OK;
}

static sl_status take_labels(sl_source *s, cursor *c) {
  s->labels = sl_alloc(s->ctx, (size_t)s->count * sizeof *s->labels);
  if (!s->labels) return SL_STATUS_OOM;
  for (int64_t i = 0; i < s->count; i++) {
    uint32_t v = (uint32_t)take(c, 4);
    BROKEN(v < INT32_MAX, "label %" PRId64 " is %" PRIu32, i + 1, v);
    s->labels[i] = (int32_t)v;
  }
  return SL_STATUS_OK;
}

static sl_status take_names(sl_source *s, cursor *c, int64_t names) {
  if (!names) {
    sl_source_count_classes(s);
    return SL_STATUS_OK;
  }
  for (int64_t i = 0; i < s->count; i++)
    BROKEN(s->labels[i] < names, "label %" PRId64 " is %d, there are %" PRId64 " classes", i + 1, s->labels[i], names);
  s->names = sl_alloc_zero(s->ctx, (size_t)names * sizeof *s->names);
  if (!s->names) return SL_STATUS_OOM;
  s->classes = names;
  for (int64_t i = 0; i < names; i++) SL_TRY(take_text(s->ctx, c, &s->names[i]));
  return SL_STATUS_OK;
}

static sl_status take_captions(sl_source *s, cursor *c) {
  s->captions = sl_alloc_zero(s->ctx, (size_t)s->count * sizeof *s->captions);
  if (!s->captions) return SL_STATUS_OOM;
  for (int64_t i = 0; i < s->count; i++) SL_TRY(take_text(s->ctx, c, &s->captions[i]));
  return SL_STATUS_OK;
}

static sl_status read_index(sl_source *s, pack *p, cursor c, uint64_t data_end) {
  uint64_t version = take(&c, 4);
  SL_REQUIRE(version == SL_PACK_VERSION, UNSUPPORTED, "has version %" PRIu64 ", this program reads %d", version,
             SL_PACK_VERSION);
  uint64_t channels = take(&c, 4), height = take(&c, 4), width = take(&c, 4), flags = take(&c, 4), names = take(&c, 4);
  uint64_t count = take(&c, 8), chunks = take(&c, 8), left = (uint64_t)(c.end - c.at);
  BROKEN(!c.ended, "its index ends too early");
  BROKEN((channels == 1 || channels == 3) && height > 0 && height <= 1 << 14 && width > 0 && width <= 1 << 14,
         "its images are %" PRIu64 " x %" PRIu64 " x %" PRIu64, channels, height, width);
  BROKEN(chunks > 0 && chunks <= left / 24 && count >= chunks && count <= chunks * MAX_CHUNK && count <= INT64_MAX / 64,
         "it claims %" PRIu64 " images in %" PRIu64 " chunks", count, chunks);
  BROKEN(flags <= 3 && names <= left / 4 && (!names || flags & SL_PACK_LABELS) &&
             (!(flags & SL_PACK_LABELS) || count <= left / 4) && (!(flags & SL_PACK_CAPTIONS) || count <= left / 4),
         "its index is too short for what it claims");
  s->shape = SL_SHAPE((int64_t)channels, (int64_t)height, (int64_t)width);
  s->count = (int64_t)count;
  s->chunks = (int64_t)chunks;
  SL_TRY(take_chunks(s, p, &c, data_end));
  if (flags & SL_PACK_LABELS) SL_TRY(take_labels(s, &c));
  SL_TRY(take_names(s, &c, (int64_t)names));
  if (flags & SL_PACK_CAPTIONS) SL_TRY(take_captions(s, &c));
  SL_TRY(take_text(s->ctx, &c, &p->note));
  BROKEN(!c.ended && c.at == c.end, "its index has %s", c.ended ? "too few bytes" : "bytes left over");
  return SL_STATUS_OK;
}

static sl_status open_index(sl_source *s, pack *p) {
  size_t size = p->map.size;
  BROKEN(size >= SL_PACK_MAGIC_BYTES && !memcmp(p->map.data, SL_PACK_MAGIC, SL_PACK_MAGIC_BYTES),
         "is no data set packed by `sluice pack`");
  BROKEN(size >= SL_PACK_MAGIC_BYTES + SL_PACK_FOOTER &&
             !memcmp(p->map.data + size - SL_PACK_MAGIC_BYTES, SL_PACK_MAGIC, SL_PACK_MAGIC_BYTES),
         "its end is missing (is it truncated?)");
  cursor c = {p->map.data + size - SL_PACK_FOOTER, p->map.data + size, false};
  uint64_t offset = take(&c, 8), bytes = take(&c, 8), raw = take(&c, 8), digest = take(&c, 8);
  uint64_t end = size - SL_PACK_FOOTER;
  BROKEN(offset >= SL_PACK_MAGIC_BYTES && offset <= end && bytes == end - offset,
         "its footer puts the index at byte %" PRIu64 " and %" PRIu64 " more, of %zu", offset, bytes, size);
  BROKEN(XXH3_64bits(p->map.data + offset, (size_t)bytes) == digest, "its index is damaged");
  BROKEN(raw / ZSTD_RATIO <= bytes, "its index claims %" PRIu64 " bytes", raw);
  uint8_t *index = sl_alloc(s->ctx, (size_t)raw);
  if (!index) return SL_STATUS_OOM;
  size_t got = ZSTD_decompress(index, (size_t)raw, p->map.data + offset, (size_t)bytes);
  sl_status status = got == raw ? read_index(s, p, (cursor){index, index + raw, false}, offset)
                                : sl_fail(SL_STATUS_FORMAT, "its index is damaged");
  sl_free(s->ctx, index);
  s->digest = digest; /* covers the chunks by their digests */
  return status;
}

sl_status sl_dataset_from_pack(sl_context *ctx, const char *path, bool skip, sl_dataset **out) {
  *out = NULL;
  SL_REQUIRE(path, ARG, "data: path is NULL");
  pack *p = sl_alloc_zero(ctx, sizeof *p);
  if (!p) return SL_STATUS_OOM;
  p->ctx = ctx;
  sl_source *s;
  SL_TRY(sl_source_new(ctx, &pack_kind, p, &s));
  p->path = sl_strdup(ctx, path);
  sl_status status = p->path ? sl_file_map_open(path, &p->map) : SL_STATUS_OOM;
  if (status == SL_STATUS_OK) {
    status = open_index(s, p);
    if (status != SL_STATUS_OK && status != SL_STATUS_OOM) (void)sl_fail_context(status, "%s", path);
  }
  if (status == SL_STATUS_OK) status = sl_source_ready(s);
  if (status == SL_STATUS_OK) return sl_dataset_from_source(s, skip, out);
  sl_source_release(s);
  return status;
}
