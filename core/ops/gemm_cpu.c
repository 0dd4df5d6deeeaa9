#include <string.h>

#include "ops/dnnl_cpu.h"
#include "ops/kernels.h"

typedef struct gemm_plan {
  sl_gemm g;             /* as asked */
  sl_dnnl_gemm *product; /* NULL where there is nothing to multiply */
  bool convert;          /* bf16 goes through f32 copies in the workspace */
  size_t a32, b32, c32;  /* their places there, after the product's own */
} gemm_plan;

static int64_t batches(const sl_gemm *g, const int64_t *stride) {
  int64_t n = 1;
  for (int i = 0; i < g->rank; i++)
    if (!stride || stride[i] != 0) n *= g->batch[i];
  return n;
}

static bool is_empty(const sl_gemm *g) { return g->m == 0 || g->n == 0 || g->k == 0 || batches(g, NULL) == 0; }
static size_t floats(int64_t n) { return ((size_t)n * sizeof(float) + 63) / 64 * 64; }

static void dense_strides(const sl_gemm *g, const int64_t *given, int64_t one, int64_t *out) {
  for (int i = g->rank; i-- > 0;) {
    out[i] = given[i] == 0 ? 0 : one;
    if (out[i]) one *= g->batch[i];
  }
}

static sl_gemm as_f32(const sl_gemm *g) {
  sl_gemm f = *g;
  f.ab = f.c = SL_F32;
  f.a_row = g->k, f.a_col = 1;
  bool transposed = g->b_row == 1 && g->b_col != 1; /* kept, so that packing and speed are those of f32 */
  f.b_row = transposed ? 1 : g->n, f.b_col = transposed ? g->k : 1;
  f.c_row = g->n;
  dense_strides(g, g->a_batch, g->m * g->k, f.a_batch);
  dense_strides(g, g->b_batch, g->k * g->n, f.b_batch);
  dense_strides(g, g->c_batch, g->m * g->n, f.c_batch);
  return f;
}

static sl_status plan_new(sl_context *ctx, const sl_gemm *g, gemm_plan *p) {
  *p = (gemm_plan){.g = *g};
  if (is_empty(g)) return SL_STATUS_OK;
  p->convert = g->ab == SL_BF16 && !sl_dnnl_has_bf16(ctx);
  sl_gemm f = p->convert ? as_f32(g) : *g;
  SL_TRY(sl_dnnl_gemm_new(ctx, &f, &p->product));
  if (p->convert) {
    p->a32 = sl_dnnl_gemm_workspace(p->product);
    p->b32 = p->a32 + floats(batches(g, g->a_batch) * g->m * g->k);
    p->c32 = p->b32 + floats(batches(g, g->b_batch) * g->k * g->n);
  }
  return SL_STATUS_OK;
}

sl_status sl_cpu_gemm_workspace(sl_exec *e, const sl_gemm *g, size_t *bytes) {
  gemm_plan p;
  *bytes = 0;
  SL_TRY(plan_new(e->ctx, g, &p));
  if (p.product) *bytes = sl_dnnl_gemm_workspace(p.product);
  if (p.convert) *bytes = p.c32 + (g->c == SL_BF16 ? floats(batches(g, NULL) * g->m * g->n) : 0);
  sl_dnnl_gemm_free(e->ctx, p.product);
  return SL_STATUS_OK;
}

sl_status sl_cpu_gemm_fuses(sl_exec *e, const sl_gemm *g, bool *yes) {
  (void)e;
  *yes = g->epilogue == SL_GEMM_PLAIN;
  return SL_STATUS_OK;
}

sl_status sl_cpu_gemm_plan(sl_exec *e, const sl_gemm *g, void **plan) {
  gemm_plan *p = sl_alloc(e->ctx, sizeof *p);
  *plan = NULL;
  if (!p) return SL_STATUS_OOM;
  sl_status s = plan_new(e->ctx, g, p);
  if (s != SL_STATUS_OK) {
    sl_free(e->ctx, p);
    return s;
  }
  *plan = p;
  return SL_STATUS_OK;
}

sl_status sl_cpu_gemm_release(sl_exec *e, void *plan) {
  gemm_plan *p = plan;
  if (p) sl_dnnl_gemm_free(e->ctx, p->product);
  sl_free(e->ctx, p);
  return SL_STATUS_OK;
}

/* A batch of matrices as a view; dimensions of stride 0 are copied once. */
static sl_view matrices(const sl_gemm *g, sl_dtype dtype, void *data, const int64_t *batch, int64_t rows, int64_t cols,
                        int64_t row, int64_t col) {
  sl_view v = {.data = data, .dtype = dtype};
  v.shape.rank = g->rank + 2;
  for (int i = 0; i < g->rank; i++) {
    v.shape.dim[i] = batch[i] == 0 ? 1 : g->batch[i];
    v.stride[i] = batch[i];
  }
  v.shape.dim[g->rank] = rows, v.stride[g->rank] = row;
  v.shape.dim[g->rank + 1] = cols, v.stride[g->rank + 1] = col;
  return v;
}

static sl_status run_converted(sl_exec *e, gemm_plan *p, const sl_view *c, const sl_view *a, const sl_view *b,
                               const void *bias, char *workspace) {
  const sl_gemm *g = &p->g;
  sl_gemm f = as_f32(g);
  float *a32 = (float *)(workspace + p->a32), *b32 = (float *)(workspace + p->b32);
  float *c32 = g->c == SL_F32 ? c->data : (float *)(workspace + p->c32);
  sl_view a_from = matrices(g, SL_BF16, a->data, g->a_batch, g->m, g->k, g->a_row, g->a_col);
  sl_view a_to = matrices(&f, SL_F32, a32, f.a_batch, g->m, g->k, f.a_row, f.a_col);
  sl_view b_from = matrices(g, SL_BF16, b->data, g->b_batch, g->k, g->n, g->b_row, g->b_col);
  sl_view b_to = matrices(&f, SL_F32, b32, f.b_batch, g->k, g->n, f.b_row, f.b_col);
  sl_view_copy(e->ctx, &a_to, &a_from);
  sl_view_copy(e->ctx, &b_to, &b_from);
  sl_view c_out = matrices(g, SL_BF16, c->data, g->c_batch, g->m, g->n, g->c_row, 1);
  sl_view c_sum = matrices(&f, SL_F32, c32, f.c_batch, g->m, g->n, f.c_row, 1);
  if (c->accumulate && g->c == SL_BF16) sl_view_copy(e->ctx, &c_sum, &c_out);
  SL_TRY(sl_dnnl_gemm_run(p->product, c32, a32, b32, bias, c->accumulate, workspace));
  if (g->c == SL_BF16) sl_view_copy(e->ctx, &c_out, &c_sum);
  return SL_STATUS_OK;
}

/* No terms in the sums: zeros and the bias. */
static void run_empty(const sl_gemm *g, const sl_view *c, const float *bias) {
  int64_t rows = batches(g, NULL) * g->m;
  size_t size = sl_dtype_size(g->c);
  if (c->accumulate) return;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t j = 0; j < g->n; j++)
      sl_element_set(g->c, (char *)c->data + (size_t)(r * g->n + j) * size, bias ? (double)bias[j] : 0.0);
}

sl_status sl_cpu_gemm(sl_exec *e, void *plan, const sl_view *c, const sl_view *a, const sl_view *b, const sl_view *bias,
                      const sl_view *aux, void *workspace) {
  gemm_plan *p = plan;
  (void)aux;
  const void *bias_data = bias ? bias->data : NULL;
  if (!p->product) {
    run_empty(&p->g, c, bias_data);
    return SL_STATUS_OK;
  }
  if (p->convert) return run_converted(e, p, c, a, b, bias_data, workspace);
  return sl_dnnl_gemm_run(p->product, c->data, a->data, b->data, bias_data, c->accumulate, workspace);
}
