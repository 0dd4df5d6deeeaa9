#include "ops/rules.h"

#include <inttypes.h>
#include <math.h>

sl_status sl__check_computes(const char *op, const char *input, const sl_value *x) {
  SL_REQUIRE(sl_dtype_computes(x->dtype), DTYPE, "%s: %s is %s, expected f32, bf16, i32, i64 or u8: cast it first", op,
             input, sl_value_text(x));
  return SL_STATUS_OK;
}

int64_t sl__told(int64_t position) { return position < 0 ? position : position + 1; }

sl_status sl__resolve_dim(const char *op, const sl_value *x, int64_t *dim) {
  int rank = x->shape.rank;
  SL_REQUIRE(rank > 0, ARG, "%s: x is %s, a scalar, and has no dimension %" PRId64, op, sl_value_text(x),
             sl__told(*dim));
  SL_REQUIRE(*dim >= -rank && *dim < rank, ARG, "%s: dim is %" PRId64 ", expected 1 to %d or -%d to -1, as x is %s", op,
             sl__told(*dim), rank, rank, sl_value_text(x));
  if (*dim < 0) *dim += rank;
  return SL_STATUS_OK;
}

static int dtype_order(sl_dtype d) {
  switch (d) {
    case SL_U8: return 0;
    case SL_I32: return 1;
    case SL_I64: return 2;
    case SL_BF16: return 3;
    default: return 4;
  }
}

sl_dtype sl__promote(sl_dtype a, sl_dtype b) { return dtype_order(a) > dtype_order(b) ? a : b; }

static bool holds(sl_dtype d, double v) {
  if (sl_dtype_is_float(d)) return true;
  double low = d == SL_U8    ? 0
               : d == SL_I32 ? INT32_MIN
                             : -0x1p63,
         high = d == SL_U8    ? 256
                : d == SL_I32 ? 0x1p31
                              : 0x1p63;
  return v == floor(v) && v >= low && v < high;
}

static bool is_constant(const sl_value *v) { return v->node->leaf == SL_LEAF_CONST && v->shape.rank == 0; }

sl_status sl__promote_inputs(sl_graph *g, const char *op, int n, sl_value **in) {
  int given = 0;
  sl_dtype to = SL_U8;
  for (int i = 0; i < n; i++) {
    SL_TRY(sl__check_computes(op, "input", in[i]));
    if (is_constant(in[i])) continue;
    given++;
    to = sl__promote(to, in[i]->dtype);
  }
  for (int i = 0; i < n; i++) {
    if (!is_constant(in[i])) continue;
    if (given == 0) to = sl__promote(to, in[i]->dtype);
    static const sl_dtype wider[] = {SL_I32, SL_I64, SL_F32};
    for (int k = 0; k < 3 && !holds(to, in[i]->node->constant); k++) to = sl__promote(to, wider[k]);
  }
  for (int i = 0; i < n; i++) {
    in[i] = is_constant(in[i]) && in[i]->dtype != to ? sl_scalar(g, in[i]->node->constant, to) : sl_cast(in[i], to);
    if (!in[i]) return sl_graph_status(g);
  }
  return SL_STATUS_OK;
}

sl_status sl__broadcast_inputs(sl_graph *g, const char *op, int n, sl_value **in, const char *const *names) {
  sl_shape to = in[0]->shape;
  for (int i = 1; i < n; i++) {
    sl_shape before = to;
    SL_REQUIRE(sl_shape_broadcast(&before, &in[i]->shape, &to), SHAPE,
               "%s: %s is %s and %s is %s: their shapes do not fit together", op, names[i - 1],
               sl_value_text(in[i - 1]), names[i], sl_value_text(in[i]));
  }
  for (int i = 0; i < n; i++) {
    if (!sl_shape_equal(&in[i]->shape, &to)) in[i] = sl_expand(in[i], &to);
    if (!in[i]) return sl_graph_status(g);
  }
  return SL_STATUS_OK;
}

sl_value *sl__filled(sl_graph *g, double v, const sl_value *like) {
  sl_value *scalar = sl_scalar(g, v, like->dtype);
  return like->shape.rank == 0 ? scalar : sl_expand(scalar, &like->shape);
}

sl_shape sl__list_shape(const int64_t *list) { return sl_shape_of((int)list[0], list + 1); }

void sl__shape_list(int64_t *list, const sl_shape *s) {
  list[0] = s->rank;
  for (int i = 0; i < s->rank && i < SL_MAX_RANK; i++) list[1 + i] = s->dim[i];
}
