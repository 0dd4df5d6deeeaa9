/* Gradients as more graph: reverse accumulation over nodes, with optional recomputation of segments. */
#include <string.h>

#include "graph/graph_internal.h"

typedef struct backward {
  sl_graph *g;
  sl_recompute recompute;
  int n_nodes, n_values; /* of the forward graph: what stood before the first gradient node */
  bool *depends;         /* [value] on something differentiated */
  sl_value **grad;       /* [value] gathered so far */
  sl_value **twin;       /* [value] its recomputed copy */
} backward;

static sl_value *value_of(backward *b, sl_value *v, int segment);

/* The recomputed twin of a value of `segment`, made at first use: backward reads twins, so the originals die after
 * forward. */
static sl_value *twin_of(backward *b, sl_value *v, int segment) {
  if (v->id >= b->n_values) return v;
  if (b->twin[v->id]) return b->twin[v->id];
  sl_node *n = v->node;
  sl_value *in[SL_MAX_INPUTS] = {NULL};
  for (int i = 0; i < n->n_in; i++) {
    in[i] = value_of(b, n->in[i], segment);
    if (n->in[i] && !in[i]) return NULL;
  }
  sl_node *copy = sl__graph_add(b->g, n->op, n->n_in, in, &n->attrs);
  if (!copy) return NULL;
  copy->name = n->name;
  copy->scope = n->scope;
  copy->place = n->place;
  for (int i = 0; i < n->n_out; i++) b->twin[n->out[i].id] = &copy->out[i];
  return b->twin[v->id];
}

/* v once more, where that takes no product: through views to what computes it. Twins are made where backward first
 * needs them, and the originals die after forward. */
static sl_value *light_twin(backward *b, sl_value *v) {
  sl_node *n = v->node;
  if (v->id >= b->n_values || n->leaf != SL_LEAF_NONE) return v;
  if (b->twin[v->id]) return b->twin[v->id];
  b->twin[v->id] = v;
  if (v->base != v) {
    sl_value *seen = light_twin(b, n->in[0]);
    if (!seen || seen == n->in[0]) return seen ? v : NULL;
    sl_node *view = sl__graph_add(b->g, n->op, 1, &seen, &n->attrs);
    if (!view) return NULL;
    for (int i = 0; i < n->n_out; i++) b->twin[n->out[i].id] = &view->out[i];
  } else if (n->op->rules->again) {
    sl_value *again = n->op->rules->again(b->g, n, v->index);
    if (sl_graph_broken(b->g)) return NULL;
    if (again) b->twin[v->id] = again;
  }
  return b->twin[v->id];
}

static sl_value *value_of(backward *b, sl_value *v, int segment) {
  if (v && b->recompute == SL_RECOMPUTE_LIGHT) return light_twin(b, v);
  if (!v || b->recompute != SL_RECOMPUTE_SEGMENTS || segment == 0 || v->node->leaf != SL_LEAF_NONE ||
      v->node->segment != segment)
    return v;
  return twin_of(b, v, segment);
}

/* depends: of every value of the first n_nodes nodes, all false. */
static void mark_dependence(const sl_graph *g, int n_nodes, int n, sl_value *const *wrt, bool *depends) {
  for (int i = 0; i < n; i++) depends[wrt[i]->id] = true;
  for (int i = 0; i < n_nodes; i++) {
    const sl_node *node = g->nodes[i];
    bool any = false;
    if (node->op->flags & SL_OP_DETACHES) continue;
    for (int k = 0; k < node->n_in; k++) any |= node->in[k] && depends[node->in[k]->id];
    if (!any) continue;
    for (int k = 0; k < node->n_out; k++) depends[node->out[k].id] |= sl_dtype_is_float(node->out[k].dtype);
  }
}

sl_status sl_graph_depends(const sl_graph *g, const sl_value *v, int n, sl_value *const *on, bool *out) {
  bool *depends = sl_alloc_zero(g->ctx, (size_t)g->n_values + 1);
  if (!depends) return SL_STATUS_OOM;
  mark_dependence(g, g->n_nodes, n, on, depends);
  *out = depends[v->id];
  sl_free(g->ctx, depends);
  return SL_STATUS_OK;
}

static sl_status add_gradient(backward *b, const sl_node *node, sl_value *to, sl_value *dx, bool folded) {
  if (!dx) return SL_STATUS_OK;
  SL_REQUIRE(sl_shape_equal(&dx->shape, &to->shape), INTERNAL, "%s: its gradient has shape %s, expected %s",
             node->op->name, sl_shape_text(&dx->shape), sl_shape_text(&to->shape));
  sl_value **have = &b->grad[to->id];
  if (*have && !folded) dx = sl_apply(b->g, sl_op_find("add"), 2, (sl_value *[]){*have, dx}, NULL);
  *have = dx;
  return sl_graph_status(b->g);
}

static sl_status backward_node(backward *b, sl_node *node) {
  bool any_out = false, any_in = false, need[SL_MAX_INPUTS] = {false}, folded[SL_MAX_INPUTS] = {false};
  sl_value *in[SL_MAX_INPUTS] = {NULL}, *out[SL_MAX_OUTPUTS] = {NULL}, *dy[SL_MAX_OUTPUTS] = {NULL};
  sl_value *dx[SL_MAX_INPUTS] = {NULL}, *prior[SL_MAX_INPUTS] = {NULL};
  for (int k = 0; k < node->n_out; k++) any_out |= (dy[k] = b->grad[node->out[k].id]) != NULL;
  for (int k = 0; k < node->n_in; k++) any_in |= need[k] = node->in[k] && b->depends[node->in[k]->id];
  if (!any_out || !any_in) return SL_STATUS_OK;
  SL_REQUIRE(node->op->rules->grad, UNSUPPORTED, "%s: has no gradient", node->op->name);
  for (int k = 0; k < node->n_in; k++) {
    bool seen =
        false; /* an input given twice gets its parts one after the other: only the first may see what came before */
    for (int j = 0; j < k; j++) seen |= node->in[j] == node->in[k];
    prior[k] = need[k] && !seen ? b->grad[node->in[k]->id] : NULL;
    in[k] = value_of(b, node->in[k], node->segment);
    if (node->in[k] && !in[k]) return sl_graph_status(b->g);
  }
  for (int k = 0; k < node->n_out; k++) {
    out[k] = value_of(b, &node->out[k], node->segment);
    if (!out[k]) return sl_graph_status(b->g);
  }
  sl_scope_push(b->g, "grad");
  b->g->scopes[b->g->n_scopes - 1] = node->scope && *node->scope ? node->scope : "grad";
  b->g->place = node->place;
  sl_grad_args args = {b->g, node, in, out, dy, prior, need, dx, folded};
  sl_status s = node->op->rules->grad(&args);
  if (s == SL_STATUS_OK) s = sl_graph_status(b->g);
  for (int k = 0; s == SL_STATUS_OK && k < node->n_in; k++)
    if (need[k]) s = add_gradient(b, node, node->in[k], dx[k], folded[k]);
  b->g->place = NULL;
  sl_scope_pop(b->g);
  return s;
}

/* A constant seen at every element. */
static sl_value *filled(sl_graph *g, double v, const sl_value *like) {
  sl_attrs a = {{0}, {0}};
  a.i[0] = like->shape.rank;
  for (int k = 0; k < like->shape.rank; k++) a.i[1 + k] = like->shape.dim[k];
  sl_value *scalar = sl_scalar(g, v, like->dtype);
  return like->shape.rank == 0 || !scalar ? scalar : sl_apply(g, sl_op_find("expand"), 1, &scalar, &a);
}

static sl_status run_backward(backward *b, sl_value *loss, sl_value *seed, int n, sl_value *const *wrt,
                              sl_value **dout) {
  sl_graph *g = b->g;
  mark_dependence(g, b->n_nodes, n, wrt, b->depends);
  b->grad[loss->id] = seed ? seed : filled(g, 1.0, loss);
  for (int i = loss->node->id; i >= 0; i--)
    if (g->nodes[i]->leaf == SL_LEAF_NONE) SL_TRY(backward_node(b, g->nodes[i]));
  for (int i = 0; i < n; i++) {
    dout[i] = b->grad[wrt[i]->id];
    if (!dout[i]) dout[i] = filled(g, 0.0, wrt[i]);
  }
  return sl_graph_status(g);
}

sl_status sl_grad(sl_graph *g, sl_value *loss, sl_value *seed, int n, sl_value *const *wrt, sl_recompute recompute,
                  sl_value **dout) {
  memset(dout, 0, (size_t)n * sizeof *dout);
  SL_TRY(sl_graph_status(g));
  SL_REQUIRE(loss, ARG, "grad: the loss is missing");
  SL_REQUIRE(sl_dtype_is_float(loss->dtype), DTYPE, "grad: the loss is %s, expected a float", sl_value_text(loss));
  SL_REQUIRE(seed || sl_shape_numel(&loss->shape) == 1, SHAPE,
             "grad: the loss is %s, expected one element (take its mean or sum)", sl_value_text(loss));
  SL_REQUIRE(!seed || sl_shape_equal(&seed->shape, &loss->shape), SHAPE, "grad: the seed is %s, expected %s",
             sl_value_text(seed), sl_value_text(loss));
  for (int i = 0; i < n; i++) SL_REQUIRE(wrt[i], ARG, "grad: value %d to differentiate by is missing", i);
  backward b = {.g = g, .recompute = recompute, .n_nodes = g->n_nodes, .n_values = g->n_values};
  size_t pointers = (size_t)(g->n_values + 1) * sizeof(sl_value *);
  b.depends = sl_alloc_zero(g->ctx, (size_t)g->n_values + 1);
  b.grad = sl_alloc_zero(g->ctx, pointers);
  b.twin = sl_alloc_zero(g->ctx, pointers);
  int segment = g->segment;
  g->segment = 0;
  sl_status s = b.depends && b.grad && b.twin ? run_backward(&b, loss, seed, n, wrt, dout) : SL_STATUS_OOM;
  g->segment = segment;
  sl_free(g->ctx, b.depends);
  sl_free(g->ctx, b.grad);
  sl_free(g->ctx, b.twin);
  if (s != SL_STATUS_OK) sl_graph_fail(g, s);
  return s;
}
