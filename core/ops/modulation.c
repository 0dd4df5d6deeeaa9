#include "ops/modulation.h"

#include "ops/ops.h"

sl_value *sl__rows_canon(sl_value *v) {
  return v && v->shape.rank == 2 && v->shape.dim[1] > 1 && v->stride[1] != 1 ? sl_contiguous(v) : v;
}

sl_value *sl__rows_gradient(sl_value *d, const sl_value *of) {
  return of->node->op == &sl_ops[SL_OP_chunk] ? d : sl_cast(d, of->dtype);
}

sl_status sl__rows_check(const char *op, const char *what, const sl_value *v, const sl_value *x, bool mask) {
  SL_REQUIRE(v->shape.rank == 2 && v->shape.dim[0] == x->shape.dim[0] && v->shape.dim[1] == x->shape.dim[2], SHAPE,
             "%s: %s is %s, expected [%lld,%lld] for x %s", op, what, sl_value_text(v), (long long)x->shape.dim[0],
             (long long)x->shape.dim[2], sl_value_text(x));
  bool fits = mask ? v->dtype == SL_U8 : v->dtype == SL_F32 || v->dtype == SL_BF16;
  SL_REQUIRE(fits, DTYPE, "%s: %s is %s, expected %s", op, what, sl_value_text(v), mask ? "u8" : "f32 or bf16");
  return SL_STATUS_OK;
}

sl_status sl__stream_check(const char *op, const char *what, const sl_value *v, const sl_value *x) {
  SL_REQUIRE(v->dtype == SL_F32 || v->dtype == SL_BF16, DTYPE, "%s: %s is %s, expected f32 or bf16", op, what,
             sl_value_text(v));
  SL_REQUIRE(v->shape.rank == 3, SHAPE, "%s: %s is %s, expected [N,T,C]", op, what, sl_value_text(v));
  SL_REQUIRE(sl_shape_equal(&v->shape, &x->shape), SHAPE, "%s: %s is %s, expected the shape of x %s", op, what,
             sl_value_text(v), sl_value_text(x));
  return SL_STATUS_OK;
}

sl_status sl__residual_check(const char *op, const sl_value *x, const sl_value *y, const sl_value *gate,
                             const sl_value *mask, const sl_value *skip) {
  SL_TRY(sl__stream_check(op, "x", x, x));
  SL_TRY(sl__stream_check(op, "y", y, x));
  if (skip) SL_TRY(sl__stream_check(op, "skip", skip, x));
  SL_TRY(sl__rows_check(op, "gate", gate, x, false));
  return mask ? sl__rows_check(op, "mask", mask, x, true) : SL_STATUS_OK;
}

sl_status sl__adaln_check(const char *op, const sl_value *x, const sl_value *shift, const sl_value *scale,
                          const sl_value *mask, const char *mask_name, double eps) {
  SL_TRY(sl__stream_check(op, "x", x, x));
  SL_REQUIRE(x->shape.dim[2] > 0, SHAPE, "%s: x is %s, which has no channels to norm", op, sl_value_text(x));
  SL_TRY(sl__rows_check(op, "shift", shift, x, false));
  SL_TRY(sl__rows_check(op, "scale", scale, x, false));
  if (mask) SL_TRY(sl__rows_check(op, mask_name, mask, x, true));
  SL_REQUIRE(eps > 0.0, ARG, "%s: eps is %g, expected more than 0", op, eps);
  return SL_STATUS_OK;
}

void sl__adaln_outputs(sl_value *out, const sl_value *x, const sl_value *shift) {
  out[0].dtype = shift->dtype;
  out[0].shape = x->shape;
  for (int k = 1; k < 3; k++) {
    out[k].dtype = SL_F32;
    out[k].shape = sl_shape_of(2, x->shape.dim);
  }
}
