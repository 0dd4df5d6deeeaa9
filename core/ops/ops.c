/* The table of operations, and adding nodes by number. */
#include <string.h>

#include "ops/rules.h"

const sl_op sl_ops[] = {
#define SL_OP(name, inputs, attrs, outputs, flags) {#name, inputs, attrs, outputs, flags, &sl_rules_##name},
#include "ops/ops.def"
#undef SL_OP
};
const int sl_op_count = SL_OP_ID_COUNT;

const sl_op *sl_op_find(const char *name) {
  for (int i = 0; i < sl_op_count; i++)
    if (!strcmp(sl_ops[i].name, name)) return &sl_ops[i];
  return NULL;
}

sl_value *sl_op1(sl_op_id op, sl_value *x, const sl_attrs *a) {
  return x ? sl_apply(x->node->graph, &sl_ops[op], 1, &x, a) : NULL;
}

sl_value *sl_op2(sl_op_id op, sl_value *x, sl_value *y, const sl_attrs *a) {
  return x && y ? sl_apply(x->node->graph, &sl_ops[op], 2, (sl_value *[]){x, y}, a) : NULL;
}

sl_value *sl_opn(sl_op_id op, int n, sl_value *const *in, const sl_attrs *a) {
  return n > 0 && in[0] ? sl_apply(in[0]->node->graph, &sl_ops[op], n, in, a) : NULL;
}
