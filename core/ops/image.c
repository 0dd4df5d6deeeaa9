#include "ops/image.h"

#include "ops/ops.h"

bool sl__prefers_last(sl_graph *g) {
  return sl_graph_device(g)->gpu || sl_context_isa(sl_graph_context(g)) >= SL_ISA_AVX512;
}

bool sl__lies_last(const sl_value *x) {
  if (!x || x->shape.rank != 4 || sl_value_is_dense(x)) return false;
  const int64_t *d = x->shape.dim, *s = x->stride;
  return s[1] == 1 && s[3] == d[1] && s[2] == d[1] * d[3] && (d[0] == 1 || s[0] == d[1] * d[2] * d[3]);
}

sl_value *sl__to_last(sl_value *x) { return SL_PERMUTE(x, 0, 2, 3, 1); }
sl_value *sl__from_last(sl_value *x) { return SL_PERMUTE(x, 0, 3, 1, 2); }

sl_value *sl__apply_image(sl_graph *g, const char *op, int n, sl_value **in, const sl_attrs *attrs, int slot,
                          bool last) {
  sl_attrs a = *attrs;
  sl_value *given[SL_MAX_INPUTS];
  for (int i = 0; i < n; i++) given[i] = in[i];
  a.i[slot] = last;
  if (last) given[0] = sl__to_last(in[0]);
  sl_value *y = sl_apply(g, sl_op_find(op), n, given, &a);
  return last ? sl__from_last(y) : y;
}
