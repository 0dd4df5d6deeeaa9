/* Tensors as adaLN's and the gated residual's CUDA kernels take them. */
#ifndef SL_OPS_ROWS_CUDA_H
#define SL_OPS_ROWS_CUDA_H

#include "gpu/gpu.h"

#include "tensor/tensor.h"

/* [N,T,C] dense, or [N,C] with `stride` elements from one sample to the next; p NULL: absent. */
struct sl_gpu_rows {
  void *p;
  bool bf16;
  int64_t stride;
};

static inline sl_gpu_rows sl_gpu_rows_of(const sl_view *v) {
  return {v->data, v->dtype == SL_BF16, v->data ? v->stride[0] : 0};
}

/* Whether four neighbours may be read as one everywhere. */
static inline bool sl_gpu_by_four(int64_t C, const sl_gpu_rows *r, int n) {
  bool fits = C % 4 == 0;
  for (int i = 0; i < n; i++) fits &= r[i].stride % 4 == 0 && (uintptr_t)r[i].p % 16 == 0;
  return fits;
}

#endif
