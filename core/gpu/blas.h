/* cuBLASLt: one matrix product planned once, run often, with what may follow it in the same kernel. The library is
 * looked for at run time; where it is missing, or has no algorithm, there is no plan and the caller's own kernels
 * serve. */
#ifndef SL_GPU_BLAS_H
#define SL_GPU_BLAS_H

#include "gpu/gpu_runtime.h"

#ifdef __cplusplus
extern "C" {
#endif

#include "base/dtype.h"

/* P = A B (+ C where it is accumulated). Vectors have unit stride. gelu is the tanh form (SL_UNARY_gelu); it is refused
 * where the library computes it in a slow pass of its own. */
typedef enum sl_blas_epilogue {
  SL_BLAS_NONE,          /* C = P */
  SL_BLAS_BIAS,          /* C = P + bias; bias [n] is read, the same in every matrix of a batch */
  SL_BLAS_GELU_BIAS,     /* C = gelu(P + bias) */
  SL_BLAS_GELU_AUX_BIAS, /* aux = P + bias, C = gelu(aux) */
  SL_BLAS_DGELU,         /* C = P gelu'(aux), aux is read */
  SL_BLAS_DGELU_BGRAD,   /* the same, and bias [n] = sums of C's columns */
  SL_BLAS_BGRAD_A,       /* C = P, and bias [m] = sum of A over k */
  SL_BLAS_BGRAD_B        /* C = P, and bias [n] = sum of B over k */
} sl_blas_epilogue;

/* Row-major C [m,n], A [m,k], B [k,n], and their batches; strides in elements. One of A's two strides is 1, one of B's
 * too; C's and aux's columns have stride 1. A batch stride of 0 reads one matrix again. cuBLASLt wants bias in C's
 * dtype: f32 beside a bf16 C is refused. */
typedef struct sl_blas_product {
  int64_t m, n, k, batch; /* batch 0 is 1 */
  int64_t a_row, a_col, b_row, b_col, c_row;
  int64_t a_batch, b_batch, c_batch;
  int64_t aux_row;      /* of aux [m,n], a multiple of 8; 0: c_row. Epilogues but BIAS take one matrix only */
  sl_dtype ab, c, bias; /* f32 or bf16; aux has C's */
  bool tf32;            /* f32 A and B may be rounded to TF32 */
  sl_blas_epilogue epilogue;
  /* What addresses will be multiples of, in bytes; 0: 16. Strides are seen to here. */
  int a_align, b_align, c_align, bias_align, aux_align;
} sl_blas_product;

typedef struct sl_blas_plan sl_blas_plan;

typedef enum sl_blas_answer {
  SL_BLAS_PLANNED,
  SL_BLAS_REFUSED, /* the library is there, but has no algorithm for this */
  SL_BLAS_MISSING  /* no library */
} sl_blas_answer;

/* *out NULL with OK: *answer tells why. Equal products are searched for once. Every algorithm gives the same bits in
 * every run. OOM; DEVICE if the library fails where it should not. */
SL_MUST_USE sl_status sl_blas_plan_new(sl_gpu *gpu, const sl_blas_product *p, sl_blas_plan **out,
                                       sl_blas_answer *answer);
void sl_blas_free(sl_blas_plan *plan);              /* NULL is allowed; before sl_blas_close */
size_t sl_blas_workspace(const sl_blas_plan *plan); /* bytes, aligned to 256, that a run needs; at most 32 MiB */
/* Whether the addresses are aligned as planned; if not, they are for the caller's own kernels. NULL is aligned. */
bool sl_blas_fits(const sl_blas_plan *plan, const void *c, const void *a, const void *b, const void *bias,
                  const void *aux);
/* Puts the product into gpu->stream; allocates nothing; may be captured. accumulate: with NONE, BIAS and BGRAD only;
 * sums of BGRAD and DGELU_BGRAD are overwritten, never added to. With gpu->tune, the first run of a product that
 * neither accumulates nor is recorded times that many algorithms which the workspace suffices for, and keeps the
 * fastest, in equal plans made later, too: processes may then differ in last bits. ARG: not aligned; DEVICE. */
SL_MUST_USE sl_status sl_blas_run(sl_blas_plan *plan, void *c, const void *a, const void *b, void *bias, void *aux,
                                  bool accumulate, void *workspace);

const char *sl_blas_version(sl_gpu *gpu); /* "13.1.0"; NULL: no library. Valid until sl_blas_close */
void sl_blas_close(sl_gpu *gpu);

#ifdef __cplusplus
}
#endif

#endif
