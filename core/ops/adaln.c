/* adaLN: LayerNorm of the masked row, scaled and shifted per sample. */
#include "ops/adaln_math.h"
#include "ops/kernels.h"
#include "ops/modulation.h"
#include "ops/ops.h"

enum { X, SHIFT, SCALE, MASK };
enum { DY, BX, BSCALE, BMASK, MEAN, RSTD, PRIOR };

static sl_status canon_adaln(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)g, (void)n, (void)a;
  in[X] = sl_contiguous(in[X]);
  for (int i = SHIFT; i <= MASK; i++) in[i] = sl__rows_canon(in[i]);
  return SL_STATUS_OK;
}

static sl_status infer_adaln(sl_node *n) {
  SL_TRY(sl__adaln_check("adaln", n->in[X], n->in[SHIFT], n->in[SCALE], n->in[MASK], "mask", n->attrs.f[0]));
  sl__adaln_outputs(n->out, n->in[X], n->in[SHIFT]);
  return SL_STATUS_OK;
}

static sl_status grad_adaln(sl_grad_args *a) {
  if (!a->dy[0]) return SL_STATUS_OK; /* mean and rstd are for backward alone */
  sl_value *in[] = {
      a->dy[0], a->in[X], a->in[SCALE], a->in[MASK], a->out[1], a->out[2], a->need[X] ? a->prior[X] : NULL};
  sl_value *d = sl_opn(SL_OP_adaln_backward, 7, in, NULL);
  if (a->need[X]) {
    a->dx[X] = d;
    a->folded[X] = a->prior[X] != NULL;
  }
  if (a->need[SHIFT]) a->dx[SHIFT] = sl__rows_gradient(sl_output(d, 1), a->in[SHIFT]);
  if (a->need[SCALE]) a->dx[SCALE] = sl__rows_gradient(sl_output(d, 2), a->in[SCALE]);
  return SL_STATUS_OK;
}

/* mean and rstd are small, and kept. */
static sl_value *again_adaln(sl_graph *g, const sl_node *n, int k) {
  return k == 0 ? sl_apply(g, n->op, n->n_in, n->in, &n->attrs) : NULL;
}

static sl_status run_adaln(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                           void *workspace) {
  (void)state, (void)workspace;
  return e->kernels->adaln(e, &out[0], &out[1], &out[2], &in[X], &in[SHIFT], &in[SCALE], &in[MASK], n->attrs.f[0]);
}

extern const sl_op_rules sl_rules_adaln;
const sl_op_rules sl_rules_adaln = {
    .canon = canon_adaln, .infer = infer_adaln, .grad = grad_adaln, .again = again_adaln, .run = run_adaln};

sl_value *sl_adaln(sl_value *x, sl_value *shift, sl_value *scale, sl_value *mask, double eps) {
  sl_attrs a = {{0}, {eps}};
  return sl_opn(SL_OP_adaln, 4, (sl_value *[]){x, shift, scale, mask}, &a);
}

static sl_status canon_adaln_backward(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)g, (void)n, (void)a;
  in[DY] = sl_contiguous(in[DY]);
  in[BX] = sl_contiguous(in[BX]);
  in[BSCALE] = sl__rows_canon(in[BSCALE]);
  in[BMASK] = sl__rows_canon(in[BMASK]);
  in[MEAN] = sl_contiguous(in[MEAN]);
  in[RSTD] = sl_contiguous(in[RSTD]);
  if (in[PRIOR]) in[PRIOR] = sl_contiguous(in[PRIOR]);
  return SL_STATUS_OK;
}

static sl_status infer_adaln_backward(sl_node *n) {
  const sl_value *x = n->in[BX];
  SL_REQUIRE(sl_shape_equal(&n->in[DY]->shape, &x->shape), SHAPE,
             "adaln_backward: dy is %s, expected the shape of x %s", sl_value_text(n->in[DY]), sl_value_text(x));
  n->out[0].dtype = x->dtype;
  n->out[0].shape = x->shape;
  for (int k = 1; k < 3; k++) {
    n->out[k].dtype = SL_F32;
    n->out[k].shape = n->in[BSCALE]->shape;
  }
  return SL_STATUS_OK;
}

static sl_status workspace_adaln_backward(sl_exec *e, const sl_node *n, size_t *bytes) {
  (void)e;
  const int64_t *d = n->in[BX]->shape.dim;
  *bytes = sl_row_block_bytes(d[0], d[1], d[2], 2);
  return SL_STATUS_OK;
}

static sl_status run_adaln_backward(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                                    void *workspace) {
  (void)n, (void)state;
  return e->kernels->adaln_backward(e, &out[0], &out[1], &out[2], &in[DY], &in[BX], &in[BSCALE], &in[BMASK], &in[MEAN],
                                    &in[RSTD], &in[PRIOR], workspace);
}

extern const sl_op_rules sl_rules_adaln_backward;
const sl_op_rules sl_rules_adaln_backward = {.canon = canon_adaln_backward,
                                             .infer = infer_adaln_backward,
                                             .workspace = workspace_adaln_backward,
                                             .run = run_adaln_backward};
