/* Checked files: whole-file and ranged reads, and writes that replace atomically. */
#ifndef SL_BASE_FILE_H
#define SL_BASE_FILE_H

#include "base/context.h"

/* Reads a whole file; *data is from sl_alloc with one NUL byte after the end. Errors: IO (text names path and reason),
 * OOM. */
SL_MUST_USE sl_status sl_file_read(sl_context *ctx, const char *path, void **data, size_t *size);
/* A read-only memory map. Free with sl_file_unmap. An empty file is mapped as size 0. */
typedef struct sl_file_map {
  const uint8_t *data;
  size_t size;
} sl_file_map;
SL_MUST_USE sl_status sl_file_map_open(const char *path, sl_file_map *out);
void sl_file_map_close(sl_file_map *map);

/* A file under construction: written beside `path` under a temporary name, moved over it by commit (after fsync of
 * file and folder). Until commit the old file stays whole; abort, or a failed write, leaves no trace. */
typedef struct sl_file_writer sl_file_writer;
SL_MUST_USE sl_status sl_file_writer_open(sl_context *ctx, const char *path, sl_file_writer **out);
SL_MUST_USE sl_status sl_file_write(sl_file_writer *w, const void *data, size_t size); /* IO: disk full and the like */
SL_MUST_USE sl_status sl_file_commit(sl_file_writer *w);                               /* frees w, also on failure */
void sl_file_abort(sl_file_writer *w);                                                 /* frees w; NULL is allowed */
SL_MUST_USE sl_status sl_make_dirs(const char *path);                                  /* like mkdir -p */

#endif
