/* What follows a library's bf16 convolution. */
#ifndef SL_OPS_CONV_RESULT_CUDA_H
#define SL_OPS_CONV_RESULT_CUDA_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* y f32 [rows, K] = x bf16 [rows, K] + bias f32 [K] (NULL: none); dense, in device memory. */
SL_MUST_USE sl_status sl_gpu_conv_result(void *stream, float *y, const uint16_t *x, const float *bias, int64_t rows,
                                         int64_t K);

#ifdef __cplusplus
}
#endif

#endif
