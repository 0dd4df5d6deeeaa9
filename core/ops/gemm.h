/* One matrix product as every device can plan it: C = A B (+ bias) (+ C), batched, with strides. */
#ifndef SL_OPS_GEMM_H
#define SL_OPS_GEMM_H

#include "tensor/tensor.h"

/* What a device may be able to do in the product's own pass; the CPU only plain ones. */
typedef enum sl_gemm_epilogue {
  SL_GEMM_PLAIN,    /* c = a b (+ bias) (+ c) */
  SL_GEMM_GELU,     /* c = gelu(a b + bias), the tanh form */
  SL_GEMM_GELU_AUX, /* and aux = a b + bias, like c */
  SL_GEMM_DGELU,    /* c = (a b) gelu'(aux), aux like c */
  SL_GEMM_ROW_SUMS, /* c = a b (+ c), and bias f32 [m] = sums of a's rows: written, not added */
} sl_gemm_epilogue;

/* A [batch…, m, k], B [batch…, k, n], C [batch…, m, n]; bias f32 [n]. Strides in elements; a batch stride of 0
 * broadcasts. One of A's two matrix strides is 1, and one of B's; C's columns have stride 1. */
typedef struct sl_gemm {
  sl_dtype ab, c; /* f32 or bf16; products are summed in f32 */
  int rank;       /* of the batch */
  int64_t batch[SL_MAX_RANK], m, n, k;
  int64_t a_batch[SL_MAX_RANK], b_batch[SL_MAX_RANK], c_batch[SL_MAX_RANK];
  int64_t a_row, a_col, b_row, b_col, c_row;
  bool bias;
  sl_dtype bias_dtype; /* f32; on a GPU, beside bf16 a and b, bf16 */
  bool add;            /* C may be asked to be added into (accumulate in its view) */
  sl_gemm_epilogue epilogue;
} sl_gemm;

/* numpy's matmul of views' shapes and strides into dense c; a and b of rank >= 1, already checked
 * (sl_matmul_strides_fit). */
sl_gemm sl_gemm_of(const sl_view *c, const sl_view *a, const sl_view *b);
/* Whether a product can read a matrix of these strides where it lies: no overlap, unit stride in one of the last two
 * dimensions. */
bool sl_matmul_strides_fit(const sl_shape *shape, const int64_t *stride);

#endif
