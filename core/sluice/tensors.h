/* Devices and tensors. A tensor is reference-counted storage (bytes on a device) seen through a shape, strides and an
 * offset. Shapes never change; a reshape or a part is a new view of the same storage. */
#ifndef SLUICE_TENSORS_H
#define SLUICE_TENSORS_H

#include "sluice/contexts.h"
#include "sluice/dtypes.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sl_device sl_device; /* belongs to its context, closed with it */
typedef struct sl_tensor sl_tensor;

/* "cpu", "cuda" (the first), "cuda:1"; "auto" is sl_device_default's. Opened at first use, once for a context, and
 * closed with it. DEVICE error names what there is. */
SL_MUST_USE sl_status sl_device_find(sl_context *ctx, const char *name, const sl_device **out);
/* The device of models that name none: SLUICE_DEVICE in the environment, else the first GPU, else the CPU. A GPU build
 * without a GPU says so in the context's log, once. */
SL_MUST_USE sl_status sl_device_default(sl_context *ctx, const sl_device **out);
/* Name i, from 0, of the devices of this build and machine; NULL past the end. Nothing is opened. */
const char *sl_device_name(int i);

/* New, uninitialised, contiguous; device NULL: the CPU. The caller owns one reference. SHAPE, OOM. */
SL_MUST_USE sl_status sl_tensor_new(sl_context *ctx, const sl_device *dev, sl_dtype dtype, const sl_shape *shape,
                                    sl_tensor **out);
/* The same with zeros in it. */
SL_MUST_USE sl_status sl_tensor_zeros(sl_context *ctx, const sl_device *dev, sl_dtype dtype, const sl_shape *shape,
                                      sl_tensor **out);
/* Copies row-major host data in; on the CPU. The caller owns one reference. SHAPE, OOM. */
SL_MUST_USE sl_status sl_tensor_from(sl_context *ctx, sl_dtype dtype, int rank, const int64_t *dim, const void *data,
                                     sl_tensor **out);
/* Sees host memory that is someone else's, aligned for the dtype; `release(user)` is called when the last view goes
 * (NULL: nothing to do), not when this function fails. ARG, SHAPE, DTYPE, OOM. */
SL_MUST_USE sl_status sl_tensor_wrap(sl_context *ctx, sl_dtype dtype, const sl_shape *shape, void *data,
                                     void (*release)(void *user), void *user, sl_tensor **out);
/* One reference more; returns t. */
sl_tensor *sl_tensor_retain(sl_tensor *t);
/* One reference less. NULL is allowed. */
void sl_tensor_release(sl_tensor *t);

sl_context *sl_tensor_context(const sl_tensor *t);
const sl_device *sl_tensor_device(const sl_tensor *t);
sl_dtype sl_tensor_dtype(const sl_tensor *t);
/* Lives with the tensor. */
const sl_shape *sl_tensor_shape(const sl_tensor *t);
/* In elements; 0 along broadcast dimensions. */
const int64_t *sl_tensor_strides(const sl_tensor *t);
int64_t sl_tensor_numel(const sl_tensor *t);
bool sl_tensor_is_contiguous(const sl_tensor *t);
/* The first element; device memory for devices. */
void *sl_tensor_data(const sl_tensor *t);
/* To be called after writing to the data of weights: copies that depend on them are made anew. */
void sl_tensor_bump(sl_tensor *t);
/* The element at a flat row-major index as a number; NaN outside of the tensor, and for one that lies on a GPU. */
double sl_tensor_at(const sl_tensor *t, int64_t index);

/* Views of the same storage; the caller owns one reference to *out. Dimensions count from 0. SHAPE. */
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

#ifdef __cplusplus
}
#endif

#endif
