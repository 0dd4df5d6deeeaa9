/* Attention on the CPU: heads and blocks of queries in parallel; a result does not depend on the number of threads. */
#define SL_LOOPS sl__attention_base
#include "ops/attention_loops.h"

#include "base/parallel.h"
#include "ops/kernels.h"

static const sl_attention_loops *loops_of(const sl_exec *e) {
  switch (sl_context_isa(e->ctx)) {
#if defined(__x86_64__)
    case SL_ISA_AVX512: return &sl__attention_avx512;
    case SL_ISA_AVX2: return &sl__attention_avx2;
#endif
    default: return &sl__attention_base;
  }
}

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

static const sl_view absent;

static sl_attention_job job_of(const sl_view *q, const sl_view *k, const sl_view *v, const sl_view *mask, double scale,
                               bool causal) {
  const int64_t *d = q->shape.dim;
  return (sl_attention_job){.q = q,
                            .k = k,
                            .v = v,
                            .mask = mask ? mask : &absent,
                            .N = d[0],
                            .Tq = d[1],
                            .H = d[2],
                            .D = d[3],
                            .Tk = k->shape.dim[1],
                            .scale = (float)scale,
                            .causal = causal};
}

sl_status sl_cpu_attention(sl_exec *e, const sl_view *out, const sl_view *lse, const sl_view *q, const sl_view *k,
                           const sl_view *v, const sl_view *mask, double scale, bool causal, int slots,
                           void *workspace) {
  sl_attention_job j = job_of(q, k, v, mask, scale, causal);
  j.out = out ? out : &absent;
  j.lse = lse ? lse : &absent;
  attention_task t = {
      &j,       loops_of(e)->forward, j.N * j.H * sl_attention_blocks(j.Tq), slots, sl_attention_slot(j.Tk, j.D, false),
      workspace};
  sl_parallel_for(e->ctx, slots, 1, run_slots, &t);
  return SL_STATUS_OK;
}

sl_status sl_cpu_attention_backward(sl_exec *e, const sl_view *dq, const sl_view *dk, const sl_view *dv,
                                    const sl_view *dout, const sl_view *q, const sl_view *k, const sl_view *v,
                                    const sl_view *out, const sl_view *lse, const sl_view *mask, double scale,
                                    bool causal, int slots, void *workspace) {
  sl_attention_job j = job_of(q, k, v, mask, scale, causal);
  j.out = out, j.lse = lse, j.dout = dout, j.dq = dq, j.dk = dk, j.dv = dv;
  attention_task t = {&j, loops_of(e)->backward, j.N * j.H, slots, sl_attention_slot(j.Tk, j.D, true), workspace};
  sl_parallel_for(e->ctx, slots, 1, run_slots, &t);
  return SL_STATUS_OK;
}
