/* Convolutions by oneDNN. Images and filters are brought into the layout that its kernel asks for and back, in the
 * workspace. */
#include <dnnl.h>
#include <string.h>

#include "base/parallel.h"
#include "ops/conv.h"
#include "ops/dnnl_cpu.h"
#include "ops/kernels.h"

/* One tensor of the convolution: f32 as it lies, and as the kernel wants it. */
typedef struct operand {
  dnnl_memory_desc_t plain, wanted;
  bool result;
  dnnl_primitive_desc_t reorder_desc;
  dnnl_primitive_t reorder; /* NULL: wanted as it lies */
  dnnl_memory_t lying, brought;
  size_t offset; /* of the brought copy in the workspace */
} operand;

enum { IMAGE, FILTER, BIAS, OUTPUT, OPERANDS };

typedef struct plan {
  dnnl_engine_t engine;
  dnnl_stream_t stream;
  dnnl_primitive_desc_t hint, desc;
  dnnl_primitive_t run;
  dnnl_memory_t scratch;
  size_t scratch_offset, bytes;
  operand operand[OPERANDS];
  bool bias, bf16;
} plan;

static sl_status check(dnnl_status_t s, const char *what) {
  if (s == dnnl_success) return SL_STATUS_OK;
  if (s == dnnl_out_of_memory) return sl_fail(SL_STATUS_OOM, "oneDNN: out of memory (%s)", what);
  return sl_fail(s == dnnl_unimplemented ? SL_STATUS_UNSUPPORTED : SL_STATUS_INTERNAL,
                 "oneDNN: %s failed with status %d", what, (int)s);
}
#define TRY_DNNL(call) SL_TRY(check((call), #call))

static size_t align64(size_t n) { return (n + 63) / 64 * 64; }

/* --- descriptions --- */

/* The result comes in f32; what is multiplied, and in a hint everything, in bf16 if the plan is so. */
static dnnl_data_type_t type_of(const plan *p, const operand *o) {
  return p->bf16 && !o->result && o != &p->operand[BIAS] ? dnnl_bf16 : dnnl_f32;
}

static sl_status want(plan *p, const sl_conv *c) {
  operand *o = p->operand;
  for (int k = 0; k < OPERANDS; k++) {
    o[k].wanted = o[k].plain;
    if (k == BIAS) continue;
    /* channels last is left as it lies: a reorder costs more than it brings */
    dnnl_format_tag_t tag = k != FILTER && c->last ? dnnl_nhwc : dnnl_format_tag_any;
    TRY_DNNL(dnnl_memory_desc_init_by_tag(&o[k].wanted, o[k].plain.ndims, o[k].plain.dims, type_of(p, &o[k]), tag));
  }
  return SL_STATUS_OK;
}

static sl_status describe(plan *p, const sl_conv *c) {
  dnnl_dims_t x = {c->N, c->C, c->H, c->W}, y = {c->N, c->K, c->OH, c->OW}, b = {c->K};
  dnnl_dims_t w = {c->K, c->C / c->groups, c->window.kernel[0], c->window.kernel[1]};
  dnnl_dims_t gw = {c->groups, c->K / c->groups, c->C / c->groups, c->window.kernel[0], c->window.kernel[1]};
  bool grouped = c->groups > 1;
  operand *o = p->operand;
  SL_TRY(sl_dnnl_check_sizes("a convolution", 4, x));
  SL_TRY(sl_dnnl_check_sizes("a convolution", 4, y));
  TRY_DNNL(dnnl_memory_desc_init_by_tag(&o[IMAGE].plain, 4, x, dnnl_f32, c->last ? dnnl_nhwc : dnnl_nchw));
  TRY_DNNL(dnnl_memory_desc_init_by_tag(&o[FILTER].plain, grouped ? 5 : 4, grouped ? gw : w, dnnl_f32,
                                        grouped ? dnnl_goihw : dnnl_oihw));
  TRY_DNNL(dnnl_memory_desc_init_by_tag(&o[BIAS].plain, 1, b, dnnl_f32, dnnl_a));
  TRY_DNNL(dnnl_memory_desc_init_by_tag(&o[OUTPUT].plain, 4, y, dnnl_f32, c->last ? dnnl_nhwc : dnnl_nchw));
  o[IMAGE].result = c->kind == SL_CONV_DATA;
  o[FILTER].result = o[BIAS].result = c->kind == SL_CONV_WEIGHTS;
  o[OUTPUT].result = c->kind == SL_CONV_FORWARD;
  p->bias = c->bias;
  return want(p, c);
}

typedef struct geometry {
  dnnl_dims_t stride, dilation, before, after;
} geometry;

static geometry geometry_of(const sl_window *w) {
  return (geometry){{w->stride[0], w->stride[1]},
                    {w->dilation[0] - 1, w->dilation[1] - 1},
                    {w->pad[0], w->pad[2]},
                    {w->pad[1], w->pad[3]}};
}

static sl_status make_desc(plan *p, const sl_conv *c, dnnl_primitive_attr_t attr) {
  geometry g = geometry_of(&c->window);
  const operand *o = p->operand;
  const dnnl_memory_desc_t *bias = p->bias ? &o[BIAS].plain : NULL;
  dnnl_memory_desc_t forward[OPERANDS]; /* a gradient's hint is the convolution itself, which may not mix types so */
  for (int k = 0; k < OPERANDS; k++) {
    forward[k] = o[k].wanted;
    if (p->bf16 && c->kind != SL_CONV_FORWARD && k != BIAS) forward[k].data_type = dnnl_bf16;
  }
  dnnl_convolution_desc_t d;
  dnnl_prop_kind_t prop = c->kind == SL_CONV_FORWARD ? dnnl_forward_inference : dnnl_forward_training;
  TRY_DNNL(dnnl_dilated_convolution_forward_desc_init(&d, prop, dnnl_convolution_direct, &forward[IMAGE],
                                                      &forward[FILTER], c->kind == SL_CONV_DATA ? NULL : bias,
                                                      &forward[OUTPUT], g.stride, g.dilation, g.before, g.after));
  if (c->kind == SL_CONV_FORWARD)
    return check(dnnl_primitive_desc_create(&p->desc, &d, attr, p->engine, NULL), "convolution");
  TRY_DNNL(dnnl_primitive_desc_create(&p->hint, &d, NULL, p->engine, NULL));
  if (c->kind == SL_CONV_DATA) {
    TRY_DNNL(dnnl_dilated_convolution_backward_data_desc_init(&d, dnnl_convolution_direct, &o[IMAGE].wanted,
                                                              &o[FILTER].wanted, &o[OUTPUT].wanted, g.stride,
                                                              g.dilation, g.before, g.after));
  } else {
    TRY_DNNL(dnnl_dilated_convolution_backward_weights_desc_init(&d, dnnl_convolution_direct, &o[IMAGE].wanted,
                                                                 &o[FILTER].wanted, bias, &o[OUTPUT].wanted, g.stride,
                                                                 g.dilation, g.before, g.after));
  }
  return check(dnnl_primitive_desc_create(&p->desc, &d, attr, p->engine, p->hint), "convolution's gradient");
}

/* What the chosen kernel wants each operand to be. */
static void ask_layouts(plan *p, sl_conv_kind kind) {
  operand *o = p->operand;
  dnnl_query_t image = kind == SL_CONV_DATA ? dnnl_query_diff_src_md : dnnl_query_src_md;
  dnnl_query_t filter = kind == SL_CONV_WEIGHTS ? dnnl_query_diff_weights_md : dnnl_query_weights_md;
  dnnl_query_t output = kind == SL_CONV_FORWARD ? dnnl_query_dst_md : dnnl_query_diff_dst_md;
  o[IMAGE].wanted = *dnnl_primitive_desc_query_md(p->desc, image, 0);
  o[FILTER].wanted = *dnnl_primitive_desc_query_md(p->desc, filter, 0);
  o[OUTPUT].wanted = *dnnl_primitive_desc_query_md(p->desc, output, 0);
}

static sl_status make_reorder(plan *p, operand *o) {
  TRY_DNNL(dnnl_memory_create(&o->lying, &o->plain, p->engine, DNNL_MEMORY_NONE));
  if (dnnl_memory_desc_equal(&o->plain, &o->wanted)) return SL_STATUS_OK;
  const dnnl_memory_desc_t *from = o->result ? &o->wanted : &o->plain, *to = o->result ? &o->plain : &o->wanted;
  TRY_DNNL(dnnl_reorder_primitive_desc_create(&o->reorder_desc, from, p->engine, to, p->engine, NULL));
  TRY_DNNL(dnnl_primitive_create(&o->reorder, o->reorder_desc));
  TRY_DNNL(dnnl_memory_create(&o->brought, &o->wanted, p->engine, DNNL_MEMORY_NONE));
  o->offset = p->bytes;
  p->bytes += align64(dnnl_memory_desc_get_size(&o->wanted));
  return SL_STATUS_OK;
}

static sl_status fill(sl_context *ctx, plan *p, const sl_conv *c) {
  TRY_DNNL(dnnl_engine_create(&p->engine, dnnl_cpu, 0));
  TRY_DNNL(dnnl_stream_create(&p->stream, p->engine, dnnl_stream_default_flags));
  p->bf16 = c->bf16 && sl_dnnl_has_bf16(ctx);
  SL_TRY(describe(p, c));
  dnnl_primitive_attr_t attr = NULL;
  TRY_DNNL(dnnl_primitive_attr_create(&attr));
  sl_status s = check(dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user), "scratchpad mode");
  if (s == SL_STATUS_OK) s = make_desc(p, c, attr);
  dnnl_primitive_attr_destroy(attr);
  SL_TRY(s);
  TRY_DNNL(dnnl_primitive_create(&p->run, p->desc));
  ask_layouts(p, c->kind);
  for (int k = 0; k < OPERANDS; k++)
    if (k != BIAS || p->bias) SL_TRY(make_reorder(p, &p->operand[k]));
  const dnnl_memory_desc_t *scratch = dnnl_primitive_desc_query_md(p->desc, dnnl_query_scratchpad_md, 0);
  TRY_DNNL(dnnl_memory_create(&p->scratch, scratch, p->engine, DNNL_MEMORY_NONE));
  p->scratch_offset = p->bytes;
  p->bytes += align64(dnnl_memory_desc_get_size(scratch));
  return SL_STATUS_OK;
}

static void plan_free(sl_context *ctx, plan *p) {
  if (!p) return;
  for (int k = 0; k < OPERANDS; k++) {
    operand *o = &p->operand[k];
    if (o->reorder) dnnl_primitive_destroy(o->reorder);
    if (o->reorder_desc) dnnl_primitive_desc_destroy(o->reorder_desc);
    if (o->lying) dnnl_memory_destroy(o->lying);
    if (o->brought) dnnl_memory_destroy(o->brought);
  }
  if (p->scratch) dnnl_memory_destroy(p->scratch);
  if (p->run) dnnl_primitive_destroy(p->run);
  if (p->desc) dnnl_primitive_desc_destroy(p->desc);
  if (p->hint) dnnl_primitive_desc_destroy(p->hint);
  if (p->stream) dnnl_stream_destroy(p->stream);
  if (p->engine) dnnl_engine_destroy(p->engine);
  sl_free(ctx, p);
}

static sl_status plan_new(sl_context *ctx, const sl_conv *c, plan **out) {
  *out = sl_alloc_zero(ctx, sizeof **out);
  if (!*out) return SL_STATUS_OOM;
  sl_parallel_enter(ctx);
  sl_status s = fill(ctx, *out, c);
  if (s == SL_STATUS_OK) return s;
  plan_free(ctx, *out);
  *out = NULL;
  return s;
}

static bool is_empty(const sl_conv *c) { return c->N == 0 || c->C == 0 || c->K == 0; }

/* --- kernels --- */

sl_status sl_cpu_conv_workspace(sl_exec *e, const sl_conv *c, size_t *bytes) {
  plan *p = NULL;
  *bytes = 0;
  if (is_empty(c)) return SL_STATUS_OK;
  SL_TRY(plan_new(e->ctx, c, &p));
  *bytes = p->bytes;
  plan_free(e->ctx, p);
  return SL_STATUS_OK;
}

sl_status sl_cpu_conv_plan(sl_exec *e, const sl_conv *c, void **out) {
  *out = NULL;
  return is_empty(c) ? SL_STATUS_OK : plan_new(e->ctx, c, (plan **)out);
}

sl_status sl_cpu_conv_release(sl_exec *e, void *p) {
  plan_free(e->ctx, p);
  return SL_STATUS_OK;
}

static sl_status move(plan *p, operand *o) {
  dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, o->result ? o->brought : o->lying},
                            {DNNL_ARG_TO, o->result ? o->lying : o->brought}};
  return check(dnnl_primitive_execute(o->reorder, p->stream, 2, args), "reorder");
}

/* Where each operand stands among the primitive's arguments. */
static int argument(const plan *p, int k) {
  static const int plain[] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_BIAS, DNNL_ARG_DST};
  static const int diff[] = {DNNL_ARG_DIFF_SRC, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_BIAS, DNNL_ARG_DIFF_DST};
  bool forward = p->operand[OUTPUT].result;
  return p->operand[k].result ? (forward ? plain[k] : diff[k]) : (k == OUTPUT ? diff[k] : plain[k]);
}

sl_status sl_cpu_conv(sl_exec *e, void *state, void *image, void *filter, void *bias, void *output, void *workspace) {
  (void)e;
  plan *p = state;
  if (!p) return SL_STATUS_OK; /* nothing to convolve */
  void *data[] = {image, filter, bias, output};
  dnnl_exec_arg_t args[OPERANDS + 1];
  int n = 0;
  for (int k = 0; k < OPERANDS; k++) {
    operand *o = &p->operand[k];
    if (!o->lying) continue;
    void *brought = (char *)workspace + o->offset;
    TRY_DNNL(dnnl_memory_set_data_handle(o->lying, data[k]));
    if (o->reorder) TRY_DNNL(dnnl_memory_set_data_handle(o->brought, brought));
    if (o->reorder && !o->result) SL_TRY(move(p, o));
    args[n++] = (dnnl_exec_arg_t){argument(p, k), o->reorder ? o->brought : o->lying};
  }
  TRY_DNNL(dnnl_memory_set_data_handle(p->scratch, (char *)workspace + p->scratch_offset));
  args[n++] = (dnnl_exec_arg_t){DNNL_ARG_SCRATCHPAD, p->scratch};
  TRY_DNNL(dnnl_primitive_execute(p->run, p->stream, n, args));
  for (int k = 0; k < OPERANDS; k++)
    if (p->operand[k].reorder && p->operand[k].result && data[k]) SL_TRY(move(p, &p->operand[k]));
  return SL_STATUS_OK;
}
