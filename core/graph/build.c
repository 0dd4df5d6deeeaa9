/* Building graphs: leaves, nodes, names, outputs. */
#include <stdio.h>
#include <string.h>

#include "graph/graph_internal.h"

/* Chunks of the arena: small at first, as eager calls make many small graphs, then twice the one before. */
#define FIRST_CHUNK_BYTES 4096
#define CHUNK_BYTES 65536

static const sl_op leaf_ops[] = {
    [SL_LEAF_NONE] = {"none", "", "", 1, 0, NULL},
    [SL_LEAF_INPUT] = {"input", "", "", 1, SL_OP_STRIDED, NULL},
    [SL_LEAF_PARAM] = {"param", "", "", 1, SL_OP_STRIDED, NULL},
    [SL_LEAF_TABLE] = {"table", "", "", 1, SL_OP_STRIDED, NULL},
    [SL_LEAF_CONST] = {"const", "", "", 1, SL_OP_STRIDED, NULL},
    [SL_LEAF_STEP] = {"step", "", "", 1, SL_OP_STRIDED, NULL},
};

sl_status sl_graph_new(sl_context *ctx, sl_graph **out) {
  *out = NULL;
  sl_graph *g = sl_alloc_zero(ctx, sizeof *g);
  if (!g) return SL_STATUS_OOM;
  g->ctx = ctx;
  g->device = &sl_device_cpu;
  g->refs = 1;
  *out = g;
  return SL_STATUS_OK;
}

sl_graph *sl_graph_retain(sl_graph *g) {
  g->refs++;
  return g;
}

void sl_graph_release(sl_graph *g) {
  if (!g || --g->refs > 0) return;
  for (int i = 0; i < g->n_nodes; i++) sl_tensor_release(g->nodes[i]->table);
  for (sl_chunk_block *c = g->chunks, *next; c; c = next) {
    next = c->next;
    sl_free(g->ctx, c);
  }
  sl_free(g->ctx, g->nodes);
  sl_free(g->ctx, g->outputs);
  sl_free(g->ctx, g->inputs);
  sl_free(g->ctx, g);
}

sl_context *sl_graph_context(const sl_graph *g) { return g->ctx; }
const sl_device *sl_graph_device(const sl_graph *g) { return g->device; }

void sl_graph_set_device(sl_graph *g, const sl_device *dev) {
  SL_ASSERT(g->n_nodes == 0);
  g->device = dev ? dev : &sl_device_cpu;
}

sl_status sl_graph_status(sl_graph *g) {
  return g->status == SL_STATUS_OK ? SL_STATUS_OK : sl_fail(g->status, "%s", g->error);
}

sl_value *sl_graph_fail(sl_graph *g, sl_status s) {
  if (g->status == SL_STATUS_OK) {
    g->status = s;
    snprintf(g->error, sizeof g->error, "%s", sl_error());
  }
  return NULL;
}

void *sl__graph_alloc(sl_graph *g, size_t bytes) {
  bytes = (bytes + 15) & ~(size_t)15;
  if (!g->chunks || g->chunks->size - g->chunks->used < bytes) {
    size_t size = g->chunks ? 2 * g->chunks->size : FIRST_CHUNK_BYTES;
    if (size > CHUNK_BYTES) size = CHUNK_BYTES;
    if (size < bytes) size = bytes;
    sl_chunk_block *c = sl_alloc_zero(g->ctx, 64 + size);
    if (!c) {
      sl_graph_fail(g, SL_STATUS_OOM);
      return NULL;
    }
    *c = (sl_chunk_block){g->chunks, 0, size};
    g->chunks = c;
  }
  char *p = (char *)g->chunks + 64 + g->chunks->used;
  g->chunks->used += bytes;
  return p;
}

char *sl__graph_strdup(sl_graph *g, const char *text) {
  size_t n = strlen(text) + 1;
  char *s = sl__graph_alloc(g, n);
  if (s) memcpy(s, text, n);
  return s;
}

/* Grows *array to hold one more element of `size` bytes. */
static bool room_for_one(sl_graph *g, void *array, int n, int *cap, size_t size) {
  if (n < *cap) return true;
  int want = *cap ? 2 * *cap : 64;
  void **p = array;
  void *grown = *p ? sl_realloc(g->ctx, *p, (size_t)want * size) : sl_alloc(g->ctx, (size_t)want * size);
  if (!grown) {
    sl_graph_fail(g, SL_STATUS_OOM);
    return false;
  }
  *p = grown;
  *cap = want;
  return true;
}

const char *sl_graph_scope(const sl_graph *g) { return g->n_scopes ? g->scopes[g->n_scopes - 1] : ""; }
bool sl_graph_broken(const sl_graph *g) { return g->status != SL_STATUS_OK; }

static sl_node *node_new(sl_graph *g, const sl_op *op, int n_in, sl_value *const *in, const sl_attrs *attrs) {
  sl_node *n = sl__graph_alloc(g, sizeof *n);
  sl_value *out = sl__graph_alloc(g, (size_t)op->outputs * sizeof *out);
  if (!n || !out || !room_for_one(g, &g->nodes, g->n_nodes, &g->cap_nodes, sizeof(sl_node *))) return NULL;
  n->graph = g;
  n->op = op;
  n->segment = g->segment;
  n->n_in = n_in;
  for (int i = 0; i < n_in; i++) n->in[i] = in[i];
  n->n_out = op->outputs;
  n->out = out;
  n->scope = sl_graph_scope(g);
  n->place = g->place;
  if (attrs) n->attrs = *attrs;
  for (int i = 0; i < op->outputs; i++) {
    out[i].node = n;
    out[i].index = i;
    out[i].base = &out[i];
  }
  return n;
}

/* Gives the node its place in the graph, once it is whole. */
static void node_enter(sl_graph *g, sl_node *n) {
  n->id = g->n_nodes;
  g->nodes[g->n_nodes++] = n;
  for (int i = 0; i < n->n_out; i++) n->out[i].id = g->n_values++;
}

/* --- leaves --- */

static sl_node *leaf_new(sl_graph *g, sl_leaf kind, const char *name, sl_dtype dtype, const sl_shape *shape) {
  if (g->status != SL_STATUS_OK) return NULL;
  sl_status s = sl_shape_check(shape, sl_dtype_size(dtype), name ? name : leaf_ops[kind].name);
  if (s != SL_STATUS_OK) {
    sl_graph_fail(g, s);
    return NULL;
  }
  sl_node *n = node_new(g, &leaf_ops[kind], 0, NULL, NULL);
  if (!n) return NULL;
  n->leaf = kind;
  n->segment = 0;
  n->name = name ? sl__graph_strdup(g, name) : NULL;
  n->out[0].dtype = dtype;
  n->out[0].shape = *shape;
  sl_shape_strides(shape, n->out[0].stride);
  return n;
}

sl_value *sl_input_strided(sl_graph *g, const char *name, sl_dtype dtype, const sl_shape *shape,
                           const int64_t *stride) {
  for (int i = 0; i < g->n_inputs; i++)
    if (!strcmp(g->inputs[i]->node->name, name))
      return sl_graph_fail(g, sl_fail(SL_STATUS_ARG, "input \"%s\" is declared twice", name));
  sl_node *n = leaf_new(g, SL_LEAF_INPUT, name, dtype, shape);
  if (!n || !room_for_one(g, &g->inputs, g->n_inputs, &g->cap_inputs, sizeof(sl_value *))) return NULL;
  if (stride) memcpy(n->out[0].stride, stride, (size_t)shape->rank * sizeof *stride);
  n->slot = g->n_inputs;
  node_enter(g, n);
  g->inputs[g->n_inputs++] = &n->out[0];
  return &n->out[0];
}

sl_value *sl_input(sl_graph *g, const char *name, sl_dtype dtype, const sl_shape *shape) {
  return sl_input_strided(g, name, dtype, shape, NULL);
}

sl_value *sl_param_value(sl_graph *g, int index, int64_t offset, const char *name, const sl_shape *shape) {
  sl_node *n = leaf_new(g, SL_LEAF_PARAM, name, SL_F32, shape);
  if (!n) return NULL;
  n->slot = index;
  n->param_offset = offset;
  node_enter(g, n);
  return &n->out[0];
}

sl_value *sl_table(sl_graph *g, const char *name, sl_tensor *t) {
  sl_node *n = leaf_new(g, SL_LEAF_TABLE, name, sl_tensor_dtype(t), sl_tensor_shape(t));
  if (!n) return NULL;
  memcpy(n->out[0].stride, sl_tensor_strides(t), (size_t)n->out[0].shape.rank * sizeof(int64_t));
  n->table = sl_tensor_retain(t);
  node_enter(g, n);
  return &n->out[0];
}

sl_value *sl_scalar(sl_graph *g, double v, sl_dtype dtype) {
  sl_shape shape = {0};
  sl_node *n = leaf_new(g, SL_LEAF_CONST, NULL, dtype, &shape);
  if (!n) return NULL;
  n->constant = v;
  sl_element_set(dtype, &n->constant_bits, v);
  node_enter(g, n);
  return &n->out[0];
}

sl_value *sl_step_value(sl_graph *g, int field) {
  sl_shape shape = {0};
  sl_node *n = leaf_new(g, SL_LEAF_STEP, NULL, SL_F32, &shape);
  if (!n) return NULL;
  n->slot = field;
  node_enter(g, n);
  return &n->out[0];
}

/* --- nodes --- */

/* Whether v's dimensions lie in memory in another order than their own (channels-last images, also with gaps); order:
 * from the outermost to the innermost, those of 1 last. */
static bool reordered(const sl_value *v, int *order) {
  int n = 0, rank = v->shape.rank;
  bool moved = false;
  for (int i = 0; i < rank; i++) {
    if (v->shape.dim[i] == 1) continue;
    if (v->stride[i] <= 0) return false;
    int at = n++;
    for (; at > 0 && v->stride[order[at - 1]] < v->stride[i]; at--) order[at] = order[at - 1];
    order[at] = i;
    moved |= at != n - 1;
  }
  for (int i = 0; i < rank; i++)
    if (v->shape.dim[i] == 1) order[n++] = i;
  return moved;
}

/* Outputs lie row-major, but for ops that keep the order in which an input lies. */
static void lay_out(const sl_node *n, sl_value *o) {
  int order[SL_MAX_RANK];
  sl_shape_strides(&o->shape, o->stride);
  if (!(n->op->flags & SL_OP_KEEPS_ORDER)) return;
  for (int i = 0; i < n->n_in; i++) {
    if (!n->in[i] || n->in[i]->shape.rank != o->shape.rank || !reordered(n->in[i], order)) continue;
    int64_t stride = 1;
    for (int k = o->shape.rank; k-- > 0;) {
      o->stride[order[k]] = stride;
      stride *= o->shape.dim[order[k]];
    }
    return;
  }
}

sl_node *sl__graph_add(sl_graph *g, const sl_op *op, int n_in, sl_value *const *in, const sl_attrs *attrs) {
  sl_node *n = node_new(g, op, n_in, in, attrs);
  if (!n) return NULL;
  sl_status s = op->rules->infer(n);
  for (int i = 0; s == SL_STATUS_OK && i < n->n_out; i++) {
    sl_value *o = &n->out[i];
    s = sl_shape_check(&o->shape, sl_dtype_size(o->dtype), op->name);
    if (o->base == o) lay_out(n, o);
  }
  if (s != SL_STATUS_OK) {
    sl_graph_fail(g, s);
    return NULL;
  }
  node_enter(g, n);
  return n;
}

static sl_status check_inputs(sl_graph *g, const sl_op *op, const sl_op_signature *sig, int n_in, sl_value *const *in) {
  int most = sig->variadic ? SL_MAX_INPUTS : sig->n_inputs;
  SL_REQUIRE(n_in >= sig->n_required && n_in <= most, ARG, "%s: takes %d%s inputs, got %d", op->name, sig->n_required,
             most > sig->n_required ? " or more" : "", n_in);
  for (int i = 0; i < n_in; i++) {
    const char *name = sig->input[i < sig->n_inputs ? i : sig->n_inputs - 1];
    SL_REQUIRE(in[i] || (!sig->variadic && sig->optional[i]), ARG, "%s: input %s is missing", op->name, name);
    SL_REQUIRE(!in[i] || in[i]->node->graph == g, ARG, "%s: input %s belongs to another graph", op->name, name);
  }
  return SL_STATUS_OK;
}

static bool same_elements_dense(sl_graph *g, int n_in, sl_value **in) {
  const sl_op *dense = sl_op_find("contiguous");
  for (int i = 0; i < n_in; i++) {
    if (!in[i] || sl_value_is_dense(in[i])) continue;
    in[i] = sl_apply(g, dense, 1, &in[i], NULL);
    if (!in[i]) return false;
  }
  return true;
}

sl_value *sl_apply(sl_graph *g, const sl_op *op, int n_in, sl_value *const *given, const sl_attrs *given_attrs) {
  if (g->status != SL_STATUS_OK) return NULL;
  sl_op_signature sig;
  sl_op_describe(op, &sig);
  sl_status s = check_inputs(g, op, &sig, n_in, given);
  if (s != SL_STATUS_OK) return sl_graph_fail(g, s);
  sl_value *in[SL_MAX_INPUTS] = {NULL};
  if (n_in) memcpy(in, given, (size_t)n_in * sizeof *in);
  if (!sig.variadic) n_in = sig.n_inputs; /* absent optional inputs are NULL */
  sl_attrs attrs = given_attrs ? *given_attrs : sl_op_defaults(op);
  const sl_op_rules *r = op->rules;
  if (r->canon) {
    s = r->canon(g, n_in, in, &attrs);
    if (s != SL_STATUS_OK) return sl_graph_fail(g, s);
    if (g->status != SL_STATUS_OK) return NULL;
  }
  if (r->compose) return r->compose(g, n_in, in, &attrs);
  if (!(op->flags & (SL_OP_STRIDED | SL_OP_VIEW)) && !same_elements_dense(g, n_in, in)) return NULL;
  sl_node *n = sl__graph_add(g, op, n_in, in, &attrs);
  return n ? &n->out[0] : NULL;
}

sl_value *sl_output(sl_value *v, int index) { return v && index < v->node->n_out ? &v->node->out[index] : NULL; }

/* --- names --- */

sl_value *sl_name(sl_value *v, const char *fmt, ...) {
  if (!v) return NULL;
  char text[256];
  const char *scope = v->node->scope ? v->node->scope : "";
  int used = *scope ? snprintf(text, sizeof text, "%s.", scope) : 0;
  va_list args;
  va_start(args, fmt);
  vsnprintf(text + used, sizeof text - (size_t)used, fmt, args);
  va_end(args);
  v->node->name = sl__graph_strdup(v->node->graph, text);
  sl_node *computes = v->base->node; /* traces show what computes: a view of the whole of it shares the name */
  if (!computes->name && computes->leaf == SL_LEAF_NONE && sl_shape_numel(&v->shape) == sl_shape_numel(&v->base->shape))
    computes->name = v->node->name;
  return v;
}

void sl_scope_push(sl_graph *g, const char *fmt, ...) {
  char text[256];
  const char *scope = sl_graph_scope(g);
  int used = *scope ? snprintf(text, sizeof text, "%s.", scope) : 0;
  va_list args;
  va_start(args, fmt);
  vsnprintf(text + used, sizeof text - (size_t)used, fmt, args);
  va_end(args);
  SL_ASSERT(g->n_scopes < SL_MAX_SCOPES);
  const char *s = sl__graph_strdup(g, text);
  g->scopes[g->n_scopes++] = s ? s : "";
}

void sl_scope_pop(sl_graph *g) {
  SL_ASSERT(g->n_scopes > 0);
  g->n_scopes--;
}

void sl_graph_place(sl_graph *g, const char *place) {
  if (!place || !g->place || strcmp(g->place, place) != 0) g->place = place ? sl__graph_strdup(g, place) : NULL;
}

sl_value *sl_graph_find(sl_graph *g, const char *name) {
  for (int i = g->n_nodes; i-- > 0;) /* the latest: of a value and a view of it under one name, the view */
    if (g->nodes[i]->name && !strcmp(g->nodes[i]->name, name)) return &g->nodes[i]->out[0];
  return NULL;
}

const char *sl__node_label(const sl_node *n) {
  static _Thread_local char text[288];
  if (n->name) return n->name;
  const char *scope = n->scope ? n->scope : "";
  snprintf(text, sizeof text, "%s%s%s#%d", scope, *scope ? "." : "", n->op->name, n->id);
  return text;
}

int sl_graph_node_count(const sl_graph *g) { return g->n_nodes; }
sl_node *sl_graph_node(const sl_graph *g, int i) { return g->nodes[i]; }

bool sl_value_is_dense(const sl_value *v) {
  int64_t want = 1;
  for (int i = v->shape.rank; i-- > 0;) {
    if (v->shape.dim[i] != 1 && v->stride[i] != want) return false;
    want *= v->shape.dim[i];
  }
  return true;
}

const char *sl_value_text(const sl_value *v) {
  static _Thread_local char text[8][96];
  static _Thread_local int next;
  char *t = text[next = (next + 1) % 8];
  snprintf(t, sizeof text[0], "%s %s", sl_dtype_name(v->dtype), sl_shape_text(&v->shape));
  return t;
}

void sl_value_view(sl_value *out, sl_value *in, const sl_shape *shape, const int64_t *stride, int64_t extra_offset) {
  out->dtype = in->dtype;
  out->shape = *shape;
  memmove(out->stride, stride, (size_t)shape->rank * sizeof *stride);
  out->base = in->base;
  out->offset = in->offset + extra_offset;
}

void sl_segment_begin(sl_graph *g) { g->segment = ++g->n_segments; }
void sl_segment_end(sl_graph *g) { g->segment = 0; }

/* --- outputs --- */

static bool is_output(const sl_graph *g, const sl_value *v) {
  for (int i = 0; i < g->n_outputs; i++)
    if (g->outputs[i].value == v) return true;
  return false;
}

void sl_graph_output(sl_graph *g, const char *name, sl_value *v) {
  if (g->status != SL_STATUS_OK) return;
  if (!v) {
    sl_graph_fail(g, sl_fail(SL_STATUS_ARG, "output \"%s\" is missing", name));
    return;
  }
  /* A run writes outputs where the caller wants them: leaves, views and values given out twice are copied. */
  if (v->node->leaf != SL_LEAF_NONE || v->base != v || is_output(g, v) || !sl_value_is_dense(v)) {
    sl_node *n = sl__graph_add(g, sl_op_find("contiguous"), 1, &v, &(sl_attrs){{0}, {0}});
    if (!n) return;
    v = &n->out[0];
  }
  if (!room_for_one(g, &g->outputs, g->n_outputs, &g->cap_outputs, sizeof(sl_graph_out))) return;
  g->outputs[g->n_outputs++] = (sl_graph_out){sl__graph_strdup(g, name), v};
}

void sl_graph_allow_tf32(sl_graph *g) { g->tf32 = true; }
void sl_graph_fresh_gradients(sl_graph *g) { g->fresh_gradients = true; }

void sl_graph_accumulate(sl_graph *g, sl_value *param, sl_value *v) {
  if (g->status != SL_STATUS_OK) return;
  if (!param || !v || param->node->leaf != SL_LEAF_PARAM || !sl_shape_equal(&param->shape, &v->shape)) {
    sl_graph_fail(g, sl_fail(SL_STATUS_INTERNAL, "gradient %s does not fit its parameter %s",
                             v ? sl_value_text(v) : "(none)", param ? sl_value_text(param) : "(none)"));
    return;
  }
  sl_node *n = sl__graph_add(g, sl_op_find("accumulate"), 1, &v, &(sl_attrs){{0}, {0}});
  if (n) {
    n->param_offset = param->node->param_offset;
    n->name = param->node->name;
  }
}

bool *sl__graph_needed(sl_graph *g) {
  bool *needed = sl_alloc_zero(g->ctx, (size_t)g->n_nodes + 1);
  if (!needed) return NULL;
  for (int i = 0; i < g->n_outputs; i++) needed[g->outputs[i].value->node->id] = true;
  for (int i = g->n_nodes; i-- > 0;) {
    sl_node *n = g->nodes[i];
    if (n->op->flags & SL_OP_KEEP) needed[i] = true;
    if (!needed[i]) continue;
    for (int k = 0; k < n->n_in; k++)
      if (n->in[k]) needed[n->in[k]->node->id] = true;
  }
  return needed;
}
