/* Into the flat gradient array: the last node of a parameter's gradient where its producer cannot write there itself.
 */
#include "ops/kernels.h"

static sl_status infer_accumulate(sl_node *n) {
  n->out[0].dtype = SL_F32;
  n->out[0].shape = n->in[0]->shape;
  return SL_STATUS_OK;
}

static sl_status run_accumulate(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                                void *workspace) {
  (void)n, (void)state, (void)workspace;
  return out[0].accumulate ? e->kernels->accumulate(e, &out[0], &in[0]) : e->kernels->copy(e, &out[0], &in[0]);
}

extern const sl_op_rules sl_rules_accumulate;
const sl_op_rules sl_rules_accumulate = {.infer = infer_accumulate, .run = run_accumulate};
