#include "ops/modulation.h"

#include "ops/ops.h"

sl_value *sl__rows_canon(sl_value *v) {
  return v && v->shape.rank == 2 && v->shape.dim[1] > 1 && v->stride[1] != 1 ? sl_contiguous(v) : v;
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
