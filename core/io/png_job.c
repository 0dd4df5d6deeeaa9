#include "io/png_job.h"

#include <string.h>

void sl__png_error(png_structp png, png_const_charp text) {
  sl_png_job *j = png_get_error_ptr(png);
  if (j->status == SL_STATUS_OK) {
    j->status = sl_fail(j->blame, "%s: %s: %s", j->path, j->w ? "cannot write the PNG" : "broken PNG", text);
  }
  png_longjmp(png, 1);
}

void sl__png_warning(png_structp png, png_const_charp text) {
  (void)png;
  (void)text;
}

void *sl__png_alloc(png_structp png, png_alloc_size_t size) {
  sl_png_job *j = png_get_mem_ptr(png);
  void *p = sl_alloc(j->ctx, size);
  if (!p && j->status == SL_STATUS_OK) j->status = SL_STATUS_OOM;
  return p;
}

void sl__png_free(png_structp png, void *p) { sl_free(((sl_png_job *)png_get_mem_ptr(png))->ctx, p); }

void sl__png_on_read(png_structp png, png_bytep to, size_t size) {
  sl_png_job *j = png_get_io_ptr(png);
  if (size > j->map.size - j->at) png_error(png, "the file ends too early");
  memcpy(to, j->map.data + j->at, size);
  j->at += size;
}

sl_status sl__png_reader(sl_png_job *j, png_structp *png, png_infop *info) {
  *png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, j, sl__png_error, sl__png_warning, j, sl__png_alloc,
                                  sl__png_free);
  *info = *png ? png_create_info_struct(*png) : NULL;
  if (*info) return SL_STATUS_OK;
  png_destroy_read_struct(png, NULL, NULL);
  return j->status != SL_STATUS_OK ? j->status : SL_STATUS_OOM;
}
