/* cuBLASLt called through dlsym: descriptors, the search for an algorithm, running and timing.
 * cuBLASLt is column-major. A row-major [m,n] with row stride ld is, in the same memory, a column-major n x m with
 * leading dimension ld: its transpose. So C = A B is computed as C^T = B^T A^T. "Left" below is the library's A, which
 * is our B. */
#include "gpu/blas.h"

#include <cublasLt.h>
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "gpu/gpu_fastest.h"
#include "gpu/gpu_libraries.h"

#define CALLS(X)                                                                                                       \
  X(Create)                                                                                                            \
  X(Destroy)                                                                                                           \
  X(GetVersion)                                                                                                        \
  X(GetStatusString)                                                                                                   \
  X(MatmulDescCreate)                                                                                                  \
  X(MatmulDescDestroy)                                                                                                 \
  X(MatmulDescSetAttribute)                                                                                            \
  X(MatrixLayoutCreate)                                                                                                \
  X(MatrixLayoutDestroy)                                                                                               \
  X(MatrixLayoutSetAttribute)                                                                                          \
  X(MatmulPreferenceCreate)                                                                                            \
  X(MatmulPreferenceDestroy)                                                                                           \
  X(MatmulPreferenceSetAttribute)                                                                                      \
  X(MatmulAlgoGetHeuristic)                                                                                            \
  X(Matmul)

/* As the library has it: D [m,n] = left [m,k] right [k,n], column-major. No padding, so that memcmp compares. */
typedef struct problem {
  int64_t m, n, k, batch;
  int64_t left_ld, right_ld, d_ld, aux_ld;
  int64_t left_batch, right_batch, d_batch;
  int32_t left_op, right_op; /* cublasOperation_t */
  int32_t in, out, bias;     /* cudaDataType_t */
  int32_t compute;           /* cublasComputeType_t */
  uint32_t epilogue;         /* cublasLtEpilogue_t */
  uint32_t left_align, right_align, d_align;
  uint32_t bias_align, aux_align; /* 0: no such operand */
} problem;
_Static_assert(sizeof(problem) == 11 * 8 + 12 * 4, "a problem has no padding");

typedef struct found {
  problem q;
  bool refused, tuned;
  size_t workspace;
  cublasLtMatmulAlgo_t algo;
} found;

typedef struct sl_blas { /* gpu->blas */
  sl_context *ctx;
  cublasLtHandle_t handle;
  char version[24];
  found *table; /* every product that was searched for */
  int count, room;
#define X(name) __typeof__(&cublasLt##name) name;
  CALLS(X)
#undef X
} sl_blas;

struct sl_blas_plan {
  sl_gpu *gpu;
  problem q;
  bool accumulates; /* its epilogue goes with C as a summand */
  cublasLtMatmulDesc_t desc;
  cublasLtMatrixLayout_t left, right, d;
  cublasLtMatmulAlgo_t algo;
  size_t workspace;
  bool tuned;
};

enum { MAX_WORKSPACE = 32 << 20, ASKED = 4 };

#define LT_TRY(expr)                                                                                                   \
  do {                                                                                                                 \
    cublasStatus_t lt_status_ = (expr);                                                                                \
    if (lt_status_ != CUBLAS_STATUS_SUCCESS) return lt_status_;                                                        \
  } while (0)

static sl_status lt_fail(const sl_blas *b, cublasStatus_t s, const char *what) {
  return sl_fail(s == CUBLAS_STATUS_ALLOC_FAILED ? SL_STATUS_OOM : SL_STATUS_DEVICE, "cuBLASLt: %s failed: %s", what,
                 b->GetStatusString(s));
}

/* --- the library --- */

static sl_status bind_calls(sl_blas *b, const sl_gpu_library *lib) {
  void *symbol;
#define X(name)                                                                                                        \
  symbol = dlsym(lib->handle, "cublasLt" #name);                                                                       \
  SL_REQUIRE(symbol, DEVICE, "cuBLASLt: %s has no cublasLt" #name, lib->path);                                         \
  memcpy(&b->name, &symbol, sizeof symbol);
  CALLS(X)
#undef X
  return SL_STATUS_OK;
}

static sl_status blas_open(sl_gpu *gpu, sl_blas **out) {
  const sl_gpu_library *lib = sl_gpu_library_find(SL_GPU_CUBLASLT);
  SL_REQUIRE(lib->handle, DEVICE, "cuBLASLt: %s", lib->text);
  sl_blas *b = sl_alloc_zero(gpu->ctx, sizeof *b);
  if (!b) return SL_STATUS_OOM;
  b->ctx = gpu->ctx;
  sl_status status;
  SL_GOTO(bind_calls(b, lib));
  cublasStatus_t s = b->Create(&b->handle);
  if (s != CUBLAS_STATUS_SUCCESS) SL_GOTO(lt_fail(b, s, "cublasLtCreate"));
  int v = (int)b->GetVersion();
  snprintf(b->version, sizeof b->version, "%d.%d.%d", v / 10000, v / 100 % 100, v % 100);
done:
  if (status == SL_STATUS_OK) *out = b;
  else sl_free(gpu->ctx, b);
  return status;
}

/* Opened at first use; NULL where there is none. The host stand-in (sm 0) has host memory: nothing for the library. */
static sl_status blas_of(sl_gpu *gpu, sl_blas **out) {
  *out = gpu->blas;
  if (gpu->blas || gpu->no_blas || !gpu->sm) return SL_STATUS_OK;
  sl_status s = blas_open(gpu, out);
  if (s == SL_STATUS_OOM) return s;
  gpu->no_blas = s != SL_STATUS_OK;
  if (gpu->no_blas) sl_context_log(gpu->ctx, "own kernels serve in place of cuBLASLt: %s", sl_error());
  gpu->blas = *out;
  return SL_STATUS_OK;
}

const char *sl_blas_version(sl_gpu *gpu) {
  sl_blas *b = NULL;
  return blas_of(gpu, &b) == SL_STATUS_OK && b ? b->version : NULL;
}

void sl_blas_close(sl_gpu *gpu) {
  sl_blas *b = gpu->blas;
  if (!b) return;
  b->Destroy(b->handle);
  sl_free(b->ctx, b->table);
  sl_free(b->ctx, b);
  gpu->blas = NULL;
}

/* --- a row-major product as a column-major one --- */

static const struct {
  uint32_t lt;
  bool bias, aux, one_matrix, accumulates;
} epilogues[] = {
    [SL_BLAS_NONE] = {CUBLASLT_EPILOGUE_DEFAULT, false, false, false, true},
    /* "Bias vector length must match matrix D rows, broadcast to all columns": D has n rows and m columns of ours. */
    [SL_BLAS_BIAS] = {CUBLASLT_EPILOGUE_BIAS, true, false, false, true},
    [SL_BLAS_GELU_BIAS] = {CUBLASLT_EPILOGUE_GELU_BIAS, true, false, true, false},
    /* aux is stored as D is, with a leading dimension of its own: row-major [m,n] for us. */
    [SL_BLAS_GELU_AUX_BIAS] = {CUBLASLT_EPILOGUE_GELU_AUX_BIAS, true, true, true, false},
    [SL_BLAS_DGELU] = {CUBLASLT_EPILOGUE_DGELU, false, true, true, false},
    /* The bias's gradient: as long as D has rows (our n), summed over D's columns (our m). */
    [SL_BLAS_DGELU_BGRAD] = {CUBLASLT_EPILOGUE_DGELU_BGRAD, true, true, true, false},
    /* BGRADB: "size corresponds to the number of columns of D", summed over k: our m, of the right factor, our A. */
    [SL_BLAS_BGRAD_A] = {CUBLASLT_EPILOGUE_BGRADB, true, false, true, true},
    /* BGRADA: "size corresponds to the number of rows of D", summed over k: our n, of the left factor, our B. */
    [SL_BLAS_BGRAD_B] = {CUBLASLT_EPILOGUE_BGRADA, true, false, true, true},
};

/* A row-major [rows,cols] is column-major [cols,rows] and so is read as it lies (N) where its columns have unit stride;
 * where its rows have, it lies as column-major [rows,cols], to be transposed (T). False: neither, or rows overlap. */
static bool operand(int64_t rows, int64_t cols, int64_t row, int64_t col, int32_t *op, int64_t *ld) {
  if (col == 1 && (row >= cols || rows == 1)) {
    *op = CUBLAS_OP_N, *ld = rows == 1 ? cols : row;
    return true;
  }
  *op = CUBLAS_OP_T, *ld = cols == 1 ? rows : col;
  return row == 1 && (col >= rows || cols == 1);
}

/* The power of two that the address and the strides, in bytes, are multiples of. */
static uint32_t alignment(int given, int64_t ld, int64_t batch, size_t size) {
  uint64_t bits = (uint64_t)(given > 0 ? given : 16) | (uint64_t)ld * size | (uint64_t)batch * size | 256;
  return (uint32_t)(bits & (~bits + 1));
}

static int32_t data_type(sl_dtype d) { return d == SL_BF16 ? CUDA_R_16BF : CUDA_R_32F; }
static bool served(sl_dtype d) { return d == SL_F32 || d == SL_BF16; }

static void align(const sl_blas_product *p, problem *q, bool bias, bool aux) {
  const size_t in = sl_dtype_size(p->ab), out = sl_dtype_size(p->c);
  /* A leading dimension counts where the memory has a second column. */
  const int64_t left_cols = q->left_op == CUBLAS_OP_T ? q->m : q->k;
  const int64_t right_cols = q->right_op == CUBLAS_OP_T ? q->k : q->n;
  q->left_align = alignment(p->b_align, left_cols > 1 ? q->left_ld : 0, q->left_batch, in);
  q->right_align = alignment(p->a_align, right_cols > 1 ? q->right_ld : 0, q->right_batch, in);
  q->d_align = alignment(p->c_align, q->n > 1 ? q->d_ld : 0, q->d_batch, out);
  q->bias_align = bias ? alignment(p->bias_align, 0, 0, 1) : 0;
  q->aux_align = aux ? alignment(p->aux_align, q->n > 1 ? q->aux_ld : 0, 0, out) : 0;
}

/* On Hopper gelu is in the product's own pass. Below it (llm.c, pull requests 338 and 653) and on sm_120 (sglang,
 * 34350) it was measured as a second one, slower than a kernel apart. */
static bool gelu_is_slow(const sl_gpu *gpu, sl_blas_epilogue e) {
  return (gpu->sm < 90 || gpu->sm >= 120) && e >= SL_BLAS_GELU_BIAS && e <= SL_BLAS_DGELU_BGRAD;
}

/* False: not for the library. */
static bool problem_of(const sl_gpu *gpu, const sl_blas_product *p, problem *q) {
  const bool bias = epilogues[p->epilogue].bias, aux = epilogues[p->epilogue].aux;
  memset(q, 0, sizeof *q);
  if (p->m <= 0 || p->n <= 0 || p->k <= 0 || !served(p->ab) || !served(p->c)) return false;
  if (gelu_is_slow(gpu, p->epilogue)) return false;
  if (p->ab == SL_F32 && p->c != SL_F32) return false; /* cuBLASLt has bf16 results of bf16 operands alone */
  if (bias && p->bias != p->c) return false;           /* its bias, read or written, has D's type */
  q->m = p->n, q->n = p->m, q->k = p->k, q->batch = p->batch > 1 ? p->batch : 1;
  if (epilogues[p->epilogue].one_matrix && (q->batch > 1 || p->k == 1))
    return false; /* k 1: unknown to some versions */
  if (q->batch > INT32_MAX) return false;
  if (!operand(p->k, p->n, p->b_row, p->b_col, &q->left_op, &q->left_ld)) return false;
  if (!operand(p->m, p->k, p->a_row, p->a_col, &q->right_op, &q->right_ld)) return false;
  q->d_ld = p->m == 1 ? p->n : p->c_row;
  if (aux) q->aux_ld = p->m == 1 ? (p->n + 7) / 8 * 8 : p->aux_row ? p->aux_row : p->c_row; /* one row needs none */
  if (q->d_ld < p->n || (aux && (q->aux_ld < p->n || q->aux_ld % 8 != 0))) return false;
  if (q->batch > 1) q->left_batch = p->b_batch, q->right_batch = p->a_batch, q->d_batch = p->c_batch;
  q->in = data_type(p->ab), q->out = data_type(p->c), q->bias = bias ? data_type(p->bias) : 0;
  /* COMPUTE_32F rounds no f32 operand; products of bf16 are exact in f32 either way. */
  q->compute = p->ab == SL_F32 && p->tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
  q->epilogue = epilogues[p->epilogue].lt;
  align(p, q, bias, aux);
  return true;
}

/* --- descriptors --- */

static cublasStatus_t make_layout(const sl_blas *b, int32_t type, int64_t rows, int64_t cols, int64_t ld, int64_t batch,
                                  int64_t stride, cublasLtMatrixLayout_t *out) {
  int32_t count = (int32_t)batch;
  LT_TRY(b->MatrixLayoutCreate(out, (cudaDataType_t)type, (uint64_t)rows, (uint64_t)cols, ld));
  if (batch == 1) return CUBLAS_STATUS_SUCCESS;
  LT_TRY(b->MatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count));
  return b->MatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof stride);
}

static cublasStatus_t set(const sl_blas *b, cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t what,
                          const void *value, size_t size) {
  return b->MatmulDescSetAttribute(desc, what, value, size);
}

static cublasStatus_t set_pointers(const sl_blas *b, cublasLtMatmulDesc_t desc, const problem *q, const void *bias,
                                   const void *aux) {
  if (q->bias_align) LT_TRY(set(b, desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias));
  if (q->aux_align) LT_TRY(set(b, desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &aux, sizeof aux));
  return CUBLAS_STATUS_SUCCESS;
}

/* aux's type is not named: it is D's by default, and before 12.8 the library took no other. */
static cublasStatus_t make_desc(const sl_blas *b, const problem *q, cublasLtMatmulDesc_t *out) {
  LT_TRY(b->MatmulDescCreate(out, (cublasComputeType_t)q->compute, CUDA_R_32F));
  LT_TRY(set(b, *out, CUBLASLT_MATMUL_DESC_TRANSA, &q->left_op, sizeof q->left_op));
  LT_TRY(set(b, *out, CUBLASLT_MATMUL_DESC_TRANSB, &q->right_op, sizeof q->right_op));
  LT_TRY(set(b, *out, CUBLASLT_MATMUL_DESC_EPILOGUE, &q->epilogue, sizeof q->epilogue));
  if (q->bias_align) LT_TRY(set(b, *out, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &q->bias, sizeof q->bias));
  if (q->aux_align) LT_TRY(set(b, *out, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &q->aux_ld, sizeof q->aux_ld));
  /* The search reads no memory, but takes from these addresses how they will be aligned. */
  return set_pointers(b, *out, q, (const void *)(uintptr_t)q->bias_align, (const void *)(uintptr_t)q->aux_align);
}

static cublasStatus_t describe(const sl_blas *b, sl_blas_plan *p) {
  const problem *q = &p->q;
  const bool tl = q->left_op == CUBLAS_OP_T, tr = q->right_op == CUBLAS_OP_T;
  LT_TRY(make_desc(b, q, &p->desc));
  /* Layouts are of the memory, before op: op(left) is [m,k], op(right) [k,n]. */
  LT_TRY(make_layout(b, q->in, tl ? q->k : q->m, tl ? q->m : q->k, q->left_ld, q->batch, q->left_batch, &p->left));
  LT_TRY(make_layout(b, q->in, tr ? q->n : q->k, tr ? q->k : q->n, q->right_ld, q->batch, q->right_batch, &p->right));
  return make_layout(b, q->out, q->m, q->n, q->d_ld, q->batch, q->d_batch, &p->d);
}

/* --- the search --- */

static cublasStatus_t set_preference(const sl_blas *b, const problem *q, size_t workspace,
                                     cublasLtMatmulPreference_t pref) {
  /* Split-K only where parts stay in f32 in the workspace and a second kernel adds them in order. INPLACE and
   * OUTPUT_TYPE round every part to the result's type; whole sums (NONE, no bit of the mask) are always allowed. */
  const uint32_t reduction = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  const uint64_t bytes = workspace;
#define SET(name, value)                                                                                               \
  LT_TRY(b->MatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_##name, &(value), sizeof(value)))
  SET(MAX_WORKSPACE_BYTES, bytes);
  SET(REDUCTION_SCHEME_MASK, reduction);
  SET(MIN_ALIGNMENT_A_BYTES, q->left_align);
  SET(MIN_ALIGNMENT_B_BYTES, q->right_align);
  SET(MIN_ALIGNMENT_C_BYTES, q->d_align);
  SET(MIN_ALIGNMENT_D_BYTES, q->d_align);
#undef SET
  return CUBLAS_STATUS_SUCCESS;
}

/* Up to `want` usable algorithms, the best guess first. */
static cublasStatus_t search(const sl_blas *b, const sl_blas_plan *p, size_t workspace, int want,
                             cublasLtMatmulHeuristicResult_t *out, int *count) {
  cublasLtMatmulPreference_t pref = NULL;
  int got = 0;
  *count = 0;
  LT_TRY(b->MatmulPreferenceCreate(&pref));
  cublasStatus_t s = set_preference(b, &p->q, workspace, pref);
  if (s == CUBLAS_STATUS_SUCCESS)
    s = b->MatmulAlgoGetHeuristic(b->handle, p->desc, p->left, p->right, p->d, p->d, pref, want, out, &got);
  b->MatmulPreferenceDestroy(pref);
  for (int i = 0; s == CUBLAS_STATUS_SUCCESS && i < got; i++)
    if (out[i].state == CUBLAS_STATUS_SUCCESS && out[i].workspaceSize <= workspace) out[(*count)++] = out[i];
  return s;
}

static found *known(sl_blas *b, const problem *q) {
  for (int i = 0; i < b->count; i++)
    if (memcmp(&b->table[i].q, q, sizeof *q) == 0) return &b->table[i];
  return NULL;
}

static sl_status remember(sl_blas *b, const found *f) {
  if (b->count == b->room) {
    int room = b->room ? 2 * b->room : 32;
    found *grown = sl_realloc(b->ctx, b->table, (size_t)room * sizeof *grown);
    if (!grown) return SL_STATUS_OOM;
    b->table = grown, b->room = room;
  }
  b->table[b->count++] = *f;
  return SL_STATUS_OK;
}

static bool is_refusal(cublasStatus_t s) {
  return s == CUBLAS_STATUS_NOT_SUPPORTED || s == CUBLAS_STATUS_INVALID_VALUE || s == CUBLAS_STATUS_ARCH_MISMATCH;
}

/* described: what the descriptors' makers said. */
static sl_status search_new(sl_blas *b, const sl_blas_plan *p, cublasStatus_t described, found *f) {
  cublasLtMatmulHeuristicResult_t results[ASKED];
  const problem *q = &p->q;
  int count = 0;
  cublasStatus_t s = described;
  if (s == CUBLAS_STATUS_SUCCESS) s = search(b, p, MAX_WORKSPACE, ASKED, results, &count);
  if (s != CUBLAS_STATUS_SUCCESS && !is_refusal(s)) return lt_fail(b, s, "the search for an algorithm");
  f->q = *q, f->refused = count == 0;
  if (count) f->algo = results[0].algo, f->workspace = results[0].workspaceSize;
  else
    sl_context_log(b->ctx, "cuBLASLt has no algorithm for a product [%lld,%lld] of %lld terms (epilogue %u): %s",
                   (long long)q->n, (long long)q->m, (long long)q->k, q->epilogue, b->GetStatusString(s));
  return remember(b, f);
}

static sl_status look_up(sl_blas *b, sl_blas_plan *p, cublasStatus_t described, bool *refused) {
  found *f = known(b, &p->q), fresh = {0};
  if (described != CUBLAS_STATUS_SUCCESS && !is_refusal(described))
    return lt_fail(b, described, "describing a product");
  if (!f) {
    SL_TRY(search_new(b, p, described, &fresh));
    f = &fresh;
  }
  *refused = f->refused;
  p->algo = f->algo, p->workspace = f->workspace;
  return SL_STATUS_OK;
}

/* --- plans --- */

void sl_blas_free(sl_blas_plan *p) {
  if (!p) return;
  const sl_blas *b = p->gpu->blas;
  if (p->left) b->MatrixLayoutDestroy(p->left);
  if (p->right) b->MatrixLayoutDestroy(p->right);
  if (p->d) b->MatrixLayoutDestroy(p->d);
  if (p->desc) b->MatmulDescDestroy(p->desc);
  sl_free(p->gpu->ctx, p);
}

sl_status sl_blas_plan_new(sl_gpu *gpu, const sl_blas_product *product, sl_blas_plan **out, sl_blas_answer *answer) {
  sl_blas *b;
  problem q;
  bool refused = false;
  *out = NULL, *answer = SL_BLAS_MISSING;
  SL_TRY(blas_of(gpu, &b));
  if (!b) return SL_STATUS_OK;
  *answer = SL_BLAS_REFUSED;
  if (!problem_of(gpu, product, &q)) return SL_STATUS_OK;
  sl_blas_plan *p = sl_alloc_zero(gpu->ctx, sizeof *p);
  if (!p) return SL_STATUS_OOM;
  p->gpu = gpu, p->q = q, p->accumulates = epilogues[product->epilogue].accumulates;
  sl_status s = look_up(b, p, describe(b, p), &refused);
  if (s != SL_STATUS_OK || refused) {
    sl_blas_free(p);
    return s;
  }
  *out = p, *answer = SL_BLAS_PLANNED;
  return SL_STATUS_OK;
}

size_t sl_blas_workspace(const sl_blas_plan *plan) { return plan->workspace; }

static bool aligned(const void *p, uint32_t to) { return to == 0 || (uintptr_t)p % to == 0; }

bool sl_blas_fits(const sl_blas_plan *plan, const void *c, const void *a, const void *b, const void *bias,
                  const void *aux) {
  const problem *q = &plan->q;
  return aligned(c, q->d_align) && aligned(a, q->right_align) && aligned(b, q->left_align) &&
         aligned(bias, q->bias_align) && aligned(aux, q->aux_align);
}

/* --- running --- */

typedef struct operands {
  void *c;
  const void *a, *b, *bias, *aux;
  void *workspace;
} operands;

static sl_status launch(const sl_blas_plan *p, const cublasLtMatmulAlgo_t *algo, const operands *o, float beta,
                        size_t workspace) {
  const sl_blas *lt = p->gpu->blas;
  const float one = 1.0f;
  cublasStatus_t s = lt->Matmul(lt->handle, p->desc, &one, o->b, p->left, o->a, p->right, &beta, o->c, p->d, o->c, p->d,
                                algo, o->workspace, workspace, (cudaStream_t)p->gpu->stream);
  return s == CUBLAS_STATUS_SUCCESS ? SL_STATUS_OK : lt_fail(lt, s, "a product");
}

/* Checks the operands and puts the addresses of bias and aux in place. */
static sl_status point(const sl_blas_plan *p, const operands *o) {
  const sl_blas *lt = p->gpu->blas;
  SL_REQUIRE(sl_blas_fits(p, o->c, o->a, o->b, o->bias, o->aux), ARG,
             "cuBLASLt: an operand is not aligned as it was planned");
  SL_REQUIRE((!p->q.bias_align || o->bias) && (!p->q.aux_align || o->aux), ARG,
             "cuBLASLt: bias or aux is missing, which the epilogue needs");
  cublasStatus_t s = set_pointers(lt, p->desc, &p->q, o->bias, o->aux);
  return s == CUBLAS_STATUS_SUCCESS ? SL_STATUS_OK : lt_fail(lt, s, "setting an address");
}

/* --- tuning --- */

typedef struct candidates {
  const sl_blas_plan *plan;
  const operands *o;
  cublasLtMatmulHeuristicResult_t result[SL_GPU_FASTEST_MOST];
} candidates;

static sl_status run_candidate(void *user, int i) {
  const candidates *c = user;
  return launch(c->plan, &c->result[i].algo, c->o, 0.0f, c->result[i].workspaceSize);
}

/* Candidates are the first guess and what needs no more workspace than it. */
static sl_status tune(sl_blas_plan *plan, const operands *o, int tries) {
  enum { MOST = SL_GPU_FASTEST_MOST - 1 };
  candidates c = {plan, o, {{.algo = plan->algo, .workspaceSize = plan->workspace}}};
  int count = 0, best = 0;
  cublasStatus_t s = search(plan->gpu->blas, plan, plan->workspace, tries < MOST ? tries : MOST, c.result + 1, &count);
  if (s == CUBLAS_STATUS_SUCCESS) SL_TRY(sl_gpu_fastest(plan->gpu->stream, count + 1, run_candidate, &c, &best));
  plan->algo = c.result[best].algo;
  found *f = known(plan->gpu->blas, &plan->q);
  if (f) f->tuned = true, f->algo = plan->algo;
  return SL_STATUS_OK;
}

sl_status sl_blas_run(sl_blas_plan *plan, void *c, const void *a, const void *b, void *bias, void *aux, bool accumulate,
                      void *workspace) {
  operands o = {c, a, b, bias, aux, workspace};
  const sl_gpu *gpu = plan->gpu;
  SL_REQUIRE(!accumulate || plan->accumulates, ARG, "cuBLASLt: gelu and its gradient cannot be added to a result");
  SL_TRY(point(plan, &o));
  if (gpu->tune > 1 && !plan->tuned && !accumulate && !gpu->recording) {
    const found *f = known(gpu->blas, &plan->q);
    plan->tuned = true;
    if (f && f->tuned) plan->algo = f->algo;
    else SL_TRY(tune(plan, &o, gpu->tune));
  }
  return launch(plan, &plan->algo, &o, accumulate ? 1.0f : 0.0f, plan->workspace);
}
