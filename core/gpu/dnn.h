/* cuDNN: attention and convolutions, planned once and run often. The library is looked for at run time; where it is
 * missing, or has no deterministic engine for what is asked, there is no plan and the caller's own kernels serve. */
#ifndef SL_GPU_DNN_H
#define SL_GPU_DNN_H

#include "gpu/gpu_runtime.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sl_dnn_plan sl_dnn_plan;

/* --- attention: softmax(q k^T scale) v in bf16 --- */

/* How far the next sample, token and head are, in elements; along D elements lie side by side. */
typedef struct sl_dnn_heads {
  int64_t sample, token, head;
} sl_dnn_heads;

/* q, o, dout, dq [N,Tq,H,D], k, v, dk, dv [N,Tk,H,D]. Served: D from 32 to 128, on Hopper to 256, and every stride a
 * multiple of 8. */
typedef struct sl_dnn_attention {
  bool backward;   /* dq, dk, dv of q, k, v, o, lse and dout */
  bool statistics; /* forward: lse is written */
  int64_t N, H, Tq, Tk, D;
  double scale;
  sl_dnn_heads q, k, v, o;
  sl_dnn_heads dout, dq, dk, dv; /* backward */
} sl_dnn_attention;

/* lse: f32 [N,H,Tq], dense, natural logarithms of the sums of exp(scale q k). No result may lie over an operand. */
typedef struct sl_dnn_attention_data {
  void *q, *k, *v, *o, *lse;
  void *dout, *dq, *dk, *dv;
} sl_dnn_attention_data;

/* Backward's workspace grows as 2 N H Tq Tk bytes: what makes it deterministic. */
SL_MUST_USE sl_status sl_dnn_attention_plan(sl_gpu *gpu, const sl_dnn_attention *a, sl_dnn_plan **out);
bool sl_dnn_attention_fits(const sl_dnn_attention_data *d); /* as sl_dnn_conv_fits */
SL_MUST_USE sl_status sl_dnn_attention_run(sl_dnn_plan *plan, const sl_dnn_attention_data *d, void *workspace);

/* --- convolution, as ops/conv.h has it --- */

typedef enum sl_dnn_conv_kind { SL_DNN_CONV_FORWARD, SL_DNN_CONV_DATA, SL_DNN_CONV_WEIGHTS } sl_dnn_conv_kind;

/* image [N,C,H,W] and output [N,K,OH,OW] lie in planes or, with last, [N,H,W,C]; filter [K, C/groups, R, S] lies as
 * written or, with filter_last, [K, R, S, C/groups]. On an H100, by 9.19:
 *   f32: in any order. Without TF32 the engines work in planes: last costs copies of image and output in the workspace.
 *   bf16 and a bf16 result: in any order; the engines want last and filter_last, and copy what lies otherwise into the
 *     workspace; so they do to channels that are no multiple of 8. Planned in 0.02 s.
 *   bf16 and an f32 result: last, filter_last, and even numbers of channels. Such an engine is compiled when it is
 *     planned: 0.5 s for FORWARD, 1.3 s for gradients. Where there is none, a bf16 result and a copy serve.
 *   bias: added by the engine; in f32 at no cost, in bf16 this engine too is compiled, 0.5 s. */
typedef struct sl_dnn_conv {
  sl_dnn_conv_kind kind; /* output of image and filter; image of output and filter; filter of output and image */
  int64_t N, C, H, W, K, R, S, OH, OW, groups;
  int64_t stride[2], dilation[2], pad[4]; /* rows, columns; top, bottom, left, right */
  bool last, filter_last;
  bool bias;                 /* forward: f32 [K] is added; a gradient of the bias is the caller's */
  bool bf16_in, bf16_result; /* of the two operands, of the result; else f32 */
  bool tf32;                 /* f32 operands may be rounded to TF32 */
} sl_dnn_conv;

SL_MUST_USE sl_status sl_dnn_conv_plan(sl_gpu *gpu, const sl_dnn_conv *c, sl_dnn_plan **out);
bool sl_dnn_conv_fits(const void *image, const void *filter, const void *bias, const void *output);
SL_MUST_USE sl_status sl_dnn_conv_run(sl_dnn_plan *plan, void *image, void *filter, void *bias, void *output,
                                      void *workspace);

/* --- both ---
 * plan: *out NULL with OK: not served. OOM; DEVICE if the library fails where it should not. Equal plans are one, and
 *   are searched for once. An engine is the heuristic's first that is deterministic, sums in f32 and, for f32 without
 *   tf32, rounds no operand.
 * fits: whether addresses are multiples of 16 bytes, NULL among them; if not, they are for the caller's own kernels.
 * run: puts the work into the stream; allocates no device memory; may be captured. ARG: not aligned; DEVICE.
 *   With gpu->tune, the first run of a plan that is not recorded times that many engines which the workspace suffices
 * for, and keeps the fastest, in all plans that are equal: processes may then differ in last bits. */

void sl_dnn_release(sl_dnn_plan *plan);           /* NULL is allowed; before sl_dnn_close */
size_t sl_dnn_workspace(const sl_dnn_plan *plan); /* bytes, aligned to 256, that a run needs */
int sl_dnn_version(sl_gpu *gpu);                  /* 91900 is 9.19.0; 0: no library */
void sl_dnn_close(sl_gpu *gpu);

/* --- without a device: what the library says of one that is described in JSON, as in tests/data/h100.json --- */

enum { SL_DNN_REPORTED = 24 };
typedef struct sl_dnn_report {
  int version;
  int configurations, usable;          /* found; and of these, what a plan may use */
  int engines;                         /* different ones, up to SL_DNN_REPORTED */
  int engine[SL_DNN_REPORTED];         /* the library's number */
  unsigned notes[SL_DNN_REPORTED];     /* bit i: cudnnBackendNumericalNote_t i; 4 is NONDETERMINISTIC */
  unsigned behaviour[SL_DNN_REPORTED]; /* bit i: cudnnBackendBehaviorNote_t i; 0 is RUNTIME_COMPILATION */
  int first;                           /* engine of the first usable configuration; -1: none */
  int64_t workspace;                   /* bytes that it needs; -1: unknown */
  bool finished;                       /* a plan was made of it; not tried if its kernel is compiled at run time */
  char refusal[256];                   /* of the graph or the plan; "" */
} sl_dnn_report;

/* DEVICE: no library, or no such description. */
SL_MUST_USE sl_status sl_dnn_check_attention(sl_context *ctx, const char *device_json, const sl_dnn_attention *a,
                                             sl_dnn_report *out);
SL_MUST_USE sl_status sl_dnn_check_conv(sl_context *ctx, const char *device_json, const sl_dnn_conv *c,
                                        sl_dnn_report *out);

#ifdef __cplusplus
}
#endif

#endif
