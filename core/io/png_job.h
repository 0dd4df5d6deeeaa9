/* What the files on libpng share: its callbacks. libpng reports errors by longjmp, which never leaves these files. */
#ifndef SL_IO_PNG_JOB_H
#define SL_IO_PNG_JOB_H

#include <png.h>

#include "base/file.h"
#include "io/png.h"

typedef struct sl_png_job {
  sl_context *ctx;
  const char *path;
  sl_status status; /* of the first failure */
  sl_status blame;  /* for errors that libpng finds: FORMAT when reading, IO when writing */
  sl_file_writer *w;
  sl_file_map map;
  size_t at;
} sl_png_job;

void sl__png_error(png_structp png, png_const_charp text);
void sl__png_warning(png_structp png, png_const_charp text);
void *sl__png_alloc(png_structp png, png_alloc_size_t size);
void sl__png_free(png_structp png, void *p);
void sl__png_on_read(png_structp png, png_bytep to, size_t size); /* from the job's map */
/* For reading with the callbacks above; png_destroy_read_struct frees both. */
SL_MUST_USE sl_status sl__png_reader(sl_png_job *j, png_structp *png, png_infop *info);

/* --- png_text.c --- */

SL_MUST_USE sl_status sl__png_check_text(int n, const sl_png_text *text);
void sl__png_put_text(png_structp png, png_infop info, int n, const sl_png_text *text); /* may longjmp */

#endif
