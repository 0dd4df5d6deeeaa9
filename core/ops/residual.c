/* The gated residual connection of adaLN-Zero blocks, with DTR's mask and skip. */
#include "ops/adaln_math.h"
#include "ops/kernels.h"
#include "ops/modulation.h"
#include "ops/ops.h"

enum { X, Y, GATE, MASK, SKIP };
enum { DOUT, BY, BGATE, BMASK };
enum { DX, DY, DGATE, DSKIP };

static sl_status canon_gated_residual(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)g, (void)n, (void)a;
  in[X] = sl_contiguous(in[X]);
  in[Y] = sl_contiguous(in[Y]);
  in[GATE] = sl__rows_canon(in[GATE]);
  in[MASK] = sl__rows_canon(in[MASK]);
  if (in[SKIP]) in[SKIP] = sl_contiguous(in[SKIP]);
  return SL_STATUS_OK;
}

static sl_status infer_gated_residual(sl_node *n) {
  const sl_value *x = n->in[X];
  SL_TRY(sl__stream_check("gated_residual", "x", x, x));
  SL_TRY(sl__stream_check("gated_residual", "y", n->in[Y], x));
  if (n->in[SKIP]) SL_TRY(sl__stream_check("gated_residual", "skip", n->in[SKIP], x));
  SL_TRY(sl__rows_check("gated_residual", "gate", n->in[GATE], x, false));
  if (n->in[MASK]) SL_TRY(sl__rows_check("gated_residual", "mask", n->in[MASK], x, true));
  n->out[0].dtype = x->dtype;
  n->out[0].shape = x->shape;
  return SL_STATUS_OK;
}

/* Without mask, and with a skip, dx is dout itself; a node is made only for what is left to compute. */
static sl_status grad_gated_residual(sl_grad_args *a) {
  sl_value *dout = a->dy[0], *mask = a->in[MASK];
  bool masked_x = mask && !a->in[SKIP], masked_skip = mask && a->in[SKIP] && a->need[SKIP];
  sl_value *d = NULL;
  if (a->need[Y] || a->need[GATE] || (masked_x && a->need[X]) || masked_skip) {
    d = sl_opn(SL_OP_gated_residual_backward, 5, (sl_value *[]){dout, a->in[Y], a->in[GATE], mask, NULL}, NULL);
    if (!d) return SL_STATUS_OK;
  }
  if (a->need[X]) a->dx[X] = masked_x ? sl_output(d, DX) : dout;
  if (a->need[Y]) a->dx[Y] = sl_output(d, DY);
  if (a->need[GATE]) a->dx[GATE] = sl_cast(sl_output(d, DGATE), a->in[GATE]->dtype);
  if (masked_skip) a->dx[SKIP] = sl_cast(sl_output(d, DSKIP), a->in[SKIP]->dtype);
  return SL_STATUS_OK;
}

static sl_status run_gated_residual(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                                    void *workspace) {
  (void)n, (void)state, (void)workspace;
  return e->kernels->gated_residual(e, &out[0], &in[X], &in[Y], &in[GATE], &in[MASK], &in[SKIP]);
}

extern const sl_op_rules sl_rules_gated_residual;
const sl_op_rules sl_rules_gated_residual = {.canon = canon_gated_residual,
                                             .infer = infer_gated_residual,
                                             .grad = grad_gated_residual,
                                             .run = run_gated_residual};

sl_value *sl_gated_residual(sl_value *x, sl_value *y, sl_value *gate, sl_value *mask, sl_value *skip) {
  return sl_opn(SL_OP_gated_residual, 5, (sl_value *[]){x, y, gate, mask, skip}, NULL);
}

static sl_status canon_gated_residual_backward(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)g, (void)n, (void)a;
  in[DOUT] = sl_contiguous(in[DOUT]);
  in[BY] = sl_contiguous(in[BY]);
  in[BGATE] = sl__rows_canon(in[BGATE]);
  in[BMASK] = sl__rows_canon(in[BMASK]);
  return SL_STATUS_OK;
}

static sl_status infer_gated_residual_backward(sl_node *n) {
  const sl_value *dout = n->in[DOUT];
  SL_REQUIRE(sl_shape_equal(&n->in[BY]->shape, &dout->shape), SHAPE,
             "gated_residual_backward: y is %s, expected the shape of dout %s", sl_value_text(n->in[BY]),
             sl_value_text(dout));
  for (int k = 0; k < 4; k++) {
    n->out[k].dtype = k == DGATE ? SL_F32 : k == DY ? n->in[BY]->dtype : dout->dtype;
    n->out[k].shape = k == DGATE ? n->in[BGATE]->shape : dout->shape;
  }
  return SL_STATUS_OK;
}

static sl_status workspace_gated_residual_backward(sl_exec *e, const sl_node *n, size_t *bytes) {
  (void)e;
  const int64_t *d = n->in[DOUT]->shape.dim;
  *bytes = sl_row_block_bytes(d[0], d[1], d[2], 1);
  return SL_STATUS_OK;
}

static sl_status run_gated_residual_backward(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in,
                                             void *state, void *workspace) {
  (void)n, (void)state;
  return e->kernels->gated_residual_backward(e, &out[DX], &out[DY], &out[DGATE], &out[DSKIP], &in[DOUT], &in[BY],
                                             &in[BGATE], &in[BMASK], workspace);
}

extern const sl_op_rules sl_rules_gated_residual_backward;
const sl_op_rules sl_rules_gated_residual_backward = {.canon = canon_gated_residual_backward,
                                                      .infer = infer_gated_residual_backward,
                                                      .workspace = workspace_gated_residual_backward,
                                                      .run = run_gated_residual_backward};
