#include "io/tensor_file.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/file.h"
#include "io/formats.h"

typedef struct item {
  char *name;
  void *value;
} item;

/* Items in order, with an open-addressing index of their names: slot = position + 1, 0 for empty. */
typedef struct list {
  item *items;
  uint32_t *slots;
  int64_t count, capacity; /* 2 * capacity slots, a power of two */
} list;

struct sl_tensor_file {
  sl_context *ctx;
  list tensors, meta;
};

/* --- lists --- */

static uint32_t *slot_of(const list *l, const char *name) {
  uint64_t mask = (uint64_t)l->capacity * 2 - 1;
  for (uint64_t i = XXH3_64bits(name, strlen(name)) & mask;; i = (i + 1) & mask) {
    if (!l->slots[i] || strcmp(l->items[l->slots[i] - 1].name, name) == 0) return &l->slots[i];
  }
}

static item *list_find(const list *l, const char *name) {
  if (!l->count) return NULL;
  uint32_t slot = *slot_of(l, name);
  return slot ? &l->items[slot - 1] : NULL;
}

static sl_status list_grow(sl_context *ctx, list *l) {
  int64_t capacity = l->capacity ? l->capacity * 2 : 16;
  SL_REQUIRE(capacity <= 1 << 30, UNSUPPORTED, "tensor file: more than %lld names", (long long)l->count);
  item *items = sl_realloc(ctx, l->items, (size_t)capacity * sizeof *items);
  if (!items) return SL_STATUS_OOM;
  l->items = items;
  uint32_t *slots = sl_alloc_zero(ctx, (size_t)capacity * 2 * sizeof *slots);
  if (!slots) return SL_STATUS_OOM;
  sl_free(ctx, l->slots);
  l->slots = slots;
  l->capacity = capacity;
  for (int64_t i = 0; i < l->count; i++) *slot_of(l, l->items[i].name) = (uint32_t)(i + 1);
  return SL_STATUS_OK;
}

/* `value` becomes the list's on success only. */
static sl_status list_add(sl_context *ctx, list *l, const char *name, void *value) {
  if (l->count == l->capacity) SL_TRY(list_grow(ctx, l));
  char *copy = sl_strdup(ctx, name);
  if (!copy) return SL_STATUS_OOM;
  *slot_of(l, name) = (uint32_t)(l->count + 1);
  l->items[l->count++] = (item){copy, value};
  return SL_STATUS_OK;
}

static void list_clear(sl_context *ctx, list *l) {
  for (int64_t i = 0; i < l->count; i++) sl_free(ctx, l->items[i].name);
  sl_free(ctx, l->items);
  sl_free(ctx, l->slots);
}

static item list_at(const list *l, int64_t index) {
  return index >= 0 && index < l->count ? l->items[index] : (item){0};
}

/* --- the file --- */

/* RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF. */
bool sl_text_is_utf8(const char *text) {
  const uint8_t *p = (const uint8_t *)text;
  while (*p) {
    int more = *p < 0x80 ? 0 : *p >= 0xc2 && *p < 0xe0 ? 1 : (*p & 0xf0) == 0xe0 ? 2 : *p >= 0xf0 && *p < 0xf5 ? 3 : -1;
    uint8_t low = 0x80, high = 0xbf;
    if (*p == 0xe0) low = 0xa0;
    if (*p == 0xed) high = 0x9f;
    if (*p == 0xf0) low = 0x90;
    if (*p == 0xf4) high = 0x8f;
    if (more < 0) return false;
    for (p++; more > 0; more--, p++, low = 0x80, high = 0xbf) {
      if (*p < low || *p > high) return false;
    }
  }
  return true;
}

sl_context *sl_tensor_file_context(const sl_tensor_file *file) { return file->ctx; }

sl_status sl_tensor_file_new(sl_context *ctx, sl_tensor_file **out) {
  *out = NULL;
  sl_tensor_file *file = sl_alloc_zero(ctx, sizeof *file);
  if (!file) return SL_STATUS_OOM;
  file->ctx = ctx;
  *out = file;
  return SL_STATUS_OK;
}

void sl_tensor_file_free(sl_tensor_file *file) {
  if (!file) return;
  sl_context *ctx = file->ctx;
  for (int64_t i = 0; i < file->tensors.count; i++) sl_tensor_release(file->tensors.items[i].value);
  for (int64_t i = 0; i < file->meta.count; i++) sl_free(ctx, file->meta.items[i].value);
  list_clear(ctx, &file->tensors);
  list_clear(ctx, &file->meta);
  sl_free(ctx, file);
}

sl_status sl_tensor_file_add(sl_tensor_file *file, const char *name, sl_tensor *tensor) {
  SL_REQUIRE(name && tensor, ARG, "tensor file: name and tensor must be given");
  SL_REQUIRE(sl_text_is_utf8(name), ARG, "tensor file: name \"%.100s\" is not UTF-8", name);
  SL_REQUIRE(!list_find(&file->tensors, name), ARG, "tensor file: there are two tensors \"%.100s\"", name);
  sl_tensor *host = NULL; /* kept: a GPU's tensor would otherwise be copied twice, for the digest and for the file */
  SL_TRY(sl_tensor_on_host(tensor, &host));
  sl_status status = list_add(file->ctx, &file->tensors, name, host);
  if (status != SL_STATUS_OK) sl_tensor_release(host);
  return status;
}

int64_t sl_tensor_file_count(const sl_tensor_file *file) { return file->tensors.count; }

const char *sl_tensor_file_name(const sl_tensor_file *file, int64_t index) {
  return list_at(&file->tensors, index).name;
}

sl_tensor *sl_tensor_file_tensor(const sl_tensor_file *file, int64_t index) {
  return list_at(&file->tensors, index).value;
}

sl_tensor *sl_tensor_file_find(const sl_tensor_file *file, const char *name) {
  const item *it = list_find(&file->tensors, name);
  return it ? it->value : NULL;
}

sl_status sl_tensor_file_set_meta(sl_tensor_file *file, const char *key, const char *value) {
  SL_REQUIRE(key && value, ARG, "tensor file: metadata's key and value must be given");
  SL_REQUIRE(sl_text_is_utf8(key), ARG, "tensor file: metadata key \"%.100s\" is not UTF-8", key);
  SL_REQUIRE(sl_text_is_utf8(value), ARG, "tensor file: metadata \"%.100s\" is not UTF-8", key);
  char *copy = sl_strdup(file->ctx, value);
  if (!copy) return SL_STATUS_OOM;
  item *it = list_find(&file->meta, key);
  if (it) {
    sl_free(file->ctx, it->value);
    it->value = copy;
    return SL_STATUS_OK;
  }
  sl_status status = list_add(file->ctx, &file->meta, key, copy);
  if (status != SL_STATUS_OK) sl_free(file->ctx, copy);
  return status;
}

int64_t sl_tensor_file_meta_count(const sl_tensor_file *file) { return file->meta.count; }

const char *sl_tensor_file_meta_key(const sl_tensor_file *file, int64_t index) {
  return list_at(&file->meta, index).name;
}

const char *sl_tensor_file_meta_value(const sl_tensor_file *file, int64_t index) {
  return list_at(&file->meta, index).value;
}

const char *sl_tensor_file_meta(const sl_tensor_file *file, const char *key) {
  const item *it = key ? list_find(&file->meta, key) : NULL;
  return it ? it->value : NULL;
}

/* --- reading and writing --- */

static bool starts(const uint8_t *data, size_t size, const char *magic, size_t n) {
  return size >= n && memcmp(data, magic, n) == 0;
}

static sl_status read_by_content(const char *path, const uint8_t *data, size_t size, sl_tensor_file *file) {
  if (starts(data, size, "PK\3\4", 4) || starts(data, size, "PK\5\6", 4)) return sl_npz_read(path, data, size, file);
  if (starts(data, size, "\x93NUMPY", 6)) return sl_npy_read_memory(path, data, size, file);
  SL_REQUIRE(!(starts(data, size, "\x80\2", 2) && size > 2 && data[2] != 0), UNSUPPORTED,
             "%s: is a Python pickle (an old PyTorch checkpoint?), expected safetensors, npz or npy", path);
  return sl_safetensors_read(path, data, size, file);
}

sl_status sl_tensor_file_load(sl_context *ctx, const char *path, sl_tensor_file **out) {
  *out = NULL;
  sl_file_map map;
  SL_TRY(sl_file_map_open(path, &map));
  sl_tensor_file *file;
  sl_status status = sl_tensor_file_new(ctx, &file);
  if (status == SL_STATUS_OK) status = read_by_content(path, map.data, map.size, file);
  sl_file_map_close(&map);
  if (status == SL_STATUS_OK) *out = file;
  else sl_tensor_file_free(file);
  return status;
}

sl_status sl_tensor_file_save(const char *path, const sl_tensor_file *file) {
  size_t n = strlen(path);
  bool npz = n >= 4 && strcmp(path + n - 4, ".npz") == 0;
  sl_file_writer *w;
  SL_TRY(sl_file_writer_open(file->ctx, path, &w));
  sl_status status = (npz ? sl_npz_write : sl_safetensors_write)(w, path, file);
  if (status == SL_STATUS_OK) return sl_file_commit(w);
  sl_file_abort(w);
  return status;
}
