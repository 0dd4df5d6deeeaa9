/* Readers and writers behind tensor_file.h; only core/io includes this. Readers append to `file`. */
#ifndef SL_IO_FORMATS_H
#define SL_IO_FORMATS_H

#include "base/file.h"
#include "io/tensor_file.h"

sl_context *sl_tensor_file_context(const sl_tensor_file *file);
bool sl_text_is_utf8(const char *text);

sl_status sl_safetensors_read(const char *path, const uint8_t *data, size_t size, sl_tensor_file *file);
sl_status sl_safetensors_write(sl_file_writer *w, const char *path, const sl_tensor_file *file);
sl_status sl_npz_read(const char *path, const uint8_t *data, size_t size, sl_tensor_file *file);
sl_status sl_npz_write(sl_file_writer *w, const char *path, const sl_tensor_file *file);

/* Where an array's bytes come from. */
typedef struct sl_npy_source {
  void *user;
  const char *path, *name; /* for messages */
  uint64_t limit;          /* no more bytes than these can follow: refuses absurd shapes before memory is taken */
  /* *got < size only at the end. FORMAT: the bytes are broken. */
  sl_status (*read)(struct sl_npy_source *, void *to, size_t size, size_t *got);
} sl_npy_source;

/* One array in numpy's format, to the source's end; +1 reference to the caller. */
sl_status sl_npy_read(sl_context *ctx, sl_npy_source *source, sl_tensor **out);
sl_status sl_npy_read_memory(const char *path, const uint8_t *data, size_t size, sl_tensor_file *file);
enum { SL_NPY_HEADER = 512 };
/* The header of a contiguous tensor in `to` (SL_NPY_HEADER bytes); its length, or 0 if numpy has no such dtype. */
size_t sl_npy_header(const sl_tensor *t, char *to);

#endif
