/* Convolution by our own CUDA kernels: where the library (gpu/dnn.h) is missing or refuses. */
#ifndef SL_OPS_CONV_KERNELS_CUDA_H
#define SL_OPS_CONV_KERNELS_CUDA_H

#include "ops/conv.h"

#ifdef __cplusplus
extern "C" {
#endif

/* All three kinds, with the semantics of conv.h: image, filter, bias and output lie as it says, in the GPU's memory,
 * and what the kind makes of the others is overwritten. bias: added by FORWARD, made by WEIGHTS; NULL: neither. WEIGHTS
 * leaves out a NULL filter. A sum over nothing is 0. c->bf16: operands are rounded to bf16 as they are read. Needs no
 * workspace; gives the same bits in every run. UNSUPPORTED: a side, or the channels times the window, of 2^30 or more.
 */
SL_MUST_USE sl_status sl_gpu_conv(void *stream, const sl_conv *c, void *image, void *filter, void *bias, void *output);

#ifdef __cplusplus
}
#endif

#endif
