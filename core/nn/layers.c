#include "nn/layers.h"

#include <math.h>

#define NORM_GROUPS 32
#define NORM_EPS 1e-5

static sl_value *bias_param(sl_builder *b, int64_t out, int64_t fan_in, sl_init of_weight) {
  sl_init init = {.kind = SL_INIT_ZERO};
  if (of_weight.kind == SL_INIT_FAN_IN_UNIFORM)
    init = (sl_init){.kind = SL_INIT_UNIFORM, .a = 1.0f / sqrtf((float)fan_in)};
  return sl_builder_param(b, "bias", &SL_SHAPE(out), init);
}

sl_value *sl_nn_linear(sl_builder *b, const char *name, sl_value *x, int64_t out, sl_act act, sl_init init) {
  if (!x) return NULL;
  sl_scope_push(b->g, "%s", name);
  int64_t in = x->shape.dim[x->shape.rank - 1];
  sl_value *w = sl_builder_param(b, "weight", &SL_SHAPE(out, in), init), *bias = bias_param(b, out, in, init);
  sl_scope_pop(b->g);
  return sl_name(sl_linear(sl_cast(x, b->compute), sl_cast(w, b->compute), bias, act), "%s", name);
}

sl_value *sl_nn_embedding(sl_builder *b, const char *name, sl_value *index, int64_t rows, int64_t width, sl_init init) {
  sl_scope_push(b->g, "%s", name);
  sl_value *table = sl_builder_param(b, "weight", &SL_SHAPE(rows, width), init);
  sl_scope_pop(b->g);
  return sl_name(sl_gather(table, index), "%s", name);
}

sl_value *sl_nn_timestep(sl_builder *b, const char *name, sl_value *t, int64_t frequencies, int64_t width,
                         sl_init init) {
  sl_value *freq = sl_name(sl_timestep_embedding(t, frequencies), "t_freq");
  sl_scope_push(b->g, "%s", name);
  sl_value *h = sl_nn_linear(b, "0", freq, width, SL_ACT_SILU, init);
  sl_value *out = sl_nn_linear(b, "2", h, width, SL_ACT_NONE, init);
  sl_scope_pop(b->g);
  return out;
}

sl_value *sl_nn_patch_embed(sl_builder *b, const char *name, sl_value *x, int64_t p, int64_t width) {
  if (!x) return NULL;
  int64_t n = x->shape.dim[0], c = x->shape.dim[1], gh = x->shape.dim[2] / p, gw = x->shape.dim[3] / p;
  sl_scope_push(b->g, "%s.proj", name);
  sl_value *w = sl_builder_param(b, "weight", &SL_SHAPE(width, c, p, p), (sl_init){.kind = SL_INIT_XAVIER_UNIFORM});
  sl_value *bias = sl_builder_param(b, "bias", &SL_SHAPE(width), (sl_init){.kind = SL_INIT_ZERO});
  sl_scope_pop(b->g);
  sl_value *cut = SL_PERMUTE(SL_RESHAPE(x, n, c, gh, p, gw, p), 0, 2, 4, 1, 3, 5); /* [N, gh, gw, C, p, p] */
  sl_value *rows = SL_RESHAPE(cut, n, gh * gw, c * p * p);
  w = sl_cast(SL_RESHAPE(w, width, c * p * p), b->compute);
  return sl_name(sl_linear(sl_cast(rows, b->compute), w, bias, SL_ACT_NONE), "%s.proj", name);
}

sl_value *sl_nn_self_attention(sl_builder *b, const char *name, sl_value *x, int heads) {
  if (!x) return NULL;
  int64_t n = x->shape.dim[0], t = x->shape.dim[1], d = x->shape.dim[2];
  sl_init init = {.kind = SL_INIT_XAVIER_UNIFORM};
  sl_scope_push(b->g, "%s", name);
  sl_value *qkv = sl_nn_linear(b, "qkv", x, 3 * d, SL_ACT_NONE, init);
  sl_value *o = sl_name(sl_attention_qkv(SL_RESHAPE(qkv, n, t, 3, heads, d / heads), 0.0), "softmax");
  sl_value *out = sl_nn_linear(b, "proj", SL_RESHAPE(o, n, t, d), d, SL_ACT_NONE, init);
  sl_scope_pop(b->g);
  return out;
}

sl_value *sl_nn_conv2d(sl_builder *b, const char *name, sl_value *x, int64_t out, int64_t side, int64_t stride,
                       sl_init init) {
  if (!x) return NULL;
  int64_t in = x->shape.dim[1], pad = side / 2;
  sl_scope_push(b->g, "%s", name);
  sl_value *w = sl_builder_param(b, "weight", &SL_SHAPE(out, in, side, side), init);
  sl_value *bias = bias_param(b, out, in * side * side, init);
  sl_scope_pop(b->g);
  sl_window window = {.stride = {stride, stride}, .dilation = {1, 1}, .pad = {pad, pad, pad, pad}};
  return sl_name(sl_conv2d(x, w, bias, &window, 1, b->compute), "%s", name);
}

sl_value *sl_nn_pointwise(sl_builder *b, const char *name, sl_value *x, int64_t out, sl_init init) {
  if (!x) return NULL;
  int64_t in = x->shape.dim[2];
  sl_scope_push(b->g, "%s", name);
  sl_value *w = sl_builder_param(b, "weight", &SL_SHAPE(out, in, 1), init), *bias = bias_param(b, out, in, init);
  sl_scope_pop(b->g);
  return sl_name(sl_linear(sl_cast(x, b->compute), sl_cast(SL_RESHAPE(w, out, in), b->compute), bias, SL_ACT_NONE),
                 "%s", name);
}

sl_value *sl_nn_group_norm(sl_builder *b, const char *name, sl_value *x, sl_value *scale, sl_value *shift, sl_act act,
                           sl_value *mask) {
  if (!x) return NULL;
  sl_scope_push(b->g, "%s", name);
  sl_group_norm_parts p = {.scale = scale, .shift = shift, .mask = mask};
  p.w = sl_builder_param(b, "weight", &SL_SHAPE(x->shape.dim[1]), (sl_init){.kind = SL_INIT_ONE});
  p.b = sl_builder_param(b, "bias", &SL_SHAPE(x->shape.dim[1]), (sl_init){.kind = SL_INIT_ZERO});
  sl_scope_pop(b->g);
  return sl_name(sl_group_norm(x, &p, NORM_GROUPS, NORM_EPS, act), "%s", name);
}

sl_value *sl_nn_dropout(sl_builder *b, sl_value *x, double p, int64_t site) {
  return b->training && p > 0 ? sl_dropout(x, p, site) : x;
}
