/* Draws inside a graph: counter-based, keyed by the step block, so that they do not depend on threads or batches. */
#include "base/random.h"
#include "ops/image.h"
#include "ops/rules.h"

enum { ATTR_SHAPE, ATTR_STREAM = SL_ATTR_LIST };
enum { ATTR_P = 0, ATTR_SITE = 0 }; /* dropout: f, i */

static sl_status infer_draw(sl_node *n) {
  SL_REQUIRE(n->attrs.i[ATTR_SHAPE] <= SL_MAX_RANK, SHAPE, "%s: %lld dimensions, at most %d", n->op->name,
             (long long)n->attrs.i[ATTR_SHAPE], SL_MAX_RANK);
  n->out[0].dtype = SL_F32;
  n->out[0].shape = sl__list_shape(&n->attrs.i[ATTR_SHAPE]);
  return SL_STATUS_OK;
}

static sl_status run_normal(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                            void *workspace) {
  (void)in, (void)state, (void)workspace;
  return e->kernels->normal(e, &out[0], (int)n->attrs.i[ATTR_STREAM]);
}

static sl_status run_uniform(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                             void *workspace) {
  (void)in, (void)state, (void)workspace;
  return e->kernels->uniform(e, &out[0], (int)n->attrs.i[ATTR_STREAM]);
}

const sl_op_rules sl_rules_normal = {.infer = infer_draw, .run = run_normal};
const sl_op_rules sl_rules_uniform = {.infer = infer_draw, .run = run_uniform};

static sl_value *draw(sl_graph *g, const char *op, const sl_shape *shape, int stream) {
  sl_attrs a = {.i = {[ATTR_STREAM] = stream}};
  sl__shape_list(&a.i[ATTR_SHAPE], shape);
  return sl_apply(g, sl_op_find(op), 0, NULL, &a);
}

sl_value *sl_normal(sl_graph *g, const sl_shape *shape, int stream) { return draw(g, "normal", shape, stream); }
sl_value *sl_uniform(sl_graph *g, const sl_shape *shape, int stream) { return draw(g, "uniform", shape, stream); }

/* --- dropout: site tells one use in a model from another --- */

static sl_status canon_dropout(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)n;
  double p = a->f[ATTR_P];
  SL_REQUIRE(p >= 0 && p < 1, ARG, "dropout: p is %g, expected 0 … below 1", p);
  SL_REQUIRE(in[0]->shape.rank > 0, SHAPE, "dropout: x is a scalar, expected samples along its first dimension");
  if (!sl_dtype_is_float(in[0]->dtype)) in[0] = sl_cast(in[0], SL_F32);
  if (!sl__lies_last(in[0]) || in[0]->dtype != SL_F32) in[0] = sl_contiguous(in[0]);
  return sl_graph_status(g);
}

static sl_status infer_dropout(sl_node *n) {
  SL_REQUIRE(n->in[0]->dtype == SL_F32 || n->in[0]->dtype == SL_BF16, DTYPE, "dropout: x is %s, expected f32 or bf16",
             sl_value_text(n->in[0]));
  n->out[0].dtype = n->in[0]->dtype;
  n->out[0].shape = n->in[0]->shape;
  return SL_STATUS_OK;
}

/* The same draws again: the gradient is dropped where the value was. */
static sl_status grad_dropout(sl_grad_args *a) {
  a->dx[0] = sl_op1(SL_OP_dropout, a->dy[0], &a->node->attrs);
  return SL_STATUS_OK;
}

static sl_status run_dropout(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                             void *workspace) {
  (void)state, (void)workspace;
  return e->kernels->dropout(e, &out[0], &in[0], n->attrs.f[ATTR_P], n->attrs.i[ATTR_SITE]);
}

const sl_op_rules sl_rules_dropout = {
    .canon = canon_dropout, .infer = infer_dropout, .grad = grad_dropout, .run = run_dropout};

sl_value *sl_dropout(sl_value *x, double p, int64_t site) {
  return sl_op1(SL_OP_dropout, x, &(sl_attrs){.i = {[ATTR_SITE] = site}, .f = {[ATTR_P] = p}});
}
