/* What adaLN and the gated residual ask of their inputs: a stream [N,T,C], and per-sample rows [N,C] (shift, scale,
 * gate, mask). */
#ifndef SL_OPS_MODULATION_H
#define SL_OPS_MODULATION_H

#include "graph/graph.h"

/* v [N,C] as the kernels read it, any stride along N and unit stride along C; copied if it must be. NULL for NULL. */
sl_value *sl__rows_canon(sl_value *v);
/* [N,C] of x [N,T,C]: u8 if it is a mask, else f32 or bf16. */
SL_MUST_USE sl_status sl__rows_check(const char *op, const char *what, const sl_value *v, const sl_value *x, bool mask);
/* f32 or bf16 [N,T,C], of x's shape. */
SL_MUST_USE sl_status sl__stream_check(const char *op, const char *what, const sl_value *v, const sl_value *x);

#endif
