/* Where a program's time goes, and what its nodes ask of the machine. */
#include <string.h>

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

static int64_t step_bytes(const sl_plan *p, const sl_plan_step *s) {
  int64_t bytes = 0;
  for (int k = 0; k < s->node->n_in; k++) {
    bool seen = s->in_store[k] < 0;
    for (int j = 0; j < k && !seen; j++) seen = s->node->in[j] == s->node->in[k];
    if (!seen) bytes += view_bytes(&s->in[k]);
  }
  for (int k = 0; k < s->node->n_out; k++)
    if (p->stores[s->out_store[k]].kind != STORE_NONE) bytes += (s->out[k].accumulate ? 2 : 1) * view_bytes(&s->out[k]);
  return bytes;
}

/* Whether the node multiplies in bf16: operands of that dtype, or images that are rounded to it (attribute "compute").
 */
static bool multiplies_bf16(const sl_node *n) {
  sl_op_signature s;
  if (n->in[0] && n->in[0]->dtype == SL_BF16) return true;
  sl_op_describe(n->op, &s);
  for (int i = 0; i < s.n_attrs; i++)
    if (!strcmp(s.attr[i].name, "compute")) return n->attrs.i[s.attr[i].slot] == SL_BF16;
  return false;
}

static double limit_of(const sl_node *n, int64_t macs, int64_t bytes, const sl_rates *r) {
  double move = (double)bytes / r->bytes,
         multiply = macs ? 2.0 * (double)macs / (multiplies_bf16(n) ? r->bf16 : r->f32) : 0;
  return move > multiply ? move : multiply;
}

static void add_cost(const sl_plan *p, const sl_plan_step *s, const sl_rates *r, sl_op_cost *c) {
  const sl_op_rules *rules = s->node->op->rules;
  int64_t macs = rules->macs ? rules->macs(s->node) : 0, bytes = step_bytes(p, s);
  c->seconds += s->seconds;
  c->calls += s->calls;
  c->nodes++;
  c->macs += macs;
  c->bytes += bytes;
  if (r) c->limit += limit_of(s->node, macs, bytes, r);
}

/* Op number i, in the order in which they first run. rates NULL: no limit. */
static bool plan_cost(const sl_plan *p, int i, const sl_rates *rates, sl_op_cost *out) {
  int seen = 0;
  for (int a = 0; a < p->n_steps; a++) {
    const sl_op *o = p->steps[a].node->op;
    bool first = true;
    for (int b = 0; b < a && first; b++) first = p->steps[b].node->op != o;
    if (!first || seen++ != i) continue;
    *out = (sl_op_cost){.op = o->name};
    for (int b = a; b < p->n_steps; b++)
      if (p->steps[b].node->op == o) add_cost(p, &p->steps[b], rates, out);
    return true;
  }
  return false;
}

bool sl_program_cost(const sl_program *p, int i, sl_op_cost *out) { return plan_cost(&p->plan, i, NULL, out); }

sl_status sl_graph_costs(sl_graph *g, const sl_rates *rates, void (*each)(void *user, const sl_op_cost *c),
                         void *user) {
  SL_REQUIRE(rates->f32 > 0 && rates->bf16 > 0 && rates->bytes > 0, ARG,
             "rates: %g and %g FLOP/s, %g bytes/s, expected more than 0", rates->f32, rates->bf16, rates->bytes);
  SL_TRY(sl_graph_status(g));
  sl_exec e = sl__exec_of(g);
  sl_plan p;
  sl_op_cost c;
  if (g->device->use) SL_TRY(g->device->use(g->device));
  SL_TRY(sl__plan_make(g, &e, false, &p));
  for (int i = 0; plan_cost(&p, i, rates, &c); i++) each(user, &c);
  sl__plan_clear(&p);
  return SL_STATUS_OK;
}
