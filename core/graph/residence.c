/* What a GPU's program keeps there: constants and tables, rooms for what the caller has on the host, the step. */
#include <stddef.h>
#include <string.h>

#include "graph/program_internal.h"

enum { CONSTANT_BYTES = 16 };

static bool is_constant(const sl_storage *s) { return s->kind == STORE_FIXED && s->leaf->leaf == SL_LEAF_CONST; }
static bool is_table(const sl_storage *s) { return s->kind == STORE_FIXED && s->leaf->leaf == SL_LEAF_TABLE; }
/* A table that lies on the host and needs a copy. */
static bool is_copied(const sl_storage *s) { return is_table(s) && !sl_tensor_device(s->leaf->table)->gpu; }

static void *take(const sl_program *p, size_t bytes) {
  return p->exec.device->alloc(p->exec.device, p->exec.ctx, bytes);
}

static void give(const sl_program *p, void *at) {
  if (at) p->exec.device->free(p->exec.device, p->exec.ctx, at);
}

/* --- constants and tables --- */

static sl_status make_constants(sl_program *p) {
  const sl_device *dev = p->exec.device;
  int n = 0;
  for (int i = 0; i < p->plan.n_stores; i++) n += is_constant(&p->plan.stores[i]);
  if (!n) return SL_STATUS_OK;
  uint8_t *host = sl_alloc_zero(p->exec.ctx, (size_t)n * CONSTANT_BYTES);
  if (!host) return SL_STATUS_OOM;
  p->there.constants = take(p, (size_t)n * CONSTANT_BYTES);
  if (!p->there.constants) {
    sl_free(p->exec.ctx, host);
    return SL_STATUS_OOM;
  }
  size_t at = 0;
  for (int i = 0; i < p->plan.n_stores; i++) {
    const sl_storage *s = &p->plan.stores[i];
    if (!is_constant(s)) continue;
    memcpy(host + at, s->fixed, s->bytes);
    p->there.fixed[i] = p->there.constants + at;
    at += CONSTANT_BYTES;
  }
  sl_status status = dev->copy_in(dev, p->there.constants, host, at, NULL);
  sl_free(p->exec.ctx, host);
  return status;
}

static sl_status make_tables(sl_program *p) {
  for (int i = 0; i < p->plan.n_stores; i++) {
    const sl_storage *s = &p->plan.stores[i];
    if (!is_table(s)) continue;
    const sl_tensor *t = s->leaf->table;
    if (!is_copied(s)) {
      SL_REQUIRE(sl_tensor_device(t)->gpu == p->exec.device->gpu, DEVICE, "%s lies on %s, the program runs on %s",
                 sl__node_label(s->leaf), sl_tensor_device(t)->name, p->exec.device->name);
      p->there.fixed[i] = sl_tensor_data(t);
      continue;
    }
    SL_REQUIRE(sl_tensor_is_contiguous(t), UNSUPPORTED,
               "%s: a table with gaps cannot be brought to %s; make it contiguous", sl__node_label(s->leaf),
               p->exec.device->name);
    p->there.fixed[i] = take(p, s->bytes);
    if (!p->there.fixed[i]) return SL_STATUS_OOM;
  }
  return SL_STATUS_OK;
}

/* Tables whose contents changed since they were copied. Versions are kept one up, so that 0 is none. */
static sl_status update_tables(sl_program *p) {
  const sl_device *dev = p->exec.device;
  for (int i = 0; i < p->plan.n_stores; i++) {
    const sl_storage *s = &p->plan.stores[i];
    if (!is_copied(s)) continue;
    uint64_t version = sl_tensor_version(s->leaf->table) + 1;
    if (p->there.version[i] == version) continue;
    SL_TRY(dev->copy_in(dev, p->there.fixed[i], sl_tensor_data(s->leaf->table), s->bytes, NULL));
    p->there.version[i] = version;
  }
  return SL_STATUS_OK;
}

/* --- life --- */

sl_status sl__residence_make(sl_program *p) {
  const sl_graph *g = p->plan.g;
  size_t stores = (size_t)p->plan.n_stores + 1;
  sl_residence *t = &p->there;
  t->fixed = sl_alloc_zero(p->exec.ctx, stores * sizeof *t->fixed);
  t->version = sl_alloc_zero(p->exec.ctx, stores * sizeof *t->version);
  t->in = sl_alloc_zero(p->exec.ctx, ((size_t)g->n_inputs + 1) * sizeof *t->in);
  t->out = sl_alloc_zero(p->exec.ctx, ((size_t)g->n_outputs + 1) * sizeof *t->out);
  if (!t->fixed || !t->version || !t->in || !t->out) return SL_STATUS_OOM;
  t->step = take(p, sizeof *t->step);
  if (!t->step) return SL_STATUS_OOM;
  SL_TRY(make_constants(p));
  return make_tables(p);
}

void sl__residence_free(sl_program *p) {
  sl_residence *t = &p->there;
  for (int i = 0; t->fixed && i < p->plan.n_stores; i++)
    if (is_copied(&p->plan.stores[i])) give(p, t->fixed[i]);
  for (int i = 0; t->in && i < p->plan.g->n_inputs; i++) give(p, t->in[i]);
  for (int i = 0; t->out && i < p->plan.g->n_outputs; i++) give(p, t->out[i]);
  give(p, t->constants);
  give(p, t->step);
  sl_free(p->exec.ctx, t->fixed);
  sl_free(p->exec.ctx, t->version);
  sl_free(p->exec.ctx, t->in);
  sl_free(p->exec.ctx, t->out);
  *t = (sl_residence){0};
}

/* --- what a run brings --- */

/* Bytes before a value's first element, and all that it spans. */
static void span_of(const sl_value *v, size_t *before, size_t *bytes) {
  int64_t low = 0, high = 0, size = (int64_t)sl_dtype_size(v->dtype);
  for (int i = 0; i < v->shape.rank; i++) *(v->stride[i] < 0 ? &low : &high) += (v->shape.dim[i] - 1) * v->stride[i];
  bool empty = sl_shape_numel(&v->shape) == 0;
  *before = empty ? 0 : (size_t)(-low * size);
  *bytes = empty ? 0 : (size_t)((high - low + 1) * size);
}

/* Without a wait where that is safe: a copy from pageable memory may still read it after it returned. */
static sl_status bring(sl_program *p, void *to, const void *from, size_t bytes, bool pinned) {
  const sl_device *dev = p->exec.device;
  if (!pinned && bytes <= SL_PUT_BYTES) return sl_device_put(dev, p->exec.ctx, to, from, bytes);
  return dev->copy_in(dev, to, from, bytes, pinned ? p->exec.stream : NULL);
}

static sl_status bring_input(sl_program *p, const sl_run *run, int i) {
  size_t before, bytes;
  span_of(p->plan.g->inputs[i], &before, &bytes);
  if (!p->there.in[i]) p->there.in[i] = take(p, bytes);
  if (!p->there.in[i]) return SL_STATUS_OOM;
  /* Pinned memory is the caller's again after a synchronisation. */
  return bring(p, p->there.in[i], (const char *)sl_tensor_data(run->inputs[i]) - before, bytes,
               sl_tensor_device(run->inputs[i]) == p->exec.device->host);
}

static sl_status bring_step(sl_program *p, const sl_run *run) {
  static const sl_step zero;
  const sl_step *step = run->step ? run->step : &zero;
  p->exec.step = run->device_step ? run->device_step : p->there.step;
  return run->device_step ? SL_STATUS_OK : bring(p, p->there.step, step, sizeof *step, false);
}

static sl_view flat_view(const sl_tensor *t) {
  sl_view v = {.data = sl_tensor_data(t), .dtype = sl_tensor_dtype(t), .shape = SL_SHAPE(sl_tensor_numel(t))};
  v.stride[0] = 1;
  return v;
}

/* All parameters at once: one launch, however many products read them. */
static sl_status bring_shadow(sl_program *p, const sl_run *run) {
  sl_tensor *shadow;
  bool fresh;
  if (!p->plan.shadowed) return SL_STATUS_OK;
  SL_TRY(sl_tensor_shadow(run->params, &shadow, &fresh));
  if (fresh) return SL_STATUS_OK;
  sl_view to = flat_view(shadow), from = flat_view(run->params);
  SL_TRY(sl_device_copy_views(p->exec.device, p->exec.ctx, &to, &from));
  sl_tensor_shadow_fresh(run->params);
  return SL_STATUS_OK;
}

sl_status sl_program_refresh(sl_program *p, sl_tensor *params) {
  if (!p->exec.device->gpu) return SL_STATUS_OK;
  SL_TRY(update_tables(p));
  return bring_shadow(p, &(sl_run){.params = params});
}

sl_status sl__residence_enter(sl_program *p, const sl_run *run) {
  const sl_graph *g = p->plan.g;
  SL_TRY(update_tables(p));
  SL_TRY(bring_step(p, run));
  SL_TRY(bring_shadow(p, run));
  for (int i = 0; i < g->n_inputs; i++)
    if (run->inputs && run->inputs[i] && !sl_tensor_device(run->inputs[i])->gpu) SL_TRY(bring_input(p, run, i));
  for (int i = 0; i < g->n_outputs; i++)
    if (!sl_tensor_device(run->outputs[i])->gpu && !p->there.out[i]) {
      size_t before, bytes;
      span_of(g->outputs[i].value, &before, &bytes);
      if (!(p->there.out[i] = take(p, bytes))) return SL_STATUS_OOM;
    }
  return SL_STATUS_OK;
}

void *sl__residence_in(sl_program *p, const sl_run *run, int i) {
  size_t before, bytes;
  if (sl_tensor_device(run->inputs[i])->gpu) return sl_tensor_data(run->inputs[i]);
  span_of(p->plan.g->inputs[i], &before, &bytes);
  return (char *)p->there.in[i] + before;
}

void *sl__residence_out(sl_program *p, const sl_run *run, int i) {
  return sl_tensor_device(run->outputs[i])->gpu ? sl_tensor_data(run->outputs[i]) : p->there.out[i];
}

sl_status sl__residence_leave(sl_program *p, const sl_run *run) {
  const sl_device *dev = p->exec.device;
  bool wait = false;
  for (int i = 0; i < p->plan.g->n_outputs; i++) {
    sl_tensor *t = run->outputs[i];
    if (sl_tensor_device(t)->gpu) continue;
    size_t bytes = (size_t)sl_tensor_numel(t) * sl_dtype_size(sl_tensor_dtype(t));
    SL_TRY(dev->copy_out(dev, sl_tensor_data(t), p->there.out[i], bytes, p->exec.stream));
    wait = true;
  }
  return wait ? dev->sync(dev, NULL) : SL_STATUS_OK;
}
