/* Up- and down-sampling of images [N,C,H,W] by a whole factor. Source: guided-diffusion unet.py, Upsample (nearest) and
 * Downsample (mean) without convolution. */
#include "ops/image.h"
#include "ops/rules.h"

enum { ATTR_SCALE, ATTR_LAST };

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

static sl_value *compose_upsample(sl_graph *g, int n, sl_value **in, const sl_attrs *a) {
  return sl__apply_image(g, "enlarge", n, in, a, ATTR_LAST, sl__lies_last(in[0]));
}

static sl_value *compose_downsample(sl_graph *g, int n, sl_value **in, const sl_attrs *a) {
  return sl__apply_image(g, "shrink", n, in, a, ATTR_LAST, sl__lies_last(in[0]));
}

const sl_op_rules sl_rules_upsample = {.canon = canon_upsample, .compose = compose_upsample};
const sl_op_rules sl_rules_downsample = {.canon = canon_downsample, .compose = compose_downsample};

static sl_status infer_enlarge(sl_node *n) {
  int rows = n->attrs.i[ATTR_LAST] ? 1 : 2;
  n->out[0].dtype = SL_F32;
  n->out[0].shape = n->in[0]->shape;
  for (int d = rows; d < rows + 2; d++) n->out[0].shape.dim[d] *= n->attrs.i[ATTR_SCALE];
  return SL_STATUS_OK;
}

static sl_status infer_shrink(sl_node *n) {
  int rows = n->attrs.i[ATTR_LAST] ? 1 : 2;
  n->out[0].dtype = SL_F32;
  n->out[0].shape = n->in[0]->shape;
  for (int d = rows; d < rows + 2; d++) n->out[0].shape.dim[d] /= n->attrs.i[ATTR_SCALE];
  return SL_STATUS_OK;
}

/* Each is the other's gradient but for the number of pixels in a block. */
static sl_status grad_enlarge(sl_grad_args *a) {
  double s = (double)a->node->attrs.i[ATTR_SCALE];
  a->dx[0] = sl_mul_scalar(sl_op1(SL_OP_shrink, a->dy[0], &a->node->attrs), s * s);
  return SL_STATUS_OK;
}

static sl_status grad_shrink(sl_grad_args *a) {
  double s = (double)a->node->attrs.i[ATTR_SCALE];
  a->dx[0] = sl_mul_scalar(sl_op1(SL_OP_enlarge, a->dy[0], &a->node->attrs), 1 / (s * s));
  return SL_STATUS_OK;
}

static sl_status run_enlarge(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                             void *workspace) {
  (void)state, (void)workspace;
  return e->kernels->upsample(e, &out[0], &in[0], n->attrs.i[ATTR_SCALE], n->attrs.i[ATTR_LAST] != 0);
}

static sl_status run_shrink(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                            void *workspace) {
  (void)state, (void)workspace;
  return e->kernels->downsample(e, &out[0], &in[0], n->attrs.i[ATTR_SCALE], n->attrs.i[ATTR_LAST] != 0);
}

const sl_op_rules sl_rules_enlarge = {.infer = infer_enlarge, .grad = grad_enlarge, .run = run_enlarge};
const sl_op_rules sl_rules_shrink = {.infer = infer_shrink, .grad = grad_shrink, .run = run_shrink};

sl_value *sl_upsample(sl_value *x, int64_t scale) {
  return sl_op1(SL_OP_upsample, x, &(sl_attrs){.i = {[ATTR_SCALE] = scale}});
}

sl_value *sl_downsample(sl_value *x, int64_t scale) {
  return sl_op1(SL_OP_downsample, x, &(sl_attrs){.i = {[ATTR_SCALE] = scale}});
}
