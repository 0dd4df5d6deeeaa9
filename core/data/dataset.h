/* Data sets in memory: images, with labels or without. */
#ifndef SL_DATA_DATASET_H
#define SL_DATA_DATASET_H

#include "tensor/tensor.h"

typedef struct sl_dataset sl_dataset; /* reference-counted */

/* images: u8 [N,C,H,W] or [N,H,W] (C = 1), or floats [N,C,H,W] in [-1, 1]; any strides. labels: integers [N], at least
 * 0; NULL: none. Retains the images (CPU u8 and f32; else a copy), copies the labels; the caller owns one reference to
 * *out. SHAPE, DTYPE, ARG. */
SL_MUST_USE sl_status sl_dataset_from_tensors(sl_tensor *images, const sl_tensor *labels, sl_dataset **out);
/* A file that sl_tensor_file_load reads, with arrays "images" and perhaps "labels", or "arr_0" and perhaps "arr_1".
 * u8 images of rank 4 may lie as [N,H,W,C], guided-diffusion's order: "arr_0" if its last dimension is 1 or 3,
 * "images" if the last dimension is and the second is not. FORMAT: no such arrays. */
SL_MUST_USE sl_status sl_dataset_from_npz(sl_context *ctx, const char *path, sl_dataset **out);
sl_dataset *sl_dataset_retain(sl_dataset *d);
void sl_dataset_release(sl_dataset *d); /* NULL is allowed */

int64_t sl_dataset_count(const sl_dataset *d);
sl_shape sl_dataset_image_shape(const sl_dataset *d);         /* [C,H,W] */
int64_t sl_dataset_classes(const sl_dataset *d);              /* the largest label + 1; 0: no labels */
int64_t sl_dataset_label(const sl_dataset *d, int64_t index); /* 0 without labels or out of range */
/* Image `index` (0 … N-1) as f32 [C,H,W], u8 by x / 127.5 - 1; flip: mirrored left to right. ARG. */
SL_MUST_USE sl_status sl_dataset_get(const sl_dataset *d, int64_t index, bool flip, float *out);
/* Samples first … first+n-1 of an endless shuffled stream: sample g is position g % N of epoch g / N, whose order is
 * the permutation (seed, SL_STREAM_ORDER, epoch); with `flip`, g's draw of SL_STREAM_FLIP mirrors half of them.
 * images: f32 [n,C,H,W]; labels: [n], or NULL; zeros without labels. ARG. */
SL_MUST_USE sl_status sl_dataset_batch(const sl_dataset *d, uint32_t seed, int64_t first, int64_t n, bool flip,
                                       float *images, int64_t *labels);

#endif
