/* Tensors: reference-counted storage (bytes on a device) seen through a shape, strides and an offset.
 * Shapes never change; a reshape or a slice is a new view of the same storage. */
#ifndef SL_TENSOR_TENSOR_H
#define SL_TENSOR_TENSOR_H

#include "tensor/device.h"
#include "tensor/shape.h"

/* What a kernel sees: borrowed memory. Strides in elements; 0 along broadcast dimensions. */
typedef struct sl_view {
  void *data; /* first element */
  sl_dtype dtype;
  bool accumulate; /* outputs only: add into what is there (gradient buffers) */
  sl_shape shape;
  int64_t stride[SL_MAX_RANK];
} sl_view;

typedef struct sl_tensor sl_tensor;

/* New, uninitialised, contiguous; device NULL: the CPU. The caller owns one reference. SHAPE, OOM. */
SL_MUST_USE sl_status sl_tensor_new(sl_context *ctx, const sl_device *dev, sl_dtype dtype, const sl_shape *shape,
                                    sl_tensor **out);
SL_MUST_USE sl_status sl_tensor_zeros(sl_context *ctx, const sl_device *dev, sl_dtype dtype, const sl_shape *shape,
                                      sl_tensor **out);
/* Copies row-major host data in; on the CPU. */
SL_MUST_USE sl_status sl_tensor_from(sl_context *ctx, sl_dtype dtype, int rank, const int64_t *dim, const void *data,
                                     sl_tensor **out);
/* Sees host memory that is someone else's; `release(user)` is called when the last view goes (NULL: nothing to do). */
SL_MUST_USE sl_status sl_tensor_wrap(sl_context *ctx, sl_dtype dtype, const sl_shape *shape, void *data,
                                     void (*release)(void *user), void *user, sl_tensor **out);
sl_tensor *sl_tensor_retain(sl_tensor *t);
void sl_tensor_release(sl_tensor *t);      /* NULL is allowed */
bool sl_tensor_shared(const sl_tensor *t); /* whether others hold it, or views of its storage, too */

sl_context *sl_tensor_context(const sl_tensor *t);
const sl_device *sl_tensor_device(const sl_tensor *t);
sl_dtype sl_tensor_dtype(const sl_tensor *t);
const sl_shape *sl_tensor_shape(const sl_tensor *t);
const int64_t *sl_tensor_strides(const sl_tensor *t); /* in elements */
int64_t sl_tensor_numel(const sl_tensor *t);
bool sl_tensor_is_contiguous(const sl_tensor *t);
void *sl_tensor_data(const sl_tensor *t);   /* first element; device memory for devices */
sl_view sl_tensor_view(const sl_tensor *t); /* borrowed */
uint64_t sl_tensor_storage_bytes(const sl_tensor *t);
/* A data version for copies that depend on this storage (packed weights): bump after writing. */
uint64_t sl_tensor_version(const sl_tensor *t);
void sl_tensor_bump(sl_tensor *t);

/* A bf16 copy of a flat f32 tensor, kept with its storage: made at first use (uninitialised), freed with it. *fresh: it
 * holds what the tensor holds now, by version. Borrowed. */
SL_MUST_USE sl_status sl_tensor_shadow(sl_tensor *t, sl_tensor **shadow, bool *fresh);
bool sl_tensor_has_shadow(const sl_tensor *t);
void sl_tensor_shadow_fresh(sl_tensor *t); /* says that it holds what the tensor holds now: after bumping */

/* Views of the same storage; +1 reference to the caller. Dimensions from 0; offset counts from t's first element;
 * stride NULL: row-major. SHAPE if the view would leave the storage. */
SL_MUST_USE sl_status sl_tensor_view_as(sl_tensor *t, const sl_shape *shape, const int64_t *stride, int64_t offset,
                                        sl_tensor **out);
SL_MUST_USE sl_status sl_tensor_select(sl_tensor *t, int dim, int64_t index, sl_tensor **out); /* drops dim */
SL_MUST_USE sl_status sl_tensor_narrow(sl_tensor *t, int dim, int64_t first, int64_t length, sl_tensor **out);
/* A view, or a copy if it must be. */
SL_MUST_USE sl_status sl_tensor_reshape(sl_tensor *t, const sl_shape *shape, sl_tensor **out);

/* Copies; dtypes are converted (float to int truncates towards zero, u8 saturates at 0 and 255). Shapes equal, or src
 * 0-d. */
SL_MUST_USE sl_status sl_tensor_copy(sl_tensor *dst, const sl_tensor *src);
/* A contiguous copy; dev NULL: where t is. */
SL_MUST_USE sl_status sl_tensor_to(const sl_tensor *t, sl_dtype dtype, const sl_device *dev, sl_tensor **out);
/* t itself if it lies on the CPU, else a copy there; +1 reference to the caller. */
SL_MUST_USE sl_status sl_tensor_on_host(sl_tensor *t, sl_tensor **out);
/* Element at flat row-major index as a number; CPU tensors only. */
double sl_tensor_at(const sl_tensor *t, int64_t index);
/* Conversion of single elements in memory. */
double sl_element_get(sl_dtype d, const void *p);
void sl_element_set(sl_dtype d, void *p, double v);
/* Strided copy with conversion between host views of equal shape; the kernel behind sl_tensor_copy and `contiguous`. */
void sl_view_copy(sl_context *ctx, const sl_view *dst, const sl_view *src);
/* The part of v from `first` on along dim, `length` long, every step-th. */
sl_view sl_view_part(const sl_view *v, int64_t dim, int64_t first, int64_t length, int64_t step);

#endif
