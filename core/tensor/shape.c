#include "tensor/shape.h"

#include <inttypes.h>
#include <stdio.h>

sl_shape sl_shape_of(int rank, const int64_t *dim) {
  sl_shape s = {.rank = rank}; /* a rank beyond SL_MAX_RANK is kept, for sl_shape_check to tell */
  for (int i = 0; i < rank && i < SL_MAX_RANK; i++) s.dim[i] = dim[i];
  return s;
}

int64_t sl_shape_numel(const sl_shape *s) {
  int64_t n = 1;
  for (int i = 0; i < s->rank; i++) n *= s->dim[i];
  return n;
}

bool sl_shape_equal(const sl_shape *a, const sl_shape *b) {
  if (a->rank != b->rank) return false;
  for (int i = 0; i < a->rank; i++) {
    if (a->dim[i] != b->dim[i]) return false;
  }
  return true;
}

sl_status sl_shape_check(const sl_shape *s, size_t elem, const char *what) {
  SL_REQUIRE(s->rank >= 0 && s->rank <= SL_MAX_RANK, SHAPE, "%s: rank is %d, expected 0 to %d", what, s->rank,
             SL_MAX_RANK);
  int64_t bytes = elem ? (int64_t)elem : 1;
  for (int i = 0; i < s->rank; i++) {
    int64_t d = s->dim[i];
    SL_REQUIRE(d >= 0, SHAPE, "%s: dimension %d of shape %s is negative", what, i + 1, sl_shape_text(s));
    /* Empty dimensions count as 1 here, so that strides cannot overflow either. */
    SL_REQUIRE(!__builtin_mul_overflow(bytes, d ? d : 1, &bytes), SHAPE, "%s: shape %s is too large to address", what,
               sl_shape_text(s));
  }
  return SL_STATUS_OK;
}

void sl_shape_strides(const sl_shape *s, int64_t *stride) {
  int64_t n = 1;
  for (int i = s->rank - 1; i >= 0; i--) {
    stride[i] = n;
    n *= s->dim[i] ? s->dim[i] : 1;
  }
}

const char *sl_shape_text(const sl_shape *s) {
  enum { TEXTS = 8, BYTES = SL_MAX_RANK * 21 + 8 };
  static _Thread_local char texts[TEXTS][BYTES];
  static _Thread_local unsigned next;
  char *text = texts[next++ % TEXTS];
  int used = snprintf(text, BYTES, "[");
  for (int i = 0; i < s->rank && i < SL_MAX_RANK; i++) {
    used += snprintf(text + used, (size_t)(BYTES - used), i ? ",%" PRId64 : "%" PRId64, s->dim[i]);
  }
  snprintf(text + used, (size_t)(BYTES - used), s->rank > SL_MAX_RANK ? ",…]" : "]");
  return text;
}

bool sl_shape_broadcast(const sl_shape *a, const sl_shape *b, sl_shape *out) {
  sl_shape r = {.rank = a->rank > b->rank ? a->rank : b->rank};
  for (int i = 0; i < r.rank; i++) {
    int ia = i - (r.rank - a->rank), ib = i - (r.rank - b->rank);
    int64_t da = ia >= 0 ? a->dim[ia] : 1, db = ib >= 0 ? b->dim[ib] : 1;
    if (da != db && da != 1 && db != 1) return false;
    r.dim[i] = da == 1 ? db : da;
  }
  *out = r;
  return true;
}
