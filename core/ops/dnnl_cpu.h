/* oneDNN behind a small door: planned products. dnnl_cpu.c is the only file of products that includes dnnl.h. */
#ifndef SL_OPS_DNNL_CPU_H
#define SL_OPS_DNNL_CPU_H

#include "base/context.h"
#include "ops/gemm.h"

typedef struct sl_dnnl_gemm sl_dnnl_gemm;

/* Whether oneDNN multiplies bf16 at full speed here; else products of bf16 convert to f32 first. */
bool sl_dnnl_has_bf16(sl_context *ctx);
/* UNSUPPORTED: one of the n sizes is beyond what oneDNN counts with (in int: it would crash). what: "a product". */
SL_MUST_USE sl_status sl_dnnl_check_sizes(const char *what, int n, const int64_t *sizes);
const char *sl_dnnl_version(void); /* "2.6.3"; this thread's, until its next call */
/* Makes the primitives; m, n, k and the batch are not 0. UNSUPPORTED in words where oneDNN refuses. */
SL_MUST_USE sl_status sl_dnnl_gemm_new(sl_context *ctx, const sl_gemm *g, sl_dnnl_gemm **out);
void sl_dnnl_gemm_free(sl_context *ctx, sl_dnnl_gemm *p); /* NULL is allowed */
size_t sl_dnnl_gemm_workspace(const sl_dnnl_gemm *p);
/* accumulate: adds into c (g->add must have been set). workspace: 64-byte aligned. */
SL_MUST_USE sl_status sl_dnnl_gemm_run(sl_dnnl_gemm *p, void *c, const void *a, const void *b, const void *bias,
                                       bool accumulate, void *workspace);

#endif
