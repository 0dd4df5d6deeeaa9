/* Attention on GPUs: cuDNN for what it takes (bf16, no mask), own kernels for the rest. */
#include "gpu/dnn.h"
#include "ops/attention_kernels_cuda.h"
#include "ops/kernels.h"

typedef struct attention_plan {
  bool backward;
  sl_dnn_plan *dnn, *dnn_lse; /* forward without and with log-sum-exp; backward is dnn. NULL: own kernels */
} attention_plan;

static bool is_there(const sl_view *v) { return v && v->shape.rank > 0; } /* planned views have no data yet */

static sl_dnn_heads heads_of(const sl_view *v) {
  return v ? (sl_dnn_heads){.sample = v->stride[0], .token = v->stride[1], .head = v->stride[2]}
           : (sl_dnn_heads){0, 0, 0};
}

static bool all_bf16(const sl_attention_job *j) {
  const sl_view *v[] = {j->q, j->k, j->v, j->out, j->dout, j->dq, j->dk, j->dv};
  for (size_t i = 0; i < sizeof v / sizeof *v; i++)
    if (v[i] && v[i]->dtype != SL_BF16) return false;
  return true;
}

static sl_status plan_dnn(sl_exec *e, const sl_attention_job *j, bool backward, bool statistics, sl_dnn_plan **out) {
  *out = NULL;
  if (is_there(j->mask) || j->causal || !all_bf16(j) || j->N * j->H * j->Tq * j->Tk == 0) return SL_STATUS_OK;
  sl_dnn_attention a = {.backward = backward,
                        .statistics = statistics,
                        .N = j->N,
                        .H = j->H,
                        .Tq = j->Tq,
                        .Tk = j->Tk,
                        .D = j->D,
                        .scale = (double)j->scale,
                        .q = heads_of(j->q),
                        .k = heads_of(j->k),
                        .v = heads_of(j->v),
                        .o = heads_of(j->out),
                        .dout = heads_of(j->dout),
                        .dq = heads_of(j->dq),
                        .dk = heads_of(j->dk),
                        .dv = heads_of(j->dv)};
  return sl_dnn_attention_plan(e->device->gpu, &a, out);
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }
static size_t workspace_of(const sl_dnn_plan *p) { return p ? sl_dnn_workspace(p) : 0; }

sl_status sl_cuda_attention_plan(sl_exec *e, const sl_attention_job *j, bool backward, void **plan, size_t *workspace) {
  attention_plan *p = sl_alloc_zero(e->ctx, sizeof *p);
  *plan = p;
  if (!p) return SL_STATUS_OOM;
  p->backward = backward;
  sl_status s = plan_dnn(e, j, backward, false, &p->dnn);
  if (s == SL_STATUS_OK && !backward) s = plan_dnn(e, j, false, true, &p->dnn_lse);
  if (s != SL_STATUS_OK) {
    (void)sl_cuda_attention_release(e, p);
    *plan = NULL;
    return s;
  }
  size_t own = backward ? sl_gpu_attention_backward_workspace(j) : 0;
  *workspace = larger(own, larger(workspace_of(p->dnn), workspace_of(p->dnn_lse)));
  return SL_STATUS_OK;
}

sl_status sl_cuda_attention_release(sl_exec *e, void *plan) {
  attention_plan *p = plan;
  if (p) {
    sl_dnn_release(p->dnn);
    sl_dnn_release(p->dnn_lse);
  }
  sl_free(e->ctx, p);
  return SL_STATUS_OK;
}

static void *data_of(const sl_view *v) { return v ? v->data : NULL; }

static sl_dnn_attention_data data_for(const sl_attention_job *j) {
  return (sl_dnn_attention_data){.q = j->q->data,
                                 .k = j->k->data,
                                 .v = j->v->data,
                                 .o = data_of(j->out),
                                 .lse = data_of(j->lse),
                                 .dout = data_of(j->dout),
                                 .dq = data_of(j->dq),
                                 .dk = data_of(j->dk),
                                 .dv = data_of(j->dv)};
}

sl_status sl_cuda_attention(sl_exec *e, void *plan, const sl_attention_job *j, void *workspace) {
  attention_plan *p = plan;
  sl_dnn_attention_data d = data_for(j);
  sl_dnn_plan *dnn = d.lse ? p->dnn_lse : p->dnn;
  if (dnn && d.o && sl_dnn_attention_fits(&d)) return sl_dnn_attention_run(dnn, &d, workspace);
  return sl_gpu_attention_forward(e->stream, j);
}

sl_status sl_cuda_attention_backward(sl_exec *e, void *plan, const sl_attention_job *j, void *workspace) {
  attention_plan *p = plan;
  sl_dnn_attention_data d = data_for(j);
  if (p->dnn && d.dq && d.dk && d.dv && sl_dnn_attention_fits(&d)) return sl_dnn_attention_run(p->dnn, &d, workspace);
  return sl_gpu_attention_backward(e->stream, j, workspace);
}
