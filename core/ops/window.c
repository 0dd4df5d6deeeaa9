#include "ops/window.h"

#include <string.h>

#include "graph/op.h"

sl_status sl__window_size(const char *op, const sl_window *w, const int64_t in[2], int64_t out[2]) {
  for (int d = 0; d < 2; d++) {
    int64_t reach = (w->kernel[d] - 1) * w->dilation[d] + 1, room = in[d] + w->pad[2 * d] + w->pad[2 * d + 1];
    SL_REQUIRE(room >= reach, SHAPE, "%s: the kernel reaches over %lld %s, the padded image has %lld", op,
               (long long)reach, d ? "columns" : "rows", (long long)room);
    out[d] = (room - reach) / w->stride[d] + 1;
  }
  return SL_STATUS_OK;
}

sl_status sl__pair(const char *op, const char *name, int64_t *list, int64_t fallback) {
  SL_REQUIRE(list[0] <= 2 && (list[0] > 0 || fallback), ARG, "%s: %s has %lld numbers, expected one or two", op, name,
             (long long)list[0]);
  if (list[0] == 0) list[1] = fallback;
  if (list[0] < 2) list[2] = list[1];
  list[0] = 2;
  SL_REQUIRE(list[1] > 0 && list[2] > 0 && list[1] < 1 << 20 && list[2] < 1 << 20, ARG,
             "%s: %s is {%lld,%lld}, expected positive numbers", op, name, (long long)list[1], (long long)list[2]);
  return SL_STATUS_OK;
}

sl_status sl__sides(const char *op, int64_t *list) {
  int64_t n = list[0];
  SL_REQUIRE(n == 0 || n == 1 || n == 2 || n == 4, ARG,
             "%s: pad has %lld numbers, expected one, two (rows, columns) or four (top, bottom, left, right)", op,
             (long long)n);
  int64_t rows = n ? list[1] : 0, columns = n > 1 ? list[2] : rows;
  if (n < 4) list[1] = list[2] = rows, list[3] = list[4] = columns;
  list[0] = 4;
  for (int k = 1; k <= 4; k++)
    SL_REQUIRE(list[k] >= 0 && list[k] < 1 << 20, ARG, "%s: pad holds %lld, expected 0 or more", op,
               (long long)list[k]);
  return SL_STATUS_OK;
}

void sl__copy_list(int64_t *to, const int64_t *from) { memcpy(to, from, SL_ATTR_LIST * sizeof *to); }
