/* Pictures brought to size, to the bit as Pillow does it. */
#ifndef SL_DATA_RESIZE_H
#define SL_DATA_RESIZE_H

#include "tensor/tensor.h"

typedef enum sl_resize_filter { SL_RESIZE_BOX, SL_RESIZE_BICUBIC } sl_resize_filter;

/* u8 [H,W,C] to u8 [height,width,C]: Pillow's Image.resize on 8 bits (columns first, each pass rounded to 8 bits,
 * weights of 22 bits; an axis that keeps its size is skipped). Source: Pillow, Resample.c. */
SL_MUST_USE sl_status sl_resize(sl_tensor *image, int64_t height, int64_t width, sl_resize_filter filter,
                                sl_tensor **out);
/* u8 [H,W,C] to u8 [size,size,C]: halved by BOX while both sides are at least twice the size, then scaled by BICUBIC so
 * that the shorter side is `size`, then the middle is cut out. Source: guided-diffusion, image_datasets.py,
 * center_crop_arr. SHAPE, DTYPE, ARG. */
SL_MUST_USE sl_status sl_center_crop(sl_tensor *image, int64_t size, sl_tensor **out);

#endif
