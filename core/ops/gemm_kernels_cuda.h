/* Matrix products by own kernels, in f32 FMAs: where cuBLASLt is missing or refuses, and in the host stand-in. */
#ifndef SL_OPS_GEMM_KERNELS_CUDA_H
#define SL_OPS_GEMM_KERNELS_CUDA_H

#ifdef __cplusplus
extern "C" {
#endif

#include "ops/gemm.h"

/* C = A B (+ bias) (+ C where accumulate) for any product of gemm.h; pointers in the GPU's memory, aligned to their
 * elements. bias f32 [n] or NULL. k 0: C is bias or zeros, or stays where accumulate. Deterministic. */
SL_MUST_USE sl_status sl_gpu_gemm(void *stream, const sl_gemm *g, const void *a, const void *b, void *c,
                                  const float *bias, bool accumulate);

#ifdef __cplusplus
}
#endif

#endif
