/* Folders of PNG and JPEG files as data sets. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/file.h"
#include "data/dataset_internal.h"
#include "data/resize.h"
#include "io/picture.h"

typedef struct entry {
  char *path;    /* whole */
  char *class;   /* NULL: none */
  char *caption; /* NULL: none */
} entry;

typedef struct folder {
  sl_context *ctx;
  char *path;
  entry *entries;
  int64_t count, room;
  int64_t size;
  int channels;
} folder;

static void free_folder(folder *f) {
  for (int64_t i = 0; i < f->count; i++) {
    sl_free(f->ctx, f->entries[i].path);
    sl_free(f->ctx, f->entries[i].class);
    sl_free(f->ctx, f->entries[i].caption);
  }
  sl_free(f->ctx, f->entries);
  sl_free(f->ctx, f->path);
  sl_free(f->ctx, f);
}

static char *copy_text(sl_context *ctx, const char *text, size_t n) {
  char *copy = sl_alloc(ctx, n + 1);
  if (!copy) return NULL;
  memcpy(copy, text, n);
  copy[n] = 0;
  return copy;
}

static char *join(sl_context *ctx, const char *a, const char *b) {
  size_t n = strlen(a), m = strlen(b);
  char *path = sl_alloc(ctx, n + m + 2);
  if (path) snprintf(path, n + m + 2, "%s/%s", a, b);
  return path;
}

/* Takes over path, class and caption, also on failure. */
static sl_status add_entry(folder *f, entry e) {
  bool ok = e.path != NULL;
  if (ok && f->count == f->room) {
    int64_t room = f->room ? 2 * f->room : 64;
    entry *grown = sl_realloc(f->ctx, f->entries, (size_t)room * sizeof *grown);
    ok = grown != NULL;
    if (ok) f->entries = grown, f->room = room;
  }
  if (ok) {
    f->entries[f->count++] = e;
    return SL_STATUS_OK;
  }
  sl_free(f->ctx, e.path);
  sl_free(f->ctx, e.class);
  sl_free(f->ctx, e.caption);
  return SL_STATUS_OOM;
}

/* --- an index --- */

typedef struct columns {
  int file, class, caption; /* positions; -1: not there */
} columns;

static bool is_word(const char *text, size_t n, const char *word) {
  return strlen(word) == n && !memcmp(text, word, n);
}

/* The cell at `from`; its end, at a tab or the line's end. */
static const char *cell_end(const char *from, const char *end) {
  while (from < end && *from != '\t') from++;
  return from;
}

static columns read_columns(const char *line, const char *end) {
  columns c = {-1, -1, -1};
  for (int k = 0; line <= end; k++) {
    const char *e = cell_end(line, end);
    size_t n = (size_t)(e - line);
    if (c.file < 0 && is_word(line, n, "file")) c.file = k;
    if (c.class < 0 && (is_word(line, n, "class") || is_word(line, n, "group") || is_word(line, n, "label")))
      c.class = k;
    if (c.caption < 0 && (is_word(line, n, "caption") || is_word(line, n, "name"))) c.caption = k;
    line = e + 1;
  }
  return c;
}

static char *find_file(folder *f, const char *name) {
  char *path = join(f->ctx, f->path, name);
  struct stat st;
  if (!path || stat(path, &st) == 0) return path;
  sl_free(f->ctx, path);
  char inside[32] = "images/";
  char *again = sl_alloc(f->ctx, strlen(name) + sizeof inside);
  if (!again) return NULL;
  snprintf(again, strlen(name) + sizeof inside, "%s%s", inside, name);
  path = join(f->ctx, f->path, again);
  sl_free(f->ctx, again);
  return path;
}

static sl_status read_row(folder *f, const char *index, int64_t number, const char *line, const char *end, columns c) {
  entry e = {0};
  bool ok = true;
  for (int k = 0; line <= end && ok; k++) {
    const char *to = cell_end(line, end);
    char *text = copy_text(f->ctx, line, (size_t)(to - line));
    ok = text != NULL;
    if (ok && k == c.file) {
      if (to > line) ok = (e.path = find_file(f, text)) != NULL;
      sl_free(f->ctx, text);
    } else if (ok && k == c.class) {
      e.class = text;
    } else if (ok && k == c.caption) {
      e.caption = text;
    } else {
      sl_free(f->ctx, text);
    }
    line = to + 1;
  }
  bool whole = e.path && (c.class < 0 || e.class);
  if (ok && whole) return add_entry(f, e);
  sl_free(f->ctx, e.path);
  sl_free(f->ctx, e.class);
  sl_free(f->ctx, e.caption);
  if (!ok) return SL_STATUS_OOM;
  return sl_fail(SL_STATUS_FORMAT, "%s: line %lld lacks its file or its class", index, (long long)number);
}

static sl_status read_index(folder *f, const char *index) {
  void *data;
  size_t size;
  SL_TRY(sl_file_read(f->ctx, index, &data, &size));
  const char *at = data, *end = at + size;
  columns c = {-1, -1, -1};
  sl_status status = SL_STATUS_OK;
  for (int64_t number = 1; at < end && status == SL_STATUS_OK; number++) {
    const char *line = at, *stop = memchr(at, '\n', (size_t)(end - at));
    at = stop ? stop + 1 : end;
    if (!stop) stop = end;
    if (stop > line && stop[-1] == '\r') stop--;
    if (number == 1) {
      c = read_columns(line, stop);
      if (c.file < 0) status = sl_fail(SL_STATUS_FORMAT, "%s: its first line names no column \"file\"", index);
    } else if (stop > line) {
      status = read_row(f, index, number, line, stop, c);
    }
  }
  sl_free(f->ctx, data);
  return status;
}

/* --- subfolders --- */

static bool is_picture(const char *name) {
  const char *dot = strrchr(name, '.');
  if (!dot || name[0] == '.') return false;
  char end[8] = {0};
  for (size_t i = 0; i < sizeof end - 1 && dot[i]; i++)
    end[i] = (char)(dot[i] | (dot[i] >= 'A' && dot[i] <= 'Z' ? 32 : 0));
  return !strcmp(end, ".png") || !strcmp(end, ".jpg") || !strcmp(end, ".jpeg");
}

/* Pictures of one folder and the folders below it; class: NULL or its name; inside: of a class. */
static sl_status list_pictures(folder *f, const char *path, const char *class, bool inside);

static sl_status list_one(folder *f, const char *path, const char *name, const char *class, bool inside) {
  char *whole = join(f->ctx, path, name);
  struct stat st;
  if (!whole) return SL_STATUS_OOM;
  sl_status status = SL_STATUS_OK;
  if (stat(whole, &st) == 0 && S_ISDIR(st.st_mode)) {
    if (name[0] != '.') status = list_pictures(f, whole, inside ? class : name, true);
  } else if (is_picture(name)) {
    entry e = {.path = whole, .class = class ? copy_text(f->ctx, class, strlen(class)) : NULL};
    if (!class || e.class) return add_entry(f, e);
    status = SL_STATUS_OOM;
  }
  sl_free(f->ctx, whole);
  return status;
}

static sl_status list_pictures(folder *f, const char *path, const char *class, bool inside) {
  DIR *dir = opendir(path);
  SL_REQUIRE(dir, IO, "%s: cannot open the folder: %s", path, strerror(errno));
  sl_status status = SL_STATUS_OK;
  for (struct dirent *d; status == SL_STATUS_OK && (d = readdir(dir));)
    if (strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0)
      status = list_one(f, path, d->d_name, class, inside);
  closedir(dir);
  return status;
}

static int by_path(const void *a, const void *b) { return strcmp(((const entry *)a)->path, ((const entry *)b)->path); }

static sl_status find_entries(folder *f, const char *index) {
  char *own = index ? NULL : join(f->ctx, f->path, "index.tsv");
  if (!index && !own) return SL_STATUS_OOM;
  struct stat st;
  sl_status status;
  if (index || stat(own, &st) == 0) {
    status = read_index(f, index ? index : own);
  } else {
    status = list_pictures(f, f->path, NULL, false);
    if (f->count > 1) qsort(f->entries, (size_t)f->count, sizeof *f->entries, by_path); /* folders list in any order */
  }
  sl_free(f->ctx, own);
  SL_TRY(status);
  SL_REQUIRE(f->count > 0, FORMAT, "%s: holds no .png, .jpg or .jpeg files", f->path);
  return SL_STATUS_OK;
}

/* --- the source --- */

static sl_status read_image(folder *f, int64_t i, sl_tensor **out) {
  sl_tensor *whole;
  SL_TRY(sl_picture_read(f->ctx, f->entries[i].path, f->channels, &whole));
  if (!f->size) {
    *out = whole;
    return SL_STATUS_OK;
  }
  sl_status status = sl_center_crop(whole, f->size, out);
  sl_tensor_release(whole);
  return status == SL_STATUS_OK ? status : sl_fail_context(status, "%s", f->entries[i].path);
}

static sl_status decode(sl_source *s, int64_t chunk, uint8_t *out) {
  folder *f = s->data;
  sl_tensor *t;
  SL_TRY(read_image(f, chunk, &t));
  const sl_shape *is = sl_tensor_shape(t);
  const int64_t c = s->shape.dim[0], h = s->shape.dim[1], w = s->shape.dim[2];
  sl_status status = SL_STATUS_OK;
  if (is->dim[0] != h || is->dim[1] != w) {
    status = sl_fail(SL_STATUS_SHAPE,
                     "%s: is %lld x %lld, the first image %lld x %lld; size = N (--size N) brings all to N x N",
                     f->entries[chunk].path, (long long)is->dim[1], (long long)is->dim[0], (long long)w, (long long)h);
  } else {
    const uint8_t *from = sl_tensor_data(t);
    for (int64_t k = 0; k < c; k++)
      for (int64_t i = 0; i < h * w; i++) *out++ = from[i * c + k];
  }
  sl_tensor_release(t);
  return status;
}

static void free_source(sl_source *s) { free_folder(s->data); }

static const sl_source_kind folder_kind = {"folder", decode, free_source};

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* Class names, sorted, and each image's number among them. */
static sl_status number_classes(sl_source *s, const folder *f) {
  if (!f->entries[0].class) return SL_STATUS_OK;
  char **all = sl_alloc(s->ctx, (size_t)f->count * sizeof *all);
  s->labels = sl_alloc(s->ctx, (size_t)f->count * sizeof *s->labels);
  s->names = sl_alloc_zero(s->ctx, (size_t)f->count * sizeof *s->names);
  if (!all || !s->labels || !s->names) {
    sl_free(s->ctx, all);
    return SL_STATUS_OOM;
  }
  for (int64_t i = 0; i < f->count; i++) all[i] = f->entries[i].class ? f->entries[i].class : f->entries[0].class;
  qsort(all, (size_t)f->count, sizeof *all, by_text);
  sl_status status = SL_STATUS_OK;
  for (int64_t i = 0; i < f->count && status == SL_STATUS_OK; i++) {
    if (i && !strcmp(all[i], all[i - 1])) continue;
    s->names[s->classes] = sl_strdup(s->ctx, all[i]);
    if (s->names[s->classes]) s->classes++;
    else status = SL_STATUS_OOM;
  }
  sl_free(s->ctx, all);
  for (int64_t i = 0; i < f->count && status == SL_STATUS_OK; i++) {
    char *key = f->entries[i].class ? f->entries[i].class : f->entries[0].class;
    char **at = bsearch(&key, s->names, (size_t)s->classes, sizeof *s->names, by_text);
    s->labels[i] = (int32_t)(at - s->names);
  }
  return status;
}

static sl_status copy_captions(sl_source *s, const folder *f) {
  for (int64_t i = 0; i < f->count; i++) {
    if (!f->entries[i].caption) continue;
    if (!s->captions) s->captions = sl_alloc_zero(s->ctx, (size_t)f->count * sizeof *s->captions);
    if (!s->captions || !(s->captions[i] = sl_strdup(s->ctx, f->entries[i].caption))) return SL_STATUS_OOM;
  }
  return SL_STATUS_OK;
}

/* Names and sizes of the files: what they hold is not read for it. */
static uint64_t digest_of(const folder *f) {
  XXH3_state_t state;
  XXH3_64bits_reset(&state);
  XXH3_64bits_update(&state, &f->size, sizeof f->size);
  XXH3_64bits_update(&state, &f->channels, sizeof f->channels);
  for (int64_t i = 0; i < f->count; i++) {
    struct stat st = {0};
    (void)!stat(f->entries[i].path, &st);
    int64_t size = st.st_size;
    const char *below = f->entries[i].path + strlen(f->path);
    XXH3_64bits_update(&state, below, strlen(below) + 1);
    XXH3_64bits_update(&state, &size, sizeof size);
    if (f->entries[i].class) XXH3_64bits_update(&state, f->entries[i].class, strlen(f->entries[i].class) + 1);
  }
  return XXH3_64bits_digest(&state);
}

/* The shape all images must have: size x size, or the first image's that can be read. */
static sl_status find_shape(sl_source *s, folder *f, bool skip) {
  s->shape = SL_SHAPE(f->channels, f->size, f->size);
  if (f->size) return SL_STATUS_OK;
  sl_tensor *t = NULL;
  sl_status status = read_image(f, 0, &t);
  for (int64_t i = 1; status != SL_STATUS_OK && skip && i < f->count; i++) status = read_image(f, i, &t);
  SL_TRY(status);
  s->shape = SL_SHAPE(f->channels, sl_tensor_shape(t)->dim[0], sl_tensor_shape(t)->dim[1]);
  sl_tensor_release(t);
  return SL_STATUS_OK;
}

static sl_status fill_source(sl_source *s, folder *f, bool skip) {
  SL_TRY(find_shape(s, f, skip));
  s->count = s->chunks = f->count;
  s->first = sl_alloc(s->ctx, (size_t)(f->count + 1) * sizeof *s->first);
  if (!s->first) return SL_STATUS_OOM;
  for (int64_t i = 0; i <= f->count; i++) s->first[i] = i;
  SL_TRY(number_classes(s, f));
  SL_TRY(copy_captions(s, f));
  s->digest = digest_of(f);
  return sl_source_ready(s);
}

sl_status sl_dataset_from_folder(sl_context *ctx, const char *path, const sl_folder_options *options,
                                 sl_dataset **out) {
  *out = NULL;
  const sl_folder_options none = {0}, *o = options ? options : &none;
  SL_REQUIRE(path, ARG, "data: path is NULL");
  int channels = o->channels ? o->channels : 3;
  SL_REQUIRE(channels == 1 || channels == 3, ARG, "data: channels is %d, expected 1 or 3", channels);
  SL_REQUIRE(o->size >= 0 && o->size <= 1 << 14, ARG, "data: size is %lld, expected 1 … %d", (long long)o->size,
             1 << 14);
  folder *f = sl_alloc_zero(ctx, sizeof *f);
  if (!f) return SL_STATUS_OOM;
  *f = (folder){.ctx = ctx, .size = o->size, .channels = channels, .path = sl_strdup(ctx, path)};
  sl_status status = f->path ? find_entries(f, o->index) : SL_STATUS_OOM;
  if (status != SL_STATUS_OK) {
    free_folder(f);
    return status;
  }
  sl_source *s;
  SL_TRY(sl_source_new(ctx, &folder_kind, f, &s));
  status = fill_source(s, f, o->skip);
  if (status == SL_STATUS_OK) return sl_dataset_from_source(s, o->skip, out);
  sl_source_release(s);
  return status;
}
