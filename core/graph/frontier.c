/* The border between what changes from run to run and what a caller can compute beforehand. */
#include <string.h>

#include "graph/graph_internal.h"

typedef struct mark {
  bool varies;  /* depends on one of the inputs that vary, or on the step */
  bool product; /* multiply-adds went into it */
  bool listed;
} mark;

/* Ops whose result depends on the step block though no input says so. */
static bool draws(const sl_node *n) {
  return n->leaf == SL_LEAF_NONE && (n->n_in == 0 || !strcmp(n->op->name, "dropout"));
}

static mark mark_of(const sl_node *n, const mark *all, int n_varying, sl_value *const *varying) {
  mark m = {.varies = n->leaf == SL_LEAF_STEP || (n->op->flags & SL_OP_KEEP) || draws(n)};
  for (int i = 0; i < n_varying; i++) m.varies |= varying[i] && varying[i]->node == n;
  for (int i = 0; i < n->n_in; i++) {
    if (!n->in[i]) continue;
    m.varies |= all[n->in[i]->node->id].varies;
    m.product |= all[n->in[i]->node->id].product;
  }
  m.product |=
      n->leaf == SL_LEAF_NONE && !(n->op->flags & SL_OP_VIEW) && n->op->rules->macs && n->op->rules->macs(n) > 0;
  return m;
}

sl_status sl_graph_frontier(sl_graph *g, int n_varying, sl_value *const *varying, int max, sl_value **out, int *n_out) {
  *n_out = 0;
  mark *all = sl_alloc_zero(g->ctx, (size_t)(g->n_nodes + 1) * sizeof *all);
  if (!all) return SL_STATUS_OOM;
  for (int i = 0; i < g->n_nodes; i++) {
    const sl_node *n = g->nodes[i];
    all[i] = mark_of(n, all, n_varying, varying);
    if (!all[i].varies) continue;
    for (int k = 0; k < n->n_in; k++) {
      if (!n->in[k] || all[n->in[k]->node->id].varies || !all[n->in[k]->node->id].product) continue;
      sl_value *v = n->in[k]->base;
      mark *m = &all[v->node->id];
      if (m->listed) continue;
      m->listed = true;
      if (*n_out < max) out[*n_out] = v;
      ++*n_out;
    }
  }
  sl_free(g->ctx, all);
  return SL_STATUS_OK;
}

void sl_graph_replace(sl_graph *g, sl_value *v, sl_value *with) {
  SL_ASSERT(v->base == v && with->base == with && sl_value_is_dense(v) && sl_value_is_dense(with));
  SL_ASSERT(v->dtype == with->dtype && sl_shape_equal(&v->shape, &with->shape));
  for (int i = 0; i < g->n_nodes; i++) {
    sl_node *n = g->nodes[i];
    for (int k = 0; k < n->n_in; k++)
      if (n->in[k] == v) n->in[k] = with;
    for (int k = 0; k < n->n_out; k++)
      if (n->out[k].base == v && &n->out[k] != v) n->out[k].base = with;
  }
  for (int i = 0; i < g->n_outputs; i++)
    if (g->outputs[i].value == v) g->outputs[i].value = with;
}
