#include <string.h>

#include "ops/elementwise.h"
#include "ops/gemm.h"
#include "ops/kernels.h"
#include "ops/ops.h"
#include "ops/product.h"

enum { ATTR_ACT }; /* i */

static const int act_fn[] = {
    [SL_ACT_GELU] = SL_UNARY_gelu, [SL_ACT_GELU_ERF] = SL_UNARY_gelu_erf, [SL_ACT_SILU] = SL_UNARY_silu};

sl_value *sl_linear(sl_value *x, sl_value *w, sl_value *b, sl_act act) {
  sl_attrs a = {.i = {[ATTR_ACT] = act}};
  return x && w ? sl_opn(SL_OP_linear, 3, (sl_value *[]){x, w, b}, &a) : NULL;
}

/* x […, K] as rows of K: one stride between rows, unit stride within; else 0. */
static int64_t row_stride(const sl_value *x) {
  int r = x->shape.rank;
  int64_t k = x->shape.dim[r - 1], step = -1, next = 0;
  if (k != 1 && x->stride[r - 1] != 1) return 0;
  for (int i = r - 1; i-- > 0;) {
    if (x->shape.dim[i] == 1) continue;
    if (step < 0) step = x->stride[i];
    if (step < k || (next && x->stride[i] != next)) return 0;
    next = x->stride[i] * x->shape.dim[i];
  }
  return step < 0 ? k : step; /* one row: any */
}

static int64_t row_count(const sl_shape *s) {
  int64_t n = 1;
  for (int i = 0; i < s->rank - 1; i++) n *= s->dim[i];
  return n;
}

static sl_value *with_rows(sl_value *x) { return x && row_stride(x) == 0 ? sl_contiguous(x) : x; }

/* x as [rows, K], read with row_stride. */
static sl_view rows_view(const sl_value *x) {
  sl_view v = {.dtype = x->dtype, .shape = {.rank = 2}};
  v.shape.dim[0] = row_count(&x->shape);
  v.shape.dim[1] = x->shape.dim[x->shape.rank - 1];
  v.stride[0] = row_stride(x);
  v.stride[1] = 1;
  return v;
}

static sl_view swapped(sl_view v) {
  int64_t d = v.shape.dim[0], s = v.stride[0];
  v.shape.dim[0] = v.shape.dim[1], v.stride[0] = v.stride[1];
  v.shape.dim[1] = d, v.stride[1] = s;
  return v;
}

static sl_status linear_canon(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)n, (void)a;
  SL_REQUIRE(in[0]->shape.rank > 0, SHAPE, "linear: x is a scalar, expected […,K]");
  SL_REQUIRE(in[1]->shape.rank == 2, SHAPE, "linear: w is %s, expected [P,K]", sl_value_text(in[1]));
  SL_TRY(sl_products_canon("linear", "x", &in[0], "w", &in[1]));
  in[0] = with_rows(in[0]);
  if (!sl_matmul_strides_fit(&in[1]->shape, in[1]->stride)) in[1] = sl_contiguous(in[1]);
  if (in[2]) {
    SL_REQUIRE(sl_dtype_is_float(in[2]->dtype), DTYPE, "linear: b is %s, expected a float", sl_value_text(in[2]));
    /* GPU libraries want the bias in the result's dtype; there the cast of a parameter costs nothing. */
    bool bf16 = sl_graph_device(g)->gpu && in[0] && in[0]->dtype == SL_BF16;
    in[2] = sl_contiguous(sl_cast(in[2], bf16 ? SL_BF16 : SL_F32));
  }
  return sl_graph_status(g);
}

static sl_status linear_infer(sl_node *n) {
  const sl_shape *x = &n->in[0]->shape, *w = &n->in[1]->shape;
  SL_REQUIRE(x->dim[x->rank - 1] == w->dim[1], SHAPE, "linear: x is %s and w %s: their last dimensions differ",
             sl_shape_text(x), sl_shape_text(w));
  if (n->in[2])
    SL_REQUIRE(n->in[2]->shape.rank == 1 && n->in[2]->shape.dim[0] == w->dim[0], SHAPE,
               "linear: b is %s, expected [%lld]", sl_shape_text(&n->in[2]->shape), (long long)w->dim[0]);
  for (int k = 0; k < 2; k++) {
    n->out[k].dtype = n->in[0]->dtype;
    n->out[k].shape = *x;
    n->out[k].shape.dim[x->rank - 1] = w->dim[0];
  }
  return SL_STATUS_OK;
}

/* The gradient of w or b comes in f32; a bf16 copy of an f32 parameter passes it on so. */
static sl_value *for_input(sl_value *d, const sl_value *in) {
  bool is_copy = in->node->op && in->node->op == sl_op_find("cast");
  return is_copy ? d : sl_cast(d, in->dtype);
}

static sl_value *sum_of(sl_value *a, sl_value *b) { return a && b ? sl_add(a, b) : a ? a : b; }

/* d fn'(pre); where d is a product that is needed for nothing else, in one node with it: the product by itself is then
 * dead code. */
static sl_value *act_backward(sl_value *d, sl_value *pre, int fn) {
  sl_attrs a = {.i = {fn}};
  const sl_node *n = d->node;
  if (n->op == &sl_ops[SL_OP_matmul] && d->base == d)
    return sl_opn(SL_OP_matmul_unary_backward, 3, (sl_value *[]){n->in[0], n->in[1], pre}, &a);
  return sl_op2(SL_OP_unary_backward, d, pre, &a);
}

static sl_status linear_grad(sl_grad_args *g) {
  int act = (int)g->node->attrs.i[ATTR_ACT];
  sl_value *d = g->dy[0];
  if (act && d) d = act_backward(d, g->out[1], act_fn[act]);
  d = sum_of(d, g->dy[1]);
  if (!d) return sl_graph_status(g->graph);
  if (g->need[0]) g->dx[0] = sl_matmul(d, g->in[1]);
  if (g->need[1] || (g->in[2] && g->need[2])) {
    sl_value *dw = sl_op2(SL_OP_linear_weight_grad, d, g->in[0], NULL), *db = sl_output(dw, 1);
    if (!dw) return sl_graph_status(g->graph);
    if (g->need[1]) g->dx[1] = for_input(dw, g->in[1]);
    if (g->in[2] && g->need[2]) g->dx[2] = for_input(db, g->in[2]);
  }
  return SL_STATUS_OK;
}

/* The activation of the value before it, which backward reads in any case. */
static sl_value *linear_again(sl_graph *g, const sl_node *n, int k) {
  static const sl_op_id op[] = {
      [SL_ACT_GELU] = SL_OP_gelu, [SL_ACT_GELU_ERF] = SL_OP_gelu_erf, [SL_ACT_SILU] = SL_OP_silu};
  int64_t act = n->attrs.i[ATTR_ACT];
  return k == 0 && act != SL_ACT_NONE ? sl_apply(g, &sl_ops[op[act]], 1, (sl_value *[]){&n->out[1]}, NULL) : NULL;
}

static int64_t linear_macs(const sl_node *n) { return sl_shape_numel(&n->out[0].shape) * n->in[1]->shape.dim[1]; }

static sl_gemm linear_gemm(const sl_node *n) {
  sl_view x = rows_view(n->in[0]), w = swapped(sl_value_as_view(n->in[1])), y = rows_view(&n->out[0]);
  sl_gemm g = sl_gemm_of(&y, &x, &w);
  g.bias = n->in[2] != NULL;
  g.bias_dtype = n->in[2] ? n->in[2]->dtype : SL_F32;
  return g;
}

/* The products that a run chooses from: the sum alone, and with the activation in the product's own pass, with or
 * without the value before it. Those that a device cannot do are not there. */
enum { PRODUCT_SUM, PRODUCT_ACT, PRODUCT_ACT_AUX, PRODUCTS };
typedef struct products {
  void *plan[PRODUCTS];
} products;

/* Product k of a linear layer; false: it is not to be had. */
static bool has_product(sl_exec *e, const sl_node *n, int k, sl_gemm *g) {
  static const sl_gemm_epilogue epilogue[] = {SL_GEMM_PLAIN, SL_GEMM_GELU, SL_GEMM_GELU_AUX};
  bool yes = k == PRODUCT_SUM || n->attrs.i[ATTR_ACT] == SL_ACT_GELU;
  *g = linear_gemm(n);
  g->epilogue = epilogue[k];
  if (k != PRODUCT_SUM && yes && e->kernels->gemm_fuses(e, g, &yes) != SL_STATUS_OK) return false;
  return yes;
}

static sl_status linear_workspace(sl_exec *e, const sl_node *n, size_t *bytes) {
  sl_gemm g;
  size_t one;
  *bytes = 0;
  for (int k = 0; k < PRODUCTS; k++) {
    if (!has_product(e, n, k, &g)) continue;
    SL_TRY(e->kernels->gemm_workspace(e, &g, &one));
    if (one > *bytes) *bytes = one;
  }
  return SL_STATUS_OK;
}

static void release_products(sl_exec *e, void *state) {
  products *p = state;
  for (int k = 0; p && k < PRODUCTS; k++) sl_product_release(e, p->plan[k]);
  sl_free(e->ctx, p);
}

static sl_status linear_prepare(sl_exec *e, const sl_node *n, void **state) {
  sl_gemm g;
  products *p = sl_alloc_zero(e->ctx, sizeof *p);
  *state = p; /* released, also when this fails */
  if (!p) return SL_STATUS_OOM;
  for (int k = 0; k < PRODUCTS; k++)
    if (has_product(e, n, k, &g)) SL_TRY(e->kernels->gemm_plan(e, &g, &p->plan[k]));
  return SL_STATUS_OK;
}

static sl_status linear_run(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                            void *work) {
  const products *p = state;
  const sl_view *y = &out[0], *pre = out[1].data ? &out[1] : y->data ? y : NULL, *bias = in[2].data ? &in[2] : NULL;
  if (!pre) return SL_STATUS_OK;
  int act = (int)n->attrs.i[ATTR_ACT], fused = out[1].data ? PRODUCT_ACT_AUX : PRODUCT_ACT;
  if (act && y->data && p->plan[fused])
    return e->kernels->gemm(e, p->plan[fused], y, &in[0], &in[1], bias, out[1].data ? &out[1] : NULL, work);
  SL_TRY(e->kernels->gemm(e, p->plan[PRODUCT_SUM], pre, &in[0], &in[1], bias, NULL, work));
  if (!y->data) return SL_STATUS_OK;
  if (act) return e->kernels->unary(e, act_fn[act], y, pre);
  return pre == y ? SL_STATUS_OK : e->kernels->copy(e, y, pre);
}

const sl_op_rules sl_rules_linear = {.canon = linear_canon,
                                     .infer = linear_infer,
                                     .grad = linear_grad,
                                     .again = linear_again,
                                     .macs = linear_macs,
                                     .workspace = linear_workspace,
                                     .prepare = linear_prepare,
                                     .release = release_products,
                                     .run = linear_run};

/* --- dW = dy^T x and db = the sum of dy's rows, in f32 --- */

static sl_status weight_grad_canon(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)n, (void)a;
  SL_TRY(sl_products_canon("linear_weight_grad", "dy", &in[0], "x", &in[1]));
  in[0] = with_rows(in[0]);
  in[1] = with_rows(in[1]);
  return sl_graph_status(g);
}

static sl_status weight_grad_infer(sl_node *n) {
  const sl_shape *dy = &n->in[0]->shape, *x = &n->in[1]->shape;
  SL_REQUIRE(dy->rank > 0 && x->rank > 0 && row_count(dy) == row_count(x), SHAPE,
             "linear_weight_grad: dy is %s and x %s: their numbers of rows differ", sl_shape_text(dy),
             sl_shape_text(x));
  int64_t p = dy->dim[dy->rank - 1];
  n->out[0].dtype = n->out[1].dtype = SL_F32;
  n->out[0].shape = SL_SHAPE(p, x->dim[x->rank - 1]);
  n->out[1].shape = SL_SHAPE(p);
  return SL_STATUS_OK;
}

static int64_t weight_grad_macs(const sl_node *n) {
  return sl_shape_numel(&n->out[0].shape) * row_count(&n->in[0]->shape);
}

static sl_gemm weight_gemm(const sl_node *n) {
  sl_view dy = swapped(rows_view(n->in[0])), x = rows_view(n->in[1]), dw = sl_value_as_view(&n->out[0]);
  sl_gemm g = sl_gemm_of(&dw, &dy, &x);
  g.add = true;
  return g;
}

/* PRODUCT_SUM, and as PRODUCT_ACT the one that also sums dy's rows: db, into the workspace's head. */
static bool has_weight_product(sl_exec *e, const sl_node *n, int k, sl_gemm *g) {
  bool yes = true;
  *g = weight_gemm(n);
  if (k == PRODUCT_SUM) return true;
  g->epilogue = SL_GEMM_ROW_SUMS;
  return e->kernels->gemm_fuses(e, g, &yes) == SL_STATUS_OK && yes;
}

static size_t sums_bytes(const sl_node *n) {
  return ((size_t)n->out[1].shape.dim[0] * sizeof(float) + 255) / 256 * 256;
}

static sl_status weight_grad_workspace(sl_exec *e, const sl_node *n, size_t *bytes) {
  sl_gemm g;
  size_t one;
  *bytes = 0;
  for (int k = PRODUCT_SUM; k <= PRODUCT_ACT; k++) {
    if (!has_weight_product(e, n, k, &g)) continue;
    SL_TRY(e->kernels->gemm_workspace(e, &g, &one));
    if (k == PRODUCT_ACT) one += sums_bytes(n);
    if (one > *bytes) *bytes = one;
  }
  return SL_STATUS_OK;
}

static sl_status weight_grad_prepare(sl_exec *e, const sl_node *n, void **state) {
  sl_gemm g;
  products *p = sl_alloc_zero(e->ctx, sizeof *p);
  *state = p;
  if (!p) return SL_STATUS_OOM;
  for (int k = PRODUCT_SUM; k <= PRODUCT_ACT; k++)
    if (has_weight_product(e, n, k, &g)) SL_TRY(e->kernels->gemm_plan(e, &g, &p->plan[k]));
  return SL_STATUS_OK;
}

/* Both sums in one product: db comes out beside it, in its place or to be brought there. */
static sl_status weight_grad_fused(sl_exec *e, const sl_node *n, void *plan, const sl_view *out, const sl_view *in,
                                   char *work) {
  sl_view db = out[1];
  bool direct = !db.accumulate && (uintptr_t)db.data % 16 == 0;
  db.accumulate = false;
  if (!direct) db.data = work;
  SL_TRY(e->kernels->gemm(e, plan, &out[0], &in[0], &in[1], &db, NULL, work + sums_bytes(n)));
  if (direct) return SL_STATUS_OK;
  return out[1].accumulate ? e->kernels->accumulate(e, &out[1], &db) : e->kernels->copy(e, &out[1], &db);
}

static sl_status weight_grad_run(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                                 void *work) {
  const products *p = state;
  if (out[0].data && out[1].data && p->plan[PRODUCT_ACT])
    return weight_grad_fused(e, n, p->plan[PRODUCT_ACT], out, in, work);
  if (out[0].data) SL_TRY(e->kernels->gemm(e, p->plan[PRODUCT_SUM], &out[0], &in[0], &in[1], NULL, NULL, work));
  if (!out[1].data) return SL_STATUS_OK;
  sl_view rows = rows_view(n->in[0]);
  return e->kernels->column_sum(e, &out[1], &in[0], rows.shape.dim[0], rows.shape.dim[1], rows.stride[0]);
}

const sl_op_rules sl_rules_linear_weight_grad = {.canon = weight_grad_canon,
                                                 .infer = weight_grad_infer,
                                                 .macs = weight_grad_macs,
                                                 .workspace = weight_grad_workspace,
                                                 .prepare = weight_grad_prepare,
                                                 .release = release_products,
                                                 .run = weight_grad_run};
