/* What the files of graph/ share and nobody else sees. */
#ifndef SL_GRAPH_INTERNAL_H
#define SL_GRAPH_INTERNAL_H

#include "graph/program.h"

#define SL_MAX_SCOPES 16

typedef struct sl_chunk_block {
  struct sl_chunk_block *next;
  size_t used, size;
} sl_chunk_block;

typedef struct sl_graph_out {
  const char *name;
  sl_value *value;
} sl_graph_out;

struct sl_graph {
  sl_context *ctx;
  const sl_device *device;
  int refs;
  sl_chunk_block *chunks;
  sl_status status;
  char error[512];
  sl_node **nodes;
  int n_nodes, cap_nodes, n_values;
  const char *scopes[SL_MAX_SCOPES], *place;
  int n_scopes, segment, n_segments;
  sl_graph_out *outputs;
  sl_value **inputs;
  int n_outputs, cap_outputs, n_inputs, cap_inputs;
  bool fresh_gradients, tf32;
};

/* Memory that lives as long as the graph; zeroed. NULL records OOM. */
void *sl__graph_alloc(sl_graph *g, size_t bytes);
char *sl__graph_strdup(sl_graph *g, const char *text);
/* A node as it stands: no canon, no compose. NULL records the error. */
sl_node *sl__graph_add(sl_graph *g, const sl_op *op, int n_in, sl_value *const *in, const sl_attrs *attrs);
/* needed[node id]: whether outputs or kept nodes depend on it; from sl_alloc, n_nodes long. */
bool *sl__graph_needed(sl_graph *g);
/* "blocks.0.attn.qkv", or "add#17" in its scope; per-thread buffer. */
const char *sl__node_label(const sl_node *n);

#endif
