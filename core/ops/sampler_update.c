/* What a sampling step makes of the network's output, in one pass: guidance, the x0 it predicts, the next image. */
#include "ops/sampler_update.h"
#include "ops/rules.h"

enum { OUT, X, ROWS, NOISE, SCALE };
enum { NEXT, X0 };
enum { ATTR_LEARNED, ATTR_CLIP, ATTR_CHANNELS };

/* Everything in f32, and dense. */
static sl_status canon_sampler_update(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)n;
  static const int floats[] = {OUT, X, NOISE, SCALE};
  for (size_t i = 0; i < sizeof floats / sizeof *floats; i++)
    if (in[floats[i]]) in[floats[i]] = sl_contiguous(sl_cast(in[floats[i]], SL_F32));
  in[ROWS] = sl_contiguous(in[ROWS]);
  if (in[X] && in[X]->shape.rank >= 2 && !a->i[ATTR_CHANNELS]) a->i[ATTR_CHANNELS] = in[X]->shape.dim[1];
  return sl_graph_status(g);
}

static sl_status check_out(const sl_node *n) {
  const sl_value *out = n->in[OUT], *x = n->in[X];
  sl_shape want = x->shape;
  if (n->in[SCALE]) want.dim[0] *= 2;
  bool wide = out->shape.rank >= 2 && out->shape.dim[1] == 2 * want.dim[1];
  if (wide || n->attrs.i[ATTR_LEARNED]) want.dim[1] *= 2;
  SL_REQUIRE(sl_shape_equal(&out->shape, &want), SHAPE, "sampler_update: out is %s, expected %s as x is %s%s%s",
             sl_value_text(out), sl_shape_text(&want), sl_value_text(x),
             n->attrs.i[ATTR_LEARNED] ? ", the variance is learned" : "", n->in[SCALE] ? " and there is guidance" : "");
  return SL_STATUS_OK;
}

static sl_status infer_sampler_update(sl_node *n) {
  const sl_value *x = n->in[X], *rows = n->in[ROWS], *noise = n->in[NOISE], *scale = n->in[SCALE];
  SL_REQUIRE(x->shape.rank >= 2, SHAPE, "sampler_update: x is %s, expected [N,C,…]", sl_value_text(x));
  SL_TRY(check_out(n));
  const int64_t N = x->shape.dim[0], C = x->shape.dim[1];
  SL_REQUIRE(rows->dtype == SL_F64 && sl_shape_equal(&rows->shape, &SL_SHAPE(N, SL_UPDATE_COLUMNS)), SHAPE,
             "sampler_update: rows is %s, expected f64 [%lld,%d]", sl_value_text(rows), (long long)N,
             (int)SL_UPDATE_COLUMNS);
  SL_REQUIRE(!noise || sl_shape_equal(&noise->shape, &x->shape), SHAPE,
             "sampler_update: noise is %s, expected the shape of x %s", sl_value_text(noise), sl_value_text(x));
  SL_REQUIRE(!scale || scale->shape.rank == 0, SHAPE, "sampler_update: scale is %s, expected a number",
             sl_value_text(scale));
  SL_REQUIRE(n->attrs.i[ATTR_CHANNELS] >= 0 && n->attrs.i[ATTR_CHANNELS] <= C, ARG,
             "sampler_update: channels is %lld, expected 1 … %lld", (long long)n->attrs.i[ATTR_CHANNELS], (long long)C);
  for (int k = NEXT; k <= X0; k++) n->out[k].dtype = SL_F32, n->out[k].shape = x->shape;
  return SL_STATUS_OK;
}

static sl_status run_sampler_update(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                                    void *workspace) {
  (void)state, (void)workspace;
  return e->kernels->sampler_update(e, out, in, n->attrs.i[ATTR_LEARNED] != 0, n->attrs.i[ATTR_CLIP] != 0,
                                    n->attrs.i[ATTR_CHANNELS]);
}

extern const sl_op_rules sl_rules_sampler_update;
const sl_op_rules sl_rules_sampler_update = {
    .canon = canon_sampler_update, .infer = infer_sampler_update, .run = run_sampler_update};

sl_value *sl_sampler_update(sl_value *out, sl_value *x, sl_value *rows, sl_value *noise, sl_value *scale,
                            int64_t channels, bool learned, bool clip) {
  if (!out || !x || !rows) return NULL;
  const sl_attrs a = {.i = {[ATTR_LEARNED] = learned, [ATTR_CLIP] = clip, [ATTR_CHANNELS] = channels}};
  return sl_opn(SL_OP_sampler_update, 5, (sl_value *[]){out, x, rows, noise, scale}, &a);
}
