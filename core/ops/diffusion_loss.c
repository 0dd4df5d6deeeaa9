/* The loss of a batch of denoised images in one pass; the formulas stand in diffusion_loss_math.h. */
#include "ops/diffusion_loss_math.h"
#include "ops/rules.h"

enum { OUT, X0, XT, NOISE, ROWS, WEIGHT, DMSE, DVB };
enum { LOSS, MSE, VB, ERROR };
enum { DOUT, DX0, DXT, DNOISE };
enum { ATTR_LEARNED };

static int64_t elements_of_sample(const sl_value *x0) {
  int64_t n = 1;
  for (int i = 1; i < x0->shape.rank; i++) n *= x0->shape.dim[i];
  return n;
}

/* Everything in f32, but for the output of a network in bf16, and dense, but for numbers per sample. */
static sl_status canon_diffusion_loss(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)n, (void)a;
  if (in[OUT]->dtype != SL_BF16) in[OUT] = sl_cast(in[OUT], SL_F32);
  for (int i = X0; i <= NOISE; i++) in[i] = sl_cast(in[i], SL_F32);
  for (int i = OUT; i <= ROWS; i++) in[i] = sl_contiguous(in[i]);
  if (in[WEIGHT]) in[WEIGHT] = sl_cast(in[WEIGHT], SL_F32);
  return sl_graph_status(g);
}

static sl_status check_out(const sl_node *n) {
  const sl_value *out = n->in[OUT], *x0 = n->in[X0];
  const bool learned = n->attrs.i[ATTR_LEARNED];
  sl_shape want = x0->shape;
  SL_REQUIRE(x0->shape.rank >= (learned ? 2 : 1), SHAPE, "diffusion_loss: x0 is %s, expected [N,C,…]",
             sl_value_text(x0));
  if (learned) want.dim[1] *= 2;
  SL_REQUIRE(sl_shape_equal(&out->shape, &want), SHAPE, "diffusion_loss: out is %s, expected %s as x0 is %s%s",
             sl_value_text(out), sl_shape_text(&want), sl_value_text(x0),
             learned ? " and the variance is learned" : "");
  return SL_STATUS_OK;
}

static sl_status check_inputs(const sl_node *n) {
  static const char *const names[] = {"out", "x0", "xt", "noise", "rows", "weight", "dmse", "dvb"};
  const sl_value *x0 = n->in[X0], *rows = n->in[ROWS];
  SL_TRY(check_out(n));
  for (int i = XT; i <= NOISE; i++)
    SL_REQUIRE(sl_shape_equal(&n->in[i]->shape, &x0->shape), SHAPE,
               "diffusion_loss: %s is %s, expected the shape of x0 %s", names[i], sl_value_text(n->in[i]),
               sl_value_text(x0));
  const int64_t N = x0->shape.dim[0];
  SL_REQUIRE(rows->dtype == SL_F64 && sl_shape_equal(&rows->shape, &SL_SHAPE(N, SL_LOSS_COLUMNS)), SHAPE,
             "diffusion_loss: rows is %s, expected f64 [%lld,%d]", sl_value_text(rows), (long long)N,
             (int)SL_LOSS_COLUMNS);
  for (int i = WEIGHT; i < n->n_in; i++)
    SL_REQUIRE(!n->in[i] || (n->in[i]->dtype == SL_F32 && sl_shape_equal(&n->in[i]->shape, &SL_SHAPE(N))), SHAPE,
               "diffusion_loss: %s is %s, expected f32 [%lld]", names[i], sl_value_text(n->in[i]), (long long)N);
  return SL_STATUS_OK;
}

static sl_status infer_diffusion_loss(sl_node *n) {
  SL_TRY(check_inputs(n));
  for (int k = LOSS; k <= ERROR; k++) {
    n->out[k].dtype = SL_F32;
    n->out[k].shape = SL_SHAPE(n->in[X0]->shape.dim[0]);
  }
  return SL_STATUS_OK;
}

static sl_value *sum_of(sl_value *a, sl_value *b) { return a && b ? sl_add(a, b) : a ? a : b; }

static sl_status grad_diffusion_loss(sl_grad_args *a) {
  const bool learned = a->node->attrs.i[ATTR_LEARNED];
  sl_value *weight = a->in[WEIGHT], *dmse = sum_of(a->dy[LOSS], a->dy[MSE]);
  sl_value *dvb = learned ? sum_of(a->dy[LOSS], a->dy[VB]) : NULL;
  SL_REQUIRE(!a->need[ROWS], UNSUPPORTED, "diffusion_loss: has no gradient by the schedule");
  if (weight && a->need[WEIGHT] && dmse) a->dx[WEIGHT] = sl_mul(dmse, a->out[ERROR]);
  if (a->dy[ERROR]) {
    dmse = sum_of(weight && dmse ? sl_mul(weight, dmse) : dmse, a->dy[ERROR]);
    weight = NULL;
  }
  if ((!dmse && !dvb) || !(a->need[OUT] || a->need[X0] || a->need[XT] || a->need[NOISE])) return SL_STATUS_OK;
  sl_value *in[] = {a->in[OUT], a->in[X0], a->in[XT], a->in[NOISE], a->in[ROWS], weight, dmse, dvb};
  sl_value *d = sl_opn(SL_OP_diffusion_loss_backward, 8, in, &a->node->attrs);
  static const int of[] = {OUT, X0, XT, NOISE};
  for (int k = DOUT; k <= DNOISE; k++)
    if (a->need[of[k]]) a->dx[of[k]] = sl_output(d, k);
  return SL_STATUS_OK;
}

static sl_status workspace_diffusion_loss(sl_exec *e, const sl_node *n, size_t *bytes) {
  (void)e;
  const sl_value *x0 = n->in[X0];
  *bytes = (size_t)(x0->shape.dim[0] * sl_loss_parts(elements_of_sample(x0)) * 2) * sizeof(double);
  return SL_STATUS_OK;
}

static sl_status run_diffusion_loss(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                                    void *workspace) {
  (void)state;
  return e->kernels->diffusion_loss(e, out, in, n->attrs.i[ATTR_LEARNED] != 0, workspace);
}

extern const sl_op_rules sl_rules_diffusion_loss;
const sl_op_rules sl_rules_diffusion_loss = {.canon = canon_diffusion_loss,
                                             .infer = infer_diffusion_loss,
                                             .grad = grad_diffusion_loss,
                                             .workspace = workspace_diffusion_loss,
                                             .run = run_diffusion_loss};

sl_value *sl_diffusion_loss(sl_value *out, sl_value *x0, sl_value *xt, sl_value *noise, sl_value *rows,
                            sl_value *weight, bool learned) {
  if (!x0 || !xt || !noise || !rows) return NULL;
  const sl_attrs a = {.i = {[ATTR_LEARNED] = learned}};
  return sl_opn(SL_OP_diffusion_loss, 6, (sl_value *[]){out, x0, xt, noise, rows, weight}, &a);
}

/* --- its gradients --- */

static sl_status infer_diffusion_loss_backward(sl_node *n) {
  SL_TRY(check_inputs(n));
  for (int k = DOUT; k <= DNOISE; k++) {
    n->out[k].dtype = k == DOUT ? n->in[OUT]->dtype : SL_F32;
    n->out[k].shape = n->in[k == DOUT ? OUT : X0]->shape;
  }
  return SL_STATUS_OK;
}

static sl_status run_diffusion_loss_backward(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in,
                                             void *state, void *workspace) {
  (void)state, (void)workspace;
  return e->kernels->diffusion_loss_backward(e, out, in, n->attrs.i[ATTR_LEARNED] != 0);
}

extern const sl_op_rules sl_rules_diffusion_loss_backward;
const sl_op_rules sl_rules_diffusion_loss_backward = {
    .canon = canon_diffusion_loss, .infer = infer_diffusion_loss_backward, .run = run_diffusion_loss_backward};
