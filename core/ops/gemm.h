/* One matrix product as every device can plan it: C = A B (+ bias) (+ C), batched, with strides. */
#ifndef SL_OPS_GEMM_H
#define SL_OPS_GEMM_H

#include "tensor/tensor.h"

/* A [batch…, m, k], B [batch…, k, n], C [batch…, m, n]; bias f32 [n]. Strides in elements; a batch stride of 0
 * broadcasts. One of A's two matrix strides is 1, and one of B's; C's columns have stride 1. */
typedef struct sl_gemm {
  sl_dtype ab, c; /* f32 or bf16; products are summed in f32 */
  int rank;       /* of the batch */
  int64_t batch[SL_MAX_RANK], m, n, k;
  int64_t a_batch[SL_MAX_RANK], b_batch[SL_MAX_RANK], c_batch[SL_MAX_RANK];
  int64_t a_row, a_col, b_row, b_col, c_row;
  bool bias;
  bool add; /* C may be asked to be added into (accumulate in its view) */
} sl_gemm;

/* numpy's matmul of views' shapes and strides into dense c; a and b of rank >= 1, already checked
 * (sl_matmul_strides_fit). */
sl_gemm sl_gemm_of(const sl_view *c, const sl_view *a, const sl_view *b);
/* Whether a product can read a matrix of these strides where it lies: no overlap, unit stride in one of the last two
 * dimensions. */
bool sl_matmul_strides_fit(const sl_shape *shape, const int64_t *stride);
/* Bytes that a run needs on the CPU, for the context's present number of threads. */
size_t sl_cpu_gemm_workspace(sl_context *ctx, const sl_gemm *g);

#endif
