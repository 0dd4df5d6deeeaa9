/* What plan, run and trace share. */
#ifndef SL_GRAPH_PROGRAM_INTERNAL_H
#define SL_GRAPH_PROGRAM_INTERNAL_H

#include "graph/graph_internal.h"

typedef enum storage_kind {
  STORE_NONE, /* nobody uses it: no memory */
  STORE_ARENA,
  STORE_INPUT,
  STORE_OUTPUT,
  STORE_PARAM,
  STORE_GRAD,
  STORE_FIXED, /* a table or a constant */
  STORE_STEP,
} storage_kind;

/* Memory behind one base value (or a workspace), alive over the steps first … last. */
typedef struct sl_storage {
  storage_kind kind;
  int slot, first, last;
  uint64_t bytes, offset; /* bytes into its arena, parameter or gradient array */
  const void *fixed;
} sl_storage;

typedef struct sl_plan_step {
  const sl_node *node;
  void *state;
  int workspace; /* storage, or -1 */
  double seconds;
  int64_t calls;
  int in_store[SL_MAX_INPUTS], out_store[SL_MAX_OUTPUTS];     /* -1: absent */
  int64_t in_bytes[SL_MAX_INPUTS], out_bytes[SL_MAX_OUTPUTS]; /* view's first byte in its storage */
  sl_view in[SL_MAX_INPUTS], out[SL_MAX_OUTPUTS];
} sl_plan_step;

typedef struct sl_plan {
  sl_graph *g;
  int n_steps, n_stores, cap_stores;
  sl_plan_step *steps;
  sl_storage *stores;
  int *store_of;                             /* [value id] of base values: storage number */
  uint64_t arena_bytes, grad_end, param_end; /* elements that params and grads must at least have */
  bool checked;
} sl_plan;

struct sl_program {
  sl_graph *g;
  sl_plan plan;
  sl_exec exec;
  uint8_t *arena;
  int threads;    /* that workspaces and primitives were made for; every run uses as many */
  uint8_t **base; /* [storage] resolved for this run */
  bool *input_used;
};

#define SL_REDZONE 64

SL_MUST_USE sl_status sl__plan_make(sl_graph *g, sl_context *ctx, bool checked, sl_plan *out);
void sl__plan_clear(sl_plan *p);
/* Checked runs: before and after a step. */
void sl__check_before(sl_program *p, int step);
SL_MUST_USE sl_status sl__check_after(sl_program *p, int step);
void sl__check_start(sl_program *p);
void sl__check_end(sl_program *p);
bool sl__trace_step(const sl_run *run, const sl_plan_step *s);

#endif
