/* LayerNorm over the last dimension, with optional weight and bias. */
#include "ops/rules.h"

enum { X, W, B };
enum { DY, BX, BW, MEAN, RSTD };

static sl_status canon_layer_norm(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)n;
  SL_REQUIRE(in[X]->shape.rank > 0, SHAPE, "layer_norm: x is a scalar, expected […,C]");
  SL_REQUIRE(a->f[0] >= 0, ARG, "layer_norm: eps is %g, expected 0 or more", a->f[0]);
  SL_TRY(sl__check_computes("layer_norm", "x", in[X]));
  if (!sl_dtype_is_float(in[X]->dtype)) in[X] = sl_cast(in[X], SL_F32);
  for (int i = W; i <= B; i++)
    if (in[i] && sl_dtype_is_float(in[i]->dtype)) in[i] = sl_cast(in[i], SL_F32);
  return sl_graph_status(g);
}

/* The rows' shape: x's without its last dimension. */
static sl_shape rows_shape(const sl_shape *x) {
  sl_shape s = *x;
  s.rank--;
  return s;
}

static sl_status infer_layer_norm(sl_node *n) {
  const sl_value *x = n->in[X];
  int64_t C = x->shape.dim[x->shape.rank - 1];
  static const char *const names[] = {"x", "w", "b"};
  for (int i = W; i <= B; i++)
    SL_REQUIRE(!n->in[i] || (n->in[i]->dtype == SL_F32 && n->in[i]->shape.rank == 1 && n->in[i]->shape.dim[0] == C),
               SHAPE, "layer_norm: %s is %s, expected f32 [%lld]", names[i], sl_value_text(n->in[i]), (long long)C);
  n->out[0].dtype = x->dtype;
  n->out[0].shape = x->shape;
  for (int k = 1; k < 3; k++) {
    n->out[k].dtype = SL_F32;
    n->out[k].shape = rows_shape(&x->shape);
  }
  return SL_STATUS_OK;
}

static sl_status grad_layer_norm(sl_grad_args *a) {
  SL_REQUIRE(!a->dy[1] && !a->dy[2], UNSUPPORTED, "layer_norm: mean and rstd have no gradient");
  sl_value *dx =
      sl_opn(SL_OP_layer_norm_backward, 5, (sl_value *[]){a->dy[0], a->in[X], a->in[W], a->out[1], a->out[2]}, NULL);
  a->dx[X] = dx;
  if (a->in[W]) a->dx[W] = sl_output(dx, 1);
  if (a->in[B]) a->dx[B] = sl_output(dx, 2);
  return SL_STATUS_OK;
}

static sl_value *again_layer_norm(sl_graph *g, const sl_node *n, int k) {
  return k == 0 ? sl_apply(g, n->op, n->n_in, n->in, &n->attrs) : NULL;
}

static sl_status run_layer_norm(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                                void *workspace) {
  (void)state, (void)workspace;
  return e->kernels->layer_norm(e, &out[0], &out[1], &out[2], &in[X], &in[W], &in[B], n->attrs.f[0]);
}

static sl_status infer_backward(sl_node *n) {
  const sl_value *x = n->in[BX];
  SL_REQUIRE(x->shape.rank > 0 && sl_shape_equal(&n->in[DY]->shape, &x->shape), SHAPE,
             "layer_norm_backward: dy is %s, expected %s", sl_value_text(n->in[DY]), sl_value_text(x));
  n->out[0].dtype = x->dtype;
  n->out[0].shape = x->shape;
  for (int k = 1; k < 3; k++) {
    n->out[k].dtype = SL_F32;
    n->out[k].shape = SL_SHAPE(x->shape.dim[x->shape.rank - 1]);
  }
  return SL_STATUS_OK;
}

static sl_status run_backward(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                              void *workspace) {
  (void)n, (void)state;
  return e->kernels->layer_norm_backward(e, &out[0], &out[1], &out[2], &in[DY], &in[BX], &in[BW], &in[MEAN], &in[RSTD],
                                         workspace);
}

const sl_op_rules sl_rules_layer_norm = {.canon = canon_layer_norm,
                                         .infer = infer_layer_norm,
                                         .grad = grad_layer_norm,
                                         .again = again_layer_norm,
                                         .run = run_layer_norm};
const sl_op_rules sl_rules_layer_norm_backward = {.infer = infer_backward, .run = run_backward};

sl_value *sl_layer_norm(sl_value *x, sl_value *w, sl_value *b, double eps) {
  return x ? sl_opn(SL_OP_layer_norm, 3, (sl_value *[]){x, w, b}, &(sl_attrs){.f = {eps}}) : NULL;
}
