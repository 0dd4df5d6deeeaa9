/* Text chunks of PNG files. */
#include <setjmp.h>
#include <string.h>

#include "base/buffer.h"
#include "io/formats.h"
#include "io/png_job.h"

enum { MAX_KEY = 79, MAX_VALUE = 4 << 20 }; /* the format's; below what libpng reads back */

/* --- writing --- */

static bool is_ascii(const char *s, char least) {
  for (; *s; s++)
    if ((unsigned char)*s >= 127 || *s < least) return false;
  return true;
}

static bool is_key(const char *key) {
  size_t n = strlen(key);
  return n >= 1 && n <= MAX_KEY && is_ascii(key, ' ') && key[0] != ' ' && key[n - 1] != ' ' && !strstr(key, "  ");
}

sl_status sl__png_check_text(int n, const sl_png_text *text) {
  SL_REQUIRE(n >= 0, ARG, "save_png: n_text is %d, expected 0 or more", n);
  SL_REQUIRE(n == 0 || text, ARG, "save_png: n_text is %d, but text is NULL", n);
  for (int i = 0; i < n; i++) {
    SL_REQUIRE(text[i].key && text[i].value, ARG, "save_png: text: chunk %d has a NULL in it", i + 1);
    SL_REQUIRE(is_key(text[i].key), ARG,
               "save_png: text: the key \"%.100s\": expected 1 to %d letters of ASCII, without spaces at its ends",
               text[i].key, MAX_KEY);
    SL_REQUIRE(sl_text_is_utf8(text[i].value), ARG, "save_png: text: %s is not UTF-8", text[i].key);
    SL_REQUIRE(strlen(text[i].value) <= MAX_VALUE, ARG, "save_png: text: %s has %zu bytes, expected at most %d",
               text[i].key, strlen(text[i].value), MAX_VALUE);
  }
  return SL_STATUS_OK;
}

void sl__png_put_text(png_structp png, png_infop info, int n, const sl_png_text *text) {
  for (int i = 0; i < n; i++) {
    /* libpng only reads them */
    png_text t = {.key = (png_charp)(uintptr_t)text[i].key, .text = (png_charp)(uintptr_t)text[i].value};
    t.compression = is_ascii(text[i].value, '\t') ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE;
    png_set_text(png, info, &t, 1);
  }
}

/* --- reading --- */

static sl_status add_utf8(sl_buffer *b, const png_text *t) {
  bool utf8 = t->compression >= PNG_ITXT_COMPRESSION_NONE;
  size_t n = utf8 ? t->itxt_length : t->text_length;
  for (size_t i = 0; i < n && t->text[i]; i++) { /* what was compressed may hold zeros: it ends at the first */
    unsigned char c = (unsigned char)t->text[i];
    char two[] = {(char)(0xC0 | c >> 6), (char)(0x80 | (c & 0x3F))};
    bool one = utf8 || c < 0x80;
    SL_TRY(sl_buffer_add(b, one ? &t->text[i] : two, one ? 1 : 2));
  }
  return sl_buffer_add(b, "", 1);
}

/* One block: the items, then the strings that they point to. */
static sl_status pack(sl_context *ctx, const png_text *text, int n, sl_png_text **items) {
  sl_buffer b = {.ctx = ctx};
  sl_status status = SL_STATUS_OK;
  for (int i = 0; i < n && status == SL_STATUS_OK; i++) {
    status = sl_buffer_add(&b, text[i].key, strlen(text[i].key) + 1);
    if (status == SL_STATUS_OK) status = add_utf8(&b, &text[i]);
  }
  if (status == SL_STATUS_OK) {
    *items = sl_alloc(ctx, (size_t)n * sizeof **items + b.size);
    if (!*items) status = SL_STATUS_OOM;
  }
  if (status == SL_STATUS_OK) {
    char *at = (char *)(*items + n);
    memcpy(at, b.data, b.size);
    for (int i = 0; i < n; i++) {
      (*items)[i].key = at, at += strlen(at) + 1;
      (*items)[i].value = at, at += strlen(at) + 1;
    }
  }
  sl_free(ctx, b.data);
  return status;
}

static sl_status read_text(sl_png_job *j, sl_png_text **items, int *n) {
  png_structp png;
  png_infop info;
  SL_TRY(sl__png_reader(j, &png, &info));
  if (setjmp(png_jmpbuf(png)) == 0) {
    png_textp text = NULL;
    png_set_read_fn(png, j, sl__png_on_read);
    png_read_info(png, info);
    png_set_benign_errors(png, 1); /* pixels that nobody asked for are "too much image data" */
    png_read_update_info(png, info);
    png_read_end(png, info); /* passes over the pixels, to what stands after them */
    *n = png_get_text(png, info, &text, NULL);
    j->status = *n > 0 ? pack(j->ctx, text, *n, items) : SL_STATUS_OK;
  }
  png_destroy_read_struct(&png, &info, NULL);
  return j->status;
}

sl_status sl_png_read_text(sl_context *ctx, const char *path, sl_png_text **items, int *n) {
  *items = NULL;
  *n = 0;
  sl_png_job j = {.ctx = ctx, .path = path, .blame = SL_STATUS_FORMAT};
  SL_TRY(sl_file_map_open(path, &j.map));
  bool png = j.map.size >= 8 && png_sig_cmp(j.map.data, 0, 8) == 0;
  sl_status status = png ? read_text(&j, items, n) : sl_fail(SL_STATUS_FORMAT, "%s: is no PNG", path);
  sl_file_map_close(&j.map);
  return status;
}
