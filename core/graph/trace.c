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

/* An output beside the first goes by the name of a view of it, if one has a name. */
static const char *name_of(const sl_graph *g, const sl_node *n, int k) {
  for (int i = n->id + 1; k > 0 && i < g->n_nodes; i++) {
    const sl_node *view = g->nodes[i];
    if (view->name && view->out[0].base == &n->out[k] &&
        sl_shape_numel(&view->out[0].shape) == sl_shape_numel(&n->out[k].shape))
      return sl__node_label(view);
  }
  return sl__node_label(n);
}

static sl_trace measure(const sl_graph *g, const sl_plan_step *s, int k, const sl_view *v) {
  sl_trace t = {.node = s->node, .output = k, .name = name_of(g, s->node, k), .count = sl_shape_numel(&v->shape)};
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

/* Output k as the host can read it: *copy is freed by the caller. Outputs have no negative strides. */
static sl_status on_host(sl_program *p, const sl_view *v, sl_view *host, void **copy) {
  const sl_device *dev = p->exec.device;
  int64_t last = 0;
  *host = *v;
  *copy = NULL;
  if (!dev->gpu || sl_shape_numel(&v->shape) == 0) return SL_STATUS_OK;
  for (int d = 0; d < v->shape.rank; d++) last += (v->shape.dim[d] - 1) * v->stride[d];
  size_t bytes = (size_t)(last + 1) * sl_dtype_size(v->dtype);
  *copy = host->data = sl_alloc(p->exec.ctx, bytes);
  return *copy ? dev->copy_out(dev, *copy, v->data, bytes, NULL) : SL_STATUS_OOM;
}

bool sl__trace_step(sl_program *p, const sl_run *run, const sl_plan_step *s) {
  for (int k = 0; k < s->node->n_out; k++) {
    if (!s->out[k].data) continue;
    sl_view host;
    void *copy;
    bool go_on = false;
    if (on_host(p, &s->out[k], &host, &copy) == SL_STATUS_OK) {
      sl_trace t = measure(p->plan.g, s, k, &host);
      go_on = run->trace(run->user, &t);
    }
    sl_free(p->exec.ctx, copy);
    if (!go_on) return false;
  }
  return true;
}
