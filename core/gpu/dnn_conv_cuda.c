/* Convolutions by cuDNN: one operation, and for a bias a sum that an engine must fuse with it. */
#include <string.h>

#include "gpu/dnn_graph_cuda.h"

enum { IMAGE = 1, FILTER, OUTPUT, BIAS };

static const cudnnDataType_t f32 = CUDNN_DATA_FLOAT, bf16 = CUDNN_DATA_BFLOAT16;

static cudnnDataType_t type_of(bool is_bf16) { return is_bf16 ? bf16 : f32; }

/* [a,b,c,d] dense, or with b innermost. */
static sl_dnn_shape four(int64_t a, int64_t b, int64_t c, int64_t d, bool last) {
  sl_dnn_shape s = {{a, b, c, d}, {b * c * d, c * d, d, 1}};
  if (last) s.stride[1] = 1, s.stride[2] = d * b, s.stride[3] = b;
  return s;
}

static sl_dnn_desc window(sl_dnn_graph *g, const sl_dnn_conv *c) {
  const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
  const int64_t two = 2, before[] = {c->pad[0], c->pad[2]}, after[] = {c->pad[1], c->pad[3]};
  sl_dnn_desc d = sl__dnn_make(g, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  sl__dnn_set(g, d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &f32);
  sl__dnn_set(g, d, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
  sl__dnn_set(g, d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &two);
  sl__dnn_set(g, d, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, c->dilation);
  sl__dnn_set(g, d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, c->stride);
  sl__dnn_set(g, d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, before);
  sl__dnn_set(g, d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, after);
  sl__dnn_seal(g, d, "a window");
  return d;
}

typedef struct names {
  cudnnBackendDescriptorType_t operation;
  cudnnBackendAttributeName_t image, filter, output, window, alpha, beta;
} names;

#define NAMES(operation, part, image, filter, output)                                                                  \
  {                                                                                                                    \
    CUDNN_BACKEND_OPERATION_CONVOLUTION_##operation##_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_##part##_##image,   \
        CUDNN_ATTR_OPERATION_CONVOLUTION_##part##_##filter, CUDNN_ATTR_OPERATION_CONVOLUTION_##part##_##output,        \
        CUDNN_ATTR_OPERATION_CONVOLUTION_##part##_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_##part##_ALPHA,          \
        CUDNN_ATTR_OPERATION_CONVOLUTION_##part##_BETA                                                                 \
  }
static const names names_of[] = {
    [SL_DNN_CONV_FORWARD] = NAMES(FORWARD, FORWARD, X, W, Y),
    [SL_DNN_CONV_DATA] = NAMES(BACKWARD_DATA, BWD_DATA, DX, W, DY),
    [SL_DNN_CONV_WEIGHTS] = NAMES(BACKWARD_FILTER, BWD_FILTER, X, DW, DY),
};

/* What an engine writes, by kind. */
static int64_t result_of(const sl_dnn_conv *c) {
  static const int64_t uid[] = {
      [SL_DNN_CONV_FORWARD] = OUTPUT, [SL_DNN_CONV_DATA] = IMAGE, [SL_DNN_CONV_WEIGHTS] = FILTER};
  return uid[c->kind];
}

/* A tensor of the convolution itself: its result is virtual if another operation follows. */
static sl_dnn_desc operand(sl_dnn_graph *g, const sl_dnn_conv *c, int64_t uid, sl_dnn_shape s, bool followed) {
  const bool result = uid == result_of(c);
  if (result && followed) return sl__dnn_tensor(g, SL_DNN_VIRTUAL, f32, s);
  return sl__dnn_tensor(g, uid, type_of(result ? c->bf16_result : c->bf16_in), s);
}

static void build(sl_dnn_graph *g, const sl_dnn_recipe *r) {
  const sl_dnn_conv *c = &r->of.conv;
  const names *n = &names_of[c->kind];
  const float one = 1.0f, zero = 0.0f;
  const bool bias = c->bias && c->kind == SL_DNN_CONV_FORWARD;
  const bool widened = c->bf16_in && !c->bf16_result && c->kind != SL_DNN_CONV_FORWARD;
  const sl_dnn_shape shape[] = {[IMAGE] = four(c->N, c->C, c->H, c->W, c->last),
                                [FILTER] = four(c->K, c->C / c->groups, c->R, c->S, c->filter_last),
                                [OUTPUT] = four(c->N, c->K, c->OH, c->OW, c->last)};
  sl_dnn_desc t[4];
  for (int64_t uid = IMAGE; uid <= OUTPUT; uid++) t[uid] = operand(g, c, uid, shape[uid], bias || widened);
  sl_dnn_desc op = sl__dnn_make(g, n->operation);
  sl__dnn_link(g, op, n->image, t[IMAGE]);
  sl__dnn_link(g, op, n->filter, t[FILTER]);
  sl__dnn_link(g, op, n->output, t[OUTPUT]);
  sl__dnn_link(g, op, n->window, window(g, c));
  sl__dnn_set(g, op, n->alpha, CUDNN_TYPE_FLOAT, 1, &one);
  sl__dnn_set(g, op, n->beta, CUDNN_TYPE_FLOAT, 1, &zero);
  sl__dnn_add(g, op, "a convolution");
  if (!bias && !widened) return;
  const int64_t result = result_of(c);
  sl_dnn_desc end = sl__dnn_tensor(g, result, type_of(c->bf16_result), shape[result]);
  sl_dnn_desc b = bias ? sl__dnn_tensor(g, BIAS, f32, four(1, c->K, 1, 1, c->last)) : NULL;
  sl__dnn_pointwise(g, bias ? CUDNN_POINTWISE_ADD : CUDNN_POINTWISE_IDENTITY, t[result], b, end);
}

static bool served(const sl_dnn_conv *c) {
  return c->N > 0 && c->C > 0 && c->K > 0 && c->OH > 0 && c->OW > 0 && c->R > 0 && c->S > 0 && c->groups > 0;
}

static sl_dnn_recipe recipe(const sl_dnn_conv *c) {
  const bool bias = c->bias && c->kind == SL_DNN_CONV_FORWARD, strict = !c->bf16_in && !c->tf32;
  sl_dnn_recipe r = {.build = build, .of.conv = *c, .n_tensors = bias ? BIAS : OUTPUT, .strict = strict};
  const int64_t key[] = {SL_DNN_CONV,  c->kind,        c->N,           c->C,           c->H,      c->W,
                         c->K,         c->R,           c->S,           c->OH,          c->OW,     c->groups,
                         c->stride[0], c->pad[0],      c->pad[1],      c->pad[2],      c->pad[3], c->stride[1],
                         c->last,      c->filter_last, c->dilation[0], c->dilation[1], bias,      strict,
                         c->bf16_in,   c->bf16_result};
  _Static_assert(sizeof key <= sizeof r.key, "a convolution's key");
  memcpy(r.key, key, sizeof key);
  r.n_key = (int)(sizeof key / sizeof *key);
  return r;
}

sl_status sl_dnn_conv_plan(sl_gpu *gpu, const sl_dnn_conv *c, sl_dnn_plan **out) {
  *out = NULL;
  if (!served(c)) return SL_STATUS_OK;
  sl_dnn_recipe r = recipe(c);
  return sl__dnn_plan(gpu, &r, out);
}

bool sl_dnn_conv_fits(const void *image, const void *filter, const void *bias, const void *output) {
  return ((uintptr_t)image | (uintptr_t)filter | (uintptr_t)bias | (uintptr_t)output) % 16 == 0;
}

sl_status sl_dnn_conv_run(sl_dnn_plan *plan, void *image, void *filter, void *bias, void *output, void *workspace) {
  void *data[] = {image, filter, output, bias}; /* by uid */
  return sl__dnn_run(plan, data, workspace);
}

sl_status sl_dnn_check_conv(sl_context *ctx, const char *device_json, const sl_dnn_conv *c, sl_dnn_report *out) {
  sl_dnn_recipe r = recipe(c);
  return sl__dnn_check(ctx, device_json, &r, out);
}
