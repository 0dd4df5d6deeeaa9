/* Pooling of images [N,C,H,W]. */
#include "ops/image.h"
#include "ops/rules.h"

enum {
  KERNEL = 0,
  STRIDE = SL_ATTR_LIST,
  PAD = 2 * SL_ATTR_LIST,
  LAST = 3 * SL_ATTR_LIST,
  COUNT_PAD
}; /* of the private rows */
enum { PUBLIC_COUNT_PAD = 3 * SL_ATTR_LIST };
enum { SHAPE = 0, MAX_LAST = SL_ATTR_LIST, FORWARD = SL_ATTR_LIST }; /* backward rows put the input's shape first */

static sl_status canon_pool(const char *op, sl_graph *g, sl_value **in, sl_attrs *a) {
  SL_REQUIRE(in[0]->shape.rank == 4, SHAPE, "%s: x is %s, expected [N,C,H,W]", op, sl_value_text(in[0]));
  SL_TRY(sl__check_computes(op, "x", in[0]));
  in[0] = sl_cast(in[0], SL_F32);
  SL_TRY(sl__pair(op, "kernel", &a->i[KERNEL], 0));
  if (a->i[STRIDE] == 0) sl__copy_list(&a->i[STRIDE], &a->i[KERNEL]); /* the kernel's own size, as torch has it */
  SL_TRY(sl__pair(op, "stride", &a->i[STRIDE], 1));
  SL_TRY(sl__sides(op, &a->i[PAD]));
  for (int k = 0; k < 4; k++)
    SL_REQUIRE(a->i[PAD + 1 + k] < a->i[KERNEL + 1 + k / 2], ARG,
               "%s: a padding of %lld, expected less than the kernel's %lld", op, (long long)a->i[PAD + 1 + k],
               (long long)a->i[KERNEL + 1 + k / 2]);
  return sl_graph_status(g);
}

static sl_status canon_max(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)n;
  return canon_pool("max_pool2d", g, in, a);
}

static sl_status canon_avg(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)n;
  return canon_pool("avg_pool2d", g, in, a);
}

static sl_value *compose_max(sl_graph *g, int n, sl_value **in, const sl_attrs *a) {
  return sl__apply_image(g, "pool_max", n, in, a, LAST, sl__lies_last(in[0]));
}

static sl_value *compose_avg(sl_graph *g, int n, sl_value **in, const sl_attrs *a) {
  sl_attrs b = *a;
  b.i[COUNT_PAD] = a->i[PUBLIC_COUNT_PAD];
  return sl__apply_image(g, "pool_mean", n, in, &b, LAST, sl__lies_last(in[0]));
}

const sl_op_rules sl_rules_max_pool2d = {.canon = canon_max, .compose = compose_max};
const sl_op_rules sl_rules_avg_pool2d = {.canon = canon_avg, .compose = compose_avg};

static sl_window window_of(const int64_t *a) {
  sl_window w = {.dilation = {1, 1}};
  for (int d = 0; d < 2; d++) w.kernel[d] = a[KERNEL + 1 + d], w.stride[d] = a[STRIDE + 1 + d];
  for (int k = 0; k < 4; k++) w.pad[k] = a[PAD + 1 + k];
  return w;
}

static sl_status pooled_shape(const sl_node *n, sl_shape *out) {
  sl_window w = window_of(n->attrs.i);
  int at = n->attrs.i[LAST] ? 1 : 2; /* where rows and columns stand */
  *out = n->in[0]->shape;
  return sl__window_size(n->op->name, &w, n->in[0]->shape.dim + at, out->dim + at);
}

static sl_status infer_max(sl_node *n) {
  const sl_shape *x = &n->in[0]->shape;
  int at = n->attrs.i[LAST] ? 1 : 2;
  SL_REQUIRE(x->dim[at] > 0 && x->dim[at + 1] > 0, SHAPE, "max_pool2d: x is %s, its images have no pixels to compare",
             sl_value_text(n->in[0]));
  SL_TRY(pooled_shape(n, &n->out[0].shape));
  n->out[1].shape = n->out[0].shape;
  n->out[0].dtype = SL_F32;
  n->out[1].dtype = SL_I32; /* position in the plane: row * W + column */
  return SL_STATUS_OK;
}

static sl_status grad_max(sl_grad_args *a) {
  sl_attrs attrs = {.i = {[MAX_LAST] = a->node->attrs.i[LAST]}};
  sl__shape_list(&attrs.i[SHAPE], &a->in[0]->shape);
  a->dx[0] = sl_op2(SL_OP_pool_max_backward, a->dy[0], a->out[1], &attrs);
  return SL_STATUS_OK;
}

static sl_status run_max(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                         void *workspace) {
  (void)state, (void)workspace;
  sl_window w = window_of(n->attrs.i);
  return e->kernels->max_pool2d(e, &out[0], &out[1], &in[0], &w, n->attrs.i[LAST] != 0);
}

const sl_op_rules sl_rules_pool_max = {.infer = infer_max, .grad = grad_max, .run = run_max};

static sl_status infer_to_shape(sl_node *n) {
  n->out[0].dtype = SL_F32;
  n->out[0].shape = sl__list_shape(&n->attrs.i[SHAPE]);
  SL_REQUIRE(n->out[0].shape.rank == 4 && n->in[0]->shape.rank == 4 && n->in[0]->dtype == SL_F32, SHAPE,
             "%s: dy is %s for %s", n->op->name, sl_value_text(n->in[0]), sl_shape_text(&n->out[0].shape));
  return SL_STATUS_OK;
}

static sl_status run_max_backward(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                                  void *workspace) {
  (void)state, (void)workspace;
  return e->kernels->max_pool2d_backward(e, &out[0], &in[0], &in[1], n->attrs.i[MAX_LAST] != 0);
}

const sl_op_rules sl_rules_pool_max_backward = {.infer = infer_to_shape, .run = run_max_backward};

static sl_status infer_mean(sl_node *n) {
  n->out[0].dtype = SL_F32;
  return pooled_shape(n, &n->out[0].shape);
}

static sl_status grad_mean(sl_grad_args *a) {
  sl_attrs attrs = {{0}, {0}};
  sl__shape_list(&attrs.i[SHAPE], &a->in[0]->shape);
  for (int k = 0; k <= COUNT_PAD; k++) attrs.i[FORWARD + k] = a->node->attrs.i[k];
  a->dx[0] = sl_op1(SL_OP_pool_mean_backward, a->dy[0], &attrs);
  return SL_STATUS_OK;
}

static sl_status run_mean(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                          void *workspace) {
  (void)state, (void)workspace;
  sl_window w = window_of(n->attrs.i);
  return e->kernels->avg_pool2d(e, &out[0], &in[0], &w, n->attrs.i[LAST] != 0, n->attrs.i[COUNT_PAD] != 0);
}

static sl_status run_mean_backward(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                                   void *workspace) {
  (void)state, (void)workspace;
  const int64_t *a = n->attrs.i + FORWARD;
  sl_window w = window_of(a);
  return e->kernels->avg_pool2d_backward(e, &out[0], &in[0], &w, a[LAST] != 0, a[COUNT_PAD] != 0);
}

const sl_op_rules sl_rules_pool_mean = {.infer = infer_mean, .grad = grad_mean, .run = run_mean};
const sl_op_rules sl_rules_pool_mean_backward = {.infer = infer_to_shape, .run = run_mean_backward};

static sl_attrs pool_attrs(const sl_window *w, bool count_pad) {
  sl_attrs a = {{0}, {0}};
  a.i[KERNEL] = a.i[STRIDE] = 2;
  a.i[PAD] = 4;
  for (int d = 0; d < 2; d++) a.i[KERNEL + 1 + d] = w->kernel[d], a.i[STRIDE + 1 + d] = w->stride[d];
  for (int k = 0; k < 4; k++) a.i[PAD + 1 + k] = w->pad[k];
  a.i[PUBLIC_COUNT_PAD] = count_pad;
  return a;
}

sl_value *sl_max_pool2d(sl_value *x, const sl_window *w) {
  sl_attrs a = pool_attrs(w, false);
  return sl_op1(SL_OP_max_pool2d, x, &a);
}

sl_value *sl_avg_pool2d(sl_value *x, const sl_window *w, bool count_pad) {
  sl_attrs a = pool_attrs(w, count_pad);
  return sl_op1(SL_OP_avg_pool2d, x, &a);
}
