/* Compiling and running programs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/parallel.h"
#include "graph/program_internal.h"

#if defined(__SANITIZE_ADDRESS__)
#define SL_ALWAYS_CHECKED true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SL_ALWAYS_CHECKED true
#endif
#endif
#ifndef SL_ALWAYS_CHECKED
#define SL_ALWAYS_CHECKED false
#endif

static const sl_step zero_step;

static bool asked_for(const char *variable) {
  const char *env = getenv(variable);
  return env && *env && *env != '0';
}

static bool want_checks(const sl_compile_options *o) {
  return SL_ALWAYS_CHECKED || (o && o->checked) || asked_for("SLUICE_CHECKED");
}

sl_exec sl_exec_on(sl_context *ctx, const sl_device *dev) {
  return (sl_exec){.ctx = ctx,
                   .device = dev,
                   .kernels = sl_kernels_of(dev),
                   .stream = dev->gpu ? dev->gpu->stream : NULL,
                   .tf32 = dev->gpu && dev->gpu->tf32,
                   .step = &zero_step,
                   .fault = dev->fault};
}

sl_exec sl__exec_of(const sl_graph *g) {
  sl_exec e = sl_exec_on(g->ctx, g->device);
  e.tf32 |= g->tf32 && g->device->gpu;
  return e;
}

sl_status sl_graph_forecast(sl_graph *g, uint64_t *bytes, bool *shadowed) {
  *bytes = 0;
  if (shadowed) *shadowed = false;
  SL_TRY(sl_graph_status(g));
  sl_plan p;
  sl_exec e = sl__exec_of(g);
  if (g->device->use) SL_TRY(g->device->use(g->device));
  SL_TRY(sl__plan_make(g, &e, false, &p));
  *bytes = p.arena_bytes;
  if (shadowed) *shadowed = p.shadowed;
  sl__plan_clear(&p);
  return SL_STATUS_OK;
}

static sl_status prepare_steps(sl_program *p) {
  sl_parallel_enter(p->exec.ctx);
  for (int i = 0; i < p->plan.n_steps; i++) {
    sl_plan_step *s = &p->plan.steps[i];
    const sl_op_rules *r = s->node->op->rules;
    if (r->prepare) SL_TRY(r->prepare(&p->exec, s->node, &s->state));
    for (int k = 0; k < s->node->n_in; k++)
      if (s->node->in[k] && s->node->in[k]->base->node->leaf == SL_LEAF_INPUT)
        p->input_used[s->node->in[k]->base->node->slot] = true;
  }
  return SL_STATUS_OK;
}

/* A GPU's memory is asked first, so that the refusal can say what was there. */
static sl_status check_room(const sl_device *dev, uint64_t bytes) {
  sl_device_memory m;
  if (!dev->memory || dev->memory(dev, &m) != SL_STATUS_OK) return SL_STATUS_OK; /* the allocation itself will tell */
  SL_REQUIRE(bytes <= m.available, OOM, "the program's arena needs %.1f MiB, %s has %.1f of %.1f MiB free",
             (double)bytes / 1048576.0, dev->name, (double)m.available / 1048576.0, (double)m.total / 1048576.0);
  return SL_STATUS_OK;
}

sl_status sl_graph_compile(sl_graph *g, const sl_compile_options *options, sl_program **out) {
  *out = NULL;
  SL_TRY(sl_graph_status(g));
  sl_context *ctx = g->ctx;
  const sl_device *dev = g->device;
  sl_program *p = sl_alloc_zero(ctx, sizeof *p);
  if (!p) return SL_STATUS_OOM;
  p->exec = sl__exec_of(g);
  p->threads = sl_context_threads(ctx);
  p->sync_each = dev->gpu && asked_for("SLUICE_CUDA_SYNC");
  p->g = sl_graph_retain(g);
  sl_status status = dev->use ? dev->use(dev) : SL_STATUS_OK;
  if (status == SL_STATUS_OK) status = sl__plan_make(g, &p->exec, want_checks(options), &p->plan);
  if (status != SL_STATUS_OK) goto done;
  SL_GOTO(check_room(dev, p->plan.arena_bytes));
  status = SL_STATUS_OOM;
  p->base = sl_alloc_zero(ctx, ((size_t)p->plan.n_stores + 1) * sizeof *p->base);
  p->input_used = sl_alloc_zero(ctx, (size_t)g->n_inputs + 1);
  if (!p->base || !p->input_used) goto done;
  p->arena = dev->alloc(dev, ctx, p->plan.arena_bytes);
  if (!p->arena) {
    status =
        sl_fail_context(SL_STATUS_OOM, "the program's arena needs %.1f MiB", (double)p->plan.arena_bytes / 1048576.0);
    goto done;
  }
  SL_GOTO(prepare_steps(p));
  if (dev->gpu) status = sl__residence_make(p);
done:
  if (status == SL_STATUS_OK) {
    *out = p;
  } else {
    sl_program_free(p);
  }
  return status;
}

void sl_program_free(sl_program *p) {
  if (!p) return;
  sl_context *ctx = p->exec.ctx;
  if (p->exec.device->gpu) { /* recordings before the steps whose plans they launch */
    sl__recording_free(p);
    sl__profile_free(p);
    sl__residence_free(p);
  }
  for (int i = 0; i < p->plan.n_steps; i++) {
    sl_plan_step *s = &p->plan.steps[i];
    if (s->state && s->node->op->rules->release) s->node->op->rules->release(&p->exec, s->state);
  }
  if (p->arena) {
    sl__check_end(p);
    p->exec.device->free(p->exec.device, ctx, p->arena);
  }
  sl_free(ctx, p->base);
  sl_free(ctx, p->input_used);
  sl__plan_clear(&p->plan);
  sl_graph_release(p->g);
  sl_free(ctx, p);
}

sl_graph *sl_program_graph(const sl_program *p) { return p->plan.g; }
int sl_program_inputs(const sl_program *p) { return p->plan.g->n_inputs; }
int sl_program_outputs(const sl_program *p) { return p->plan.g->n_outputs; }
const sl_value *sl_program_input_value(const sl_program *p, int i) { return p->plan.g->inputs[i]; }
const sl_value *sl_program_output_value(const sl_program *p, int i) { return p->plan.g->outputs[i].value; }
const char *sl_program_output_name(const sl_program *p, int i) { return p->plan.g->outputs[i].name; }
bool sl_program_input_used(const sl_program *p, int i) { return p->input_used[i]; }
uint64_t sl_program_arena_bytes(const sl_program *p) { return p->plan.arena_bytes; }

int sl_program_input(const sl_program *p, const char *name) {
  for (int i = 0; i < p->plan.g->n_inputs; i++)
    if (!strcmp(p->plan.g->inputs[i]->node->name, name)) return i;
  return -1;
}

int sl_program_output(const sl_program *p, const char *name) {
  for (int i = 0; i < p->plan.g->n_outputs; i++)
    if (!strcmp(p->plan.g->outputs[i].name, name)) return i;
  return -1;
}

/* --- bindings --- */

static sl_status check_tensor(const sl_device *dev, const char *what, const char *name, const sl_tensor *t,
                              const sl_value *v) {
  SL_REQUIRE(t, ARG, "%s %s is not given", what, name);
  const sl_device *at = sl_tensor_device(t);
  SL_REQUIRE(!at->gpu || at->gpu == dev->gpu, DEVICE, "%s %s lies on %s, the program runs on %s", what, name, at->name,
             dev->name);
  SL_REQUIRE(sl_tensor_dtype(t) == v->dtype && sl_shape_equal(sl_tensor_shape(t), &v->shape), SHAPE,
             "%s %s is %s %s, expected %s", what, name, sl_dtype_name(sl_tensor_dtype(t)),
             sl_shape_text(sl_tensor_shape(t)), sl_value_text(v));
  for (int i = 0; i < v->shape.rank; i++)
    SL_REQUIRE(v->shape.dim[i] == 1 || sl_tensor_strides(t)[i] == v->stride[i], SHAPE,
               "%s %s: its strides are not those that the program was compiled for; make it contiguous", what, name);
  return SL_STATUS_OK;
}

static sl_status check_flat(const sl_device *dev, const char *what, const sl_tensor *t, uint64_t elements) {
  if (!elements) return SL_STATUS_OK;
  SL_REQUIRE(t, ARG, "%s: not given, and the program uses them", what);
  SL_REQUIRE(sl_tensor_device(t)->gpu == dev->gpu, DEVICE, "%s lie on %s, the program runs on %s", what,
             sl_tensor_device(t)->name, dev->name);
  SL_REQUIRE(sl_tensor_dtype(t) == SL_F32 && sl_tensor_is_contiguous(t) && (uint64_t)sl_tensor_numel(t) >= elements,
             SHAPE, "%s: got %s %s, expected a flat f32 array of at least %llu", what,
             sl_dtype_name(sl_tensor_dtype(t)), sl_shape_text(sl_tensor_shape(t)), (unsigned long long)elements);
  return SL_STATUS_OK;
}

static sl_status check_run(const sl_program *p, const sl_run *run) {
  const sl_graph *g = p->plan.g;
  const sl_device *dev = p->exec.device;
  for (int i = 0; i < g->n_inputs; i++)
    if (p->input_used[i] || (run->inputs && run->inputs[i]))
      SL_TRY(check_tensor(dev, "input", g->inputs[i]->node->name, run->inputs ? run->inputs[i] : NULL, g->inputs[i]));
  for (int i = 0; i < g->n_outputs; i++)
    SL_TRY(check_tensor(dev, "output", g->outputs[i].name, run->outputs ? run->outputs[i] : NULL, g->outputs[i].value));
  SL_TRY(check_flat(dev, "parameters", run->params, p->plan.param_end));
  return check_flat(dev, "gradients", run->grads, p->plan.grad_end);
}

static void *input_at(sl_program *p, const sl_run *run, int slot) {
  if (!run->inputs || !run->inputs[slot]) return NULL;
  return p->exec.device->gpu ? sl__residence_in(p, run, slot) : sl_tensor_data(run->inputs[slot]);
}

/* The bf16 copy of the parameters; it was made when the run was entered. */
static uint8_t *shadow_of(const sl_program *p, const sl_run *run) {
  sl_tensor *shadow = NULL;
  bool fresh;
  if (!p->plan.shadowed || sl_tensor_shadow(run->params, &shadow, &fresh) != SL_STATUS_OK) return NULL;
  return sl_tensor_data(shadow);
}

static void bind_stores(sl_program *p, const sl_run *run) {
  const bool gpu = p->exec.device->gpu != NULL;
  uint8_t *shadow = shadow_of(p, run);
  for (int i = 0; i < p->plan.n_stores; i++) {
    const sl_storage *s = &p->plan.stores[i];
    uint8_t *at = NULL;
    switch (s->kind) {
      case STORE_NONE: break;
      case STORE_ARENA: at = p->arena + s->offset; break;
      case STORE_INPUT: at = input_at(p, run, s->slot); break;
      case STORE_OUTPUT: at = gpu ? sl__residence_out(p, run, s->slot) : sl_tensor_data(run->outputs[s->slot]); break;
      case STORE_PARAM: at = run->params ? (uint8_t *)sl_tensor_data(run->params) + s->offset : NULL; break;
      case STORE_GRAD: at = run->grads ? (uint8_t *)sl_tensor_data(run->grads) + s->offset : NULL; break;
      case STORE_SHADOW: at = shadow + s->offset; break;
      case STORE_FIXED: at = (uint8_t *)(uintptr_t)(gpu ? p->there.fixed[i] : s->fixed); break;
      case STORE_STEP: at = (uint8_t *)(uintptr_t)&p->exec.step->value[s->slot]; break;
    }
    p->base[i] = at;
  }
}

static double seconds_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static sl_status run_step(sl_program *p, int at, const sl_run *run) {
  sl_plan_step *s = &p->plan.steps[at];
  const sl_node *n = s->node;
  for (int k = 0; k < n->n_in; k++) {
    uint8_t *base = s->in_store[k] < 0 ? NULL : p->base[s->in_store[k]];
    s->in[k].data = base ? base + s->in_bytes[k] : NULL;
  }
  for (int k = 0; k < n->n_out; k++) s->out[k].data = p->base[s->out_store[k]];
  if (p->plan.checked) sl__check_before(p, at);
  bool clock = run->profile && !p->stamps;
  double t0 = clock ? seconds_now() : 0;
  void *workspace = s->workspace < 0 ? NULL : p->base[s->workspace];
  sl_status status = n->op->rules->run(&p->exec, n, s->out, s->in, s->state, workspace);
  if (status != SL_STATUS_OK) return sl_fail_context(status, "%s", sl__node_label(n));
  if (clock) {
    s->seconds += seconds_now() - t0;
    s->calls++;
  } else if (run->profile) {
    SL_TRY(p->exec.device->stamp(p->exec.device, p->stamps[at + 1]));
  }
  if (p->sync_each) {
    status = p->exec.device->sync(p->exec.device, NULL);
    if (status != SL_STATUS_OK) return sl_fail_context(status, "%s", sl__node_label(n));
  }
  if (run->trace && !sl__trace_step(p, run, s))
    return sl_fail(SL_STATUS_CANCELLED, "stopped in trace mode at %s", sl__node_label(n));
  return p->plan.checked ? sl__check_after(p, at) : SL_STATUS_OK;
}

sl_status sl__run_steps(sl_program *p, const sl_run *run) {
  if (p->plan.checked) sl__check_start(p);
  for (int i = 0; i < p->plan.n_steps; i++) {
    if (sl_context_cancelled(p->exec.ctx)) return sl_fail(SL_STATUS_CANCELLED, "stopped on request");
    SL_TRY(run_step(p, i, run));
  }
  return SL_STATUS_OK;
}

/* On a GPU steps are only launched here; what they write is there for whatever is launched later. */
static sl_status run_on_gpu(sl_program *p, const sl_run *run) {
  const sl_device *dev = p->exec.device;
  SL_TRY(dev->use(dev));
  SL_TRY(sl__residence_enter(p, run));
  bind_stores(p, run);
  bool plain = !p->plan.checked && !run->trace && !run->profile && !p->sync_each,
       stamped = run->profile && sl__profile_stamped(p);
  if (stamped) SL_TRY(sl__profile_begin(p));
  SL_TRY(plain ? sl__recording_run(p, run) : sl__run_steps(p, run));
  if (stamped) SL_TRY(sl__profile_end(p));
  return sl__residence_leave(p, run);
}

sl_status sl_program_run(sl_program *p, const sl_run *run) {
  SL_TRY(check_run(p, run));
  if (p->exec.device->gpu) return run_on_gpu(p, run);
  p->exec.step = run->step ? run->step : &zero_step;
  bind_stores(p, run);
  int threads = sl_context_threads(p->exec.ctx);
  sl_context_set_threads(p->exec.ctx, p->threads);
  sl_parallel_enter(p->exec.ctx);
  sl_status status = sl__run_steps(p, run);
  sl_context_set_threads(p->exec.ctx, threads);
  return status;
}

sl_status sl_program_call(sl_program *p, const sl_run *given, int n_out, sl_tensor **out) {
  SL_REQUIRE(n_out == p->plan.g->n_outputs, ARG, "the program has %d outputs, %d were asked for", p->plan.g->n_outputs,
             n_out);
  memset(out, 0, (size_t)n_out * sizeof *out);
  sl_status status = SL_STATUS_OK;
  for (int i = 0; i < n_out; i++) {
    const sl_value *v = p->plan.g->outputs[i].value;
    SL_GOTO(sl_tensor_new(p->exec.ctx, p->exec.device, v->dtype, &v->shape, &out[i]));
  }
  sl_run run = *given;
  run.outputs = out;
  SL_GOTO(sl_program_run(p, &run));
  return SL_STATUS_OK;
done:
  for (int i = 0; i < n_out; i++) {
    sl_tensor_release(out[i]);
    out[i] = NULL;
  }
  return status;
}

bool sl_program_recordable(const sl_program *p) {
  return p->exec.device->gpu && !p->plan.checked && !p->sync_each && !p->unrecordable;
}

bool sl_program_shadowed(const sl_program *p) { return p->plan.shadowed; }
