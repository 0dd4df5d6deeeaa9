#include <string.h>

#include "base/bf16.h"
#include "base/parallel.h"
#include "ops/kernels.h"

#define UNIT 16     /* columns: a cache line of floats, so that two threads never write the same one */
#define COLUMNS 768 /* summed together at most: long runs of a row, and sums that stay in L1 */
#define ROWS 64     /* summed before they join the total, which keeps rounding small */

typedef struct column_sum {
  const sl_view *y, *x;
  int64_t rows, cols, row_stride;
} column_sum;

static void add_row(const column_sum *s, int64_t row, int64_t first, int n, float *restrict part) {
  int64_t at = row * s->row_stride + first;
  if (s->x->dtype == SL_F32) {
    const float *restrict x = (const float *)s->x->data + at;
    for (int j = 0; j < n; j++) part[j] += x[j];
  } else {
    const sl_bf16 *restrict x = (const sl_bf16 *)s->x->data + at;
    for (int j = 0; j < n; j++) part[j] += sl_bf16_to_f32(x[j]);
  }
}

static void sum_block(const column_sum *s, int64_t first, int n) {
  float total[COLUMNS], part[COLUMNS], *y = (float *)s->y->data + first;
  memset(total, 0, sizeof total);
  for (int64_t r = 0; r < s->rows; r += ROWS) {
    memset(part, 0, sizeof part);
    for (int64_t i = r; i < r + ROWS && i < s->rows; i++) add_row(s, i, first, n, part);
    for (int j = 0; j < n; j++) total[j] += part[j];
  }
  for (int j = 0; j < n; j++) y[j] = s->y->accumulate ? y[j] + total[j] : total[j];
}

static void sum_columns(void *user, int64_t begin, int64_t end, int thread) {
  const column_sum *s = user;
  int64_t last = end * UNIT < s->cols ? end * UNIT : s->cols;
  (void)thread;
  for (int64_t c = begin * UNIT; c < last; c += COLUMNS)
    sum_block(s, c, (int)(last - c < COLUMNS ? last - c : COLUMNS));
}

sl_status sl_cpu_column_sum(sl_exec *e, const sl_view *y, const sl_view *x, int64_t rows, int64_t cols,
                            int64_t row_stride) {
  column_sum s = {y, x, rows, cols, row_stride};
  sl_parallel_for(e->ctx, (cols + UNIT - 1) / UNIT, 1 + 1024 / (rows + 1), sum_columns, &s);
  return SL_STATUS_OK;
}
