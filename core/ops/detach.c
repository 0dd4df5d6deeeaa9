/* x seen without its history: no gradient passes. */
#include "ops/ops.h"

static sl_status infer_detach(sl_node *n) {
  sl_value_view(&n->out[0], n->in[0], &n->in[0]->shape, n->in[0]->stride, 0);
  return SL_STATUS_OK;
}

static sl_status grad_detach(sl_grad_args *a) {
  a->dx[0] = NULL;
  return SL_STATUS_OK;
}

extern const sl_op_rules sl_rules_detach;
const sl_op_rules sl_rules_detach = {.infer = infer_detach, .grad = grad_detach};

sl_value *sl_detach(sl_value *x) { return sl_op1(SL_OP_detach, x, NULL); }
