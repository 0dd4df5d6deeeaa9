/* Attention on the CPU: heads and blocks of queries in parallel; a result does not depend on the number of threads. */
#define SL_LOOPS sl__attention_base
#include "ops/attention_loops.h"

#include "base/parallel.h"
#include "ops/kernels.h"

typedef struct attention_task {
  const sl_attention_job *job;
  void (*part)(const sl_attention_job *j, int64_t begin, int64_t end, float *workspace);
  int64_t items, slots, slot_floats;
  float *workspace;
} attention_task;

static void run_slots(void *user, int64_t begin, int64_t end, int thread) {
  const attention_task *t = user;
  (void)thread;
  for (int64_t s = begin; s < end; s++)
    t->part(t->job, t->items * s / t->slots, t->items * (s + 1) / t->slots, t->workspace + s * t->slot_floats);
}

/* The plan is the number of slots: parts of the workspace, one for each worker. */
sl_status sl_cpu_attention_plan(sl_exec *e, const sl_attention_job *j, bool backward, void **plan, size_t *workspace) {
  int *slots = sl_alloc(e->ctx, sizeof *slots), threads = sl_context_threads(e->ctx);
  int64_t items = j->N * j->H * (backward ? 1 : sl_attention_blocks(j->Tq));
  *plan = slots;
  if (!slots) return SL_STATUS_OOM;
  *slots = items < 1 ? 1 : items < threads ? (int)items : threads;
  *workspace = (size_t)*slots * (size_t)sl_attention_slot(j->Tk, j->D, backward) * sizeof(float);
  return SL_STATUS_OK;
}

sl_status sl_cpu_attention_release(sl_exec *e, void *plan) {
  sl_free(e->ctx, plan);
  return SL_STATUS_OK;
}

sl_status sl_cpu_attention(sl_exec *e, void *plan, const sl_attention_job *j, void *workspace) {
  int slots = *(int *)plan;
  attention_task t = {j,     SL_LOOPS_OF(e->ctx, sl__attention)->forward, j->N * j->H * sl_attention_blocks(j->Tq),
                      slots, sl_attention_slot(j->Tk, j->D, false),       workspace};
  sl_parallel_for(e->ctx, slots, 1, run_slots, &t);
  return SL_STATUS_OK;
}

sl_status sl_cpu_attention_backward(sl_exec *e, void *plan, const sl_attention_job *j, void *workspace) {
  int slots = *(int *)plan;
  attention_task t = {j,     SL_LOOPS_OF(e->ctx, sl__attention)->backward, j->N * j->H,
                      slots, sl_attention_slot(j->Tk, j->D, true),         workspace};
  sl_parallel_for(e->ctx, slots, 1, run_slots, &t);
  return SL_STATUS_OK;
}
