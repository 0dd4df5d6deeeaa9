#include "nn/layers.h"

sl_value *sl_nn_linear(sl_builder *b, const char *name, sl_value *x, int64_t out, sl_act act, sl_init init) {
  if (!x) return NULL;
  sl_scope_push(b->g, "%s", name);
  sl_value *w = sl_builder_param(b, "weight", &SL_SHAPE(out, x->shape.dim[x->shape.rank - 1]), init);
  sl_value *bias = sl_builder_param(b, "bias", &SL_SHAPE(out), (sl_init){.kind = SL_INIT_ZERO});
  sl_scope_pop(b->g);
  return sl_name(sl_linear(sl_cast(x, b->compute), sl_cast(w, b->compute), bias, act), "%s", name);
}

sl_value *sl_nn_embedding(sl_builder *b, const char *name, sl_value *index, int64_t rows, int64_t width, sl_init init) {
  sl_scope_push(b->g, "%s", name);
  sl_value *table = sl_builder_param(b, "weight", &SL_SHAPE(rows, width), init);
  sl_scope_pop(b->g);
  return sl_name(sl_gather(table, index), "%s", name);
}

sl_value *sl_nn_timestep(sl_builder *b, const char *name, sl_value *t, int64_t frequencies, int64_t width) {
  sl_init init = {.kind = SL_INIT_NORMAL, .a = 0.02f};
  sl_value *freq = sl_name(sl_timestep_embedding(t, frequencies), "t_freq");
  sl_scope_push(b->g, "%s.mlp", name);
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
