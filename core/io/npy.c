/* numpy's array format (numpy.lib.format), versions 1 to 3: magic, version, header length, a Python dictionary of
 * descr, fortran_order and shape, then the data. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "io/formats.h"

enum { MAX_HEADER = 1 << 16 };

static const struct {
  const char *descr;
  sl_dtype dtype;
} descrs[] = {{"f4", SL_F32}, {"f2", SL_F16}, {"f8", SL_F64}, {"i1", SL_I8},  {"i2", SL_I16},
              {"i4", SL_I32}, {"i8", SL_I64}, {"u1", SL_U8},  {"b1", SL_BOOL}};

#define BROKEN(cond, ...) SL_REQUIRE(cond, FORMAT, __VA_ARGS__) /* the caller adds the path */

/* --- the header: a Python literal --- */

typedef struct header {
  sl_dtype dtype;
  bool fortran;
  sl_shape shape;
} header;

static void skip_spaces(const char **p) {
  while (**p == ' ' || **p == '\t' || **p == '\n' || **p == '\r') ++*p;
}

static bool take(const char **p, char c) {
  skip_spaces(p);
  if (**p != c) return false;
  ++*p;
  return true;
}

static bool take_word(const char **p, const char *word) {
  skip_spaces(p);
  size_t n = strlen(word);
  if (strncmp(*p, word, n) != 0) return false;
  *p += n;
  return true;
}

/* A quoted string without escapes. */
static bool take_string(const char **p, char *to, size_t room) {
  skip_spaces(p);
  char quote = **p;
  if (quote != '\'' && quote != '"') return false;
  size_t n = 0;
  for (++*p; **p != quote; ++*p) {
    if (!**p || **p == '\\' || n + 1 >= room) return false;
    to[n++] = **p;
  }
  to[n] = 0;
  ++*p;
  return true;
}

static sl_status take_descr(const char **p, sl_dtype *out) {
  char text[32];
  skip_spaces(p);
  SL_REQUIRE(**p != '[', UNSUPPORTED, "is a structured array, expected one of plain numbers");
  BROKEN(take_string(p, text, sizeof text), "descr is no string");
  const char *type = text + (strchr("<>=|", text[0]) && text[0]);
  SL_REQUIRE(text[0] != '>' || strcmp(type + 1, "1") == 0, UNSUPPORTED, "is big-endian (%s), not supported", text);
  for (size_t i = 0; i < sizeof descrs / sizeof *descrs; i++) {
    *out = descrs[i].dtype;
    if (strcmp(type, descrs[i].descr) == 0) return SL_STATUS_OK;
  }
  return sl_fail(SL_STATUS_UNSUPPORTED, "has dtype \"%s\", supported are f2 f4 f8 i1 i2 i4 i8 u1 b1, little-endian",
                 text);
}

static sl_status take_shape(const char **p, sl_shape *out) {
  *out = (sl_shape){0};
  BROKEN(take(p, '('), "shape is no tuple");
  while (!take(p, ')')) {
    int64_t v = 0;
    BROKEN(**p >= '0' && **p <= '9', "dimension %d is no count", out->rank);
    for (; **p >= '0' && **p <= '9'; ++*p) {
      BROKEN(v < INT64_MAX / 10, "dimension %d is too large", out->rank);
      v = v * 10 + (**p - '0');
    }
    if (**p == 'L') ++*p; /* Python 2 */
    SL_REQUIRE(out->rank < SL_MAX_RANK, UNSUPPORTED, "has more than %d dimensions, not supported", SL_MAX_RANK);
    out->dim[out->rank++] = v;
    skip_spaces(p);
    BROKEN(take(p, ',') || **p == ')', "the shape does not end");
  }
  return SL_STATUS_OK;
}

static sl_status parse_header(const char *p, header *h) {
  bool descr = false, order = false, shape = false;
  BROKEN(take(&p, '{'), "the header is no dictionary");
  while (!take(&p, '}')) {
    char key[32];
    BROKEN(take_string(&p, key, sizeof key) && take(&p, ':'), "the header is no dictionary");
    if (strcmp(key, "descr") == 0 && !descr) {
      descr = true;
      SL_TRY(take_descr(&p, &h->dtype));
    } else if (strcmp(key, "fortran_order") == 0 && !order) {
      order = true;
      h->fortran = take_word(&p, "True");
      BROKEN(h->fortran || take_word(&p, "False"), "fortran_order is neither True nor False");
    } else if (strcmp(key, "shape") == 0 && !shape) {
      shape = true;
      SL_TRY(take_shape(&p, &h->shape));
    } else {
      BROKEN(false, "key \"%s\" in the header", key);
    }
    skip_spaces(&p);
    BROKEN(take(&p, ',') || *p == '}', "the header does not end");
  }
  skip_spaces(&p);
  BROKEN(*p == 0, "the header goes on behind its dictionary");
  BROKEN(descr && order && shape, "the header lacks %s", !descr ? "descr" : !order ? "fortran_order" : "shape");
  sl_status status = sl_shape_check(&h->shape, sl_dtype_size(h->dtype), "shape");
  return status == SL_STATUS_OK ? status : SL_STATUS_FORMAT;
}

/* --- reading --- */

static sl_status read_exactly(sl_npy_source *s, void *to, size_t size, const char *what) {
  size_t got = 0;
  SL_TRY(s->read(s, to, size, &got));
  BROKEN(got == size, "%s ends after %zu of %zu bytes (is the file truncated?)", what, got, size);
  return SL_STATUS_OK;
}

static sl_status read_header(sl_context *ctx, sl_npy_source *s, header *h) {
  uint8_t start[12];
  SL_TRY(read_exactly(s, start, 10, "the header"));
  BROKEN(memcmp(start, "\x93NUMPY", 6) == 0, "its first bytes are not numpy's");
  SL_REQUIRE(start[6] >= 1 && start[6] <= 3, UNSUPPORTED, "is npy version %d.%d, supported are 1 to 3", start[6],
             start[7]);
  uint32_t size = start[8] | (uint32_t)start[9] << 8;
  if (start[6] > 1) {
    SL_TRY(read_exactly(s, start + 10, 2, "the header"));
    size |= (uint32_t)start[10] << 16 | (uint32_t)start[11] << 24;
  }
  BROKEN(size <= MAX_HEADER, "the header has %u bytes, more than %d", size, MAX_HEADER);
  char *text = sl_alloc(ctx, (size_t)size + 1);
  if (!text) return SL_STATUS_OOM;
  sl_status status = read_exactly(s, text, size, "the header");
  text[size] = 0;
  if (status == SL_STATUS_OK) status = parse_header(text, h);
  sl_free(ctx, text);
  return status;
}

static sl_status read_data(sl_npy_source *s, sl_tensor *t) {
  SL_TRY(
      read_exactly(s, sl_tensor_data(t), (size_t)sl_tensor_numel(t) * sl_dtype_size(sl_tensor_dtype(t)), "the data"));
  char extra;
  size_t got = 0;
  SL_TRY(s->read(s, &extra, 1, &got)); /* a zip entry's checksum is checked at its end */
  BROKEN(got == 0, "bytes behind the data");
  return SL_STATUS_OK;
}

/* t holds the array with its dimensions reversed. */
static sl_status from_fortran(sl_tensor *t, const sl_shape *shape, sl_tensor **out) {
  int64_t stride[SL_MAX_RANK], step = 1;
  for (int d = 0; d < shape->rank; step *= shape->dim[d++]) stride[d] = step;
  sl_tensor *view;
  SL_TRY(sl_tensor_view_as(t, shape, stride, 0, &view));
  sl_status status = sl_tensor_to(view, sl_tensor_dtype(t), NULL, out);
  sl_tensor_release(view);
  return status;
}

static sl_status read_array(sl_context *ctx, sl_npy_source *source, sl_tensor **out) {
  header h = {0};
  SL_TRY(read_header(ctx, source, &h));
  uint64_t bytes = (uint64_t)sl_shape_numel(&h.shape) * sl_dtype_size(h.dtype);
  BROKEN(bytes <= source->limit, "%s %s has %" PRIu64 " bytes, the file can hold %" PRIu64 " (truncated?)",
         sl_dtype_name(h.dtype), sl_shape_text(&h.shape), bytes, source->limit);
  bool turn = h.fortran && h.shape.rank > 1;
  sl_shape shape = h.shape;
  for (int d = 0; turn && d < shape.rank; d++) shape.dim[d] = h.shape.dim[shape.rank - 1 - d];
  sl_tensor *t;
  SL_TRY(sl_tensor_new(ctx, NULL, h.dtype, &shape, &t));
  sl_status status = read_data(source, t);
  if (status == SL_STATUS_OK && !turn) {
    *out = t;
    return status;
  }
  if (status == SL_STATUS_OK) status = from_fortran(t, &h.shape, out);
  sl_tensor_release(t);
  return status;
}

sl_status sl_npy_read(sl_context *ctx, sl_npy_source *source, sl_tensor **out) {
  *out = NULL;
  sl_status status = read_array(ctx, source, out);
  if (status == SL_STATUS_OK) return status;
  const char *fmt = status == SL_STATUS_FORMAT ? "%s: %.100s: broken npy" : "%s: %.100s";
  return sl_fail_context(status, fmt, source->path, source->name);
}

typedef struct memory {
  const uint8_t *data;
  size_t left;
} memory;

static sl_status read_memory(sl_npy_source *s, void *to, size_t size, size_t *got) {
  memory *m = s->user;
  *got = size < m->left ? size : m->left;
  if (*got) memcpy(to, m->data, *got);
  m->data += *got;
  m->left -= *got;
  return SL_STATUS_OK;
}

sl_status sl_npy_read_memory(const char *path, const uint8_t *data, size_t size, sl_tensor_file *file) {
  memory m = {data, size};
  sl_npy_source source = {.user = &m, .path = path, .name = "array", .limit = size, .read = read_memory};
  sl_tensor *t;
  SL_TRY(sl_npy_read(sl_tensor_file_context(file), &source, &t));
  sl_status status = sl_tensor_file_add(file, "arr_0", t);
  sl_tensor_release(t);
  return status;
}

/* --- writing --- */

size_t sl_npy_header(const sl_tensor *t, char *to) {
  const char *descr = NULL;
  for (size_t i = 0; i < sizeof descrs / sizeof *descrs; i++) {
    if (descrs[i].dtype == sl_tensor_dtype(t)) descr = descrs[i].descr;
  }
  if (!descr) return 0;
  const sl_shape *s = sl_tensor_shape(t);
  char order = sl_dtype_size(sl_tensor_dtype(t)) == 1 ? '|' : '<';
  memcpy(to, "\x93NUMPY\1\0", 8);
  size_t n = 10;
  n +=
      (size_t)snprintf(to + n, SL_NPY_HEADER - n, "{'descr': '%c%s', 'fortran_order': False, 'shape': (", order, descr);
  for (int d = 0; d < s->rank; d++) {
    const char *behind = s->rank == 1 ? "," : d + 1 < s->rank ? ", " : "";
    n += (size_t)snprintf(to + n, SL_NPY_HEADER - n, "%" PRId64 "%s", s->dim[d], behind);
  }
  n += (size_t)snprintf(to + n, SL_NPY_HEADER - n, "), }");
  while ((n + 1) % 64) to[n++] = ' '; /* the data begin at a multiple of 64 bytes */
  to[n++] = '\n';
  to[8] = (char)((n - 10) & 255);
  to[9] = (char)((n - 10) >> 8);
  return n;
}
