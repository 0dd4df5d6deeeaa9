#include "ops/dnnl_cpu.h"

#include <dnnl.h>
#include <stdio.h>

#include "base/parallel.h"

/* Products of fewer multiply-adds are the caller's thread's: waking others costs as much, and how oneDNN divides them
 * shows in the last bits. */
#define LEAST_PARALLEL (1 << 16)
#define PACK_ROWS 64 /* from so many rows on, bringing transposed weights into oneDNN's own layout first pays */

typedef struct product {
  dnnl_primitive_desc_t desc;
  dnnl_primitive_t run;
} product;

struct sl_dnnl_gemm {
  dnnl_engine_t engine;
  dnnl_stream_t stream;
  product product[2]; /* [1] adds into C */
  dnnl_primitive_desc_t pack_desc;
  dnnl_primitive_t pack; /* B into oneDNN's layout, or NULL */
  dnnl_memory_t a, b, c, bias, packed, scratch[2], pack_scratch;
  size_t packed_bytes, scratch_bytes;
  int threads; /* that it was planned for */
};

static sl_status check(dnnl_status_t s, const char *what) {
  if (s == dnnl_success) return SL_STATUS_OK;
  if (s == dnnl_out_of_memory) return sl_fail(SL_STATUS_OOM, "oneDNN: out of memory (%s)", what);
  return sl_fail(s == dnnl_unimplemented ? SL_STATUS_UNSUPPORTED : SL_STATUS_INTERNAL,
                 "oneDNN: %s failed with status %d", what, (int)s);
}
#define TRY_DNNL(call) SL_TRY(check((call), #call))

bool sl_dnnl_has_bf16(sl_context *ctx) {
  if (sl_context_isa(ctx) < SL_ISA_AVX512) return false;
  return (dnnl_get_effective_cpu_isa() & dnnl_cpu_isa_avx512_core_bf16) == dnnl_cpu_isa_avx512_core_bf16;
}

sl_status sl_dnnl_check_sizes(const char *what, int n, const int64_t *sizes) {
  for (int i = 0; i < n; i++)
    SL_REQUIRE(sizes[i] <= INT32_MAX, UNSUPPORTED, "%s with a size of %lld: on the CPU at most %d", what,
               (long long)sizes[i], INT32_MAX);
  return SL_STATUS_OK;
}

static size_t align64(size_t n) { return (n + 63) / 64 * 64; }
static dnnl_data_type_t type_of(sl_dtype d) { return d == SL_BF16 ? dnnl_bf16 : dnnl_f32; }

static sl_status matrix(dnnl_memory_desc_t *md, const sl_gemm *g, sl_dtype dtype, const int64_t *batch_stride,
                        int64_t rows, int64_t cols, int64_t row, int64_t col) {
  dnnl_dims_t dims, strides;
  int64_t far = rows * row > cols * col ? rows * row : cols * col;
  for (int i = g->rank; i-- > 0;) {
    bool one = batch_stride[i] == 0 || g->batch[i] == 1;
    dims[i] = one ? 1 : g->batch[i];
    strides[i] = one ? far : batch_stride[i];
    if (dims[i] * strides[i] > far) far = dims[i] * strides[i];
  }
  dims[g->rank] = rows;
  dims[g->rank + 1] = cols;
  /* The stride of a dimension of one element is free: whatever looks most like a plain layout. */
  strides[g->rank] = rows == 1 ? (col == 1 ? cols : 1) : row;
  strides[g->rank + 1] = cols == 1 ? 1 : col;
  TRY_DNNL(dnnl_memory_desc_init_by_strides(md, g->rank + 2, dims, type_of(dtype), strides));
  return SL_STATUS_OK;
}

typedef struct descs {
  dnnl_memory_desc_t a, b, b_any, c, bias;
} descs;

static sl_status describe(const sl_gemm *g, descs *d) {
  SL_TRY(sl_dnnl_check_sizes("a product", 3, (int64_t[]){g->m, g->n, g->k}));
  SL_TRY(sl_dnnl_check_sizes("a product", g->rank, g->batch));
  SL_TRY(matrix(&d->a, g, g->ab, g->a_batch, g->m, g->k, g->a_row, g->a_col));
  SL_TRY(matrix(&d->b, g, g->ab, g->b_batch, g->k, g->n, g->b_row, g->b_col));
  SL_TRY(matrix(&d->c, g, g->c, g->c_batch, g->m, g->n, g->c_row, 1));
  dnnl_dims_t ones;
  for (int i = 0; i < g->rank + 1; i++) ones[i] = 1;
  ones[g->rank + 1] = g->n;
  dnnl_dims_t bias_strides;
  for (int i = 0; i < g->rank + 1; i++) bias_strides[i] = g->n;
  bias_strides[g->rank + 1] = 1;
  TRY_DNNL(dnnl_memory_desc_init_by_strides(&d->bias, g->rank + 2, ones, dnnl_f32, bias_strides));
  d->b_any = d->b;
  if (g->rank == 0 && g->m >= PACK_ROWS && g->b_row == 1 && g->b_col > 1)
    TRY_DNNL(dnnl_memory_desc_init_by_tag(&d->b_any, 2, d->b.dims, type_of(g->ab), dnnl_format_tag_any));
  return SL_STATUS_OK;
}

static sl_status product_desc(sl_dnnl_gemm *p, const sl_gemm *g, const descs *d, bool add, dnnl_primitive_attr_t attr,
                              dnnl_post_ops_t ops) {
  TRY_DNNL(dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user));
  if (add) TRY_DNNL(dnnl_post_ops_append_sum(ops, 1.0f));
  TRY_DNNL(dnnl_primitive_attr_set_post_ops(attr, ops));
  dnnl_matmul_desc_t md;
  /* What [0] chose for B holds for [1]: it is packed once. */
  const dnnl_memory_desc_t *b =
      add ? dnnl_primitive_desc_query_md(p->product[0].desc, dnnl_query_weights_md, 0) : &d->b_any;
  TRY_DNNL(dnnl_matmul_desc_init(&md, &d->a, b, g->bias ? &d->bias : NULL, &d->c));
  TRY_DNNL(dnnl_primitive_desc_create(&p->product[add].desc, &md, attr, p->engine, NULL));
  return SL_STATUS_OK;
}

static sl_status memory(sl_dnnl_gemm *p, dnnl_memory_t *m, const dnnl_memory_desc_t *md) {
  TRY_DNNL(dnnl_memory_create(m, md, p->engine, DNNL_MEMORY_NONE));
  return SL_STATUS_OK;
}

static sl_status product_new(sl_dnnl_gemm *p, const sl_gemm *g, const descs *d, bool add) {
  dnnl_primitive_attr_t attr = NULL;
  dnnl_post_ops_t ops = NULL;
  sl_status s = check(dnnl_primitive_attr_create(&attr), "dnnl_primitive_attr_create");
  if (s == SL_STATUS_OK) s = check(dnnl_post_ops_create(&ops), "dnnl_post_ops_create");
  if (s == SL_STATUS_OK) s = product_desc(p, g, d, add, attr, ops);
  if (ops) dnnl_post_ops_destroy(ops);
  if (attr) dnnl_primitive_attr_destroy(attr);
  SL_TRY(s);
  TRY_DNNL(dnnl_primitive_create(&p->product[add].run, p->product[add].desc));
  const dnnl_memory_desc_t *scratch = dnnl_primitive_desc_query_md(p->product[add].desc, dnnl_query_scratchpad_md, 0);
  SL_TRY(memory(p, &p->scratch[add], scratch));
  size_t bytes = align64(dnnl_memory_desc_get_size(scratch));
  if (bytes > p->scratch_bytes) p->scratch_bytes = bytes;
  return SL_STATUS_OK;
}

static sl_status pack_new(sl_dnnl_gemm *p, const descs *d) {
  const dnnl_memory_desc_t *to = dnnl_primitive_desc_query_md(p->product[0].desc, dnnl_query_weights_md, 0);
  if (dnnl_memory_desc_equal(to, &d->b)) return SL_STATUS_OK;
  dnnl_primitive_attr_t attr = NULL;
  TRY_DNNL(dnnl_primitive_attr_create(&attr));
  sl_status s = check(dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user), "scratchpad mode");
  if (s == SL_STATUS_OK)
    s = check(dnnl_reorder_primitive_desc_create(&p->pack_desc, &d->b, p->engine, to, p->engine, attr),
              "reorder of weights");
  dnnl_primitive_attr_destroy(attr);
  SL_TRY(s);
  TRY_DNNL(dnnl_primitive_create(&p->pack, p->pack_desc));
  SL_TRY(memory(p, &p->packed, to));
  const dnnl_memory_desc_t *scratch = dnnl_primitive_desc_query_md(p->pack_desc, dnnl_query_scratchpad_md, 0);
  SL_TRY(memory(p, &p->pack_scratch, scratch));
  p->packed_bytes = align64(dnnl_memory_desc_get_size(to));
  size_t bytes = align64(dnnl_memory_desc_get_size(scratch));
  if (bytes > p->scratch_bytes) p->scratch_bytes = bytes;
  return SL_STATUS_OK;
}

static sl_status fill(sl_dnnl_gemm *p, const sl_gemm *g) {
  TRY_DNNL(dnnl_engine_create(&p->engine, dnnl_cpu, 0));
  TRY_DNNL(dnnl_stream_create(&p->stream, p->engine, dnnl_stream_default_flags));
  descs d;
  SL_TRY(describe(g, &d));
  SL_TRY(product_new(p, g, &d, false));
  if (g->add) SL_TRY(product_new(p, g, &d, true));
  SL_TRY(pack_new(p, &d));
  SL_TRY(memory(p, &p->a, &d.a));
  SL_TRY(memory(p, &p->b, &d.b));
  SL_TRY(memory(p, &p->c, &d.c));
  return g->bias ? memory(p, &p->bias, &d.bias) : SL_STATUS_OK;
}

static bool is_small(const sl_gemm *g) {
  double macs = (double)g->m * (double)g->n * (double)g->k;
  for (int i = 0; i < g->rank; i++) macs *= (double)g->batch[i];
  return macs < LEAST_PARALLEL;
}

sl_status sl_dnnl_gemm_new(sl_context *ctx, const sl_gemm *g, sl_dnnl_gemm **out) {
  *out = NULL;
  sl_dnnl_gemm *p = sl_alloc_zero(ctx, sizeof *p);
  if (!p) return SL_STATUS_OOM;
  p->threads = is_small(g) ? 1 : sl_context_threads(ctx);
  int before = sl_parallel_threads(p->threads); /* oneDNN plans for the calling thread's number of threads */
  sl_status s = fill(p, g);
  (void)sl_parallel_threads(before);
  if (s != SL_STATUS_OK) {
    sl_dnnl_gemm_free(ctx, p);
    return s;
  }
  *out = p;
  return SL_STATUS_OK;
}

void sl_dnnl_gemm_free(sl_context *ctx, sl_dnnl_gemm *p) {
  if (!p) return;
  dnnl_memory_t memories[] = {p->a, p->b, p->c, p->bias, p->packed, p->scratch[0], p->scratch[1], p->pack_scratch};
  for (size_t i = 0; i < sizeof memories / sizeof *memories; i++)
    if (memories[i]) dnnl_memory_destroy(memories[i]);
  dnnl_primitive_t primitives[] = {p->product[0].run, p->product[1].run, p->pack};
  dnnl_primitive_desc_t made_of[] = {p->product[0].desc, p->product[1].desc, p->pack_desc};
  for (int i = 0; i < 3; i++) {
    if (primitives[i]) dnnl_primitive_destroy(primitives[i]);
    if (made_of[i]) dnnl_primitive_desc_destroy(made_of[i]);
  }
  if (p->stream) dnnl_stream_destroy(p->stream);
  if (p->engine) dnnl_engine_destroy(p->engine);
  sl_free(ctx, p);
}

size_t sl_dnnl_gemm_workspace(const sl_dnnl_gemm *p) { return p->packed_bytes + p->scratch_bytes; }

static sl_status set(dnnl_memory_t m, const void *data) {
  TRY_DNNL(dnnl_memory_set_data_handle(m, (void *)(uintptr_t)data));
  return SL_STATUS_OK;
}

static sl_status run(sl_dnnl_gemm *p, void *c, const void *a, const void *b, const void *bias, bool accumulate,
                     void *workspace) {
  char *scratch = workspace;
  if (scratch) scratch += p->packed_bytes;
  SL_TRY(set(p->a, a));
  SL_TRY(set(p->b, b));
  SL_TRY(set(p->c, c));
  SL_TRY(set(p->scratch[accumulate], scratch));
  if (p->bias) SL_TRY(set(p->bias, bias));
  if (p->pack) {
    SL_TRY(set(p->packed, workspace));
    SL_TRY(set(p->pack_scratch, scratch));
    dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, p->b}, {DNNL_ARG_TO, p->packed}, {DNNL_ARG_SCRATCHPAD, p->pack_scratch}};
    TRY_DNNL(dnnl_primitive_execute(p->pack, p->stream, 3, args));
  }
  dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, p->a},
                            {DNNL_ARG_WEIGHTS, p->pack ? p->packed : p->b},
                            {DNNL_ARG_DST, p->c},
                            {DNNL_ARG_SCRATCHPAD, p->scratch[accumulate]},
                            {DNNL_ARG_BIAS, p->bias}};
  TRY_DNNL(dnnl_primitive_execute(p->product[accumulate].run, p->stream, p->bias ? 5 : 4, args));
  TRY_DNNL(dnnl_stream_wait(p->stream));
  return SL_STATUS_OK;
}

sl_status sl_dnnl_gemm_run(sl_dnnl_gemm *p, void *c, const void *a, const void *b, const void *bias, bool accumulate,
                           void *workspace) {
  int before = sl_parallel_threads(p->threads);
  sl_status s = run(p, c, a, b, bias, accumulate, workspace);
  (void)sl_parallel_threads(before);
  return s;
}

const char *sl_dnnl_version(void) {
  static _Thread_local char text[32];
  const dnnl_version_t *v = dnnl_version();
  snprintf(text, sizeof text, "%d.%d.%d", v->major, v->minor, v->patch);
  return text;
}
