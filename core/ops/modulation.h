/* What adaLN and the gated residual ask of their inputs: a stream [N,T,C], and per-sample rows [N,C] (shift, scale,
 * gate, mask); and what their gradients share. */
#ifndef SL_OPS_MODULATION_H
#define SL_OPS_MODULATION_H

#include "graph/graph.h"

/* v [N,C] as the kernels read it, any stride along N and unit stride along C; copied if it must be. NULL for NULL. */
sl_value *sl__rows_canon(sl_value *v);
/* [N,C] of x [N,T,C]: u8 if it is a mask, else f32 or bf16. */
SL_MUST_USE sl_status sl__rows_check(const char *op, const char *what, const sl_value *v, const sl_value *x, bool mask);
/* f32 or bf16 [N,T,C], of x's shape. */
SL_MUST_USE sl_status sl__stream_check(const char *op, const char *what, const sl_value *v, const sl_value *x);

/* The inputs of the gated residual, and of adaLN on x; mask and skip may be NULL. */
SL_MUST_USE sl_status sl__residual_check(const char *op, const sl_value *x, const sl_value *y, const sl_value *gate,
                                         const sl_value *mask, const sl_value *skip);
SL_MUST_USE sl_status sl__adaln_check(const char *op, const sl_value *x, const sl_value *shift, const sl_value *scale,
                                      const sl_value *mask, const char *mask_name, double eps);
/* Sets dtype and shape of adaLN's three outputs on x, the first of which is out[0]: the modulated row has shift's
 * dtype, so a bf16 network on an f32 residual stream needs no cast of its own. */
void sl__adaln_outputs(sl_value *out, const sl_value *x, const sl_value *shift);

/* d f32, the gradient of rows `of`, in their dtype; as it is where they are a chunk's, whose gradient rounds all parts
 * at once. */
sl_value *sl__rows_gradient(sl_value *d, const sl_value *of);
/* Gradients of the gated residual's x, y, gate and skip, in this order, from dout, that of its sum. */
void sl__residual_grad(sl_value *dout, sl_value *y, sl_value *gate, sl_value *mask, sl_value *skip, const bool need[4],
                       sl_value *dx[4]);
/* Whether v is (1 - mask)*dout as gated_residual_backward made it for the skip. */
bool sl__is_skip_gradient(const sl_value *v, const sl_value *dout, const sl_value *mask);

#endif
