#include "model/dit.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "nn/layers.h"

#define T_FREQUENCIES 256
#define LN_EPS 1e-6

static const struct {
  const char *name;
  int64_t hidden, depth, heads;
} sizes[] = {{"S", 384, 12, 6}, {"B", 768, 12, 12}, {"L", 1024, 24, 16}, {"XL", 1152, 28, 16}};

sl_dit_config sl_dit_defaults(void) {
  return (sl_dit_config){
      .mlp_ratio = 4, .classes = 1000, .class_dropout = 0.1, .learn_sigma = true, .options.timesteps = 1000};
}

sl_status sl_dit_preset(const char *name, sl_dit_config *c) {
  char size[8];
  int patch = 0, end = 0;
  if (sscanf(name, "DiT-%7[A-Z]/%d%n", size, &patch, &end) == 2 && name[end] == 0 &&
      (patch == 2 || patch == 4 || patch == 8))
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
      if (strcmp(size, sizes[i].name)) continue;
      c->patch = patch;
      c->hidden = sizes[i].hidden;
      c->depth = sizes[i].depth;
      c->heads = sizes[i].heads;
      return SL_STATUS_OK;
    }
  return sl_fail(SL_STATUS_ARG,
                 "dit: there is no \"%s\"; the names are DiT-S, DiT-B, DiT-L and DiT-XL with /2, /4 or /8", name);
}

/* --- position embedding: meshgrid(w, h), so the column comes first. Source: DiT models.py, get_2d_sincos_pos_embed ---
 */

static void put_sincos(double position, int64_t quarter, float *out) {
  for (int64_t k = 0; k < quarter; k++) {
    double w = pow(10000.0, -(double)k / (double)quarter);
    out[k] = (float)sin(position * w);
    out[quarter + k] = (float)cos(position * w);
  }
}

static void fill_pos_embed(const void *user, const sl_shape *shape, float *out) {
  const sl_dit_config *c = user;
  int64_t gw = c->width / c->patch, d = c->hidden;
  for (int64_t token = 0; token < shape->dim[1]; token++) {
    put_sincos((double)(token % gw), d / 4, out + token * d);
    put_sincos((double)(token / gw), d / 4, out + token * d + d / 2);
  }
}

/* --- forward --- */

static sl_value *block(sl_model *m, sl_builder *b, int64_t i, sl_value *z, sl_value *c, sl_value *t) {
  const sl_dit_config *k = m->config;
  sl_value *mask = sl_model_mask(m, b, (int)i, t);
  sl_init zero = {.kind = SL_INIT_ZERO}, xavier = {.kind = SL_INIT_XAVIER_UNIFORM};
  if (b->recompute) sl_segment_begin(b->g);
  sl_value *mod = sl_chunk(sl_nn_linear(b, "adaLN_modulation.1", c, 6 * k->hidden, SL_ACT_NONE, zero), 6, -1);
  sl_value *shift1 = sl_output(mod, 0), *scale1 = sl_output(mod, 1), *gate1 = sl_output(mod, 2);
  sl_value *shift2 = sl_output(mod, 3), *scale2 = sl_output(mod, 4), *gate2 = sl_output(mod, 5);
  sl_value *h = sl_name(sl_adaln(z, shift1, scale1, mask, LN_EPS), "norm1");
  h = sl_nn_self_attention(b, "attn", h, (int)k->heads);
  sl_value *r = sl_name(sl_gated_residual(z, h, gate1, mask, NULL), "residual1");
  h = sl_name(sl_adaln(r, shift2, scale2, NULL, LN_EPS), "norm2");
  h = sl_nn_linear(b, "mlp.fc1", h, (int64_t)((double)k->hidden * k->mlp_ratio), SL_ACT_GELU, xavier);
  h = sl_nn_linear(b, "mlp.fc2", h, k->hidden, SL_ACT_NONE, xavier);
  r = sl_gated_residual(r, h, gate2, mask, mask ? z : NULL);
  if (b->recompute) sl_segment_end(b->g);
  return r;
}

static sl_value *final_layer(const sl_dit_config *k, sl_builder *b, sl_value *z, sl_value *c, int64_t out_channels) {
  sl_init zero = {.kind = SL_INIT_ZERO};
  sl_scope_push(b->g, "final_layer");
  sl_value *mod = sl_chunk(sl_nn_linear(b, "adaLN_modulation.1", c, 2 * k->hidden, SL_ACT_NONE, zero), 2, -1);
  sl_value *h = sl_name(sl_adaln(z, sl_output(mod, 0), sl_output(mod, 1), NULL, LN_EPS), "norm_final");
  h = sl_nn_linear(b, "linear", h, k->patch * k->patch * out_channels, SL_ACT_NONE, zero);
  sl_scope_pop(b->g);
  return h;
}

static sl_value *dit_forward(sl_model *m, sl_builder *b, sl_value *x, sl_value *t, sl_value *y) {
  const sl_dit_config *k = m->config;
  int64_t gh = k->height / k->patch, gw = k->width / k->patch, p = k->patch, co = m->info.out_channels;
  if (!x) return NULL;
  int64_t n = x->shape.dim[0];
  sl_value *z = sl_nn_patch_embed(b, "x_embedder", x, p, k->hidden);
  sl_init pos = {.kind = SL_INIT_FIXED, .fill = fill_pos_embed, .user = k};
  z = sl_add(z, sl_builder_param(b, "pos_embed", &SL_SHAPE(1, gh * gw, k->hidden), pos));
  z = sl_name(b->residual == SL_F32 ? z : sl_cast(z, b->residual), "tokens");
  sl_init normal = {.kind = SL_INIT_NORMAL, .a = 0.02f};
  sl_value *c = sl_nn_timestep(b, "t_embedder.mlp", t, T_FREQUENCIES, k->hidden, normal);
  int64_t rows = k->classes + (m->info.null_class ? 1 : 0);
  c = sl_name(sl_add(c, sl_nn_embedding(b, "y_embedder.embedding_table", y, rows, k->hidden, normal)), "c");
  sl_value *act = sl_silu(c);
  for (int64_t i = 0; i < k->depth; i++) {
    sl_scope_push(b->g, "blocks.%d", (int)i);
    z = block(m, b, i, z, act, t);
    sl_scope_pop(b->g);
    sl_model_name_block(z, "blocks.%d", (int)i);
  }
  sl_value *o = final_layer(k, b, z, act, co);
  o = SL_PERMUTE(SL_RESHAPE(o, n, gh, gw, p, p, co), 0, 5, 1, 3, 2, 4); /* [N, C, gh, p, gw, p] */
  return sl_name(SL_RESHAPE(o, n, co, gh * p, gw * p), "out");
}

static void dit_free(sl_model *m) { sl_free(m->ctx, m->config); }

static const sl_model_kind dit_kind = {.name = "dit",
                                       .forward = dit_forward,
                                       .free = dit_free,
                                       .t_embed = "t_embedder.mlp.2",
                                       .landmarks = "c, tokens, blocks.0"};

/* --- construction --- */

static sl_status check_config(const sl_dit_config *c) {
  SL_REQUIRE(c->channels > 0 && c->height > 0 && c->width > 0, ARG,
             "dit: input is {%lld,%lld,%lld}, expected {C,H,W}, all positive", (long long)c->channels,
             (long long)c->height, (long long)c->width);
  SL_REQUIRE(c->patch > 0 && c->height % c->patch == 0 && c->width % c->patch == 0, ARG,
             "dit: patch is %lld, expected a divisor of the input's height %lld and width %lld", (long long)c->patch,
             (long long)c->height, (long long)c->width);
  SL_REQUIRE(c->hidden > 0 && c->hidden % 4 == 0, ARG,
             "dit: hidden is %lld, expected a positive multiple of 4 (the position embedding)", (long long)c->hidden);
  SL_REQUIRE(c->heads > 0 && c->hidden % c->heads == 0, ARG, "dit: heads is %lld, expected a divisor of hidden %lld",
             (long long)c->heads, (long long)c->hidden);
  SL_REQUIRE(c->depth > 0, ARG, "dit: depth is %lld, expected at least 1", (long long)c->depth);
  SL_REQUIRE(c->mlp_ratio > 0 && (int64_t)((double)c->hidden * c->mlp_ratio) > 0, ARG,
             "dit: mlp_ratio is %g, expected more than 0", c->mlp_ratio);
  SL_REQUIRE(c->classes > 0, ARG, "dit: classes is %lld, expected at least 1 (1: unconditional)",
             (long long)c->classes);
  SL_REQUIRE(c->class_dropout >= 0 && c->class_dropout < 1, ARG, "dit: class_dropout is %g, expected 0 … below 1",
             c->class_dropout);
  return SL_STATUS_OK;
}

sl_status sl_dit_new(sl_context *ctx, const sl_dit_config *config, sl_routing *routing, sl_model **out) {
  *out = NULL;
  SL_TRY(check_config(config));
  sl_dit_config *c = sl_alloc(ctx, sizeof *c);
  int64_t *channels = sl_alloc(ctx, (size_t)config->depth * sizeof *channels);
  if (!c || !channels) {
    sl_free(ctx, c);
    sl_free(ctx, channels);
    return SL_STATUS_OOM;
  }
  *c = *config;
  for (int64_t i = 0; i < c->depth; i++) channels[i] = c->hidden;
  bool one = c->classes == 1;
  if (one) c->class_dropout = 0;
  sl_model_info info = {
      .in_channels = c->channels,
      .out_channels = c->channels * (c->learn_sigma ? 2 : 1),
      .height = c->height,
      .width = c->width,
      .classes = c->classes,
      .null_class = c->class_dropout > 0,
      .one_class = one,
      .class_dropout = c->class_dropout,
      .learn_sigma = c->learn_sigma,
      .routed_blocks = (int)c->depth,
  };
  sl_status s = sl_model_create(ctx, &dit_kind, c, &info, &config->options, routing, channels, out);
  sl_free(ctx, channels);
  return s;
}

const sl_dit_config *sl_dit_config_of(const sl_model *m) { return m->kind == &dit_kind ? m->config : NULL; }
