/* Copies, sums into place, and constants. */
#include <string.h>

#include "base/parallel.h"
#include "ops/strided_rows.h"

sl_status sl_cpu_copy(sl_exec *e, const sl_view *y, const sl_view *x) {
  sl_view_copy(e->ctx, y, x);
  return SL_STATUS_OK;
}

sl_status sl_cpu_cat(sl_exec *e, const sl_view *y, int64_t dim, int n, const sl_view *x) {
  for (int64_t k = 0, at = 0; k < n; at += x[k++].shape.dim[dim]) {
    sl_view part = sl_view_part(y, dim, at, x[k].shape.dim[dim], 1);
    if (part.shape.dim[dim] > 0) sl_view_copy(e->ctx, &part, &x[k]);
  }
  return SL_STATUS_OK;
}

sl_status sl_cpu_accumulate(sl_exec *e, const sl_view *y, const sl_view *x) {
  return sl_cpu_binary(e, SL_BINARY_add, y, y, x);
}

sl_status sl_cpu_put(sl_exec *e, void *to, const void *from, size_t bytes) {
  (void)e;
  memcpy(to, from, bytes);
  return SL_STATUS_OK;
}

sl_status sl_cpu_fill(sl_exec *e, const sl_view *y, double value) {
  uint64_t element;
  sl_element_set(y->dtype, &element, value);
  sl_view x = *y; /* one element seen everywhere */
  x.data = &element;
  for (int i = 0; i < SL_MAX_RANK; i++) x.stride[i] = 0;
  sl_view_copy(e->ctx, y, &x);
  return SL_STATUS_OK;
}
