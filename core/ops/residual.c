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
  SL_TRY(sl__residual_check("gated_residual", n->in[X], n->in[Y], n->in[GATE], n->in[MASK], n->in[SKIP]));
  n->out[0].dtype = n->in[X]->dtype;
  n->out[0].shape = n->in[X]->shape;
  return SL_STATUS_OK;
}

/* Without mask, and with a skip, dx is dout itself; a node is made only for what is left to compute. */
void sl__residual_grad(sl_value *dout, sl_value *y, sl_value *gate, sl_value *mask, sl_value *skip, const bool need[4],
                       sl_value *dx[4]) {
  enum { OF_X, OF_Y, OF_GATE, OF_SKIP };
  bool masked_x = mask && !skip && need[OF_X], masked_skip = mask && skip && need[OF_SKIP];
  sl_value *d = NULL;
  if (need[OF_Y] || need[OF_GATE] || masked_x || masked_skip) {
    d = sl_opn(SL_OP_gated_residual_backward, 5, (sl_value *[]){dout, y, gate, mask, NULL}, NULL);
    if (!d) return;
  }
  if (need[OF_X]) dx[OF_X] = masked_x ? sl_output(d, DX) : dout;
  if (need[OF_Y]) dx[OF_Y] = sl_output(d, DY);
  if (need[OF_GATE]) dx[OF_GATE] = sl__rows_gradient(sl_output(d, DGATE), gate);
  if (masked_skip) dx[OF_SKIP] = sl_cast(sl_output(d, DSKIP), skip->dtype);
}

bool sl__is_skip_gradient(const sl_value *v, const sl_value *dout, const sl_value *mask) {
  const sl_node *n = v->node;
  return n->op == &sl_ops[SL_OP_gated_residual_backward] && v->index == DSKIP && n->in[DOUT] == dout &&
         n->in[BMASK] == mask;
}

static sl_status grad_gated_residual(sl_grad_args *a) {
  const bool need[] = {a->need[X], a->need[Y], a->need[GATE], a->need[SKIP]};
  sl_value *dx[4] = {NULL};
  sl__residual_grad(a->dy[0], a->in[Y], a->in[GATE], a->in[MASK], a->in[SKIP], need, dx);
  a->dx[X] = dx[0], a->dx[Y] = dx[1], a->dx[GATE] = dx[2], a->dx[SKIP] = dx[3];
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
