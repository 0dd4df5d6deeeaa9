/* Trace mode: statistics of every value as it is computed. */
#include <math.h>

#include "graph/program_internal.h"

/* Flat row-major index of a view to its element's byte offset. */
static int64_t element_offset(const sl_view *v, int64_t flat) {
  int64_t at = 0;
  for (int d = v->shape.rank; d-- > 0;) {
    at += flat % v->shape.dim[d] * v->stride[d];
    flat /= v->shape.dim[d];
  }
  return at * (int64_t)sl_dtype_size(v->dtype);
}

static sl_trace measure(const sl_plan_step *s, int k) {
  const sl_view *v = &s->out[k];
  sl_trace t = {.node = s->node, .output = k, .name = sl__node_label(s->node), .count = sl_shape_numel(&v->shape)};
  double sum = 0, squares = 0;
  int64_t finite = 0;
  for (int64_t i = 0; i < t.count; i++) {
    double x = sl_element_get(v->dtype, (const char *)v->data + element_offset(v, i));
    if (!isfinite(x)) {
      t.nonfinite++;
      continue;
    }
    if (!finite || x < t.min) t.min = x;
    if (!finite || x > t.max) t.max = x;
    finite++;
    sum += x;
    squares += x * x;
  }
  t.mean = finite ? sum / (double)finite : 0;
  t.rms = finite ? sqrt(squares / (double)finite) : 0;
  return t;
}

bool sl__trace_step(const sl_run *run, const sl_plan_step *s) {
  for (int k = 0; k < s->node->n_out; k++) {
    if (!s->out[k].data) continue;
    sl_trace t = measure(s, k);
    if (!run->trace(run->user, &t)) return false;
  }
  return true;
}
