/* Elementwise operations: dtype and shape promotion, gradients, running. */
#include "ops/elementwise.h"

#include "ops/rules.h"

static const char *const ab[] = {"a", "b"};

static sl_status infer_like_first(sl_node *n) {
  n->out[0].dtype = n->in[0]->dtype;
  n->out[0].shape = n->in[0]->shape;
  return SL_STATUS_OK;
}

/* --- unary --- */

/* Integers stay where the result is one. */
static sl_status canon_keep(const char *op, sl_value **in) { return sl__check_computes(op, "x", in[0]); }

static sl_status canon_float(const char *op, sl_value **in) {
  SL_TRY(sl__check_computes(op, "x", in[0]));
  sl_graph *g = in[0]->node->graph;
  if (!sl_dtype_is_float(in[0]->dtype)) in[0] = sl_cast(in[0], SL_F32);
  return in[0] ? SL_STATUS_OK : sl_graph_status(g);
}

static sl_status grad_by_kernel(sl_grad_args *a, int fn) {
  a->dx[0] = sl_op2(SL_OP_unary_backward, a->dy[0], a->in[0], &(sl_attrs){.i = {fn}});
  return SL_STATUS_OK;
}

static sl_status grad_zero(sl_grad_args *a, int fn) {
  (void)fn;
  a->dx[0] = NULL;
  return SL_STATUS_OK;
}

static sl_status grad_negated(sl_grad_args *a, int fn) {
  (void)fn;
  a->dx[0] = sl_neg(a->dy[0]);
  return SL_STATUS_OK;
}

#define UNARY(name, canon_rule, grad_rule)                                                                             \
  static sl_status canon_##name(sl_graph *g, int n, sl_value **in, sl_attrs *a) {                                      \
    (void)g, (void)n, (void)a;                                                                                         \
    return canon_rule(#name, in);                                                                                      \
  }                                                                                                                    \
  static sl_status grad_##name(sl_grad_args *a) { return grad_rule(a, SL_UNARY_##name); }                              \
  static sl_status run_##name(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,        \
                              void *workspace) {                                                                       \
    (void)n, (void)state, (void)workspace;                                                                             \
    return e->kernels->unary(e, SL_UNARY_##name, &out[0], &in[0]);                                                     \
  }                                                                                                                    \
  const sl_op_rules sl_rules_##name = {                                                                                \
      .canon = canon_##name, .infer = infer_like_first, .grad = grad_##name, .run = run_##name};
UNARY(neg, canon_keep, grad_negated)
UNARY(abs, canon_keep, grad_by_kernel)
UNARY(sign, canon_keep, grad_zero)
UNARY(exp, canon_float, grad_by_kernel)
UNARY(log, canon_float, grad_by_kernel)
UNARY(sqrt, canon_float, grad_by_kernel)
UNARY(rsqrt, canon_float, grad_by_kernel)
UNARY(square, canon_keep, grad_by_kernel)
UNARY(sin, canon_float, grad_by_kernel)
UNARY(cos, canon_float, grad_by_kernel)
UNARY(tanh, canon_float, grad_by_kernel)
UNARY(sigmoid, canon_float, grad_by_kernel)
UNARY(erf, canon_float, grad_by_kernel)
UNARY(relu, canon_keep, grad_by_kernel)
UNARY(silu, canon_float, grad_by_kernel)
UNARY(gelu, canon_float, grad_by_kernel)
UNARY(gelu_erf, canon_float, grad_by_kernel)
UNARY(round, canon_keep, grad_zero)
UNARY(floor, canon_keep, grad_zero)

static sl_status canon_unary_backward(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  SL_REQUIRE(a->i[0] >= 0 && a->i[0] < SL_UNARY_COUNT, ARG, "unary_backward: fn is %d, expected a function's number",
             (int)a->i[0]);
  SL_REQUIRE(sl_shape_equal(&in[0]->shape, &in[1]->shape), SHAPE,
             "unary_backward: dy is %s and x is %s, expected one shape", sl_value_text(in[0]), sl_value_text(in[1]));
  SL_REQUIRE(sl_dtype_is_float(in[0]->dtype) && sl_dtype_is_float(in[1]->dtype), DTYPE,
             "unary_backward: dy is %s and x is %s, expected floats", sl_value_text(in[0]), sl_value_text(in[1]));
  return sl__promote_inputs(g, "unary_backward", n, in);
}

static sl_status run_unary_backward(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                                    void *workspace) {
  (void)state, (void)workspace;
  return e->kernels->unary_backward(e, (int)n->attrs.i[0], &out[0], &in[0], &in[1]);
}

const sl_op_rules sl_rules_unary_backward = {
    .canon = canon_unary_backward, .infer = infer_like_first, .run = run_unary_backward};

/* --- clamp --- */

static sl_status canon_clamp(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)g, (void)n;
  SL_REQUIRE(a->f[0] <= a->f[1], ARG, "clamp: lo is %g and hi is %g, expected lo <= hi", a->f[0], a->f[1]);
  return sl__check_computes("clamp", "x", in[0]);
}

static sl_status run_clamp(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                           void *workspace) {
  (void)state, (void)workspace;
  return e->kernels->clamp(e, &out[0], &in[0], n->attrs.f[0], n->attrs.f[1]);
}

static sl_value *zero(sl_grad_args *a) { return sl_scalar(a->graph, 0.0, a->dy[0]->dtype); }

/* 1 inside, both ends included. */
static sl_status grad_clamp(sl_grad_args *a) {
  sl_value *lo = sl_scalar(a->graph, a->node->attrs.f[0], SL_F32),
           *hi = sl_scalar(a->graph, a->node->attrs.f[1], SL_F32);
  sl_value *inside = sl_mul(sl_op2(SL_OP_ge, a->in[0], lo, NULL), sl_op2(SL_OP_le, a->in[0], hi, NULL));
  a->dx[0] = sl_where(inside, a->dy[0], zero(a));
  return SL_STATUS_OK;
}

const sl_op_rules sl_rules_clamp = {
    .canon = canon_clamp, .infer = infer_like_first, .grad = grad_clamp, .run = run_clamp};

/* --- binary --- */

static sl_status canon_pair(sl_graph *g, const char *op, sl_value **in) {
  SL_TRY(sl__promote_inputs(g, op, 2, in));
  return sl__broadcast_inputs(g, op, 2, in, ab);
}

static sl_status canon_float_pair(sl_graph *g, const char *op, sl_value **in) {
  SL_TRY(sl__promote_inputs(g, op, 2, in));
  for (int i = 0; i < 2 && !sl_dtype_is_float(in[i]->dtype); i++) {
    in[i] = sl_cast(in[i], SL_F32);
    if (!in[i]) return sl_graph_status(g);
  }
  return sl__broadcast_inputs(g, op, 2, in, ab);
}

static sl_status grad_add(sl_grad_args *a) {
  a->dx[0] = a->dx[1] = a->dy[0];
  return SL_STATUS_OK;
}

static sl_status grad_sub(sl_grad_args *a) {
  a->dx[0] = a->dy[0];
  if (a->need[1]) a->dx[1] = sl_neg(a->dy[0]);
  return SL_STATUS_OK;
}

static sl_status grad_mul(sl_grad_args *a) {
  for (int i = 0; i < 2; i++)
    if (a->need[i]) a->dx[i] = sl_mul(a->dy[0], a->in[1 - i]);
  return SL_STATUS_OK;
}

static sl_status grad_div(sl_grad_args *a) {
  sl_value *da = sl_div(a->dy[0], a->in[1]);
  a->dx[0] = da;
  if (a->need[1]) a->dx[1] = sl_neg(sl_mul(da, a->out[0]));
  return SL_STATUS_OK;
}

/* d a: b a^(b-1), 0 where b is 0; d b: a^b log a, 0 where a is 0. */
static sl_status grad_pow(sl_grad_args *a) {
  sl_value *x = a->in[0], *b = a->in[1], *dy = a->dy[0];
  if (a->need[0]) {
    sl_value *d = sl_mul(dy, sl_mul(b, sl_pow(x, sl_add_scalar(b, -1.0))));
    a->dx[0] = sl_where(b, d, zero(a));
  }
  if (a->need[1]) a->dx[1] = sl_where(x, sl_mul(dy, sl_mul(a->out[0], sl_log(x))), zero(a));
  return SL_STATUS_OK;
}

/* All of it to the operand that is the result; to a where both are. */
static sl_status grad_chosen(sl_grad_args *a, sl_op_id first_wins) {
  sl_value *first = sl_op2(first_wins, a->in[0], a->in[1], NULL);
  if (a->need[0]) a->dx[0] = sl_where(first, a->dy[0], zero(a));
  if (a->need[1]) a->dx[1] = sl_where(first, zero(a), a->dy[0]);
  return SL_STATUS_OK;
}
static sl_status grad_maximum(sl_grad_args *a) { return grad_chosen(a, SL_OP_ge); }
static sl_status grad_minimum(sl_grad_args *a) { return grad_chosen(a, SL_OP_le); }

#define BINARY(name, canon_rule)                                                                                       \
  static sl_status canon_##name(sl_graph *g, int n, sl_value **in, sl_attrs *a) {                                      \
    (void)n, (void)a;                                                                                                  \
    return canon_rule(g, #name, in);                                                                                   \
  }                                                                                                                    \
  static sl_status run_##name(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,        \
                              void *workspace) {                                                                       \
    (void)n, (void)state, (void)workspace;                                                                             \
    return e->kernels->binary(e, SL_BINARY_##name, &out[0], &in[0], &in[1]);                                           \
  }                                                                                                                    \
  const sl_op_rules sl_rules_##name = {                                                                                \
      .canon = canon_##name, .infer = infer_like_first, .grad = grad_##name, .run = run_##name};
BINARY(add, canon_pair)
BINARY(sub, canon_pair)
BINARY(mul, canon_pair)
BINARY(div, canon_float_pair)
BINARY(pow, canon_float_pair)
BINARY(maximum, canon_pair)
BINARY(minimum, canon_pair)

/* --- comparisons, where --- */

static sl_status infer_truth(sl_node *n) {
  n->out[0].dtype = SL_U8;
  n->out[0].shape = n->in[0]->shape;
  return SL_STATUS_OK;
}

#define COMPARE(name, operator)                                                                                        \
  static sl_status canon_##name(sl_graph *g, int n, sl_value **in, sl_attrs *a) {                                      \
    (void)n, (void)a;                                                                                                  \
    return canon_pair(g, #name, in);                                                                                   \
  }                                                                                                                    \
  static sl_status grad_##name(sl_grad_args *a) {                                                                      \
    a->dx[0] = a->dx[1] = NULL;                                                                                        \
    return SL_STATUS_OK;                                                                                               \
  }                                                                                                                    \
  static sl_status run_##name(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,        \
                              void *workspace) {                                                                       \
    (void)n, (void)state, (void)workspace;                                                                             \
    return e->kernels->compare(e, SL_COMPARE_##name, &out[0], &in[0], &in[1]);                                         \
  }                                                                                                                    \
  const sl_op_rules sl_rules_##name = {                                                                                \
      .canon = canon_##name, .infer = infer_truth, .grad = grad_##name, .run = run_##name};
SL_COMPARE_LIST(COMPARE)

static sl_status canon_where(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)n, (void)a;
  static const char *const names[] = {"c", "a", "b"};
  SL_TRY(sl__check_computes("where", "c", in[0]));
  SL_TRY(sl__promote_inputs(g, "where", 2, in + 1));
  return sl__broadcast_inputs(g, "where", 3, in, names);
}

static sl_status infer_where(sl_node *n) {
  n->out[0].dtype = n->in[1]->dtype;
  n->out[0].shape = n->in[1]->shape;
  return SL_STATUS_OK;
}

static sl_status run_where(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                           void *workspace) {
  (void)n, (void)state, (void)workspace;
  return e->kernels->where(e, &out[0], &in[0], &in[1], &in[2]);
}

static sl_status grad_where(sl_grad_args *a) {
  if (a->need[1]) a->dx[1] = sl_where(a->in[0], a->dy[0], zero(a));
  if (a->need[2]) a->dx[2] = sl_where(a->in[0], zero(a), a->dy[0]);
  return SL_STATUS_OK;
}

const sl_op_rules sl_rules_where = {.canon = canon_where, .infer = infer_where, .grad = grad_where, .run = run_where};

/* --- for those who build graphs in C --- */

#define UNARY_FUNCTION(name)                                                                                           \
  sl_value *sl_##name(sl_value *x) { return sl_op1(SL_OP_##name, x, NULL); }
UNARY_FUNCTION(neg)
UNARY_FUNCTION(abs)
UNARY_FUNCTION(exp)
UNARY_FUNCTION(log)
UNARY_FUNCTION(sqrt)
UNARY_FUNCTION(square)
UNARY_FUNCTION(sin)
UNARY_FUNCTION(cos)
UNARY_FUNCTION(tanh)
UNARY_FUNCTION(silu)
UNARY_FUNCTION(gelu)
UNARY_FUNCTION(round)

#define BINARY_FUNCTION(name)                                                                                          \
  sl_value *sl_##name(sl_value *a, sl_value *b) { return sl_op2(SL_OP_##name, a, b, NULL); }
BINARY_FUNCTION(add)
BINARY_FUNCTION(sub)
BINARY_FUNCTION(mul)
BINARY_FUNCTION(div)
BINARY_FUNCTION(pow)
BINARY_FUNCTION(maximum)
BINARY_FUNCTION(minimum)
BINARY_FUNCTION(lt)
BINARY_FUNCTION(gt)
BINARY_FUNCTION(eq)

sl_value *sl_clamp(sl_value *x, double lo, double hi) { return sl_op1(SL_OP_clamp, x, &(sl_attrs){.f = {lo, hi}}); }
sl_value *sl_add_scalar(sl_value *a, double b) { return a ? sl_add(a, sl_scalar(a->node->graph, b, SL_F32)) : NULL; }
sl_value *sl_mul_scalar(sl_value *a, double b) { return a ? sl_mul(a, sl_scalar(a->node->graph, b, SL_F32)) : NULL; }

sl_value *sl_where(sl_value *c, sl_value *a, sl_value *b) {
  return c && a && b ? sl_opn(SL_OP_where, 3, (sl_value *[]){c, a, b}, NULL) : NULL;
}
