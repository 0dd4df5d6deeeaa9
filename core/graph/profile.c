/* Where a program's time goes, and what its nodes ask of the machine. */
#include "graph/program_internal.h"

/* --- profiles: on a GPU by time stamps between the launches, read when all are done --- */

bool sl__profile_stamped(const sl_program *p) { return p->exec.device->stamp_new != NULL; }

static sl_status make_stamps(sl_program *p) {
  const sl_device *dev = p->exec.device;
  if (p->stamps) return SL_STATUS_OK;
  p->stamps = sl_alloc_zero(p->exec.ctx, ((size_t)p->plan.n_steps + 1) * sizeof *p->stamps);
  if (!p->stamps) return SL_STATUS_OOM;
  for (int i = 0; i <= p->plan.n_steps; i++) SL_TRY(dev->stamp_new(dev, &p->stamps[i]));
  return SL_STATUS_OK;
}

sl_status sl__profile_begin(sl_program *p) {
  SL_TRY(make_stamps(p));
  return p->exec.device->stamp(p->exec.device, p->stamps[0]);
}

sl_status sl__profile_end(sl_program *p) {
  const sl_device *dev = p->exec.device;
  SL_TRY(dev->sync(dev, NULL));
  for (int i = 0; i < p->plan.n_steps; i++) {
    double seconds = 0;
    SL_TRY(dev->stamp_seconds(dev, p->stamps[i], p->stamps[i + 1], &seconds));
    p->plan.steps[i].seconds += seconds;
    p->plan.steps[i].calls++;
  }
  return SL_STATUS_OK;
}

void sl__profile_free(sl_program *p) {
  for (int i = 0; p->stamps && i <= p->plan.n_steps; i++) p->exec.device->stamp_free(p->exec.device, p->stamps[i]);
  sl_free(p->exec.ctx, p->stamps);
}

/* --- costs --- */

/* Bytes that a view's elements take; what is seen in several places is read once. */
static int64_t view_bytes(const sl_view *v) {
  int64_t n = (int64_t)sl_dtype_size(v->dtype);
  for (int i = 0; i < v->shape.rank; i++)
    if (v->stride[i] != 0) n *= v->shape.dim[i];
  return n;
}

static int64_t step_bytes(const sl_program *p, const sl_plan_step *s) {
  int64_t bytes = 0;
  for (int k = 0; k < s->node->n_in; k++) {
    bool seen = s->in_store[k] < 0;
    for (int j = 0; j < k && !seen; j++) seen = s->node->in[j] == s->node->in[k];
    if (!seen) bytes += view_bytes(&s->in[k]);
  }
  for (int k = 0; k < s->node->n_out; k++)
    if (p->plan.stores[s->out_store[k]].kind != STORE_NONE) bytes += (s->out[k].accumulate ? 2 : 1) * view_bytes(&s->out[k]);
  return bytes;
}

static void add_cost(const sl_program *p, const sl_plan_step *s, sl_op_cost *c) {
  const sl_op_rules *r = s->node->op->rules;
  c->seconds += s->seconds;
  c->calls += s->calls;
  c->nodes++;
  c->macs += r->macs ? r->macs(s->node) : 0;
  c->bytes += step_bytes(p, s);
}

bool sl_program_cost(const sl_program *p, int i, sl_op_cost *out) {
  int seen = 0;
  for (int a = 0; a < p->plan.n_steps; a++) {
    const sl_op *o = p->plan.steps[a].node->op;
    bool first = true;
    for (int b = 0; b < a && first; b++) first = p->plan.steps[b].node->op != o;
    if (!first || seen++ != i) continue;
    *out = (sl_op_cost){.op = o->name};
    for (int b = a; b < p->plan.n_steps; b++)
      if (p->plan.steps[b].node->op == o) add_cost(p, &p->plan.steps[b], out);
    return true;
  }
  return false;
}
