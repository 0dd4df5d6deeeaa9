/* Softmax and its logarithm over one dimension. */
#include "ops/rules.h"

enum { ATTR_DIM };
enum { ATTR_LOG, ATTR_BACK_DIM };

typedef struct extent {
  int64_t rows, n, inner;
} extent;

/* A dense tensor seen as [rows, n, inner] around dimension dim. */
static extent extent_of(const sl_shape *s, int64_t dim) {
  extent x = {1, s->dim[dim], 1};
  for (int i = 0; i < dim; i++) x.rows *= s->dim[i];
  for (int i = (int)dim + 1; i < s->rank; i++) x.inner *= s->dim[i];
  return x;
}

static sl_status canon(sl_graph *g, const char *op, sl_value **in, sl_attrs *a) {
  SL_REQUIRE(in[0]->shape.rank > 0, SHAPE, "%s: x is a scalar, expected at least one dimension", op);
  SL_TRY(sl__check_computes(op, "x", in[0]));
  if (!sl_dtype_is_float(in[0]->dtype)) in[0] = sl_cast(in[0], SL_F32);
  SL_TRY(sl__resolve_dim(op, in[0], &a->i[ATTR_DIM]));
  return sl_graph_status(g);
}

static sl_status canon_softmax(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)n;
  return canon(g, "softmax", in, a);
}

static sl_status canon_log_softmax(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)n;
  return canon(g, "log_softmax", in, a);
}

static sl_status infer_same(sl_node *n) {
  n->out[0].dtype = n->in[0]->dtype;
  n->out[0].shape = n->in[0]->shape;
  return SL_STATUS_OK;
}

static sl_status backward(sl_grad_args *a, bool log) {
  sl_attrs attrs = {.i = {[ATTR_LOG] = log, [ATTR_BACK_DIM] = a->node->attrs.i[ATTR_DIM]}};
  a->dx[0] = sl_op2(SL_OP_softmax_backward, a->dy[0], a->out[0], &attrs);
  return SL_STATUS_OK;
}

static sl_status grad_softmax(sl_grad_args *a) { return backward(a, false); }
static sl_status grad_log_softmax(sl_grad_args *a) { return backward(a, true); }

static sl_status forward(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, bool log) {
  extent x = extent_of(&in[0].shape, n->attrs.i[ATTR_DIM]);
  return e->kernels->softmax(e, log, &out[0], &in[0], x.rows, x.n, x.inner);
}

static sl_status run_softmax(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                             void *workspace) {
  (void)state, (void)workspace;
  return forward(e, n, out, in, false);
}

static sl_status run_log_softmax(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                                 void *workspace) {
  (void)state, (void)workspace;
  return forward(e, n, out, in, true);
}

static sl_status infer_backward(sl_node *n) {
  SL_REQUIRE(sl_shape_equal(&n->in[0]->shape, &n->in[1]->shape) && n->in[0]->dtype == n->in[1]->dtype, SHAPE,
             "softmax_backward: dy is %s, expected %s", sl_value_text(n->in[0]), sl_value_text(n->in[1]));
  SL_REQUIRE(n->attrs.i[ATTR_BACK_DIM] >= 0 && n->attrs.i[ATTR_BACK_DIM] < n->in[0]->shape.rank, ARG,
             "softmax_backward: dim is %lld", (long long)n->attrs.i[ATTR_BACK_DIM]);
  return infer_same(n);
}

static sl_status run_backward(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                              void *workspace) {
  (void)state, (void)workspace;
  extent x = extent_of(&in[0].shape, n->attrs.i[ATTR_BACK_DIM]);
  return e->kernels->softmax_backward(e, n->attrs.i[ATTR_LOG] != 0, &out[0], &in[0], &in[1], x.rows, x.n, x.inner);
}

const sl_op_rules sl_rules_softmax = {
    .canon = canon_softmax, .infer = infer_same, .grad = grad_softmax, .run = run_softmax};
const sl_op_rules sl_rules_log_softmax = {
    .canon = canon_log_softmax, .infer = infer_same, .grad = grad_log_softmax, .run = run_log_softmax};
const sl_op_rules sl_rules_softmax_backward = {.infer = infer_backward, .run = run_backward};

sl_value *sl_softmax(sl_value *x, int dim) { return sl_op1(SL_OP_softmax, x, &(sl_attrs){.i = {[ATTR_DIM] = dim}}); }
