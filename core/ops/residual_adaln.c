/* The gated residual and the adaLN that follows it as one op: what stands between two products of a DiT block, so that
 * the residual stream is read and written once. */
#include "ops/residual_adaln.h"

#include "ops/adaln_math.h"
#include "ops/kernels.h"
#include "ops/modulation.h"
#include "ops/ops.h"

static sl_status canon_residual_adaln(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)g, (void)n, (void)a;
  in[SL_RA_X] = sl_contiguous(in[SL_RA_X]);
  in[SL_RA_Y] = sl_contiguous(in[SL_RA_Y]);
  if (in[SL_RA_SKIP]) in[SL_RA_SKIP] = sl_contiguous(in[SL_RA_SKIP]);
  static const int rows[] = {SL_RA_GATE, SL_RA_SHIFT, SL_RA_SCALE, SL_RA_MASK, SL_RA_NEXT_MASK};
  for (int i = 0; i < 5; i++) in[rows[i]] = sl__rows_canon(in[rows[i]]);
  return SL_STATUS_OK;
}

static sl_status infer_residual_adaln(sl_node *n) {
  static const char op[] = "residual_adaln";
  sl_value *const *in = n->in, *x = in[SL_RA_X];
  SL_TRY(sl__residual_check(op, x, in[SL_RA_Y], in[SL_RA_GATE], in[SL_RA_MASK], in[SL_RA_SKIP]));
  SL_TRY(sl__adaln_check(op, x, in[SL_RA_SHIFT], in[SL_RA_SCALE], in[SL_RA_NEXT_MASK], "next_mask", n->attrs.f[0]));
  n->out[SL_RA_R].dtype = x->dtype;
  n->out[SL_RA_R].shape = x->shape;
  sl__adaln_outputs(&n->out[SL_RA_H], x, in[SL_RA_SHIFT]);
  return SL_STATUS_OK;
}

/* No gradient comes by way of the norm. */
static sl_status grad_of_sum(sl_grad_args *a) {
  static const int at[] = {SL_RA_X, SL_RA_Y, SL_RA_GATE, SL_RA_SKIP};
  bool need[4];
  sl_value *dx[4] = {NULL};
  if (!a->dy[SL_RA_R]) return SL_STATUS_OK;
  for (int i = 0; i < 4; i++) need[i] = a->need[at[i]];
  sl__residual_grad(a->dy[SL_RA_R], a->in[SL_RA_Y], a->in[SL_RA_GATE], a->in[SL_RA_MASK], a->in[SL_RA_SKIP], need, dx);
  for (int i = 0; i < 4; i++) a->dx[at[i]] = dx[i];
  return SL_STATUS_OK;
}

/* Whether v is (1 - mask)*dout as the backward of the residual after this one made it for its skip; dout: what its x
 * got. */
static bool is_skip_gradient(const sl_value *v, const sl_value *dout, const sl_value *mask) {
  const sl_node *n = v->node;
  if (n->op != &sl_ops[SL_OP_residual_adaln_backward]) return sl__is_skip_gradient(v, dout, mask);
  return v == &n->out[SL_RAB_DSKIP] && dout == &n->out[SL_RAB_DX] && n->in[SL_RAB_MASK] == mask &&
         n->attrs.i[0] == SL_SHARE_WHOLE && !n->in[SL_RAB_PRIOR];
}

/* The gradient of r is not a value of its own: the pass that makes it out of dh and dr gives x, y and the skip their
 * shares at once. What x has from elsewhere is added on the way. */
static sl_status grad_residual_adaln(sl_grad_args *a) {
  if (!a->dy[SL_RA_H]) return grad_of_sum(a); /* mean and rstd are for backward alone */
  sl_value *const *in = a->in, *mask = in[SL_RA_MASK], *dr = a->dy[SL_RA_R];
  sl_value *prior = a->need[SL_RA_X] ? a->prior[SL_RA_X] : NULL;
  sl_residual_share share = mask && !in[SL_RA_SKIP] ? SL_SHARE_MASKED : SL_SHARE_WHOLE;
  bool restored = share == SL_SHARE_MASKED && prior && is_skip_gradient(prior, dr, mask);
  sl_attrs attrs = {.i = {restored ? SL_SHARE_RESTORED : share}};
  sl_value *given[SL_RAB_INPUTS] = {[SL_RAB_DR] = dr,
                                    [SL_RAB_DH] = a->dy[SL_RA_H],
                                    [SL_RAB_R] = a->out[SL_RA_R],
                                    [SL_RAB_Y] = in[SL_RA_Y],
                                    [SL_RAB_GATE] = in[SL_RA_GATE],
                                    [SL_RAB_SCALE] = in[SL_RA_SCALE],
                                    [SL_RAB_MASK] = mask,
                                    [SL_RAB_NEXT_MASK] = in[SL_RA_NEXT_MASK],
                                    [SL_RAB_MEAN] = a->out[SL_RA_MEAN],
                                    [SL_RAB_RSTD] = a->out[SL_RA_RSTD],
                                    [SL_RAB_PRIOR] = restored ? NULL : prior};
  sl_value *d = sl_apply(a->graph, &sl_ops[SL_OP_residual_adaln_backward], SL_RAB_INPUTS, given, &attrs);
  a->folded[SL_RA_X] = prior != NULL;
  if (a->need[SL_RA_X]) a->dx[SL_RA_X] = d;
  if (a->need[SL_RA_Y]) a->dx[SL_RA_Y] = sl_output(d, SL_RAB_DY);
  static const int row[][2] = {{SL_RA_GATE, SL_RAB_DGATE}, {SL_RA_SHIFT, SL_RAB_DSHIFT}, {SL_RA_SCALE, SL_RAB_DSCALE}};
  for (int i = 0; i < 3; i++)
    if (a->need[row[i][0]]) a->dx[row[i][0]] = sl__rows_gradient(sl_output(d, row[i][1]), in[row[i][0]]);
  if (a->need[SL_RA_SKIP] && mask) a->dx[SL_RA_SKIP] = sl_cast(sl_output(d, SL_RAB_DSKIP), in[SL_RA_SKIP]->dtype);
  return SL_STATUS_OK;
}

/* h alone: r is the stream, which is kept; mean and rstd are small. */
static sl_value *again_residual_adaln(sl_graph *g, const sl_node *n, int k) {
  (void)g;
  sl_value *const *in = n->in;
  return k == SL_RA_H ? sl_adaln(&n->out[SL_RA_R], in[SL_RA_SHIFT], in[SL_RA_SCALE], in[SL_RA_NEXT_MASK], n->attrs.f[0])
                      : NULL;
}

static sl_status run_residual_adaln(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                                    void *workspace) {
  (void)state, (void)workspace;
  return e->kernels->residual_adaln(e, out, in, n->attrs.f[0]);
}

extern const sl_op_rules sl_rules_residual_adaln;
const sl_op_rules sl_rules_residual_adaln = {.canon = canon_residual_adaln,
                                             .infer = infer_residual_adaln,
                                             .grad = grad_residual_adaln,
                                             .again = again_residual_adaln,
                                             .run = run_residual_adaln};

sl_value *sl_residual_adaln(sl_value *x, sl_value *y, const sl_residual_adaln_parts *p, double eps) {
  sl_attrs a = {{0}, {eps}};
  sl_value *in[] = {x, y, p->gate, p->shift, p->scale, p->mask, p->skip, p->next_mask};
  return sl_opn(SL_OP_residual_adaln, SL_RA_INPUTS, in, &a);
}

static sl_status canon_residual_adaln_backward(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)g, (void)n, (void)a;
  static const int dense[] = {SL_RAB_DR, SL_RAB_DH, SL_RAB_R, SL_RAB_Y, SL_RAB_MEAN, SL_RAB_RSTD, SL_RAB_PRIOR};
  static const int rows[] = {SL_RAB_GATE, SL_RAB_SCALE, SL_RAB_MASK, SL_RAB_NEXT_MASK};
  for (int i = 0; i < 7; i++)
    if (in[dense[i]]) in[dense[i]] = sl_contiguous(in[dense[i]]);
  for (int i = 0; i < 4; i++) in[rows[i]] = sl__rows_canon(in[rows[i]]);
  return SL_STATUS_OK;
}

static sl_status infer_residual_adaln_backward(sl_node *n) {
  const sl_value *r = n->in[SL_RAB_R], *dh = n->in[SL_RAB_DH], *dr = n->in[SL_RAB_DR], *prior = n->in[SL_RAB_PRIOR];
  SL_TRY(sl__stream_check("residual_adaln_backward", "dh", dh, r));
  if (dr) SL_TRY(sl__stream_check("residual_adaln_backward", "dr", dr, r));
  if (prior) SL_TRY(sl__stream_check("residual_adaln_backward", "prior", prior, r));
  for (int k = SL_RAB_DX; k <= SL_RAB_DSCALE; k++) {
    bool row = k == SL_RAB_DGATE || k == SL_RAB_DSHIFT || k == SL_RAB_DSCALE;
    n->out[k].dtype = row ? SL_F32 : k == SL_RAB_DY ? n->in[SL_RAB_Y]->dtype : r->dtype;
    n->out[k].shape = row ? n->in[SL_RAB_SCALE]->shape : r->shape;
  }
  return SL_STATUS_OK;
}

static sl_status workspace_residual_adaln_backward(sl_exec *e, const sl_node *n, size_t *bytes) {
  (void)e;
  const int64_t *d = n->in[SL_RAB_R]->shape.dim;
  *bytes = sl_row_block_bytes(d[0], d[1], d[2], 3);
  return SL_STATUS_OK;
}

static sl_status run_residual_adaln_backward(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in,
                                             void *state, void *workspace) {
  (void)state;
  return e->kernels->residual_adaln_backward(e, out, in, (int)n->attrs.i[0], workspace);
}

extern const sl_op_rules sl_rules_residual_adaln_backward;
const sl_op_rules sl_rules_residual_adaln_backward = {.canon = canon_residual_adaln_backward,
                                                      .infer = infer_residual_adaln_backward,
                                                      .workspace = workspace_residual_adaln_backward,
                                                      .run = run_residual_adaln_backward};
