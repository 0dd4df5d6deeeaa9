/* Convolutions on GPUs: cuDNN where it has a deterministic engine, own kernels elsewhere. Images and filters are kept
 * in f32; for bf16 products what is multiplied is rounded into the workspace first, filters by channels last, as the
 * engines want them. */
#include "gpu/dnn.h"
#include "ops/conv_kernels_cuda.h"
#include "ops/conv_result_cuda.h"
#include "ops/elementwise.h"
#include "ops/kernels.h"
#include "ops/reduce.h"

enum { IMAGE, FILTER, OUTPUT, PARTS };
enum { ALIGN = 256 };

typedef struct conv_plan {
  sl_conv c;
  sl_dnn_conv d;
  sl_dnn_plan *dnn;         /* NULL: own kernels */
  bool copied[PARTS];       /* the library works on a copy in the workspace */
  size_t at[PARTS], own_at; /* places there; the library's own comes last */
  size_t bytes;
} conv_plan;

static bool is_empty(const sl_conv *c) {
  return c->N * c->C * c->H * c->W * c->K * c->OH * c->OW * c->window.kernel[0] * c->window.kernel[1] == 0;
}

static int result_of(const sl_conv *c) {
  return c->kind == SL_CONV_FORWARD ? OUTPUT : c->kind == SL_CONV_DATA ? IMAGE : FILTER;
}

static sl_dnn_conv asked(const sl_exec *e, const sl_conv *c) {
  static const sl_dnn_conv_kind kind[] = {[SL_CONV_FORWARD] = SL_DNN_CONV_FORWARD,
                                          [SL_CONV_DATA] = SL_DNN_CONV_DATA,
                                          [SL_CONV_WEIGHTS] = SL_DNN_CONV_WEIGHTS};
  sl_dnn_conv d = {.kind = kind[c->kind],
                   .N = c->N,
                   .C = c->C,
                   .H = c->H,
                   .W = c->W,
                   .K = c->K,
                   .R = c->window.kernel[0],
                   .S = c->window.kernel[1],
                   .OH = c->OH,
                   .OW = c->OW,
                   .groups = c->groups,
                   .last = c->last,
                   .bias = c->kind == SL_CONV_FORWARD && c->bias,
                   .tf32 = e->tf32};
  for (int i = 0; i < 2; i++) d.stride[i] = c->window.stride[i], d.dilation[i] = c->window.dilation[i];
  for (int i = 0; i < 4; i++) d.pad[i] = c->window.pad[i];
  if (c->bf16) d.bf16_in = true, d.filter_last = c->last;
  return d;
}

/* f32 as it stands. bf16 with a bf16 result: those engines are ready made, while those with an f32 result, or with a
 * bias, are compiled when they are planned, in a second each. The bias is added where the result is brought to f32. */
static sl_status plan_dnn(sl_exec *e, const sl_conv *c, conv_plan *p) {
  p->d = asked(e, c);
  if (is_empty(c)) return SL_STATUS_OK;
  if (c->bf16) p->d.bf16_result = true, p->d.bias = false;
  SL_TRY(sl_dnn_conv_plan(e->device->gpu, &p->d, &p->dnn));
  if (p->dnn || !c->bf16) return SL_STATUS_OK;
  p->d = asked(e, c);
  return sl_dnn_conv_plan(e->device->gpu, &p->d, &p->dnn);
}

static int64_t elements(const sl_conv *c, int part) {
  if (part == IMAGE) return c->N * c->C * c->H * c->W;
  if (part == OUTPUT) return c->N * c->K * c->OH * c->OW;
  return c->K * (c->C / c->groups) * c->window.kernel[0] * c->window.kernel[1];
}

static sl_dtype dtype_of(const conv_plan *p, int part) {
  bool bf16 = part == result_of(&p->c) ? p->d.bf16_result : p->d.bf16_in;
  return bf16 ? SL_BF16 : SL_F32;
}

static void place_copies(conv_plan *p) {
  size_t at = 0;
  for (int part = 0; part < PARTS; part++) {
    bool other_order = part == FILTER && p->d.filter_last;
    p->copied[part] = dtype_of(p, part) == SL_BF16 || other_order;
    p->at[part] = at;
    if (p->copied[part])
      at += ((size_t)elements(&p->c, part) * sl_dtype_size(dtype_of(p, part)) + ALIGN - 1) / ALIGN * ALIGN;
  }
  p->own_at = at;
  p->bytes = at + sl_dnn_workspace(p->dnn);
}

sl_status sl_cuda_conv_plan(sl_exec *e, const sl_conv *c, void **plan) {
  conv_plan *p = sl_alloc_zero(e->ctx, sizeof *p);
  *plan = p;
  if (!p) return SL_STATUS_OOM;
  p->c = *c;
  sl_status s = plan_dnn(e, c, p);
  if (s == SL_STATUS_OK) {
    if (p->dnn) place_copies(p);
    return SL_STATUS_OK;
  }
  sl_free(e->ctx, p);
  *plan = NULL;
  return s;
}

sl_status sl_cuda_conv_workspace(sl_exec *e, const sl_conv *c, size_t *bytes) {
  void *plan = NULL;
  SL_TRY(sl_cuda_conv_plan(e, c, &plan));
  *bytes = ((conv_plan *)plan)->bytes;
  return sl_cuda_conv_release(e, plan);
}

sl_status sl_cuda_conv_release(sl_exec *e, void *plan) {
  conv_plan *p = plan;
  if (p) sl_dnn_release(p->dnn);
  sl_free(e->ctx, p);
  return SL_STATUS_OK;
}

/* --- running --- */

/* [A, B, rows, columns] by order: B last or second. */
static sl_view view_of(void *data, sl_dtype dtype, bool last, int64_t a, int64_t b, int64_t rows, int64_t columns) {
  sl_view v = {.data = data, .dtype = dtype, .shape = SL_SHAPE(a, b, rows, columns)};
  int64_t plane[] = {b * rows * columns, rows * columns, columns, 1}, pixel[] = {rows * columns * b, 1, columns * b, b};
  for (int i = 0; i < 4; i++) v.stride[i] = last ? pixel[i] : plane[i];
  return v;
}

static sl_view part_view(const conv_plan *p, int part, void *data, sl_dtype dtype, bool library) {
  const sl_conv *c = &p->c;
  if (part == IMAGE) return view_of(data, dtype, c->last, c->N, c->C, c->H, c->W);
  if (part == OUTPUT) return view_of(data, dtype, c->last, c->N, c->K, c->OH, c->OW);
  return view_of(data, dtype, library && p->d.filter_last, c->K, c->C / c->groups, c->window.kernel[0],
                 c->window.kernel[1]);
}

/* The gradient of the bias: the output's sums over all but channels. */
static sl_status bias_gradient(sl_exec *e, const sl_conv *c, void *bias, void *output) {
  sl_view y = {.data = bias, .dtype = SL_F32, .shape = SL_SHAPE(1, c->K, 1, 1), .stride = {c->K, 1, 1, 1}};
  sl_view x = view_of(output, SL_F32, c->last, c->N, c->K, c->OH, c->OW);
  if (!c->last) return e->kernels->reduce(e, SL_REDUCE_SUM, &y, &x);
  y.shape = SL_SHAPE(c->K);
  x = (sl_view){.data = output, .dtype = SL_F32, .shape = SL_SHAPE(c->N * c->OH * c->OW, c->K), .stride = {c->K, 1}};
  y.stride[0] = 1;
  return e->kernels->column_sum(e, &y, &x, c->N * c->OH * c->OW, c->K, c->K);
}

/* The library's result in f32, where it is wanted; of a forward convolution with the bias (NULL: added, or none). */
static sl_status bring_result(sl_exec *e, const conv_plan *p, void *to, void *from, void *bias) {
  const sl_conv *c = &p->c;
  int result = result_of(c);
  sl_view y = part_view(p, result, to, SL_F32, false), x = part_view(p, result, from, dtype_of(p, result), true);
  if (result == OUTPUT && c->last && dtype_of(p, result) == SL_BF16)
    return sl_gpu_conv_result(e->stream, to, from, bias, c->N * c->OH * c->OW, c->K);
  SL_TRY(e->kernels->copy(e, &y, &x));
  if (result != OUTPUT || !bias) return SL_STATUS_OK;
  sl_view b = {.data = bias, .dtype = SL_F32, .shape = y.shape, .stride = {0, 1, 0, 0}};
  return e->kernels->binary(e, SL_BINARY_add, &y, &y, &b);
}

static sl_status run_dnn(sl_exec *e, const conv_plan *p, void *const *given, void *bias, char *workspace) {
  void *part[PARTS];
  int result = result_of(&p->c);
  for (int i = 0; i < PARTS; i++) {
    part[i] = p->copied[i] ? workspace + p->at[i] : given[i];
    if (!p->copied[i] || i == result) continue;
    sl_view to = part_view(p, i, part[i], dtype_of(p, i), true), from = part_view(p, i, given[i], SL_F32, false);
    SL_TRY(e->kernels->copy(e, &to, &from));
  }
  SL_TRY(
      sl_dnn_conv_run(p->dnn, part[IMAGE], part[FILTER], p->d.bias ? bias : NULL, part[OUTPUT], workspace + p->own_at));
  return p->copied[result] ? bring_result(e, p, given[result], part[result], p->d.bias ? NULL : bias) : SL_STATUS_OK;
}

sl_status sl_cuda_conv(sl_exec *e, void *plan, void *image, void *filter, void *bias, void *output, void *workspace) {
  const conv_plan *p = plan;
  void *given[] = {image, filter, output};
  bool sums = p->c.kind == SL_CONV_WEIGHTS && bias;
  if (!p->dnn || !given[result_of(&p->c)] || !sl_dnn_conv_fits(image, filter, p->d.bias ? bias : NULL, output))
    return sl_gpu_conv(e->stream, &p->c, image, filter, bias, output);
  SL_TRY(run_dnn(e, p, given, bias, workspace));
  return sums ? bias_gradient(e, &p->c, bias, output) : SL_STATUS_OK;
}
