/* numpy's archives: a zip file with one NAME.npy per array. */
#include <archive.h>
#include <archive_entry.h>
#include <string.h>

#include "io/formats.h"

enum { MAX_NAME = 1024, DEFLATE_RATIO = 1032 }; /* deflate cannot pack more tightly than 1032 to 1 */

static const char *reason(struct archive *a) {
  const char *text = archive_error_string(a);
  return text ? text : "unknown reason";
}

static bool ends_in(const char *text, const char *end) {
  size_t n = strlen(text), m = strlen(end);
  return n >= m && strcmp(text + n - m, end) == 0;
}

/* --- reading --- */

static sl_status read_entry(sl_npy_source *s, void *to, size_t size, size_t *got) {
  struct archive *a = s->user;
  for (*got = 0; *got < size;) {
    la_ssize_t n = archive_read_data(a, (char *)to + *got, size - *got);
    SL_REQUIRE(n >= 0, FORMAT, "%s", reason(a));
    if (n == 0) break;
    *got += (size_t)n;
  }
  return SL_STATUS_OK;
}

static sl_status add_entry(struct archive *a, const char *path, const char *name, uint64_t limit,
                           sl_tensor_file *file) {
  char key[MAX_NAME];
  size_t n = strlen(name);
  SL_REQUIRE(!ends_in(name, "data.pkl"), UNSUPPORTED,
             "%s: is a PyTorch checkpoint, not supported; save it as .safetensors in Python", path);
  SL_REQUIRE(n > 4 && n < sizeof key && ends_in(name, ".npy"), FORMAT,
             "%s: \"%.100s\" in the zip file is no .npy array", path, name);
  memcpy(key, name, n - 4);
  key[n - 4] = 0;
  SL_REQUIRE(sl_text_is_utf8(key), FORMAT, "%s: broken npz: the name \"%.100s\" is not UTF-8", path, key);
  SL_REQUIRE(!sl_tensor_file_find(file, key), FORMAT, "%s: broken npz: there are two arrays \"%.100s\"", path, key);
  sl_npy_source source = {.user = a, .path = path, .name = key, .limit = limit, .read = read_entry};
  sl_tensor *t;
  SL_TRY(sl_npy_read(sl_tensor_file_context(file), &source, &t));
  sl_status status = sl_tensor_file_add(file, key, t);
  sl_tensor_release(t);
  return status;
}

static sl_status read_entries(struct archive *a, const char *path, const uint8_t *data, size_t size,
                              sl_tensor_file *file) {
  int rc = archive_read_support_format_zip_seekable(a); /* by the directory at the end, as zip files are meant */
  if (rc == ARCHIVE_OK) rc = archive_read_open_memory(a, data, size);
  SL_REQUIRE(rc == ARCHIVE_OK, FORMAT, "%s: broken zip file: %s", path, reason(a));
  for (;;) {
    struct archive_entry *e;
    rc = archive_read_next_header(a, &e);
    if (rc == ARCHIVE_EOF) return SL_STATUS_OK;
    /* A warning: the name cannot be said in the process's locale, but in UTF-8. */
    SL_REQUIRE(rc == ARCHIVE_OK || rc == ARCHIVE_WARN, FORMAT, "%s: broken zip file: %s", path, reason(a));
    const char *name = archive_entry_pathname_utf8(e);
    if (!name) name = archive_entry_pathname(e);
    SL_REQUIRE(name, FORMAT, "%s: broken zip file: an entry without a name", path);
    SL_TRY(add_entry(a, path, name, (uint64_t)size * DEFLATE_RATIO, file));
  }
}

sl_status sl_npz_read(const char *path, const uint8_t *data, size_t size, sl_tensor_file *file) {
  static const uint8_t empty[22] = "PK\5\6"; /* an end record only, which libarchive does not know */
  if (size == sizeof empty && memcmp(data, empty, size) == 0) return SL_STATUS_OK;
  struct archive *a = archive_read_new();
  SL_REQUIRE(a, OOM, "%s: no memory for the zip reader", path);
  sl_status status = read_entries(a, path, data, size, file);
  archive_read_free(a);
  return status;
}

/* --- writing --- */

typedef struct sink {
  sl_file_writer *w;
  sl_status status; /* of the first failed write */
} sink;

static la_ssize_t write_sink(struct archive *a, void *user, const void *data, size_t size) {
  (void)a;
  sink *s = user;
  if (s->status == SL_STATUS_OK) s->status = sl_file_write(s->w, data, size);
  return s->status == SL_STATUS_OK ? (la_ssize_t)size : -1;
}

static sl_status failed(struct archive *a, const sink *s, const char *path) {
  return s->status != SL_STATUS_OK ? s->status : sl_fail(SL_STATUS_IO, "%s: cannot write: %s", path, reason(a));
}

static sl_status write_bytes(struct archive *a, const sink *s, const char *path, const char *data, size_t size) {
  while (size) {
    la_ssize_t n = archive_write_data(a, data, size);
    if (n <= 0) return failed(a, s, path);
    data += n;
    size -= (size_t)n;
  }
  return SL_STATUS_OK;
}

static sl_status write_contiguous(struct archive *a, const sink *s, const char *path, const char *name,
                                  const sl_tensor *t) {
  char header[SL_NPY_HEADER], file_name[MAX_NAME];
  size_t n = strlen(name), head = sl_npy_header(t, header);
  size_t bytes = (size_t)sl_tensor_numel(t) * sl_dtype_size(sl_tensor_dtype(t));
  memcpy(file_name, name, n);
  memcpy(file_name + n, ".npy", 5);
  struct archive_entry *e = archive_entry_new();
  SL_REQUIRE(e, OOM, "%s: no memory for a zip entry", path);
  archive_entry_set_pathname(e, file_name);
  archive_entry_set_filetype(e, AE_IFREG);
  archive_entry_set_perm(e, 0644);
  archive_entry_set_size(e, (la_int64_t)(head + bytes));
  int rc = archive_write_header(a, e);
  archive_entry_free(e);
  if (rc != ARCHIVE_OK) return failed(a, s, path);
  SL_TRY(write_bytes(a, s, path, header, head));
  return write_bytes(a, s, path, sl_tensor_data(t), bytes);
}

static sl_status write_entry(struct archive *a, const sink *s, const char *path, const sl_tensor_file *file,
                             int64_t index) {
  const sl_tensor *t = sl_tensor_file_tensor(file, index);
  const char *name = sl_tensor_file_name(file, index);
  if (sl_tensor_device(t)->kind == SL_DEVICE_CPU && sl_tensor_is_contiguous(t)) {
    return write_contiguous(a, s, path, name, t);
  }
  sl_tensor *copy;
  SL_TRY(sl_tensor_to(t, sl_tensor_dtype(t), &sl_device_cpu, &copy));
  sl_status status = write_contiguous(a, s, path, name, copy);
  sl_tensor_release(copy);
  return status;
}

static sl_status check(const char *path, const sl_tensor_file *file) {
  SL_REQUIRE(sl_tensor_file_meta_count(file) == 0, UNSUPPORTED,
             "%s: npz holds no metadata (there is \"%.100s\"); save it as .safetensors", path,
             sl_tensor_file_meta_key(file, 0));
  for (int64_t i = 0; i < sl_tensor_file_count(file); i++) {
    const char *name = sl_tensor_file_name(file, i);
    SL_REQUIRE(*name && strlen(name) < MAX_NAME - 5, ARG, "%s: the name \"%.100s\" is not 1 to %d bytes", path, name,
               MAX_NAME - 6);
    for (const char *p = name; *p; p++) {
      SL_REQUIRE((signed char)*p > 0, UNSUPPORTED,
                 "%s: npz names are ASCII here (there is \"%.100s\"); use .safetensors", path, name);
    }
    char header[SL_NPY_HEADER];
    SL_REQUIRE(sl_npy_header(sl_tensor_file_tensor(file, i), header), UNSUPPORTED,
               "%s: numpy has no %s (\"%.100s\"); convert it, or save it as .safetensors", path,
               sl_dtype_name(sl_tensor_dtype(sl_tensor_file_tensor(file, i))), name);
  }
  return SL_STATUS_OK;
}

static sl_status write_archive(struct archive *a, sink *s, const char *path, const sl_tensor_file *file) {
  int rc = archive_write_set_format_zip(a);
  if (rc == ARCHIVE_OK) rc = archive_write_zip_set_compression_store(a);
  if (rc == ARCHIVE_OK) rc = archive_write_set_bytes_per_block(a, 0);
  if (rc == ARCHIVE_OK) rc = archive_write_open(a, s, NULL, write_sink, NULL);
  if (rc != ARCHIVE_OK) return failed(a, s, path);
  for (int64_t i = 0; i < sl_tensor_file_count(file); i++) SL_TRY(write_entry(a, s, path, file, i));
  return archive_write_close(a) == ARCHIVE_OK ? SL_STATUS_OK : failed(a, s, path);
}

sl_status sl_npz_write(sl_file_writer *w, const char *path, const sl_tensor_file *file) {
  SL_TRY(check(path, file));
  struct archive *a = archive_write_new();
  SL_REQUIRE(a, OOM, "%s: no memory for the zip writer", path);
  sink s = {.w = w, .status = SL_STATUS_OK};
  sl_status status = write_archive(a, &s, path, file);
  s.status = status; /* freeing an archive that failed would write its end */
  archive_write_free(a);
  return status;
}
