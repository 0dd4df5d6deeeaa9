#include "io/jpeg.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>
/* libjpeg wants size_t and FILE first */
#include <jpeglib.h>

#include "base/file.h"

/* libjpeg reports errors by calling error_exit, which may not return. */
typedef struct job {
  struct jpeg_error_mgr manager;
  jmp_buf back;
  const char *path;
  sl_status status;
} job;

static void on_error(j_common_ptr c) {
  job *j = (job *)c->err;
  char text[JMSG_LENGTH_MAX];
  c->err->format_message(c, text);
  if (j->status == SL_STATUS_OK) j->status = sl_fail(SL_STATUS_FORMAT, "%s: broken JPEG: %s", j->path, text);
  longjmp(j->back, 1);
}

/* level -1: data that had to be guessed; above: news. */
static void on_message(j_common_ptr c, int level) {
  if (level < 0) on_error(c);
}

static void read_header(struct jpeg_decompress_struct *d, job *j, const sl_file_map *map) {
  jpeg_mem_src(d, map->data, (unsigned long)map->size);
  jpeg_read_header(d, TRUE);
  if (d->jpeg_color_space == JCS_CMYK || d->jpeg_color_space == JCS_YCCK) {
    j->status = sl_fail(SL_STATUS_UNSUPPORTED, "%s: is a CMYK JPEG, expected grey or RGB", j->path);
    longjmp(j->back, 1);
  }
  d->out_color_space = d->jpeg_color_space == JCS_GRAYSCALE ? JCS_GRAYSCALE : JCS_RGB;
}

/* A JPEG's blocks of 8 x 8 take at least a bit or so each: refuses absurd sizes before memory is taken. */
static void check_size(struct jpeg_decompress_struct *d, job *j, size_t size) {
  uint64_t blocks = ((uint64_t)d->image_width + 7) / 8 * (((uint64_t)d->image_height + 7) / 8);
  if (blocks / 32 <= size) return;
  j->status = sl_fail(SL_STATUS_FORMAT, "%s: broken JPEG: %u x %u in %zu bytes", j->path, d->image_width,
                      d->image_height, size);
  longjmp(j->back, 1);
}

static sl_status decode(sl_context *ctx, const char *path, const sl_file_map *map, sl_tensor **out) {
  job j = {.path = path};
  struct jpeg_decompress_struct d = {0};
  d.err = jpeg_std_error(&j.manager);
  j.manager.error_exit = on_error;
  j.manager.emit_message = on_message;
  if (setjmp(j.back) == 0) { /* *out is memory, not a register: it survives */
    jpeg_create_decompress(&d);
    read_header(&d, &j, map);
    check_size(&d, &j, map->size);
    jpeg_start_decompress(&d);
    j.status = sl_tensor_new(ctx, NULL, SL_U8, &SL_SHAPE(d.output_height, d.output_width, d.output_components), out);
    while (j.status == SL_STATUS_OK && d.output_scanline < d.output_height) {
      JSAMPROW row =
          (JSAMPROW)sl_tensor_data(*out) + (size_t)d.output_scanline * d.output_width * (size_t)d.output_components;
      jpeg_read_scanlines(&d, &row, 1);
    }
    if (j.status == SL_STATUS_OK) jpeg_finish_decompress(&d);
  }
  jpeg_destroy_decompress(&d);
  return j.status;
}

sl_status sl_jpeg_read(sl_context *ctx, const char *path, sl_tensor **out) {
  *out = NULL;
  sl_file_map map;
  SL_TRY(sl_file_map_open(path, &map));
  sl_tensor *t = NULL;
  sl_status status;
  if (map.size >= 3 && memcmp(map.data, "\xff\xd8\xff", 3) == 0) status = decode(ctx, path, &map, &t);
  else status = sl_fail(SL_STATUS_FORMAT, "%s: is no JPEG", path);
  sl_file_map_close(&map);
  if (status == SL_STATUS_OK) *out = t;
  else sl_tensor_release(t);
  return status;
}
