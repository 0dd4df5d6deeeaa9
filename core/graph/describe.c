/* Reading graphs: counts, hash, Graphviz. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "graph/graph_internal.h"

int64_t sl_graph_macs(sl_graph *g) {
  bool *needed = sl__graph_needed(g);
  if (!needed) return -1;
  int64_t macs = 0;
  for (int i = 0; i < g->n_nodes; i++) {
    const sl_node *n = g->nodes[i];
    if (needed[i] && n->leaf == SL_LEAF_NONE && n->op->rules->macs) macs += n->op->rules->macs(n);
  }
  sl_free(g->ctx, needed);
  return macs;
}

static uint64_t mix(uint64_t h, const void *data, size_t n) { return XXH3_64bits_withSeed(data, n, h); }

static uint64_t mix_value(uint64_t h, const sl_value *v) {
  int64_t id = v ? v->id : -1;
  return mix(h, &id, sizeof id);
}

uint64_t sl_graph_hash(sl_graph *g) {
  uint64_t h = 0;
  for (int i = 0; i < g->n_nodes; i++) {
    const sl_node *n = g->nodes[i];
    h = mix(h, n->op->name, strlen(n->op->name) + 1);
    h = mix(h, &n->attrs, sizeof n->attrs);
    h = mix(h, &n->param_offset, sizeof n->param_offset);
    h = mix(h, &n->constant, sizeof n->constant);
    for (int k = 0; k < n->n_in; k++) h = mix_value(h, n->in[k]);
    for (int k = 0; k < n->n_out; k++) {
      const sl_value *v = &n->out[k];
      h = mix(h, &v->dtype, sizeof v->dtype);
      h = mix(h, &v->shape.rank, sizeof v->shape.rank);
      h = mix(h, v->shape.dim, (size_t)v->shape.rank * sizeof(int64_t));
      h = mix(h, v->stride, (size_t)v->shape.rank * sizeof(int64_t));
    }
  }
  for (int i = 0; i < g->n_outputs; i++) h = mix_value(h, g->outputs[i].value);
  return h;
}

typedef struct text {
  sl_context *ctx;
  char *data;
  size_t used, size;
  bool failed;
} text;

static void put(text *t, const char *fmt, ...) SL_PRINTF(2, 3);
static void put(text *t, const char *fmt, ...) {
  if (t->failed) return;
  char line[512];
  va_list args;
  va_start(args, fmt);
  int n = vsnprintf(line, sizeof line, fmt, args);
  va_end(args);
  size_t len = n < 0 ? 0 : (size_t)n < sizeof line ? (size_t)n : sizeof line - 1;
  if (t->used + len + 1 > t->size) {
    size_t size = 2 * (t->size + len + 1);
    char *grown = t->data ? sl_realloc(t->ctx, t->data, size) : sl_alloc(t->ctx, size);
    if (!grown) {
      t->failed = true;
      return;
    }
    t->data = grown;
    t->size = size;
  }
  memcpy(t->data + t->used, line, len + 1);
  t->used += len;
}

sl_status sl_graph_dot(sl_graph *g, char **out) {
  *out = NULL;
  SL_TRY(sl_graph_status(g));
  text t = {.ctx = g->ctx};
  bool *needed = sl__graph_needed(g);
  if (!needed) return SL_STATUS_OOM;
  put(&t, "digraph sluice {\n  node [shape=box, fontname=\"sans-serif\", fontsize=10];\n");
  for (int i = 0; i < g->n_nodes; i++) {
    const sl_node *n = g->nodes[i];
    if (!needed[i]) continue;
    put(&t, "  n%d [label=\"%s\\n%s\"%s];\n", i, n->name ? sl__node_label(n) : n->op->name, sl_value_text(&n->out[0]),
        n->leaf != SL_LEAF_NONE ? ", style=filled, fillcolor=\"#e8eef7\"" : "");
    for (int k = 0; k < n->n_in; k++)
      if (n->in[k]) put(&t, "  n%d -> n%d;\n", n->in[k]->node->id, i);
  }
  for (int i = 0; i < g->n_outputs; i++)
    put(&t, "  o%d [label=\"%s\", shape=ellipse];\n  n%d -> o%d;\n", i, g->outputs[i].name,
        g->outputs[i].value->node->id, i);
  put(&t, "}\n");
  sl_free(g->ctx, needed);
  if (t.failed) {
    sl_free(g->ctx, t.data);
    return SL_STATUS_OOM;
  }
  *out = t.data;
  return SL_STATUS_OK;
}
