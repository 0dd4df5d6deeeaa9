/* What the families' rules share: the rows' declarations, and checks that word their errors alike. */
#ifndef SL_OPS_RULES_H
#define SL_OPS_RULES_H

#include "ops/kernels.h"
#include "ops/ops.h"

#define SL_OP(name, inputs, attrs, outputs, flags) extern const sl_op_rules sl_rules_##name;
#include "ops/ops.def"
#undef SL_OP

/* The operation's own arithmetic works on x's dtype; else DTYPE. */
sl_status sl__check_computes(const char *op, const char *input, const sl_value *x);
/* A dimension or position as texts tell it: from 1, as users count; negative ones as they are. */
int64_t sl__told(int64_t position);
/* *dim from the end made one from 0; outside the rank: ARG. */
sl_status sl__resolve_dim(const char *op, const sl_value *x, int64_t *dim);
/* u8 < i32 < i64 < bf16 < f32 */
sl_dtype sl__promote(sl_dtype a, sl_dtype b);
/* Casts n values (at least 1) to one dtype; 0-d constants take that of the others if it holds their value. */
sl_status sl__promote_inputs(sl_graph *g, const char *op, int n, sl_value **in);
/* Expands n values to their common shape; names[i] stands in the error. */
sl_status sl__broadcast_inputs(sl_graph *g, const char *op, int n, sl_value **in, const char *const *names);
/* v as every element of `like`. */
sl_value *sl__filled(sl_graph *g, double v, const sl_value *like);
/* A list attribute (count, values) of at most 8 numbers as a shape, and back. */
sl_shape sl__list_shape(const int64_t *list);
void sl__shape_list(int64_t *list, const sl_shape *s);

#endif
