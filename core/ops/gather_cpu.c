#include <math.h>
#include <string.h>

#include "base/parallel.h"
#include "ops/kernels.h"

static int64_t index_at(const sl_view *index, int64_t k) {
  return index->dtype == SL_I64 ? ((const int64_t *)index->data)[k] : ((const int32_t *)index->data)[k];
}

static sl_status check_range(const sl_view *index, int64_t rows) {
  int64_t n = sl_shape_numel(&index->shape);
  for (int64_t k = 0; k < n; k++) {
    int64_t r = index_at(index, k);
    SL_REQUIRE(r >= 0 && r < rows, ARG, "index %lld is outside 0 … %lld", (long long)r, (long long)rows - 1);
  }
  return SL_STATUS_OK;
}

typedef struct gather_task {
  const sl_view *y, *table, *index;
  size_t bytes; /* of a row */
} gather_task;

static void gather_rows(void *user, int64_t begin, int64_t end, int thread) {
  const gather_task *t = user;
  (void)thread;
  for (int64_t k = begin; k < end; k++)
    memcpy((char *)t->y->data + (size_t)k * t->bytes,
           (const char *)t->table->data + (size_t)index_at(t->index, k) * t->bytes, t->bytes);
}

sl_status sl_cpu_gather(sl_exec *e, const sl_view *y, const sl_view *table, const sl_view *index, int64_t width) {
  SL_TRY(check_range(index, table->shape.dim[0]));
  gather_task t = {y, table, index, (size_t)width * sl_dtype_size(table->dtype)};
  sl_parallel_for(e->ctx, sl_shape_numel(&index->shape), width > 0 && width < 16384 ? 16384 / width : 1, gather_rows,
                  &t);
  return SL_STATUS_OK;
}

/* Columns in parallel, rows in order: the sums do not depend on the number of threads. */
static void scatter_columns(void *user, int64_t begin, int64_t end, int thread) {
  const gather_task *t = user;
  (void)thread;
  int64_t n = sl_shape_numel(&t->index->shape), rows = t->y->shape.dim[0], width = (int64_t)t->bytes;
  float *out = t->y->data;
  for (int64_t r = 0; r < rows; r++) memset(out + r * width + begin, 0, (size_t)(end - begin) * sizeof *out);
  for (int64_t k = 0; k < n; k++) {
    float *to = out + index_at(t->index, k) * width;
    if (t->table->dtype == SL_F32) {
      const float *from = (const float *)t->table->data + k * width;
      for (int64_t c = begin; c < end; c++) to[c] += from[c];
    } else {
      const uint16_t *from = (const uint16_t *)t->table->data + k * width;
      for (int64_t c = begin; c < end; c++) to[c] += (float)sl_element_get(SL_BF16, &from[c]);
    }
  }
}

sl_status sl_cpu_scatter_add(sl_exec *e, const sl_view *dtable, const sl_view *dy, const sl_view *index,
                             int64_t width) {
  SL_TRY(check_range(index, dtable->shape.dim[0]));
  gather_task t = {dtable, dy, index, (size_t)width}; /* bytes: here the width */
  sl_parallel_for(e->ctx, width, 256, scatter_columns, &t);
  return SL_STATUS_OK;
}

/* In float, as the references compute it: the product t * f is rounded before the cosine. */
sl_status sl_cpu_timestep_embedding(sl_exec *e, const sl_view *y, const sl_view *t, double max_period) {
  (void)e;
  int64_t n = y->shape.dim[0], dim = y->shape.dim[1], half = dim / 2;
  float *out = y->data, log_period = (float)log(max_period);
  for (int64_t i = 0; i < half; i++) {
    float f = expf(-log_period * (float)i / (float)half);
    for (int64_t k = 0; k < n; k++) {
      float angle = ((const float *)t->data)[k] * f;
      out[k * dim + i] = cosf(angle);
      out[k * dim + half + i] = sinf(angle);
    }
  }
  for (int64_t k = 0; k < n && dim % 2; k++) out[k * dim + dim - 1] = 0;
  return SL_STATUS_OK;
}
