/* Up- and down-sampling of images [N,C,H,W] by a whole factor. Source: guided-diffusion unet.py, Upsample (nearest) and
 * Downsample (mean) without convolution. */
#include "ops/rules.h"

enum { ATTR_SCALE };

static sl_status canon_resample(const char *op, sl_graph *g, sl_value **in, const sl_attrs *a) {
  SL_REQUIRE(in[0]->shape.rank == 4, SHAPE, "%s: x is %s, expected [N,C,H,W]", op, sl_value_text(in[0]));
  SL_TRY(sl__check_computes(op, "x", in[0]));
  SL_REQUIRE(a->i[ATTR_SCALE] >= 1 && a->i[ATTR_SCALE] < 1 << 15, ARG, "%s: scale is %lld, expected at least 1", op,
             (long long)a->i[ATTR_SCALE]);
  in[0] = sl_cast(in[0], SL_F32);
  return sl_graph_status(g);
}

static sl_status canon_upsample(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)n;
  return canon_resample("upsample", g, in, a);
}

static sl_status canon_downsample(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)n;
  SL_TRY(canon_resample("downsample", g, in, a));
  int64_t s = a->i[ATTR_SCALE];
  SL_REQUIRE(in[0]->shape.dim[2] % s == 0 && in[0]->shape.dim[3] % s == 0, SHAPE,
             "downsample: x is %s, its rows and columns do not divide by %lld", sl_value_text(in[0]), (long long)s);
  return SL_STATUS_OK;
}

static sl_status infer_upsample(sl_node *n) {
  n->out[0].dtype = SL_F32;
  n->out[0].shape = n->in[0]->shape;
  for (int d = 2; d < 4; d++) n->out[0].shape.dim[d] *= n->attrs.i[ATTR_SCALE];
  return SL_STATUS_OK;
}

static sl_status infer_downsample(sl_node *n) {
  n->out[0].dtype = SL_F32;
  n->out[0].shape = n->in[0]->shape;
  for (int d = 2; d < 4; d++) n->out[0].shape.dim[d] /= n->attrs.i[ATTR_SCALE];
  return SL_STATUS_OK;
}

/* Each is the other's gradient but for the number of pixels in a block. */
static sl_status grad_upsample(sl_grad_args *a) {
  double s = (double)a->node->attrs.i[ATTR_SCALE];
  a->dx[0] = sl_mul_scalar(sl_op1(SL_OP_downsample, a->dy[0], &a->node->attrs), s * s);
  return SL_STATUS_OK;
}

static sl_status grad_downsample(sl_grad_args *a) {
  double s = (double)a->node->attrs.i[ATTR_SCALE];
  a->dx[0] = sl_mul_scalar(sl_op1(SL_OP_upsample, a->dy[0], &a->node->attrs), 1 / (s * s));
  return SL_STATUS_OK;
}

static sl_status run_upsample(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                              void *workspace) {
  (void)state, (void)workspace;
  return e->kernels->upsample(e, &out[0], &in[0], n->attrs.i[ATTR_SCALE]);
}

static sl_status run_downsample(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                                void *workspace) {
  (void)state, (void)workspace;
  return e->kernels->downsample(e, &out[0], &in[0], n->attrs.i[ATTR_SCALE]);
}

const sl_op_rules sl_rules_upsample = {
    .canon = canon_upsample, .infer = infer_upsample, .grad = grad_upsample, .run = run_upsample};
const sl_op_rules sl_rules_downsample = {
    .canon = canon_downsample, .infer = infer_downsample, .grad = grad_downsample, .run = run_downsample};

sl_value *sl_upsample(sl_value *x, int64_t scale) {
  return sl_op1(SL_OP_upsample, x, &(sl_attrs){.i = {[ATTR_SCALE] = scale}});
}

sl_value *sl_downsample(sl_value *x, int64_t scale) {
  return sl_op1(SL_OP_downsample, x, &(sl_attrs){.i = {[ATTR_SCALE] = scale}});
}
