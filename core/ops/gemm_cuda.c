/* Products on GPUs: cuBLASLt where it has an algorithm, own kernels elsewhere. */
#include <stdlib.h>
#include <string.h>

#include "gpu/blas.h"
#include "ops/elementwise.h"
#include "ops/gemm_kernels_cuda.h"
#include "ops/kernels.h"

typedef struct gemm_plan {
  sl_gemm g;
  sl_blas_plan *blas; /* NULL: own kernels */
} gemm_plan;

static bool is_empty(const sl_gemm *g) {
  int64_t n = g->m * g->n * g->k;
  for (int i = 0; i < g->rank; i++) n *= g->batch[i];
  return n == 0;
}

/* The innermost dimension of the batch is the library's; products of the outer ones are run one after another. */
static sl_blas_product product_of(const sl_gemm *g) {
  static const sl_blas_epilogue epilogue[] = {[SL_GEMM_PLAIN] = SL_BLAS_NONE,
                                              [SL_GEMM_GELU] = SL_BLAS_GELU_BIAS,
                                              [SL_GEMM_GELU_AUX] = SL_BLAS_GELU_AUX_BIAS,
                                              [SL_GEMM_DGELU] = SL_BLAS_DGELU,
                                              [SL_GEMM_ROW_SUMS] = SL_BLAS_BGRAD_A};
  sl_blas_product p = {.m = g->m,
                       .n = g->n,
                       .k = g->k,
                       .batch = 1,
                       .a_row = g->a_row,
                       .a_col = g->a_col,
                       .b_row = g->b_row,
                       .b_col = g->b_col,
                       .c_row = g->c_row,
                       .ab = g->ab,
                       .c = g->c,
                       .bias = g->epilogue == SL_GEMM_ROW_SUMS ? SL_F32 : g->bias_dtype,
                       .epilogue = epilogue[g->epilogue]};
  if (g->epilogue == SL_GEMM_PLAIN && g->bias) p.epilogue = SL_BLAS_BIAS;
  if (g->rank > 0) {
    int last = g->rank - 1;
    p.batch = g->batch[last];
    p.a_batch = g->a_batch[last], p.b_batch = g->b_batch[last], p.c_batch = g->c_batch[last];
  }
  return p;
}

static sl_status plan_blas(sl_exec *e, const sl_gemm *g, sl_blas_plan **out) {
  sl_blas_answer answer;
  sl_blas_product p = product_of(g);
  p.tf32 = e->tf32;
  *out = NULL;
  return is_empty(g) ? SL_STATUS_OK : sl_blas_plan_new(e->device->gpu, &p, out, &answer);
}

/* SLUICE_GEMM_EPILOGUES=none, gelu or sums leaves the others to kernels of their own, to compare them by time; all is
 * the default. */
static bool asked_for(sl_gemm_epilogue epilogue) {
  const char *only = getenv("SLUICE_GEMM_EPILOGUES");
  if (!only || !*only || !strcmp(only, "all")) return true;
  return !strcmp(only, epilogue == SL_GEMM_ROW_SUMS ? "sums" : "gelu");
}

/* Epilogues are for the library's own pass; sums of A's rows want A^T's rows to lie whole, for the case that it is not
 * taken. */
sl_status sl_cuda_gemm_fuses(sl_exec *e, const sl_gemm *g, bool *yes) {
  sl_blas_plan *blas = NULL;
  bool gelu = g->epilogue == SL_GEMM_GELU || g->epilogue == SL_GEMM_GELU_AUX;
  *yes = g->epilogue == SL_GEMM_PLAIN;
  if (*yes || g->rank > 0 || !asked_for(g->epilogue) || (gelu && !g->bias) ||
      (g->epilogue == SL_GEMM_ROW_SUMS && g->a_row != 1))
    return SL_STATUS_OK;
  SL_TRY(plan_blas(e, g, &blas));
  *yes = blas != NULL;
  sl_blas_free(blas);
  return SL_STATUS_OK;
}

static size_t own_workspace(const sl_gemm *g) {
  return g->bias && g->bias_dtype == SL_BF16 ? (size_t)g->n * sizeof(float) : 0;
}

/* Of either way: addresses that the library does not take are told at the run. */
sl_status sl_cuda_gemm_workspace(sl_exec *e, const sl_gemm *g, size_t *bytes) {
  sl_blas_plan *blas = NULL;
  SL_TRY(plan_blas(e, g, &blas));
  size_t own = own_workspace(g), library = blas ? sl_blas_workspace(blas) : 0;
  *bytes = own > library ? own : library;
  sl_blas_free(blas);
  return SL_STATUS_OK;
}

sl_status sl_cuda_gemm_plan(sl_exec *e, const sl_gemm *g, void **plan) {
  gemm_plan *p = sl_alloc_zero(e->ctx, sizeof *p);
  *plan = p;
  if (!p) return SL_STATUS_OOM;
  p->g = *g;
  sl_status s = plan_blas(e, g, &p->blas);
  if (s == SL_STATUS_OK) return SL_STATUS_OK;
  sl_free(e->ctx, p);
  *plan = NULL;
  return s;
}

sl_status sl_cuda_gemm_release(sl_exec *e, void *plan) {
  gemm_plan *p = plan;
  if (p) sl_blas_free(p->blas);
  sl_free(e->ctx, p);
  return SL_STATUS_OK;
}

static char *at(const sl_view *v, int64_t elements) {
  return (char *)v->data + elements * (int64_t)sl_dtype_size(v->dtype);
}

/* Offsets of the outer batch's item number i in A, B and C. */
static void outer_item(const sl_gemm *g, int64_t i, int64_t *a, int64_t *b, int64_t *c) {
  *a = *b = *c = 0;
  for (int d = g->rank - 1; d-- > 0;) {
    int64_t k = i % g->batch[d];
    i /= g->batch[d];
    *a += k * g->a_batch[d], *b += k * g->b_batch[d], *c += k * g->c_batch[d];
  }
}

static sl_status run_blas(const gemm_plan *p, const sl_view *c, const sl_view *a, const sl_view *b, void *bias,
                          void *aux, void *workspace) {
  int64_t items = 1, ao, bo, co;
  for (int d = 0; d + 1 < p->g.rank; d++) items *= p->g.batch[d];
  for (int64_t i = 0; i < items; i++) {
    outer_item(&p->g, i, &ao, &bo, &co);
    SL_TRY(sl_blas_run(p->blas, at(c, co), at(a, ao), at(b, bo), bias, aux, c->accumulate, workspace));
  }
  return SL_STATUS_OK;
}

static sl_status own_product(sl_exec *e, const gemm_plan *p, const sl_view *c, const sl_view *a, const sl_view *b,
                             const sl_view *bias, void *workspace) {
  const float *bias_data = bias ? bias->data : NULL;
  if (bias && bias->dtype == SL_BF16) {
    sl_view copy = *bias;
    copy.data = workspace;
    copy.dtype = SL_F32;
    SL_TRY(e->kernels->copy(e, &copy, bias));
    bias_data = workspace;
  }
  return sl_gpu_gemm(e->stream, &p->g, a->data, b->data, c->data, bias_data, c->accumulate);
}

/* What the library would do in one pass, for addresses that it does not take. */
static sl_status run_own(sl_exec *e, const gemm_plan *p, const sl_view *c, const sl_view *a, const sl_view *b,
                         const sl_view *bias, const sl_view *aux, void *workspace) {
  const sl_gemm *g = &p->g;
  sl_view columns = *a; /* A as rows of k: its row sums are column sums of these */
  switch (g->epilogue) {
    case SL_GEMM_PLAIN: return own_product(e, p, c, a, b, bias, workspace);
    case SL_GEMM_GELU:
      SL_TRY(own_product(e, p, c, a, b, bias, workspace));
      return e->kernels->unary(e, SL_UNARY_gelu, c, c);
    case SL_GEMM_GELU_AUX:
      SL_TRY(own_product(e, p, aux, a, b, bias, workspace));
      return e->kernels->unary(e, SL_UNARY_gelu, c, aux);
    case SL_GEMM_DGELU:
      SL_TRY(own_product(e, p, c, a, b, NULL, workspace));
      return e->kernels->unary_backward(e, SL_UNARY_gelu, c, c, aux);
    case SL_GEMM_ROW_SUMS:
      SL_TRY(own_product(e, p, c, a, b, NULL, workspace));
      return e->kernels->column_sum(e, bias, &columns, g->k, g->m, g->a_col);
  }
  return sl_fail(SL_STATUS_INTERNAL, "a product's epilogue is %d", (int)g->epilogue);
}

sl_status sl_cuda_gemm(sl_exec *e, void *plan, const sl_view *c, const sl_view *a, const sl_view *b,
                       const sl_view *bias, const sl_view *aux, void *workspace) {
  const gemm_plan *p = plan;
  void *bias_data = bias ? bias->data : NULL, *aux_data = aux ? aux->data : NULL;
  if (p->blas && sl_blas_fits(p->blas, c->data, a->data, b->data, bias_data, aux_data))
    return run_blas(p, c, a, b, bias_data, aux_data, workspace);
  return run_own(e, p, c, a, b, bias, aux, workspace);
}
