/* safetensors (github.com/huggingface/safetensors, "Format"): 8 bytes of header length, little-endian, a JSON header
 * {name: {dtype, shape, data_offsets}, "__metadata__": {key: value}}, then the data, which the tensors cover without
 * gaps. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memmem */
#endif
#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/buffer.h"
#include "io/formats.h"

#define MAX_HEADER 100000000u /* the reference implementation's limit */
/* A digest's place: metadata key, value of zeros until it is known. */
#define DIGEST_KEY "\"digest\":\"xxh3:"
#define DIGEST_ZEROS "xxh3:00000000000000000000000000000000"
enum { DIGEST_DIGITS = 32 };
enum { MAX_DEPTH = 8, MAX_VALUES = 4000000, MAX_NAME = 100 };

static const char *const dtype_names[] = {
#define X(e, name, bytes, st) [SL_##e] = st,
    SL_DTYPE_LIST(X)
#undef X
};
static const char *const other_dtypes[] = {"U16",     "U32",     "U64", "F8_E5M2", "F8_E4M3",     "F8_E8M0",
                                           "F6_E2M3", "F6_E3M2", "F4",  "C64",     "F8_E4M3FNUZ", "F8_E5M2FNUZ"};

typedef struct entry {
  const char *name; /* the JSON tree's */
  sl_dtype dtype;
  sl_shape shape;
  uint64_t begin, end; /* bytes, from the data's start */
} entry;

#define BROKEN(cond, ...) SL_REQUIRE(cond, FORMAT, __VA_ARGS__) /* the caller adds the path */

/* --- the digest --- */

/* Where its digits lie in the header's text; NULL: it has none. */
static const char *find_digest(const char *text, size_t n) {
  const char *at = memmem(text, n, DIGEST_KEY, sizeof DIGEST_KEY - 1);
  size_t behind = at ? (size_t)(at - text) + sizeof DIGEST_KEY - 1 + DIGEST_DIGITS : n;
  return at && behind < n && text[behind] == '"' ? at + sizeof DIGEST_KEY - 1 : NULL;
}

/* The file's bytes up to the digest, zeros, then the rest of the header. */
static void digest_header(XXH3_state_t *state, const char *file, size_t size, const char *digits) {
  XXH3_128bits_reset(state);
  XXH3_128bits_update(state, file, (size_t)(digits - file));
  XXH3_128bits_update(state, &DIGEST_ZEROS[5], DIGEST_DIGITS);
  XXH3_128bits_update(state, digits + DIGEST_DIGITS, size - (size_t)(digits - file) - DIGEST_DIGITS);
}

static void digest_text(const XXH3_state_t *state, char out[DIGEST_DIGITS + 1]) {
  XXH128_hash_t h = XXH3_128bits_digest(state);
  snprintf(out, DIGEST_DIGITS + 1, "%016" PRIx64 "%016" PRIx64, (uint64_t)h.high64, (uint64_t)h.low64);
}

/* data: the whole file, whose header ends at `header`. */
static sl_status check_digest(const uint8_t *data, size_t size, size_t header) {
  const char *text = (const char *)data, *digits = find_digest(text + 8, header - 8);
  if (!digits) return SL_STATUS_OK;
  XXH3_state_t state;
  char real[DIGEST_DIGITS + 1];
  digest_header(&state, text, header, digits);
  XXH3_128bits_update(&state, data + header, size - header);
  digest_text(&state, real);
  BROKEN(!memcmp(real, digits, DIGEST_DIGITS), "it is damaged: its digest is %s, it says %.*s", real, DIGEST_DIGITS,
         digits);
  return SL_STATUS_OK;
}

/* --- reading --- */

/* Bounds what the JSON library may be asked to build: its nodes are some 50 times as large as the shortest values. */
static sl_status check_json_size(const char *text, size_t size) {
  int depth = 0;
  int64_t values = 0;
  bool quoted = false;
  for (size_t i = 0; i < size; i++) {
    char c = text[i];
    BROKEN(c != 0, "byte 0 in the header at %zu", i);
    if (quoted && c == '\\') i++;
    else if (c == '"') quoted = !quoted;
    else if (quoted) continue;
    else if (c == '{' || c == '[') depth++, values++;
    else if (c == '}' || c == ']') depth--;
    else if (c == ',') values++;
    BROKEN(depth <= MAX_DEPTH, "the header's JSON is nested deeper than %d", MAX_DEPTH);
    BROKEN(values <= MAX_VALUES, "the header holds more than %d values", MAX_VALUES);
  }
  return SL_STATUS_OK;
}

/* A JSON integer from 0 to 2^53 - 1. */
static bool get_integer(const cJSON *j, uint64_t *out) {
  if (!cJSON_IsNumber(j) || !(j->valuedouble >= 0 && j->valuedouble < 9007199254740992.0)) return false;
  *out = (uint64_t)j->valuedouble;
  return (double)*out == j->valuedouble;
}

static sl_status get_dtype(const char *name, const cJSON *j, sl_dtype *out) {
  BROKEN(cJSON_IsString(j), "\"%.*s\" has no dtype", MAX_NAME, name);
  for (int d = 0; d < SL_DTYPE_COUNT; d++) {
    *out = (sl_dtype)d;
    if (strcmp(j->valuestring, dtype_names[d]) == 0) return SL_STATUS_OK;
  }
  for (size_t i = 0; i < sizeof other_dtypes / sizeof *other_dtypes; i++) {
    SL_REQUIRE(strcmp(j->valuestring, other_dtypes[i]) != 0, UNSUPPORTED, "\"%.*s\" has dtype %s, not supported",
               MAX_NAME, name, other_dtypes[i]);
  }
  BROKEN(false, "\"%.*s\" has the unknown dtype \"%.*s\"", MAX_NAME, name, MAX_NAME, j->valuestring);
}

static sl_status get_shape(const entry *e, const cJSON *j, sl_shape *out) {
  BROKEN(cJSON_IsArray(j), "\"%.*s\" has no shape", MAX_NAME, e->name);
  *out = (sl_shape){0};
  const cJSON *d;
  cJSON_ArrayForEach(d, j) {
    uint64_t v;
    BROKEN(get_integer(d, &v), "\"%.*s\": dimension %d is no count", MAX_NAME, e->name, out->rank);
    SL_REQUIRE(out->rank < SL_MAX_RANK, UNSUPPORTED, "\"%.*s\" has %d dimensions, supported are at most %d", MAX_NAME,
               e->name, cJSON_GetArraySize(j), SL_MAX_RANK);
    out->dim[out->rank++] = (int64_t)v;
  }
  sl_status status = sl_shape_check(out, sl_dtype_size(e->dtype), "shape");
  if (status == SL_STATUS_OK) return status;
  return sl_fail_context(SL_STATUS_FORMAT, "\"%.*s\"", MAX_NAME, e->name);
}

static sl_status get_entry(const cJSON *j, uint64_t data_bytes, entry *e) {
  e->name = j->string;
  BROKEN(sl_text_is_utf8(e->name), "the name \"%.*s\" is not UTF-8", MAX_NAME, e->name);
  BROKEN(cJSON_IsObject(j), "\"%.*s\" is no object", MAX_NAME, e->name);
  SL_TRY(get_dtype(e->name, cJSON_GetObjectItemCaseSensitive(j, "dtype"), &e->dtype));
  SL_TRY(get_shape(e, cJSON_GetObjectItemCaseSensitive(j, "shape"), &e->shape));
  const cJSON *o = cJSON_GetObjectItemCaseSensitive(j, "data_offsets");
  BROKEN(cJSON_IsArray(o) && cJSON_GetArraySize(o) == 2 && get_integer(o->child, &e->begin) &&
             get_integer(o->child->next, &e->end) && e->begin <= e->end,
         "\"%.*s\" has no data_offsets [begin, end]", MAX_NAME, e->name);
  BROKEN(e->end <= data_bytes, "\"%.*s\" ends at byte %" PRIu64 " of %" PRIu64 " (is the file truncated?)", MAX_NAME,
         e->name, e->end, data_bytes);
  uint64_t bytes = (uint64_t)sl_shape_numel(&e->shape) * sl_dtype_size(e->dtype);
  BROKEN(e->end - e->begin == bytes, "\"%.*s\" is %s %s, %" PRIu64 " bytes, but has %" PRIu64, MAX_NAME, e->name,
         sl_dtype_name(e->dtype), sl_shape_text(&e->shape), bytes, e->end - e->begin);
  return SL_STATUS_OK;
}

static int by_offset(const void *a, const void *b) {
  const entry *x = *(const entry *const *)a, *y = *(const entry *const *)b;
  if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
  return x->end < y->end ? -1 : x->end > y->end;
}

/* The tensors lie end to end: no two share bytes, none are left over. */
static sl_status check_cover(const entry **sorted, int64_t n, uint64_t data_bytes) {
  qsort(sorted, (size_t)n, sizeof *sorted, by_offset);
  uint64_t at = 0;
  for (int64_t i = 0; i < n; i++) {
    BROKEN(sorted[i]->begin == at, "\"%.*s\" begins at byte %" PRIu64 ", expected %" PRIu64 " (%s)", MAX_NAME,
           sorted[i]->name, sorted[i]->begin, at, sorted[i]->begin < at ? "tensors overlap" : "a gap");
    at = sorted[i]->end;
  }
  BROKEN(at == data_bytes, "the file has %" PRIu64 " bytes of data, its tensors %" PRIu64, data_bytes, at);
  return SL_STATUS_OK;
}

static sl_status add_meta(const cJSON *meta, sl_tensor_file *file) {
  BROKEN(cJSON_IsObject(meta), "__metadata__ is no object");
  const cJSON *m;
  cJSON_ArrayForEach(m, meta) {
    BROKEN(cJSON_IsString(m), "metadata \"%.*s\" is no string", MAX_NAME, m->string);
    BROKEN(!sl_tensor_file_meta(file, m->string), "two metadata keys \"%.*s\"", MAX_NAME, m->string);
    BROKEN(sl_text_is_utf8(m->string) && sl_text_is_utf8(m->valuestring), "metadata \"%.*s\" is not UTF-8", MAX_NAME,
           m->string);
    SL_TRY(sl_tensor_file_set_meta(file, m->string, m->valuestring));
  }
  return SL_STATUS_OK;
}

static sl_status add_tensors(const entry *entries, int64_t n, const uint8_t *data, sl_tensor_file *file) {
  for (int64_t i = 0; i < n; i++) {
    const entry *e = &entries[i];
    BROKEN(!sl_tensor_file_find(file, e->name), "two tensors \"%.*s\"", MAX_NAME, e->name);
    sl_tensor *t;
    SL_TRY(sl_tensor_from(sl_tensor_file_context(file), e->dtype, e->shape.rank, e->shape.dim, data + e->begin, &t));
    sl_status status = sl_tensor_file_add(file, e->name, t);
    sl_tensor_release(t);
    SL_TRY(status);
  }
  return SL_STATUS_OK;
}

static sl_status read_tree(const cJSON *root, const uint8_t *data, uint64_t data_bytes, sl_tensor_file *file) {
  BROKEN(cJSON_IsObject(root), "the header is no JSON object");
  sl_context *ctx = sl_tensor_file_context(file);
  size_t room = (size_t)cJSON_GetArraySize(root);
  int64_t n = 0;
  bool with_meta = false;
  entry *entries = sl_alloc(ctx, room * sizeof *entries);
  const entry **sorted = sl_alloc(ctx, room * sizeof *sorted);
  sl_status status = entries && sorted ? SL_STATUS_OK : SL_STATUS_OOM;
  for (const cJSON *j = root->child; j && status == SL_STATUS_OK; j = j->next) {
    if (strcmp(j->string, "__metadata__") == 0) {
      status = with_meta ? sl_fail(SL_STATUS_FORMAT, "two __metadata__") : add_meta(j, file);
      with_meta = true;
    } else {
      sorted[n] = &entries[n];
      status = get_entry(j, data_bytes, &entries[n++]);
    }
  }
  if (status == SL_STATUS_OK) status = check_cover(sorted, n, data_bytes);
  if (status == SL_STATUS_OK) status = add_tensors(entries, n, data, file);
  sl_free(ctx, sorted);
  sl_free(ctx, entries);
  return status;
}

static bool only_spaces(const char *from, const char *end) {
  while (from < end && (*from == ' ' || *from == '\n' || *from == '\t' || *from == '\r')) from++;
  return from == end;
}

static sl_status read_file(const uint8_t *data, size_t size, sl_tensor_file *file) {
  uint64_t n = 0;
  for (int i = 7; i >= 0; i--) n = n << 8 | data[i];
  BROKEN(n <= MAX_HEADER, "its header has %" PRIu64 " bytes, more than %u", n, MAX_HEADER);
  BROKEN(n <= size - 8, "its header has %" PRIu64 " bytes, the file %zu (is it truncated?)", n, size);
  const char *text = (const char *)data + 8, *end = NULL;
  SL_TRY(check_digest(data, size, 8 + (size_t)n));
  SL_TRY(check_json_size(text, (size_t)n));
  cJSON *root = cJSON_ParseWithLengthOpts(text, (size_t)n, &end, 0);
  sl_status status;
  if (root && only_spaces(end, text + n)) status = read_tree(root, data + 8 + n, size - 8 - n, file);
  else status = sl_fail(SL_STATUS_FORMAT, "the header is no JSON, at byte %zu", end ? (size_t)(end - text) : (size_t)0);
  cJSON_Delete(root);
  return status;
}

sl_status sl_safetensors_read(const char *path, const uint8_t *data, size_t size, sl_tensor_file *file) {
  SL_REQUIRE(size > 8 && data[8] == '{', FORMAT, "%s: is no safetensors, npz or npy file", path);
  sl_status status = read_file(data, size, file);
  if (status == SL_STATUS_OK) return status;
  return sl_fail_context(status, status == SL_STATUS_FORMAT ? "%s: broken safetensors" : "%s", path);
}

/* --- writing --- */

static sl_status put_string(sl_buffer *t, const char *s) {
  SL_TRY(sl_buffer_add(t, "\"", 1));
  for (; *s; s++) {
    if (*s == '"' || *s == '\\') SL_TRY(sl_buffer_add_format(t, "\\%c", *s));
    else if ((unsigned char)*s < 0x20) SL_TRY(sl_buffer_add_format(t, "\\u%04x", (unsigned)*s));
    else SL_TRY(sl_buffer_add(t, s, 1));
  }
  return sl_buffer_add(t, "\"", 1);
}

static size_t item_size(const sl_tensor *t) { return sl_dtype_size(sl_tensor_dtype(t)); }

/* Data go by falling item size, so that every tensor is aligned; the header keeps the list's order. */
static sl_status put_entry(sl_buffer *t, const sl_tensor_file *file, int64_t index, const uint64_t first[9],
                           uint64_t *begin) {
  const sl_tensor *x = sl_tensor_file_tensor(file, index);
  const sl_shape *s = sl_tensor_shape(x);
  size_t item = item_size(x);
  SL_TRY(put_string(t, sl_tensor_file_name(file, index)));
  SL_TRY(sl_buffer_add_format(t, ":{\"dtype\":\"%s\",\"shape\":[", dtype_names[sl_tensor_dtype(x)]));
  for (int d = 0; d < s->rank; d++) SL_TRY(sl_buffer_add_format(t, d ? ",%" PRId64 : "%" PRId64, s->dim[d]));
  uint64_t from = first[item] + begin[item];
  begin[item] += (uint64_t)sl_tensor_numel(x) * item;
  return sl_buffer_add_format(t, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", from, first[item] + begin[item]);
}

static sl_status put_header(sl_buffer *t, const char *path, const sl_tensor_file *file) {
  int64_t n = sl_tensor_file_count(file), metas = sl_tensor_file_meta_count(file);
  uint64_t bytes[9] = {0}, first[9] = {0}, begin[9] = {0}; /* by item size */
  for (int64_t i = 0; i < n; i++) {
    const sl_tensor *x = sl_tensor_file_tensor(file, i);
    bytes[item_size(x)] += (uint64_t)sl_tensor_numel(x) * item_size(x);
  }
  for (int k = 7; k > 0; k--) first[k] = first[k + 1] + bytes[k + 1];
  SL_TRY(sl_buffer_add(t, "\0\0\0\0\0\0\0\0{", 9));
  for (int64_t i = 0; i < metas; i++) {
    SL_TRY(sl_buffer_add_format(t, i ? "," : "\"__metadata__\":{"));
    SL_TRY(put_string(t, sl_tensor_file_meta_key(file, i)));
    SL_TRY(sl_buffer_add(t, ":", 1));
    bool digest = !strcmp(sl_tensor_file_meta_key(file, i), "digest");
    SL_TRY(put_string(t, digest ? DIGEST_ZEROS : sl_tensor_file_meta_value(file, i)));
  }
  if (metas) SL_TRY(sl_buffer_add(t, n ? "}," : "}", n ? 2 : 1));
  for (int64_t i = 0; i < n; i++) {
    SL_REQUIRE(strcmp(sl_tensor_file_name(file, i), "__metadata__") != 0, ARG,
               "%s: a tensor may not be called __metadata__ in safetensors", path);
    if (i) SL_TRY(sl_buffer_add(t, ",", 1));
    SL_TRY(put_entry(t, file, i, first, begin));
  }
  SL_TRY(sl_buffer_add(t, "}", 1));
  while (t->size % 8) SL_TRY(sl_buffer_add(t, " ", 1));
  uint64_t size = t->size - 8;
  SL_REQUIRE(size <= MAX_HEADER, UNSUPPORTED, "%s: names and metadata need %" PRIu64 " bytes, more than %u", path, size,
             MAX_HEADER);
  for (int i = 0; i < 8; i++) t->data[i] = (char)(size >> (8 * i));
  return SL_STATUS_OK;
}

typedef sl_status (*take_bytes)(void *user, const void *data, size_t n);

static sl_status each_tensor(const sl_tensor *x, take_bytes take, void *user) {
  size_t bytes = (size_t)sl_tensor_numel(x) * item_size(x);
  if (sl_tensor_device(x)->kind == SL_DEVICE_CPU && sl_tensor_is_contiguous(x)) {
    return take(user, sl_tensor_data(x), bytes);
  }
  sl_tensor *copy;
  SL_TRY(sl_tensor_to(x, sl_tensor_dtype(x), &sl_device_cpu, &copy));
  sl_status status = take(user, sl_tensor_data(copy), bytes);
  sl_tensor_release(copy);
  return status;
}

/* The data's bytes in the file's order. */
static sl_status each_data(const sl_tensor_file *file, take_bytes take, void *user) {
  for (size_t item = 8; item > 0; item /= 2) {
    for (int64_t i = 0; i < sl_tensor_file_count(file); i++) {
      const sl_tensor *x = sl_tensor_file_tensor(file, i);
      if (item_size(x) == item) SL_TRY(each_tensor(x, take, user));
    }
  }
  return SL_STATUS_OK;
}

static sl_status take_digest(void *user, const void *data, size_t n) {
  XXH3_128bits_update(user, data, n);
  return SL_STATUS_OK;
}

static sl_status take_file(void *user, const void *data, size_t n) { return sl_file_write(user, data, n); }

/* Before the data are written: the header comes first in the file. */
static sl_status fill_in_digest(sl_buffer *header, const sl_tensor_file *file) {
  const char *digits = sl_tensor_file_meta(file, "digest") ? find_digest(header->data + 8, header->size - 8) : NULL;
  if (!digits) return SL_STATUS_OK;
  XXH3_state_t state;
  char real[DIGEST_DIGITS + 1];
  digest_header(&state, header->data, header->size, digits);
  SL_TRY(each_data(file, take_digest, &state));
  digest_text(&state, real);
  memcpy(header->data + (digits - header->data), real, DIGEST_DIGITS);
  return SL_STATUS_OK;
}

sl_status sl_safetensors_write(sl_file_writer *w, const char *path, const sl_tensor_file *file) {
  sl_buffer header = {.ctx = sl_tensor_file_context(file)};
  sl_status status = put_header(&header, path, file);
  if (status == SL_STATUS_OK) status = fill_in_digest(&header, file);
  if (status == SL_STATUS_OK) status = sl_file_write(w, header.data, header.size);
  sl_free(header.ctx, header.data);
  return status == SL_STATUS_OK ? each_data(file, take_file, w) : status;
}
