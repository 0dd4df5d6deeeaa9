/* Attention in float32 arithmetic on a GPU, for whatever no library takes: float32, masks, causal rows, any head size.
 * Views point to device memory; an absent view is NULL or has no data. */
#ifndef SL_OPS_ATTENTION_KERNELS_CUDA_H
#define SL_OPS_ATTENTION_KERNELS_CUDA_H

#ifdef __cplusplus
extern "C" {
#endif

#include "ops/attention.h"

/* Writes out and lse, where present. */
SL_MUST_USE sl_status sl_gpu_attention_forward(void *stream, const sl_attention_job *j);
/* Writes those of dq, dk and dv that are present; reads q, k, v, mask, out, lse and dout. The workspace lies in device
 * memory, aligned for floats. */
SL_MUST_USE sl_status sl_gpu_attention_backward(void *stream, const sl_attention_job *j, void *workspace);
size_t sl_gpu_attention_backward_workspace(const sl_attention_job *j); /* bytes */

#ifdef __cplusplus
}
#endif

#endif
