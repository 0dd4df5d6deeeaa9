/* Named tensors with metadata, as files hold them: safetensors, npz and npy. */
#ifndef SL_IO_TENSOR_FILE_H
#define SL_IO_TENSOR_FILE_H

#include "tensor/tensor.h"

/* An ordered list of (name, tensor) and an ordered list of (key, value) strings. Names and keys are unique UTF-8. */
typedef struct sl_tensor_file sl_tensor_file;

SL_MUST_USE sl_status sl_tensor_file_new(sl_context *ctx, sl_tensor_file **out);
void sl_tensor_file_free(sl_tensor_file *file); /* NULL is allowed */

/* Appends; the file retains the tensor. ARG: the name is taken or no UTF-8. */
SL_MUST_USE sl_status sl_tensor_file_add(sl_tensor_file *file, const char *name, sl_tensor *tensor);
int64_t sl_tensor_file_count(const sl_tensor_file *file);
const char *sl_tensor_file_name(const sl_tensor_file *file, int64_t index);
sl_tensor *sl_tensor_file_tensor(const sl_tensor_file *file, int64_t index);  /* borrowed */
sl_tensor *sl_tensor_file_find(const sl_tensor_file *file, const char *name); /* borrowed; NULL: not there */

/* Appends, or replaces the value of a known key. */
SL_MUST_USE sl_status sl_tensor_file_set_meta(sl_tensor_file *file, const char *key, const char *value);
int64_t sl_tensor_file_meta_count(const sl_tensor_file *file);
const char *sl_tensor_file_meta_key(const sl_tensor_file *file, int64_t index);
const char *sl_tensor_file_meta_value(const sl_tensor_file *file, int64_t index);
const char *sl_tensor_file_meta(const sl_tensor_file *file, const char *key); /* NULL: not there */

/* Reads a file of a kind recognised by its content; tensors are copies on the CPU in the file's dtypes.
 * safetensors: tensors in the header's order. npz (stored or deflated): names without ".npy", no metadata. npy: one
 * tensor, "arr_0". IO: it cannot be read; FORMAT: it is broken or of no known kind; UNSUPPORTED: it holds what tensors
 * here cannot be (u32, big-endian, more than 8 dimensions), or is a PyTorch checkpoint; OOM. */
SL_MUST_USE sl_status sl_tensor_file_load(sl_context *ctx, const char *path, sl_tensor_file **out);
/* Writes npz if the path ends in ".npz", else safetensors; the file appears whole or not at all. npz is stored, not
 * deflated, as numpy.savez does; a safetensors file with a metadata key "digest" gets there the XXH3-128 of itself
 * (taken with zeros in the digest's place), which is checked on load; UNSUPPORTED there: bf16, metadata, names that are
 * not ASCII. */
SL_MUST_USE sl_status sl_tensor_file_save(const char *path, const sl_tensor_file *file);

#endif
