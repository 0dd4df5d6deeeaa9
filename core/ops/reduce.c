/* Reductions over lists of dimensions. */
#include "ops/reduce.h"

#include <inttypes.h>

#include "ops/rules.h"

enum { DIMS = 0, KEEPDIM = SL_ATTR_LIST };

/* --- shapes --- */

/* The list from 0, in order, written out where it was empty. */
static sl_status canon_dims(const char *op, const sl_value *x, sl_attrs *a) {
  int rank = x->shape.rank;
  bool reduced[SL_MAX_RANK] = {false};
  SL_TRY(sl__check_computes(op, "x", x));
  SL_REQUIRE(a->i[DIMS] >= 0 && a->i[DIMS] <= SL_MAX_RANK, ARG, "%s: dims has %" PRId64 " entries, expected at most %d",
             op, a->i[DIMS], SL_MAX_RANK);
  for (int i = 0; i < a->i[DIMS]; i++) {
    SL_TRY(sl__resolve_dim(op, x, &a->i[1 + i]));
    SL_REQUIRE(!reduced[a->i[1 + i]], ARG, "%s: dims names dimension %" PRId64 " twice", op, sl__told(a->i[1 + i]));
    reduced[a->i[1 + i]] = true;
  }
  bool all = a->i[DIMS] == 0;
  int n = 0;
  for (int i = 0; i < rank; i++)
    if (all || reduced[i]) a->i[1 + n++] = i;
  a->i[DIMS] = n;
  for (int i = n; i < SL_MAX_RANK; i++) a->i[1 + i] = 0;
  return SL_STATUS_OK;
}

static bool is_reduced(const int64_t *list, int dim) {
  for (int i = 0; i < list[0]; i++)
    if (list[1 + i] == dim) return true;
  return false;
}

static sl_shape kept_shape(const sl_shape *x, const int64_t *list) {
  sl_shape s = *x;
  for (int i = 0; i < list[0]; i++) s.dim[list[1 + i]] = 1;
  return s;
}

static sl_shape result_shape(const sl_shape *x, const int64_t *list, bool keepdim) {
  if (keepdim) return kept_shape(x, list);
  sl_shape s = {.rank = 0};
  for (int i = 0; i < x->rank; i++)
    if (!is_reduced(list, i)) s.dim[s.rank++] = x->dim[i];
  return s;
}

static sl_status infer_like(sl_node *n) {
  n->out[0].dtype = n->in[0]->dtype;
  n->out[0].shape = result_shape(&n->in[0]->shape, n->attrs.i, n->attrs.i[KEEPDIM]);
  return SL_STATUS_OK;
}

static sl_status infer_sum(sl_node *n) {
  SL_TRY(infer_like(n));
  if (!sl_dtype_is_float(n->in[0]->dtype)) n->out[0].dtype = SL_I64;
  return SL_STATUS_OK;
}

static sl_status infer_extreme(sl_node *n) {
  for (int i = 0; i < n->attrs.i[DIMS]; i++)
    SL_REQUIRE(n->in[0]->shape.dim[n->attrs.i[1 + i]] > 0, SHAPE,
               "%s: x is %s, dimension %" PRId64 " has no elements to compare", n->op->name, sl_value_text(n->in[0]),
               sl__told(n->attrs.i[1 + i]));
  return infer_like(n);
}

static sl_status canon_sum(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)g, (void)n;
  return canon_dims("sum", in[0], a);
}

static sl_status canon_mean(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)n;
  SL_TRY(canon_dims("mean", in[0], a));
  if (!sl_dtype_is_float(in[0]->dtype)) in[0] = sl_cast(in[0], SL_F32);
  return in[0] ? SL_STATUS_OK : sl_graph_status(g);
}

static sl_status canon_max(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)g, (void)n;
  return canon_dims("max", in[0], a);
}

static sl_status canon_min(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)g, (void)n;
  return canon_dims("min", in[0], a);
}

static sl_status canon_norm(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)g, (void)n;
  return canon_dims("norm", in[0], a);
}

/* --- running --- */

/* y seen in x's rank, 1 along reduced dimensions. */
static sl_view kept_view(const sl_view *y, const sl_view *x, const int64_t *list) {
  sl_view v = *y;
  v.shape = kept_shape(&x->shape, list);
  sl_shape_strides(&v.shape, v.stride);
  return v;
}

static sl_status run_reduce(sl_exec *e, int fn, const sl_node *n, const sl_view *out, const sl_view *in) {
  sl_view y = kept_view(&out[0], &in[0], n->attrs.i);
  return e->kernels->reduce(e, fn, &y, &in[0]);
}

#define RUN(name, fn)                                                                                                  \
  static sl_status run_##name(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,        \
                              void *workspace) {                                                                       \
    (void)state, (void)workspace;                                                                                      \
    return run_reduce(e, fn, n, out, in);                                                                              \
  }
RUN(sum, SL_REDUCE_SUM)
RUN(mean, SL_REDUCE_MEAN)
RUN(max, SL_REDUCE_MAX)
RUN(min, SL_REDUCE_MIN)

/* --- gradients --- */

/* v, shaped like the result, at every element of x that went into it. */
static sl_value *spread(const sl_grad_args *a, sl_value *v) {
  sl_shape kept = kept_shape(&a->in[0]->shape, a->node->attrs.i);
  if (v && !sl_shape_equal(&v->shape, &kept)) v = sl_reshape(v, kept.rank, kept.dim);
  return v && !sl_shape_equal(&v->shape, &a->in[0]->shape) ? sl_expand(v, &a->in[0]->shape) : v;
}

static sl_status grad_sum(sl_grad_args *a) {
  a->dx[0] = spread(a, a->dy[0]);
  return SL_STATUS_OK;
}

static sl_status grad_mean(sl_grad_args *a) {
  double n = 1;
  for (int i = 0; i < a->node->attrs.i[DIMS]; i++) n *= (double)a->in[0]->shape.dim[a->node->attrs.i[1 + i]];
  a->dx[0] = spread(a, sl_mul_scalar(a->dy[0], n > 0 ? 1.0 / n : 0.0));
  return SL_STATUS_OK;
}

/* Shared equally among the elements that are the extreme; counted in f32, as bf16 ends at 256. */
static sl_status grad_extreme(sl_grad_args *a) {
  const int64_t *list = a->node->attrs.i;
  int dims[SL_MAX_RANK], n = (int)list[0];
  for (int i = 0; i < n; i++) dims[i] = (int)list[1 + i];
  sl_value *tied = sl_eq(a->in[0], spread(a, a->out[0]));
  if (n == 0) {
    a->dx[0] = a->dy[0];
    return SL_STATUS_OK;
  }
  sl_value *count = sl_sum(sl_cast(tied, SL_F32), n, dims, a->node->attrs.i[KEEPDIM]);
  sl_value *share = sl_cast(sl_div(sl_cast(a->dy[0], SL_F32), count), a->dy[0]->dtype);
  a->dx[0] = sl_where(tied, spread(a, share), sl_scalar(a->graph, 0.0, a->dy[0]->dtype));
  return SL_STATUS_OK;
}

/* --- norm: sqrt(sum x^2), its gradient 0 where the norm is 0 --- */

static sl_value *compose_norm(sl_graph *g, int n, sl_value **in, const sl_attrs *a) {
  (void)n;
  sl_dtype dtype = sl_dtype_is_float(in[0]->dtype) ? in[0]->dtype : SL_F32;
  sl_value *squares = sl_op1(SL_OP_sum, sl_square(sl_cast(in[0], SL_F32)), a);
  sl_value *zero = sl_scalar(g, 0.0, SL_F32), *one = sl_scalar(g, 1.0, SL_F32);
  sl_value *is_zero = sl_eq(squares, zero);
  sl_value *root = sl_sqrt(sl_where(is_zero, one, squares)); /* no infinite derivative at 0 */
  return sl_cast(sl_where(is_zero, zero, root), dtype);
}

/* --- argmax --- */

static sl_status canon_argmax(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)g, (void)n;
  SL_TRY(sl__check_computes("argmax", "x", in[0]));
  return sl__resolve_dim("argmax", in[0], &a->i[0]);
}

static sl_status infer_argmax(sl_node *n) {
  const sl_value *x = n->in[0];
  int64_t list[] = {1, n->attrs.i[0]};
  SL_REQUIRE(x->shape.dim[list[1]] > 0, SHAPE, "argmax: x is %s, dimension %" PRId64 " has no elements to compare",
             sl_value_text(x), sl__told(list[1]));
  n->out[0].dtype = SL_I64;
  n->out[0].shape = result_shape(&x->shape, list, false);
  return SL_STATUS_OK;
}

static sl_status run_argmax(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                            void *workspace) {
  (void)state, (void)workspace;
  int64_t list[] = {1, n->attrs.i[0]};
  sl_view y = kept_view(&out[0], &in[0], list);
  return e->kernels->argmax(e, (int)list[1], &y, &in[0]);
}

static sl_status grad_argmax(sl_grad_args *a) {
  a->dx[0] = NULL;
  return SL_STATUS_OK;
}

const sl_op_rules sl_rules_sum = {.canon = canon_sum, .infer = infer_sum, .grad = grad_sum, .run = run_sum};
const sl_op_rules sl_rules_mean = {.canon = canon_mean, .infer = infer_like, .grad = grad_mean, .run = run_mean};
const sl_op_rules sl_rules_max = {.canon = canon_max, .infer = infer_extreme, .grad = grad_extreme, .run = run_max};
const sl_op_rules sl_rules_min = {.canon = canon_min, .infer = infer_extreme, .grad = grad_extreme, .run = run_min};
const sl_op_rules sl_rules_norm = {.canon = canon_norm, .compose = compose_norm};
const sl_op_rules sl_rules_argmax = {
    .canon = canon_argmax, .infer = infer_argmax, .grad = grad_argmax, .run = run_argmax};

/* --- for those who build graphs in C --- */

static sl_value *reduction(sl_op_id op, sl_value *x, int n, const int *dims, bool keepdim) {
  sl_attrs a = {{0}, {0}};
  a.i[DIMS] = n;
  for (int i = 0; i < n && i < SL_MAX_RANK; i++) a.i[1 + i] = dims[i];
  a.i[KEEPDIM] = keepdim;
  return sl_op1(op, x, &a);
}

sl_value *sl_sum(sl_value *x, int n, const int *dims, bool keepdim) {
  return reduction(SL_OP_sum, x, n, dims, keepdim);
}
sl_value *sl_mean(sl_value *x, int n, const int *dims, bool keepdim) {
  return reduction(SL_OP_mean, x, n, dims, keepdim);
}
sl_value *sl_max(sl_value *x, int n, const int *dims, bool keepdim) {
  return reduction(SL_OP_max, x, n, dims, keepdim);
}

sl_value *sl_mean_rest(sl_value *x) {
  static const int dims[] = {1, 2, 3, 4, 5, 6, 7};
  if (!x || x->shape.rank == 1) return x;
  return sl_mean(x, x->shape.rank - 1, dims, false);
}
