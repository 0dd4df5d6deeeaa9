/* Tensors: reference-counted storage (bytes on a device) seen through a shape, strides and an offset.
 * Shapes never change; a reshape or a slice is a new view of the same storage. */
#ifndef SL_TENSOR_TENSOR_H
#define SL_TENSOR_TENSOR_H

#include "sluice/tensors.h"
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

bool sl_tensor_shared(const sl_tensor *t); /* whether others hold it, or views of its storage, too */

sl_view sl_tensor_view(const sl_tensor *t); /* borrowed */
uint64_t sl_tensor_storage_bytes(const sl_tensor *t);
/* A data version for copies that depend on this storage (packed weights): bump after writing. */
uint64_t sl_tensor_version(const sl_tensor *t);

/* A bf16 copy of a flat f32 tensor, kept with its storage: made at first use (uninitialised), freed with it. *fresh: it
 * holds what the tensor holds now, by version. Borrowed. */
SL_MUST_USE sl_status sl_tensor_shadow(sl_tensor *t, sl_tensor **shadow, bool *fresh);
bool sl_tensor_has_shadow(const sl_tensor *t);
void sl_tensor_shadow_fresh(sl_tensor *t); /* says that it holds what the tensor holds now: after bumping */

/* Views of the same storage; +1 reference to the caller. Dimensions from 0; offset counts from t's first element;
 * stride NULL: row-major. SHAPE if the view would leave the storage. */
SL_MUST_USE sl_status sl_tensor_view_as(sl_tensor *t, const sl_shape *shape, const int64_t *stride, int64_t offset,
                                        sl_tensor **out);

/* Conversion of single elements in memory. */
double sl_element_get(sl_dtype d, const void *p);
void sl_element_set(sl_dtype d, void *p, double v);
/* Strided copy with conversion between host views of equal shape; the kernel behind sl_tensor_copy and `contiguous`. */
void sl_view_copy(sl_context *ctx, const sl_view *dst, const sl_view *src);
/* The part of v from `first` on along dim, `length` long, every step-th. */
sl_view sl_view_part(const sl_view *v, int64_t dim, int64_t first, int64_t length, int64_t step);

#endif
