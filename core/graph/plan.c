/* Planning: what runs, in which order, and where every value lies. Liveness gives each intermediate an offset in one
 * arena. */
#include <stdlib.h>
#include <string.h>

#include "graph/program_internal.h"

#define ALIGN_CPU 64
#define ALIGN_GPU 256 /* what the libraries' plans count on */

static int store_new(sl_plan *p, sl_storage s) {
  if (p->n_stores == p->cap_stores) {
    int cap = p->cap_stores ? 2 * p->cap_stores : 256;
    size_t bytes = (size_t)cap * sizeof(sl_storage);
    sl_storage *grown = p->stores ? sl_realloc(p->g->ctx, p->stores, bytes) : sl_alloc(p->g->ctx, bytes);
    if (!grown) return -1;
    p->stores = grown;
    p->cap_stores = cap;
  }
  p->stores[p->n_stores] = s;
  return p->n_stores++;
}

static uint64_t value_bytes(const sl_value *v) { return (uint64_t)sl_shape_numel(&v->shape) * sl_dtype_size(v->dtype); }

static sl_storage leaf_storage(const sl_node *n) {
  const sl_value *v = &n->out[0];
  sl_storage s = {.slot = n->slot, .bytes = value_bytes(v)};
  switch (n->leaf) {
    case SL_LEAF_INPUT: s.kind = STORE_INPUT; break;
    case SL_LEAF_PARAM:
      s.kind = STORE_PARAM;
      s.offset = (uint64_t)n->param_offset * sizeof(float);
      break;
    case SL_LEAF_TABLE:
      s.kind = STORE_FIXED;
      s.leaf = n;
      s.fixed = sl_tensor_data(n->table);
      break;
    case SL_LEAF_CONST:
      s.kind = STORE_FIXED;
      s.leaf = n;
      s.fixed = &n->constant_bits;
      break;
    case SL_LEAF_STEP: s.kind = STORE_STEP; break;
    case SL_LEAF_NONE: break;
  }
  return s;
}

/* --- order --- */

typedef struct order {
  const sl_node **node;
  int n;
  int *uses; /* [value id] how many needed nodes read it, outputs included */
} order;

/* The accumulate nodes that read v directly, run right after its producer so that the gradient's memory dies at once.
 */
static void place_accumulations(sl_graph *g, const bool *needed, const sl_node *producer, order *o, bool *placed) {
  for (int i = 0; i < g->n_nodes; i++) {
    const sl_node *n = g->nodes[i];
    if (!(n->op->flags & SL_OP_KEEP) || placed[i] || !needed[i] || n->n_in < 1 || n->in[0]->node != producer) continue;
    placed[i] = true;
    o->node[o->n++] = n;
  }
}

static sl_status make_order(sl_graph *g, const bool *needed, order *o) {
  bool *placed = sl_alloc_zero(g->ctx, (size_t)g->n_nodes + 1);
  bool *feeds = sl_alloc_zero(g->ctx, (size_t)g->n_nodes + 1); /* an accumulate node reads it */
  if (!placed || !feeds) {
    sl_free(g->ctx, placed);
    sl_free(g->ctx, feeds);
    return SL_STATUS_OOM;
  }
  for (int i = 0; i < g->n_nodes; i++)
    if (needed[i] && (g->nodes[i]->op->flags & SL_OP_KEEP)) feeds[g->nodes[i]->in[0]->node->id] = true;
  for (int i = 0; i < g->n_nodes; i++) {
    const sl_node *n = g->nodes[i];
    if (!needed[i]) continue;
    for (int k = 0; k < n->n_in; k++)
      if (n->in[k]) o->uses[n->in[k]->id]++;
    if (n->op->flags & SL_OP_KEEP) {
      if (n->in[0]->node->leaf == SL_LEAF_NONE) continue;
    }
    if (!placed[i] && n->leaf == SL_LEAF_NONE) {
      placed[i] = true;
      o->node[o->n++] = n;
    }
    if (feeds[i]) place_accumulations(g, needed, n, o, placed);
  }
  for (int i = 0; i < g->n_outputs; i++) o->uses[g->outputs[i].value->id]++;
  sl_free(g->ctx, placed);
  sl_free(g->ctx, feeds);
  return SL_STATUS_OK;
}

/* Whether the accumulate node's gradient can be added where it is computed: its producer adds into its output, and
 * nobody else reads it. Sees through reshapes. */
static sl_value *fold_target(const sl_node *n, const int *uses) {
  sl_value *v = n->in[0], *b = v->base;
  if (v->dtype != SL_F32 || !sl_value_is_dense(v) || sl_shape_numel(&v->shape) != sl_shape_numel(&b->shape))
    return NULL;
  if (!(b->node->op->flags & SL_OP_ACCUMULATES)) return NULL;
  for (sl_value *w = v;; w = w->node->in[0]) {
    if (uses[w->id] != 1) return NULL;
    if (w == b) return b;
    if (!(w->node->op->flags & SL_OP_VIEW)) return NULL;
  }
}

/* Whether n casts a parameter, or a dense part of one, to bf16 on a GPU: then its result is read from the copy that is
 * kept of all parameters, and nothing is run. */
static bool is_shadowed(const sl_plan *p, const sl_node *n) {
  if (!p->g->device->gpu || n->out[0].dtype != SL_BF16 || n->op != sl_op_find("cast")) return false;
  const sl_value *v = n->in[0];
  return v->base->node->leaf == SL_LEAF_PARAM && sl_value_is_dense(v);
}

/* --- storages --- */

static sl_status assign_outputs(sl_plan *p, const sl_node *n, const int *uses) {
  for (int k = 0; k < n->n_out; k++) {
    sl_value *v = &n->out[k];
    if (v->base != v || p->store_of[v->id] >= 0) continue;
    sl_storage s = {.kind = STORE_ARENA, .bytes = value_bytes(v), .first = -1};
    for (int i = 0; i < p->g->n_outputs; i++)
      if (p->g->outputs[i].value == v) s = (sl_storage){.kind = STORE_OUTPUT, .slot = i, .bytes = s.bytes};
    if (s.kind == STORE_ARENA && is_shadowed(p, n)) {
      uint64_t at = (uint64_t)(n->in[0]->base->node->param_offset + n->in[0]->offset);
      s = (sl_storage){.kind = STORE_SHADOW, .bytes = s.bytes, .offset = at * sizeof(uint16_t)};
    }
    if (n->op->flags & SL_OP_KEEP)
      s = (sl_storage){.kind = STORE_GRAD, .bytes = s.bytes, .offset = (uint64_t)n->param_offset * sizeof(float)};
    if (s.kind == STORE_ARENA && !uses[v->id]) s.kind = STORE_NONE;
    if ((p->store_of[v->id] = store_new(p, s)) < 0) return SL_STATUS_OOM;
  }
  return SL_STATUS_OK;
}

static bool is_folded(const sl_node *n, const int *uses) {
  return (n->op->flags & SL_OP_KEEP) && n->in[0]->node->leaf == SL_LEAF_NONE && fold_target(n, uses);
}

static sl_status assign_storages(sl_plan *p, const order *o) {
  sl_graph *g = p->g;
  for (int i = 0; i < g->n_nodes; i++) {
    if (g->nodes[i]->leaf == SL_LEAF_NONE) continue;
    if ((p->store_of[g->nodes[i]->out[0].id] = store_new(p, leaf_storage(g->nodes[i]))) < 0) return SL_STATUS_OOM;
  }
  for (int i = 0; i < o->n; i++) { /* before the producers' own turn: gradients computed in place */
    const sl_node *n = o->node[i];
    if (!is_folded(n, o->uses)) continue;
    sl_value *b = fold_target(n, o->uses);
    sl_storage s = {.kind = STORE_GRAD, .bytes = value_bytes(b), .offset = (uint64_t)n->param_offset * sizeof(float)};
    if ((p->store_of[b->id] = store_new(p, s)) < 0) return SL_STATUS_OOM;
  }
  for (int i = 0; i < o->n; i++)
    if (!is_folded(o->node[i], o->uses)) SL_TRY(assign_outputs(p, o->node[i], o->uses));
  return SL_STATUS_OK;
}

/* --- steps --- */

static sl_view view_of(const sl_value *v) {
  sl_view w = {.dtype = v->dtype, .shape = v->shape};
  memcpy(w.stride, v->stride, sizeof w.stride);
  return w;
}

static void touch(sl_plan *p, int store, int step) {
  if (store < 0) return;
  sl_storage *s = &p->stores[store];
  if (s->first < 0) s->first = step;
  s->last = step;
}

static sl_status add_step(sl_plan *p, sl_exec *e, const sl_node *n) {
  int at = p->n_steps++;
  sl_plan_step *s = &p->steps[at];
  s->node = n;
  s->workspace = -1;
  for (int k = 0; k < n->n_in; k++) {
    const sl_value *v = n->in[k];
    s->in_store[k] = v ? p->store_of[v->base->id] : -1;
    if (!v) continue;
    s->in[k] = view_of(v);
    s->in_bytes[k] = v->offset * (int64_t)sl_dtype_size(v->dtype);
    touch(p, s->in_store[k], at);
  }
  for (int k = 0; k < n->n_out; k++) {
    s->out_store[k] = p->store_of[n->out[k].id];
    s->out[k] = view_of(&n->out[k]);
    s->out[k].accumulate = p->stores[s->out_store[k]].kind == STORE_GRAD && !p->g->fresh_gradients;
    touch(p, s->out_store[k], at);
  }
  size_t workspace = 0;
  if (n->op->rules->workspace) {
    sl_status status = n->op->rules->workspace(e, n, &workspace);
    if (status != SL_STATUS_OK) return sl_fail_context(status, "%s", sl__node_label(n));
  }
  if (workspace) {
    s->workspace = store_new(p, (sl_storage){.kind = STORE_ARENA, .bytes = workspace, .first = at, .last = at});
    if (s->workspace < 0) return SL_STATUS_OOM;
  }
  return SL_STATUS_OK;
}

/* Whether v's elements stand where out's stand, which has no gaps. */
static bool lies_as(const sl_value *v, const sl_value *out) {
  if (!sl_shape_equal(&v->shape, &out->shape)) return sl_value_is_dense(v) && sl_value_is_dense(out);
  for (int i = 0; i < v->shape.rank; i++)
    if (v->shape.dim[i] != 1 && v->stride[i] != out->stride[i]) return false;
  return true;
}

/* Lets out[0] take over in[0]'s memory where the op allows it and in[0] ends here. */
static void share_in_place(sl_plan *p, int at) {
  sl_plan_step *s = &p->steps[at];
  if (!(s->node->op->flags & SL_OP_INPLACE) || s->in_store[0] < 0) return;
  int from = s->in_store[0], to = s->out_store[0];
  sl_storage *a = &p->stores[from], *b = &p->stores[to];
  const sl_value *v = s->node->in[0];
  if (a->kind != STORE_ARENA || b->kind != STORE_ARENA || a->bytes != b->bytes || a->last != at || s->in_bytes[0] != 0)
    return;
  if (!lies_as(v, &s->node->out[0]) || value_bytes(v) != a->bytes ||
      sl_dtype_size(v->dtype) != sl_dtype_size(s->out[0].dtype))
    return;
  for (int k = 1; k < s->node->n_in; k++)
    if (s->in_store[k] == from && (!lies_as(s->node->in[k], &s->node->out[0]) || s->in_bytes[k] != 0)) return;
  int last = b->last;
  for (int i = at; i <= last; i++) { /* steps that knew the output's storage now know the input's */
    sl_plan_step *t = &p->steps[i];
    for (int k = 0; k < t->node->n_in; k++)
      if (t->in_store[k] == to) t->in_store[k] = from;
    for (int k = 0; k < t->node->n_out; k++)
      if (t->out_store[k] == to) t->out_store[k] = from;
  }
  a->last = last;
  b->kind = STORE_NONE;
}

/* --- offsets: largest first, each at the lowest place free during its life --- */

static int by_size(const void *a, const void *b) {
  const sl_storage *x = *(const sl_storage *const *)a, *y = *(const sl_storage *const *)b;
  if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
  return x < y ? -1 : x > y;
}

static uint64_t padded(const sl_plan *p, uint64_t bytes) {
  uint64_t align = p->g->device->gpu ? ALIGN_GPU : ALIGN_CPU;
  bytes = (bytes + align - 1) / align * align;
  if (bytes == 0) bytes = align;
  return p->checked ? bytes + 2 * sl__redzone(p) : bytes;
}

static sl_status place_arena(sl_plan *p) {
  sl_context *ctx = p->g->ctx;
  size_t n = 0, bytes = (size_t)(p->n_stores + 1) * sizeof(void *);
  sl_storage **open = sl_alloc(ctx, bytes), **placed = sl_alloc(ctx, bytes);
  if (!open || !placed) {
    sl_free(ctx, open);
    sl_free(ctx, placed);
    return SL_STATUS_OOM;
  }
  for (int i = 0; i < p->n_stores; i++)
    if (p->stores[i].kind == STORE_ARENA) open[n++] = &p->stores[i];
  qsort(open, n, sizeof *open, by_size);
  p->arena_bytes = 0;
  for (size_t i = 0; i < n; i++) { /* placed[] is sorted by offset */
    sl_storage *s = open[i];
    uint64_t at = 0, size = padded(p, s->bytes);
    for (size_t k = 0; k < i; k++) {
      const sl_storage *d = placed[k];
      if (d->last < s->first || d->first > s->last) continue;
      if (d->offset >= at + size) break;
      if (d->offset + padded(p, d->bytes) > at) at = d->offset + padded(p, d->bytes);
    }
    s->offset = at;
    if (at + size > p->arena_bytes) p->arena_bytes = at + size;
    size_t k = i;
    for (; k > 0 && placed[k - 1]->offset > at; k--) placed[k] = placed[k - 1];
    placed[k] = s;
  }
  if (p->checked)
    for (size_t i = 0; i < n; i++) open[i]->offset += sl__redzone(p);
  sl_free(ctx, open);
  sl_free(ctx, placed);
  return SL_STATUS_OK;
}

static sl_status plan_fill(sl_plan *p, sl_exec *e, order *o, const bool *needed) {
  SL_TRY(make_order(p->g, needed, o));
  SL_TRY(assign_storages(p, o));
  for (int i = 0; i < o->n; i++) {
    const sl_node *n = o->node[i];
    if ((n->op->flags & SL_OP_VIEW) || is_folded(n, o->uses)) continue;
    if (is_shadowed(p, n) && p->stores[p->store_of[n->out[0].id]].kind == STORE_SHADOW) continue;
    SL_TRY(add_step(p, e, n));
  }
  for (int i = 0; i < p->n_stores; i++) {
    const sl_storage *s = &p->stores[i];
    uint64_t end = (s->offset + s->bytes) / (s->kind == STORE_SHADOW ? sizeof(uint16_t) : sizeof(float));
    if (s->kind == STORE_SHADOW) p->shadowed = true;
    if ((s->kind == STORE_PARAM || s->kind == STORE_SHADOW) && end > p->param_end) p->param_end = end;
    if (s->kind == STORE_GRAD && end > p->grad_end) p->grad_end = end;
  }
  for (int i = 0; i < p->n_steps && !p->checked; i++) share_in_place(p, i);
  return place_arena(p);
}

uint64_t sl__redzone(const sl_plan *p) { return p->g->device->gpu ? ALIGN_GPU : ALIGN_CPU; }

sl_status sl__plan_make(sl_graph *g, sl_exec *e, bool checked, sl_plan *p) {
  sl_context *ctx = e->ctx;
  *p = (sl_plan){.g = g, .checked = checked};
  bool *needed = sl__graph_needed(g);
  order o = {sl_alloc(ctx, ((size_t)g->n_nodes + 1) * sizeof *o.node), 0,
             sl_alloc_zero(ctx, ((size_t)g->n_values + 1) * sizeof(int))};
  p->steps = sl_alloc_zero(ctx, ((size_t)g->n_nodes + 1) * sizeof *p->steps);
  p->store_of = sl_alloc(ctx, ((size_t)g->n_values + 1) * sizeof(int));
  sl_status s = SL_STATUS_OOM;
  if (needed && o.node && o.uses && p->steps && p->store_of) {
    for (int i = 0; i < g->n_values; i++) p->store_of[i] = -1;
    s = plan_fill(p, e, &o, needed);
  }
  sl_free(ctx, needed);
  sl_free(ctx, o.node);
  sl_free(ctx, o.uses);
  if (s != SL_STATUS_OK) sl__plan_clear(p);
  return s;
}

void sl__plan_clear(sl_plan *p) {
  if (!p->g) return;
  sl_free(p->g->ctx, p->steps);
  sl_free(p->g->ctx, p->stores);
  sl_free(p->g->ctx, p->store_of);
  *p = (sl_plan){0};
}
