#include <string.h>

#include "ops/elementwise.h"
#include "ops/gemm.h"
#include "ops/kernels.h"
#include "ops/ops.h"
#include "ops/product.h"

sl_value *sl_matmul(sl_value *a, sl_value *b) { return sl_op2(SL_OP_matmul, a, b, NULL); }

sl_view sl_value_as_view(const sl_value *v) {
  sl_view w = {.dtype = v->dtype, .shape = v->shape};
  memcpy(w.stride, v->stride, sizeof w.stride);
  return w;
}

sl_status sl_products_canon(const char *op, const char *first, sl_value **a, const char *second, sl_value **b) {
  sl_value *both[] = {*a, *b};
  const char *names[] = {first, second};
  for (int i = 0; i < 2; i++) {
    sl_dtype d = both[i]->dtype;
    SL_REQUIRE(d == SL_F32 || d == SL_BF16, DTYPE, "%s: %s is %s, expected f32 or bf16 (cast it first)", op, names[i],
               sl_value_text(both[i]));
  }
  if ((*a)->dtype != (*b)->dtype) {
    *a = sl_cast(*a, SL_F32);
    *b = sl_cast(*b, SL_F32);
  }
  return *a && *b ? SL_STATUS_OK : sl_graph_status(both[0]->node->graph);
}

static sl_status canon(sl_graph *g, int n, sl_value **in, sl_attrs *at) {
  (void)n, (void)at;
  SL_TRY(sl_products_canon("matmul", "a", &in[0], "b", &in[1]));
  for (int i = 0; i < 2; i++) {
    SL_REQUIRE(in[i]->shape.rank > 0, SHAPE, "matmul: %s is a scalar, expected at least one dimension", i ? "b" : "a");
    if (!sl_matmul_strides_fit(&in[i]->shape, in[i]->stride)) in[i] = sl_contiguous(in[i]);
    if (!in[i]) return sl_graph_status(g);
  }
  return SL_STATUS_OK;
}

static sl_status infer(sl_node *n) {
  const sl_shape *a = &n->in[0]->shape, *b = &n->in[1]->shape;
  int64_t k = a->dim[a->rank - 1], k2 = b->dim[b->rank > 1 ? b->rank - 2 : 0];
  SL_REQUIRE(k == k2, SHAPE, "matmul: a is %s and b %s: the last dimension of a and the %s of b differ",
             sl_shape_text(a), sl_shape_text(b), b->rank > 1 ? "one before the last" : "only one");
  sl_shape la = *a, lb = *b, *out = &n->out[0].shape;
  la.rank = a->rank > 2 ? a->rank - 2 : 0;
  lb.rank = b->rank > 2 ? b->rank - 2 : 0;
  SL_REQUIRE(sl_shape_broadcast(&la, &lb, out), SHAPE, "matmul: leading dimensions of a %s and b %s do not broadcast",
             sl_shape_text(a), sl_shape_text(b));
  SL_REQUIRE(out->rank + 2 <= SL_MAX_RANK, SHAPE, "matmul: a is %s, expected at most %d dimensions", sl_shape_text(a),
             SL_MAX_RANK);
  if (a->rank > 1) out->dim[out->rank++] = a->dim[a->rank - 2];
  if (b->rank > 1) out->dim[out->rank++] = b->dim[b->rank - 1];
  n->out[0].dtype = n->in[0]->dtype;
  return SL_STATUS_OK;
}

/* --- gradient --- */

static sl_value *transposed(sl_value *v) {
  int dims[SL_MAX_RANK], r = v->shape.rank;
  for (int i = 0; i < r; i++) dims[i] = i;
  dims[r - 2] = r - 1, dims[r - 1] = r - 2;
  return sl_permute(v, r, dims);
}

/* Sums what was broadcast, so that v gets the shape of `like`. */
static sl_value *reduced(sl_value *v, const sl_shape *like) {
  if (!v) return NULL;
  int dims[SL_MAX_RANK], n = 0, skip = v->shape.rank - like->rank;
  for (int i = 0; i < v->shape.rank; i++)
    if (i < skip || (like->dim[i - skip] == 1 && v->shape.dim[i] != 1)) dims[n++] = i;
  if (n) v = sl_sum(v, n, dims, true);
  return v && v->shape.rank != like->rank ? sl_reshape(v, like->rank, like->dim) : v;
}

/* A matrix's gradient as that of the vector it was made of. */
static sl_value *as_given(sl_value *d, const sl_value *v) {
  return d && v->shape.rank == 1 ? sl_reshape(d, 1, v->shape.dim) : d;
}

static sl_value *as_matrix(sl_value *v, bool column) {
  if (v->shape.rank > 1) return v;
  int64_t n = v->shape.dim[0];
  return column ? SL_RESHAPE(v, n, 1) : SL_RESHAPE(v, 1, n);
}

static sl_value *rows_of(sl_value *v) { return SL_RESHAPE(v, -1, v->shape.dim[v->shape.rank - 1]); }

static sl_status grad(sl_grad_args *g) {
  sl_value *a = g->in[0], *b = g->in[1], *dy = g->dy[0];
  sl_value *am = as_matrix(a, false), *bm = as_matrix(b, true);
  if (a->shape.rank == 1 || b->shape.rank == 1) { /* dy with the dimensions that numpy's rules drop */
    sl_shape s = dy->shape;
    if (b->shape.rank == 1) s.dim[s.rank++] = 1;
    if (a->shape.rank == 1) {
      s.dim[s.rank] = s.dim[s.rank - 1];
      s.dim[s.rank++ - 1] = 1;
    }
    dy = sl_reshape(dy, s.rank, s.dim);
  }
  if (!am || !bm || !dy) return sl_graph_status(g->graph);
  if (g->need[0]) g->dx[0] = as_given(reduced(sl_matmul(dy, transposed(bm)), &am->shape), a);
  if (g->need[1]) {
    bool one_matrix = bm->shape.rank == 2 && am->shape.rank > 2 && sl_shape_numel(&am->shape) > 0;
    sl_value *x = one_matrix ? rows_of(am) : am, *d = one_matrix ? rows_of(dy) : dy;
    g->dx[1] = x && d ? as_given(reduced(sl_matmul(transposed(x), d), &bm->shape), b) : NULL;
  }
  return SL_STATUS_OK;
}

static int64_t macs(const sl_node *n) {
  const sl_shape *a = &n->in[0]->shape;
  return sl_shape_numel(&n->out[0].shape) * a->dim[a->rank - 1];
}

/* --- running --- */

static sl_gemm gemm_of(const sl_node *n) {
  sl_view c = sl_value_as_view(&n->out[0]), a = sl_value_as_view(n->in[0]), b = sl_value_as_view(n->in[1]);
  return sl_gemm_of(&c, &a, &b);
}

static sl_status workspace(sl_exec *e, const sl_node *n, size_t *bytes) {
  sl_gemm g = gemm_of(n);
  return e->kernels->gemm_workspace(e, &g, bytes);
}

static sl_status prepare(sl_exec *e, const sl_node *n, void **state) {
  sl_gemm g = gemm_of(n);
  return e->kernels->gemm_plan(e, &g, state);
}

void sl_product_release(sl_exec *e, void *state) {
  sl_status s = e->kernels->gemm_release(e, state);
  (void)s; /* freeing does not fail */
}

static sl_status run(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state, void *work) {
  (void)n;
  return e->kernels->gemm(e, state, &out[0], &in[0], &in[1], NULL, NULL, work);
}

const sl_op_rules sl_rules_matmul = {.canon = canon,
                                     .infer = infer,
                                     .grad = grad,
                                     .macs = macs,
                                     .workspace = workspace,
                                     .prepare = prepare,
                                     .release = sl_product_release,
                                     .run = run};

/* --- matmul_unary_backward: the product is a gradient that goes on through an elementwise function of x --- */

static sl_status canon_unary(sl_graph *g, int n, sl_value **in, sl_attrs *at) {
  SL_REQUIRE(at->i[0] >= 0 && at->i[0] < SL_UNARY_COUNT, ARG,
             "matmul_unary_backward: fn is %d, expected a function's number", (int)at->i[0]);
  SL_TRY(canon(g, n, in, at));
  in[2] = sl_contiguous(sl_cast(in[2], in[0]->dtype));
  return sl_graph_status(g);
}

static sl_status infer_unary(sl_node *n) {
  SL_TRY(infer(n));
  SL_REQUIRE(sl_shape_equal(&n->out[0].shape, &n->in[2]->shape), SHAPE,
             "matmul_unary_backward: x is %s, expected %s as the product", sl_value_text(n->in[2]),
             sl_shape_text(&n->out[0].shape));
  return SL_STATUS_OK;
}

/* The product with the function in its own pass where the device has that (yes), else the product alone. */
static sl_status unary_gemm(sl_exec *e, const sl_node *n, sl_gemm *g, bool *yes) {
  *g = gemm_of(n);
  *yes = n->attrs.i[0] == SL_UNARY_gelu && g->rank == 0;
  if (!*yes) return SL_STATUS_OK;
  g->epilogue = SL_GEMM_DGELU;
  SL_TRY(e->kernels->gemm_fuses(e, g, yes));
  if (!*yes) g->epilogue = SL_GEMM_PLAIN;
  return SL_STATUS_OK;
}

static sl_status workspace_unary(sl_exec *e, const sl_node *n, size_t *bytes) {
  sl_gemm g;
  bool fused;
  SL_TRY(unary_gemm(e, n, &g, &fused));
  return e->kernels->gemm_workspace(e, &g, bytes);
}

typedef struct unary_product {
  void *plan;
  bool fused;
} unary_product;

static sl_status prepare_unary(sl_exec *e, const sl_node *n, void **state) {
  sl_gemm g;
  unary_product *p = sl_alloc_zero(e->ctx, sizeof *p);
  *state = p; /* released, also when this fails */
  if (!p) return SL_STATUS_OOM;
  SL_TRY(unary_gemm(e, n, &g, &p->fused));
  return e->kernels->gemm_plan(e, &g, &p->plan);
}

static void release_unary(sl_exec *e, void *state) {
  unary_product *p = state;
  if (p) sl_product_release(e, p->plan);
  sl_free(e->ctx, p);
}

static sl_status run_unary(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                           void *work) {
  const unary_product *p = state;
  SL_TRY(e->kernels->gemm(e, p->plan, &out[0], &in[0], &in[1], NULL, p->fused ? &in[2] : NULL, work));
  return p->fused ? SL_STATUS_OK : e->kernels->unary_backward(e, (int)n->attrs.i[0], &out[0], &out[0], &in[2]);
}

const sl_op_rules sl_rules_matmul_unary_backward = {.canon = canon_unary,
                                                    .infer = infer_unary,
                                                    .macs = macs,
                                                    .workspace = workspace_unary,
                                                    .prepare = prepare_unary,
                                                    .release = release_unary,
                                                    .run = run_unary};
