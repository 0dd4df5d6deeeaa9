/* cuBLASLt as the stand-in for a GPU has it: answered by the CPU's kernels, with the epilogues spelt out.
 * SLUICE_GPU_HOST_LIBRARIES=none: it is missing, and own kernels compute products. */
#include <stdlib.h>
#include <string.h>

#include "base/bf16.h"
#include "gpu/blas.h"
#include "gpu/gpu_host_control.h"
#include "gpu_host_tf32.h"
#include "ops/elementwise.h"
#include "ops/gemm.h"
#include "ops/kernels.h"

struct sl_blas_plan {
  sl_context *ctx;
  sl_blas_product p;
  void *product; /* the CPU's */
  size_t bytes;
};

typedef struct job {
  const sl_blas_plan *plan;
  void *c, *bias, *aux;
  const void *a, *b;
  bool accumulate;
} job;

static sl_exec cpu(sl_context *ctx) { return sl_exec_on(ctx, &sl_device_cpu); }

static bool has_bias(const sl_blas_product *p) {
  return p->epilogue == SL_BLAS_BIAS || p->epilogue == SL_BLAS_GELU_BIAS || p->epilogue == SL_BLAS_GELU_AUX_BIAS;
}

static sl_gemm gemm_of(const sl_blas_product *p) {
  sl_gemm g = {.ab = p->ab,
               .c = p->c,
               .m = p->m,
               .n = p->n,
               .k = p->k,
               .a_row = p->a_row,
               .a_col = p->a_col,
               .b_row = p->b_row,
               .b_col = p->b_col,
               .c_row = p->c_row,
               .bias = has_bias(p),
               .add = true};
  if (p->batch > 1) {
    g.rank = 1;
    g.batch[0] = p->batch;
    g.a_batch[0] = p->a_batch, g.b_batch[0] = p->b_batch, g.c_batch[0] = p->c_batch;
  }
  return g;
}

/* What the library itself would refuse: strides that break its alignment, epilogues of batches, an f32 bias beside
 * bf16. */
static bool takes(const sl_blas_product *p) {
  bool strides = p->ab == SL_F32 || ((p->a_row == 1 || p->a_row % 8 == 0) && (p->b_row == 1 || p->b_row % 8 == 0));
  bool bias = !has_bias(p) || p->bias == p->c;
  return strides && bias && (p->batch <= 1 || p->epilogue == SL_BLAS_NONE || p->epilogue == SL_BLAS_BIAS);
}

sl_status sl_blas_plan_new(sl_gpu *gpu, const sl_blas_product *p, sl_blas_plan **out, sl_blas_answer *answer) {
  const char *libraries = getenv("SLUICE_GPU_HOST_LIBRARIES");
  *out = NULL;
  *answer = SL_BLAS_MISSING;
  if (libraries && !strcmp(libraries, "none")) return SL_STATUS_OK;
  *answer = SL_BLAS_REFUSED;
  if (!takes(p)) return SL_STATUS_OK;
  *answer = SL_BLAS_PLANNED;
  sl_blas_plan *plan = sl_alloc_zero(gpu->ctx, sizeof *plan);
  if (!plan) return SL_STATUS_OOM;
  sl_exec e = cpu(gpu->ctx);
  sl_gemm g = gemm_of(p);
  *plan = (sl_blas_plan){.ctx = gpu->ctx, .p = *p};
  sl_status s = sl_cpu_gemm_plan(&e, &g, &plan->product);
  if (s == SL_STATUS_OK) s = sl_cpu_gemm_workspace(&e, &g, &plan->bytes);
  if (s == SL_STATUS_OK) *out = plan;
  else sl_blas_free(plan);
  return s;
}

void sl_blas_free(sl_blas_plan *plan) {
  if (!plan) return;
  sl_exec e = cpu(plan->ctx);
  sl_status s = sl_cpu_gemm_release(&e, plan->product);
  (void)s;
  sl_free(plan->ctx, plan);
}

size_t sl_blas_workspace(const sl_blas_plan *plan) { return plan->bytes ? 512 : 0; } /* the CPU's own is the host's */

bool sl_blas_fits(const sl_blas_plan *plan, const void *c, const void *a, const void *b, const void *bias,
                  const void *aux) {
  (void)plan;
  return (((uintptr_t)c | (uintptr_t)a | (uintptr_t)b | (uintptr_t)bias | (uintptr_t)aux) & 15) == 0;
}

static sl_view matrix(const void *data, sl_dtype dtype, int64_t rows, int64_t cols) {
  sl_view v = {.data = (void *)(uintptr_t)data, .dtype = dtype, .shape = SL_SHAPE(rows, cols)};
  sl_shape_strides(&v.shape, v.stride);
  return v;
}

/* A copy, rounded, of the floats from p to the last of these. */
static float *rounded(const void *p, int64_t batch, int64_t batch_stride, int64_t rows, int64_t row, int64_t cols,
                      int64_t col) {
  int64_t n = (batch > 1 ? (batch - 1) * batch_stride : 0) + (rows - 1) * row + (cols - 1) * col + 1;
  float *copy = malloc((size_t)n * sizeof *copy);
  for (int64_t i = 0; copy && i < n; i++) copy[i] = tf32_of(((const float *)p)[i]);
  return copy;
}

static sl_status product(const job *j, void *c) {
  const sl_blas_product *p = &j->plan->p;
  sl_exec e = cpu(j->plan->ctx);
  sl_view cv = {.data = c, .dtype = p->c, .accumulate = j->accumulate},
          av = {.data = (void *)(uintptr_t)j->a, .dtype = p->ab},
          bv = {.data = (void *)(uintptr_t)j->b, .dtype = p->ab};
  bool round = p->tf32 && p->ab == SL_F32;
  float *a = round ? rounded(j->a, p->batch, p->a_batch, p->m, p->a_row, p->k, p->a_col) : NULL;
  float *b = round ? rounded(j->b, p->batch, p->b_batch, p->k, p->b_row, p->n, p->b_col) : NULL;
  if (round) av.data = a, bv.data = b;
  float *bias = has_bias(p) ? malloc((size_t)p->n * sizeof *bias) : NULL;
  void *work = aligned_alloc(64, (j->plan->bytes + 63) / 64 * 64 + 64);
  for (int64_t i = 0; bias && i < p->n; i++)
    bias[i] = p->bias == SL_BF16 ? sl_bf16_to_f32(((const sl_bf16 *)j->bias)[i]) : ((const float *)j->bias)[i];
  sl_view biasv = {.data = bias, .dtype = SL_F32};
  sl_status s = sl_cpu_gemm(&e, j->plan->product, &cv, &av, &bv, bias ? &biasv : NULL, NULL, work);
  free(bias), free(work), free(a), free(b);
  return s;
}

/* bias [m] = sum of A over k. */
static void row_sums(const job *j) {
  const sl_blas_product *p = &j->plan->p;
  for (int64_t i = 0; i < p->m; i++) {
    double sum = 0;
    for (int64_t k = 0; k < p->k; k++) {
      int64_t at = i * p->a_row + k * p->a_col;
      sum += p->ab == SL_BF16 ? sl_bf16_to_f32(((const sl_bf16 *)j->a)[at]) : ((const float *)j->a)[at];
    }
    ((float *)j->bias)[i] = (float)sum;
  }
}

static sl_status compute(const job *j) {
  const sl_blas_product *p = &j->plan->p;
  sl_exec e = cpu(j->plan->ctx);
  sl_view c = matrix(j->c, p->c, p->m, p->n), aux = matrix(j->aux, p->c, p->m, p->n);
  switch (p->epilogue) {
    case SL_BLAS_GELU_AUX_BIAS: SL_TRY(product(j, j->aux)); return sl_cpu_unary(&e, SL_UNARY_gelu, &c, &aux);
    case SL_BLAS_GELU_BIAS: SL_TRY(product(j, j->c)); return sl_cpu_unary(&e, SL_UNARY_gelu, &c, &c);
    case SL_BLAS_DGELU: SL_TRY(product(j, j->c)); return sl_cpu_unary_backward(&e, SL_UNARY_gelu, &c, &c, &aux);
    case SL_BLAS_BGRAD_A: row_sums(j); return product(j, j->c);
    case SL_BLAS_NONE:
    case SL_BLAS_BIAS: return product(j, j->c);
    default: return sl_fail(SL_STATUS_INTERNAL, "an epilogue that nobody asks for");
  }
}

static sl_status run(void *data) {
  sl_gpu_host_enter();
  sl_status s = compute(data);
  sl_gpu_host_leave();
  return s;
}

sl_status sl_blas_run(sl_blas_plan *plan, void *c, const void *a, const void *b, void *bias, void *aux, bool accumulate,
                      void *workspace) {
  (void)workspace;
  job j = {plan, c, bias, aux, a, b, accumulate};
  return sl_gpu_host_do(run, &j, sizeof j);
}

const char *sl_blas_version(sl_gpu *gpu) { return (void)gpu, "answered by the CPU"; }
void sl_blas_close(sl_gpu *gpu) { (void)gpu; }
