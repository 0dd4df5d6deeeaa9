/* cuDNN as the stand-in for a GPU has it: answered by the CPU's kernels. SLUICE_GPU_HOST_LIBRARIES=none: it is missing,
 * and own kernels compute attention and convolutions. */
#include <stdlib.h>
#include <string.h>

#include "base/bf16.h"
#include "gpu/dnn.h"
#include "gpu/gpu_host_control.h"
#include "gpu_host_tf32.h"
#include "ops/attention.h"
#include "ops/conv.h"
#include "ops/kernels.h"

struct sl_dnn_plan {
  sl_context *ctx;
  bool is_attention;
  sl_dnn_attention a;
  sl_dnn_conv c;
};

static bool missing(void) {
  const char *libraries = getenv("SLUICE_GPU_HOST_LIBRARIES");
  return libraries && !strcmp(libraries, "none");
}

static sl_status new_plan(sl_gpu *gpu, sl_dnn_plan **out) {
  *out = sl_alloc_zero(gpu->ctx, sizeof **out);
  if (!*out) return SL_STATUS_OOM;
  (*out)->ctx = gpu->ctx;
  return SL_STATUS_OK;
}

void sl_dnn_release(sl_dnn_plan *plan) {
  if (plan) sl_free(plan->ctx, plan);
}

size_t sl_dnn_workspace(const sl_dnn_plan *plan) { return (void)plan, 256; }
int sl_dnn_version(sl_gpu *gpu) { return (void)gpu, 0; }
void sl_dnn_close(sl_gpu *gpu) { (void)gpu; }

/* --- attention --- */

sl_status sl_dnn_attention_plan(sl_gpu *gpu, const sl_dnn_attention *a, sl_dnn_plan **out) {
  *out = NULL;
  if (missing() || a->D % 8 || a->D < 8) return SL_STATUS_OK;
  SL_TRY(new_plan(gpu, out));
  (*out)->is_attention = true;
  (*out)->a = *a;
  return SL_STATUS_OK;
}

bool sl_dnn_attention_fits(const sl_dnn_attention_data *d) {
  uintptr_t all = 0;
  const void *p[] = {d->q, d->k, d->v, d->o, d->lse, d->dout, d->dq, d->dk, d->dv};
  for (size_t i = 0; i < sizeof p / sizeof *p; i++) all |= (uintptr_t)p[i];
  return all % 16 == 0;
}

typedef struct attention_job {
  const sl_dnn_plan *plan;
  sl_dnn_attention_data d;
} attention_job;

static sl_view heads(void *data, const sl_dnn_attention *a, int64_t tokens, sl_dnn_heads h) {
  return (sl_view){.data = data,
                   .dtype = SL_BF16,
                   .shape = SL_SHAPE(a->N, tokens, a->H, a->D),
                   .stride = {h.sample, h.token, h.head, 1}};
}

static sl_status attend(const attention_job *job) {
  const sl_dnn_attention *a = &job->plan->a;
  const sl_dnn_attention_data *d = &job->d;
  sl_exec e = sl_exec_on(job->plan->ctx, &sl_device_cpu);
  sl_view q = heads(d->q, a, a->Tq, a->q), k = heads(d->k, a, a->Tk, a->k), v = heads(d->v, a, a->Tk, a->v);
  sl_view o = heads(d->o, a, a->Tq, a->o), none = {.dtype = SL_U8},
          lse = {.dtype = SL_F32, .shape = SL_SHAPE(a->N, a->H, a->Tq)};
  sl_view dout = heads(d->dout, a, a->Tq, a->dout), dq = heads(d->dq, a, a->Tq, a->dq),
          dk = heads(d->dk, a, a->Tk, a->dk), dv = heads(d->dv, a, a->Tk, a->dv);
  lse.data = a->backward || a->statistics ? d->lse : NULL;
  sl_shape_strides(&lse.shape, lse.stride);
  sl_attention_job j = {.q = &q,
                        .k = &k,
                        .v = &v,
                        .mask = &none,
                        .out = &o,
                        .lse = &lse,
                        .N = a->N,
                        .H = a->H,
                        .Tq = a->Tq,
                        .Tk = a->Tk,
                        .D = a->D,
                        .scale = (float)a->scale};
  if (a->backward) j.dout = &dout, j.dq = &dq, j.dk = &dk, j.dv = &dv;
  void *plan = NULL;
  size_t bytes = 0;
  SL_TRY(sl_cpu_attention_plan(&e, &j, a->backward, &plan, &bytes));
  void *work = aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
  sl_status s = a->backward ? sl_cpu_attention_backward(&e, plan, &j, work) : sl_cpu_attention(&e, plan, &j, work);
  free(work);
  sl_status released = sl_cpu_attention_release(&e, plan);
  return s == SL_STATUS_OK ? released : s;
}

static sl_status run_attention(void *data) {
  sl_gpu_host_enter();
  sl_status s = attend(data);
  sl_gpu_host_leave();
  return s;
}

sl_status sl_dnn_attention_run(sl_dnn_plan *plan, const sl_dnn_attention_data *d, void *workspace) {
  (void)workspace;
  attention_job j = {plan, *d};
  return sl_gpu_host_do(run_attention, &j, sizeof j);
}

/* --- convolution --- */

sl_status sl_dnn_conv_plan(sl_gpu *gpu, const sl_dnn_conv *c, sl_dnn_plan **out) {
  *out = NULL;
  /* as the library: a bf16 result where channels are not multiples of 8 */
  if (missing() || (c->bf16_in && !c->bf16_result && (c->C % 8 || c->K % 8))) return SL_STATUS_OK;
  SL_TRY(new_plan(gpu, out));
  (*out)->c = *c;
  return SL_STATUS_OK;
}

bool sl_dnn_conv_fits(const void *image, const void *filter, const void *bias, const void *output) {
  return (((uintptr_t)image | (uintptr_t)filter | (uintptr_t)bias | (uintptr_t)output) & 15) == 0;
}

typedef struct conv_job {
  const sl_dnn_plan *plan;
  void *image, *filter, *bias, *output;
} conv_job;

static void round_all(bool wanted, float *x, int64_t n) {
  for (int64_t i = 0; wanted && i < n; i++) x[i] = tf32_of(x[i]);
}

/* A dense f32 copy of a part, which lies in bf16 or f32 and, with last, [A, rows, columns, B]; and back. */
static void bring(float *dense, void *part, bool bf16, bool last, int64_t a, int64_t b, int64_t pixels, bool back) {
  for (int64_t i = 0; i < a; i++)
    for (int64_t j = 0; j < b; j++)
      for (int64_t k = 0; k < pixels; k++) {
        float *x = &dense[(i * b + j) * pixels + k];
        int64_t at = last ? (i * pixels + k) * b + j : (i * b + j) * pixels + k;
        if (back && bf16) ((sl_bf16 *)part)[at] = sl_bf16_from_f32(*x);
        else if (back) ((float *)part)[at] = *x;
        else *x = bf16 ? sl_bf16_to_f32(((sl_bf16 *)part)[at]) : ((float *)part)[at];
      }
}

static sl_status convolve(const conv_job *j) {
  const sl_dnn_conv *d = &j->plan->c;
  sl_exec e = sl_exec_on(j->plan->ctx, &sl_device_cpu);
  sl_conv c = {.kind = (sl_conv_kind)d->kind,
               .N = d->N,
               .C = d->C,
               .H = d->H,
               .W = d->W,
               .K = d->K,
               .OH = d->OH,
               .OW = d->OW,
               .groups = d->groups,
               .bias = d->bias};
  c.window.kernel[0] = d->R, c.window.kernel[1] = d->S;
  for (int i = 0; i < 2; i++) c.window.stride[i] = d->stride[i], c.window.dilation[i] = d->dilation[i];
  for (int i = 0; i < 4; i++) c.window.pad[i] = d->pad[i];
  int64_t in = d->N * d->C * d->H * d->W, w = d->K * d->C / d->groups * d->R * d->S, out = d->N * d->K * d->OH * d->OW;
  float *x = aligned_alloc(64, (size_t)(in + 16) * 4 / 64 * 64 + 64),
        *f = aligned_alloc(64, (size_t)(w + 16) * 4 / 64 * 64 + 64),
        *y = aligned_alloc(64, (size_t)(out + 16) * 4 / 64 * 64 + 64);
  bool image_out = d->kind == SL_DNN_CONV_DATA, filter_out = d->kind == SL_DNN_CONV_WEIGHTS,
       output_out = d->kind == SL_DNN_CONV_FORWARD;
  if (!image_out) bring(x, j->image, d->bf16_in, d->last, d->N, d->C, d->H * d->W, false);
  if (!filter_out) bring(f, j->filter, d->bf16_in, d->filter_last, d->K, d->C / d->groups, d->R * d->S, false);
  if (!output_out) bring(y, j->output, d->bf16_in, d->last, d->N, d->K, d->OH * d->OW, false);
  bool tf32 = d->tf32 && !d->bf16_in;
  round_all(tf32 && !image_out, x, in), round_all(tf32 && !filter_out, f, w), round_all(tf32 && !output_out, y, out);
  void *plan = NULL;
  size_t bytes = 0;
  sl_status s = sl_cpu_conv_plan(&e, &c, &plan);
  if (s == SL_STATUS_OK) s = sl_cpu_conv_workspace(&e, &c, &bytes);
  void *work = aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
  if (s == SL_STATUS_OK) s = sl_cpu_conv(&e, plan, x, f, d->bias ? j->bias : NULL, y, work);
  if (image_out) bring(x, j->image, d->bf16_result, d->last, d->N, d->C, d->H * d->W, true);
  if (filter_out) bring(f, j->filter, d->bf16_result, d->filter_last, d->K, d->C / d->groups, d->R * d->S, true);
  if (output_out) bring(y, j->output, d->bf16_result, d->last, d->N, d->K, d->OH * d->OW, true);
  free(x), free(f), free(y), free(work);
  sl_status released = sl_cpu_conv_release(&e, plan);
  return s == SL_STATUS_OK ? released : s;
}

static sl_status run_conv(void *data) {
  sl_gpu_host_enter();
  sl_status s = convolve(data);
  sl_gpu_host_leave();
  return s;
}

sl_status sl_dnn_conv_run(sl_dnn_plan *plan, void *image, void *filter, void *bias, void *output, void *workspace) {
  (void)workspace;
  conv_job j = {plan, image, filter, bias, output};
  return sl_gpu_host_do(run_conv, &j, sizeof j);
}
