/* Convolution of images [N,C,H,W] and its two gradients. */
#include "ops/conv.h"

#include "ops/image.h"
#include "ops/rules.h"

enum { STRIDE = 0, PAD = SL_ATTR_LIST, DILATION = 2 * SL_ATTR_LIST, GROUPS = 3 * SL_ATTR_LIST, COMPUTE, LAST };
/* gradients' rows put the result's shape first */
enum { SHAPE = 0, FORWARD = SL_ATTR_LIST, BIAS = FORWARD + LAST + 1 };

static sl_status canon_conv2d(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)n;
  static const char *const names[] = {"x", "w", "b"};
  for (int k = 0; k < 3; k++) {
    if (!in[k]) continue;
    SL_TRY(sl__check_computes("conv2d", names[k], in[k]));
    in[k] = sl_cast(in[k], SL_F32);
  }
  SL_REQUIRE(in[0]->shape.rank == 4, SHAPE, "conv2d: x is %s, expected [N,C,H,W]", sl_value_text(in[0]));
  SL_REQUIRE(in[1]->shape.rank == 4, SHAPE, "conv2d: w is %s, expected [K,C/groups,rows,columns]",
             sl_value_text(in[1]));
  SL_TRY(sl__pair("conv2d", "stride", &a->i[STRIDE], 1));
  SL_TRY(sl__pair("conv2d", "dilation", &a->i[DILATION], 1));
  SL_TRY(sl__sides("conv2d", &a->i[PAD]));
  SL_REQUIRE(a->i[COMPUTE] == SL_F32 || a->i[COMPUTE] == SL_BF16, ARG, "conv2d: compute is %s, expected f32 or bf16",
             sl_dtype_name((sl_dtype)a->i[COMPUTE]));
  return sl_graph_status(g);
}

/* N, C, H, W of an image in either order. */
typedef struct image {
  int64_t n, c, h, w;
} image;

static image image_of(const sl_shape *s, bool last) {
  return last ? (image){s->dim[0], s->dim[3], s->dim[1], s->dim[2]}
              : (image){s->dim[0], s->dim[1], s->dim[2], s->dim[3]};
}

/* From the attributes of `convolve`, or those of a gradient from FORWARD on. */
static sl_conv conv_of(const int64_t *attrs, const sl_shape *x, const sl_shape *w) {
  bool last = attrs[LAST] != 0;
  image m = image_of(x, last);
  sl_conv c = {.N = m.n, .C = m.c, .H = m.h, .W = m.w, .K = w->dim[0], .groups = attrs[GROUPS], .last = last};
  c.bf16 = attrs[COMPUTE] == SL_BF16;
  for (int d = 0; d < 2; d++) {
    c.window.kernel[d] = w->dim[2 + d];
    c.window.stride[d] = attrs[STRIDE + 1 + d];
    c.window.dilation[d] = attrs[DILATION + 1 + d];
  }
  for (int k = 0; k < 4; k++) c.window.pad[k] = attrs[PAD + 1 + k];
  return c;
}

static void set_output(sl_conv *c, const sl_shape *y) {
  image m = image_of(y, c->last);
  c->OH = m.h;
  c->OW = m.w;
}

static sl_status sizes(sl_conv *c) {
  int64_t in[] = {c->H, c->W}, out[2];
  SL_TRY(sl__window_size("conv2d", &c->window, in, out));
  c->OH = out[0];
  c->OW = out[1];
  return SL_STATUS_OK;
}

static sl_value *compose_conv2d(sl_graph *g, int n, sl_value **in, const sl_attrs *a) {
  return sl__apply_image(g, "convolve", n, in, a, LAST, sl__prefers_last(g));
}

const sl_op_rules sl_rules_conv2d = {.canon = canon_conv2d, .compose = compose_conv2d};

static sl_status infer_convolve(sl_node *n) {
  const sl_shape *x = &n->in[0]->shape, *w = &n->in[1]->shape;
  image m = image_of(x, n->attrs.i[LAST] != 0);
  int64_t groups = n->attrs.i[GROUPS];
  SL_REQUIRE(groups >= 1 && m.c % groups == 0 && w->dim[0] % groups == 0, ARG,
             "conv2d: groups is %lld, expected a divisor of %lld and %lld channels", (long long)groups, (long long)m.c,
             (long long)w->dim[0]);
  SL_REQUIRE(w->dim[1] * groups == m.c, SHAPE,
             "conv2d: w is %s, expected [K,%lld,rows,columns] for %lld channels in %lld groups", sl_shape_text(w),
             (long long)(m.c / groups), (long long)m.c, (long long)groups);
  SL_REQUIRE(w->dim[2] > 0 && w->dim[3] > 0, SHAPE, "conv2d: w is %s, an empty kernel", sl_shape_text(w));
  SL_REQUIRE(!n->in[2] || (n->in[2]->shape.rank == 1 && n->in[2]->shape.dim[0] == w->dim[0]), SHAPE,
             "conv2d: b is %s, expected [%lld]", sl_value_text(n->in[2]), (long long)w->dim[0]);
  sl_conv c = conv_of(n->attrs.i, x, w);
  SL_TRY(sizes(&c));
  n->out[0].dtype = SL_F32;
  n->out[0].shape = c.last ? SL_SHAPE(c.N, c.OH, c.OW, c.K) : SL_SHAPE(c.N, c.K, c.OH, c.OW);
  return SL_STATUS_OK;
}

static sl_attrs gradient_attrs(const sl_attrs *from, const sl_shape *shape, bool bias) {
  sl_attrs a = {{0}, {0}};
  sl__shape_list(&a.i[SHAPE], shape);
  for (int k = 0; k <= LAST; k++) a.i[FORWARD + k] = from->i[k];
  a.i[BIAS] = bias;
  return a;
}

static sl_status grad_convolve(sl_grad_args *a) {
  const sl_attrs *from = &a->node->attrs;
  if (a->need[0]) {
    sl_attrs attrs = gradient_attrs(from, &a->in[0]->shape, false);
    a->dx[0] = sl_op2(SL_OP_conv2d_data_grad, a->dy[0], a->in[1], &attrs);
  }
  bool bias = a->in[2] && a->need[2];
  if (!a->need[1]) { /* a frozen filter */
    if (bias) a->dx[2] = sl_sum(a->dy[0], 3, from->i[LAST] ? (int[]){0, 1, 2} : (int[]){0, 2, 3}, false);
    return SL_STATUS_OK;
  }
  sl_attrs attrs = gradient_attrs(from, &a->in[1]->shape, bias);
  sl_value *dw = sl_op2(SL_OP_conv2d_weight_grad, a->dy[0], a->in[0], &attrs);
  a->dx[1] = dw;
  if (bias) a->dx[2] = sl_output(dw, 1);
  return SL_STATUS_OK;
}

/* --- the convolution that a node of each row is --- */

static sl_conv forward_conv(const sl_node *n) {
  sl_conv c = conv_of(n->attrs.i, &n->in[0]->shape, &n->in[1]->shape);
  c.bias = n->in[2] != NULL;
  set_output(&c, &n->out[0].shape);
  return c;
}

static sl_conv data_conv(const sl_node *n) {
  sl_conv c = conv_of(n->attrs.i + FORWARD, &n->out[0].shape, &n->in[1]->shape);
  c.kind = SL_CONV_DATA;
  set_output(&c, &n->in[0]->shape);
  return c;
}

static sl_conv weight_conv(const sl_node *n) {
  sl_conv c = conv_of(n->attrs.i + FORWARD, &n->in[1]->shape, &n->out[0].shape);
  c.kind = SL_CONV_WEIGHTS;
  c.bias = n->attrs.i[BIAS] != 0;
  set_output(&c, &n->in[0]->shape);
  return c;
}

bool sl_conv_of_node(const sl_node *n, sl_conv *c) {
  if (n->op == sl_op_find("convolve")) *c = forward_conv(n);
  else if (n->op == sl_op_find("conv2d_data_grad")) *c = data_conv(n);
  else if (n->op == sl_op_find("conv2d_weight_grad")) *c = weight_conv(n);
  else return false;
  return true;
}

static int64_t macs(const sl_conv *c) {
  return c->N * c->K * c->OH * c->OW * (c->C / c->groups) * c->window.kernel[0] * c->window.kernel[1];
}

static void release(sl_exec *e, void *state) {
  sl_status s = e->kernels->conv_release(e, state);
  (void)s; /* releasing cannot fail */
}

#define RULES_OF(name)                                                                                                 \
  static int64_t macs_##name(const sl_node *n) {                                                                       \
    sl_conv c = name##_conv(n);                                                                                        \
    return macs(&c);                                                                                                   \
  }                                                                                                                    \
  static sl_status workspace_##name(sl_exec *e, const sl_node *n, size_t *bytes) {                                     \
    sl_conv c = name##_conv(n);                                                                                        \
    return e->kernels->conv_workspace(e, &c, bytes);                                                                   \
  }                                                                                                                    \
  static sl_status prepare_##name(sl_exec *e, const sl_node *n, void **state) {                                        \
    sl_conv c = name##_conv(n);                                                                                        \
    return e->kernels->conv_plan(e, &c, state);                                                                        \
  }
RULES_OF(forward)
RULES_OF(data)
RULES_OF(weight)

static sl_status run_forward(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                             void *workspace) {
  (void)n;
  return e->kernels->conv(e, state, in[0].data, in[1].data, in[2].data, out[0].data, workspace);
}

static sl_status run_data(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                          void *workspace) {
  (void)n;
  return e->kernels->conv(e, state, out[0].data, in[1].data, NULL, in[0].data, workspace);
}

static sl_status run_weight(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                            void *workspace) {
  (void)n;
  return e->kernels->conv(e, state, in[1].data, out[0].data, out[1].data, in[0].data, workspace);
}

const sl_op_rules sl_rules_convolve = {.infer = infer_convolve,
                                       .grad = grad_convolve,
                                       .macs = macs_forward,
                                       .workspace = workspace_forward,
                                       .prepare = prepare_forward,
                                       .release = release,
                                       .run = run_forward};

static sl_status infer_gradient(sl_node *n) {
  n->out[0].dtype = SL_F32;
  n->out[0].shape = sl__list_shape(&n->attrs.i[SHAPE]);
  SL_REQUIRE(n->out[0].shape.rank == 4 && n->in[0]->shape.rank == 4 && n->in[1]->shape.rank == 4 &&
                 n->in[0]->dtype == SL_F32 && n->in[1]->dtype == SL_F32,
             SHAPE, "%s: %s and %s for %s", n->op->name, sl_value_text(n->in[0]), sl_value_text(n->in[1]),
             sl_shape_text(&n->out[0].shape));
  return SL_STATUS_OK;
}

static sl_status infer_weight_grad(sl_node *n) {
  SL_TRY(infer_gradient(n));
  n->out[1].dtype = SL_F32;
  n->out[1].shape = SL_SHAPE(n->out[0].shape.dim[0]);
  return SL_STATUS_OK;
}

const sl_op_rules sl_rules_conv2d_data_grad = {.infer = infer_gradient,
                                               .macs = macs_data,
                                               .workspace = workspace_data,
                                               .prepare = prepare_data,
                                               .release = release,
                                               .run = run_data};
const sl_op_rules sl_rules_conv2d_weight_grad = {.infer = infer_weight_grad,
                                                 .macs = macs_weight,
                                                 .workspace = workspace_weight,
                                                 .prepare = prepare_weight,
                                                 .release = release,
                                                 .run = run_weight};

sl_value *sl_conv2d(sl_value *x, sl_value *w, sl_value *b, const sl_window *s, int64_t groups, sl_dtype compute) {
  if (!x || !w) return NULL;
  sl_attrs a = {{0}, {0}};
  a.i[STRIDE] = a.i[DILATION] = 2;
  a.i[PAD] = 4;
  for (int d = 0; d < 2; d++) a.i[STRIDE + 1 + d] = s->stride[d], a.i[DILATION + 1 + d] = s->dilation[d];
  for (int k = 0; k < 4; k++) a.i[PAD + 1 + k] = s->pad[k];
  a.i[GROUPS] = groups;
  a.i[COMPUTE] = compute;
  return sl_opn(SL_OP_conv2d, 3, (sl_value *[]){x, w, b}, &a);
}
