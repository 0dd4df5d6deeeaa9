/* GroupNorm with what follows it in a U-Net: affine, adaptive scale and shift, SiLU, channel mask.
 * Source: guided-diffusion unet.py, ResBlock (use_scale_shift_norm); DTR's mask stands after the activation. */
#include "ops/image.h"
#include "ops/rules.h"

enum { ATTR_GROUPS, ATTR_ACT, ATTR_LAST }; /* i; f[0]: eps */
enum { X, W, B, SCALE, SHIFT, MASK, INPUTS };
enum { DY, BX, BW, BB, BSCALE, BSHIFT, BMASK, MEAN, RSTD };
enum { DX, DW, DB, DSCALE, DSHIFT };

static const char *const names[] = {"x", "w", "b", "scale", "shift", "mask"};

static sl_status canon_group_norm(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)n;
  const sl_value *x = in[X];
  int64_t groups = a->i[ATTR_GROUPS];
  SL_REQUIRE(x->shape.rank >= 2, SHAPE, "group_norm: x is %s, expected [N,C,…]", sl_value_text(x));
  SL_REQUIRE(groups >= 1 && x->shape.dim[1] % groups == 0, ARG,
             "group_norm: groups is %lld, expected a divisor of %lld channels", (long long)groups,
             (long long)x->shape.dim[1]);
  SL_REQUIRE(a->f[0] >= 0, ARG, "group_norm: eps is %g, expected 0 or more", a->f[0]);
  SL_REQUIRE((in[SCALE] == NULL) == (in[SHIFT] == NULL), ARG, "group_norm: scale and shift come together");
  for (int i = 0; i < MASK; i++) {
    if (!in[i]) continue;
    SL_TRY(sl__check_computes("group_norm", names[i], in[i]));
    in[i] = sl_cast(in[i], SL_F32); /* x keeps the order in which it lies */
  }
  if (in[MASK]) in[MASK] = sl_contiguous(in[MASK]);
  return sl_graph_status(g);
}

static sl_value *compose_group_norm(sl_graph *g, int n, sl_value **in, const sl_attrs *a) {
  return sl__apply_image(g, "group_normalize", n, in, a, ATTR_LAST, sl__lies_last(in[X]));
}

const sl_op_rules sl_rules_group_norm = {.canon = canon_group_norm, .compose = compose_group_norm};

static int64_t channels_of(const sl_shape *x, bool last) { return last ? x->dim[x->rank - 1] : x->dim[1]; }

static sl_status check_parts(const sl_node *n, int64_t N, int64_t C) {
  for (int i = W; i <= B; i++)
    SL_REQUIRE(!n->in[i] || (n->in[i]->shape.rank == 1 && n->in[i]->shape.dim[0] == C), SHAPE,
               "group_norm: %s is %s, expected [%lld]", names[i], sl_value_text(n->in[i]), (long long)C);
  for (int i = SCALE; i <= MASK; i++)
    SL_REQUIRE(!n->in[i] || (n->in[i]->shape.rank == 2 && n->in[i]->shape.dim[0] == N && n->in[i]->shape.dim[1] == C),
               SHAPE, "group_norm: %s is %s, expected [%lld,%lld]", names[i], sl_value_text(n->in[i]), (long long)N,
               (long long)C);
  SL_REQUIRE(!n->in[MASK] || n->in[MASK]->dtype == SL_U8, DTYPE, "group_norm: mask is %s, expected u8",
             sl_value_text(n->in[MASK]));
  return SL_STATUS_OK;
}

static sl_status infer_group_normalize(sl_node *n) {
  const sl_shape *x = &n->in[X]->shape;
  SL_TRY(check_parts(n, x->dim[0], channels_of(x, n->attrs.i[ATTR_LAST] != 0)));
  n->out[0].dtype = SL_F32;
  n->out[0].shape = *x;
  for (int k = 1; k < 3; k++) {
    n->out[k].dtype = SL_F32;
    n->out[k].shape = SL_SHAPE(x->dim[0], n->attrs.i[ATTR_GROUPS]);
  }
  return SL_STATUS_OK;
}

static sl_status grad_group_normalize(sl_grad_args *a) {
  SL_REQUIRE(!a->dy[1] && !a->dy[2], UNSUPPORTED, "group_norm: mean and rstd have no gradient");
  sl_value *in[] = {a->dy[0],     a->in[X],    a->in[W],  a->in[B], a->in[SCALE],
                    a->in[SHIFT], a->in[MASK], a->out[1], a->out[2]};
  sl_attrs attrs = {{0}, {0}};
  for (int k = ATTR_GROUPS; k <= ATTR_LAST; k++) attrs.i[k] = a->node->attrs.i[k];
  sl_value *d = sl_opn(SL_OP_group_norm_backward, 9, in, &attrs);
  a->dx[X] = d;
  for (int i = W; i <= SHIFT; i++)
    if (a->in[i]) a->dx[i] = sl_output(d, i);
  return SL_STATUS_OK;
}

static sl_value *again_group_normalize(sl_graph *g, const sl_node *n, int k) {
  return k == 0 ? sl_apply(g, n->op, n->n_in, n->in, &n->attrs) : NULL;
}

static sl_status run_group_normalize(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                                     void *workspace) {
  (void)state, (void)workspace;
  return e->kernels->group_norm(e, out, in, n->attrs.i[ATTR_GROUPS], n->attrs.f[0], n->attrs.i[ATTR_ACT] != 0,
                                n->attrs.i[ATTR_LAST] != 0);
}

const sl_op_rules sl_rules_group_normalize = {.infer = infer_group_normalize,
                                              .grad = grad_group_normalize,
                                              .again = again_group_normalize,
                                              .run = run_group_normalize};

static sl_status infer_backward(sl_node *n) {
  const sl_value *x = n->in[BX];
  SL_REQUIRE(sl_shape_equal(&n->in[DY]->shape, &x->shape) && n->in[DY]->dtype == SL_F32, SHAPE,
             "group_norm_backward: dy is %s, expected f32 %s", sl_value_text(n->in[DY]), sl_shape_text(&x->shape));
  int64_t N = x->shape.dim[0], C = channels_of(&x->shape, n->attrs.i[ATTR_LAST] != 0);
  for (int k = 0; k < 5; k++) n->out[k].dtype = SL_F32;
  n->out[DX].shape = x->shape;
  n->out[DW].shape = n->out[DB].shape = SL_SHAPE(C);
  n->out[DSCALE].shape = n->out[DSHIFT].shape = SL_SHAPE(N, C);
  return SL_STATUS_OK;
}

/* Two sums for every sample and channel. */
static sl_status workspace_backward(sl_exec *e, const sl_node *n, size_t *bytes) {
  (void)e;
  int64_t C = channels_of(&n->in[BX]->shape, n->attrs.i[ATTR_LAST] != 0);
  *bytes = (size_t)(2 * n->in[BX]->shape.dim[0] * C) * sizeof(double);
  return SL_STATUS_OK;
}

static sl_status run_backward(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                              void *workspace) {
  (void)state;
  return e->kernels->group_norm_backward(e, out, in, n->attrs.i[ATTR_GROUPS], n->attrs.i[ATTR_ACT] != 0,
                                         n->attrs.i[ATTR_LAST] != 0, workspace);
}

const sl_op_rules sl_rules_group_norm_backward = {
    .infer = infer_backward, .workspace = workspace_backward, .run = run_backward};

sl_value *sl_group_norm(sl_value *x, const sl_group_norm_parts *p, int64_t groups, double eps, sl_act act) {
  if (!x) return NULL;
  sl_attrs a = {.i = {[ATTR_GROUPS] = groups, [ATTR_ACT] = act == SL_ACT_SILU}, .f = {eps}};
  sl_group_norm_parts none = {0};
  if (!p) p = &none;
  return sl_opn(SL_OP_group_norm, INPUTS, (sl_value *[]){x, p->w, p->b, p->scale, p->shift, p->mask}, &a);
}
