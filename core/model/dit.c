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
  SL_REQUIRE(name, ARG, "dit: the preset's name is NULL");
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

/* What a model keeps. */
typedef struct dit {
  sl_dit_config config; /* first */
  sl_dit_block block;   /* build NULL: DiT's own */
} dit;

typedef struct pass {
  sl_model *m;
  sl_builder *b;
  const sl_dit_config *k;
  sl_value *t, *act; /* [N]; SiLU of the condition c [N, hidden] */
} pass;

/* What a block, or the final layer, makes of the condition: parts of hidden channels each, shift and scale of its first
 * norm before the others; and its mask. */
typedef struct layer {
  sl_value *mod, *mask;
  const char *norm; /* the first norm's name */
} layer;

static void push_layer(const pass *p, int64_t i) {
  if (i < p->k->depth) sl_scope_push(p->b->g, "blocks.%d", (int)i);
  else sl_scope_push(p->b->g, "final_layer");
}

/* Begins layer i, the final one after the last block. */
static layer open_layer(const pass *p, int64_t i) {
  const sl_dit_config *k = p->k;
  bool last = i == k->depth;
  int parts = last ? 2 : 6;
  sl_init zero = {.kind = SL_INIT_ZERO};
  layer l = {.mask = last ? NULL : sl_model_mask(p->m, p->b, (int)i, p->t), .norm = last ? "norm_final" : "norm1"};
  if (p->b->recompute && !last) sl_segment_begin(p->b->g);
  push_layer(p, i);
  l.mod = sl_nn_linear(p->b, "adaLN_modulation.1", p->act, parts * k->hidden, SL_ACT_NONE, zero);
  l.mod = sl_chunk(l.mod, parts, -1);
  sl_scope_pop(p->b->g);
  return l;
}

/* The norm that came with a residual, named in the scope of now: output 1 has no name of its own, a view of it has. */
static sl_value *name_norm(sl_value *r, const char *name) {
  sl_value *h = sl_output(r, 1);
  if (h) (void)sl_name(sl_reshape(h, h->shape.rank, h->shape.dim), "%s", name);
  return h;
}

/* Block i from the stream z and its first norm h up to what is left to add; *r: the stream in between. */
static sl_value *branches(const pass *p, const layer *l, sl_value *z, sl_value *h, sl_value **r) {
  const sl_dit_config *k = p->k;
  sl_init xavier = {.kind = SL_INIT_XAVIER_UNIFORM};
  h = sl_nn_self_attention(p->b, "attn", h, (int)k->heads);
  sl_residual_adaln_parts mid = {
      .gate = sl_output(l->mod, 2), .mask = l->mask, .shift = sl_output(l->mod, 3), .scale = sl_output(l->mod, 4)};
  *r = sl_name(sl_residual_adaln(z, h, &mid, LN_EPS), "residual1");
  h = name_norm(*r, "norm2");
  h = sl_nn_linear(p->b, "mlp.fc1", h, (int64_t)((double)k->hidden * k->mlp_ratio), SL_ACT_GELU, xavier);
  return sl_nn_linear(p->b, "mlp.fc2", h, k->hidden, SL_ACT_NONE, xavier);
}

static sl_value *first_norm(const pass *p, int64_t i, const layer *l, sl_value *z) {
  push_layer(p, i);
  sl_value *h = sl_name(sl_adaln(z, sl_output(l->mod, 0), sl_output(l->mod, 1), l->mask, LN_EPS), "%s", l->norm);
  sl_scope_pop(p->b->g);
  return h;
}

/* Ends block i, *l, and begins the next layer, which *l becomes: returns the stream, *h its first norm in that layer. A
 * segment ends with the stream alone: the norm would be one more value to keep. */
static sl_value *go_on(const pass *p, int64_t i, layer *l, sl_value *z, sl_value *r, sl_value *y, sl_value **h) {
  sl_value *gate = sl_output(l->mod, 5), *mask = l->mask, *skip = mask ? z : NULL;
  if (p->b->recompute) {
    z = sl_model_name_block(sl_gated_residual(r, y, gate, mask, skip), "blocks.%d", (int)i);
    sl_segment_end(p->b->g);
    *l = open_layer(p, i + 1);
    *h = first_norm(p, i + 1, l, z);
    return z;
  }
  *l = open_layer(p, i + 1);
  sl_residual_adaln_parts end = {.gate = gate,
                                 .mask = mask,
                                 .skip = skip,
                                 .shift = sl_output(l->mod, 0),
                                 .scale = sl_output(l->mod, 1),
                                 .next_mask = l->mask};
  z = sl_model_name_block(sl_residual_adaln(r, y, &end, LN_EPS), "blocks.%d", (int)i);
  push_layer(p, i + 1);
  *h = name_norm(z, l->norm);
  sl_scope_pop(p->b->g);
  return z;
}

/* --- blocks of the host's own --- */

/* (1-m) z + block(m z), source: DTR's block. */
static sl_value *own_block(const pass *p, int64_t i, sl_value *z, sl_value *c) {
  if (!z) return NULL;
  sl_graph *g = p->b->g;
  sl_value *mask = sl_model_mask(p->m, p->b, (int)i, p->t), *in = z;
  if (p->b->recompute) sl_segment_begin(g);
  if (mask) in = sl_mul(z, sl_cast(SL_RESHAPE(mask, mask->shape.dim[0], 1, mask->shape.dim[1]), z->dtype));
  push_layer(p, i);
  const sl_dit_block *block = &((const dit *)p->m->config)->block;
  sl_value *y = block->build(block->user, p->b, in, c, (int)i);
  sl_scope_pop(g);
  if (y && !sl_shape_equal(&y->shape, &z->shape))
    y = sl_graph_fail(g, sl_fail(SL_STATUS_SHAPE, "dit: block %lld gives %s, expected %s, as its z", (long long)i + 1,
                                 sl_value_text(y), sl_shape_text(&z->shape)));
  y = sl_cast(y, z->dtype);
  z = sl_model_name_block(mask ? sl_add(sl_sub(z, in), y) : y, "blocks.%d", (int)i);
  if (p->b->recompute) sl_segment_end(g);
  return z;
}

/* A number of images that is no other size of the model, so that what fits only by chance is refused at once. */
static int64_t trial(const sl_model *m) {
  const dit *d = m->config;
  const sl_dit_config *c = &d->config;
  if (!d->block.build) return 1;
  static const int64_t numbers[] = {2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37}; /* more than there are sizes */
  int64_t rows = c->height / c->patch, columns = c->width / c->patch;
  const int64_t taken[] = {rows * columns, rows,     columns,     c->hidden, c->heads, c->hidden / c->heads,
                           c->depth,       c->patch, c->channels, c->height, c->width};
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    bool free_number = true;
    for (size_t k = 0; k < sizeof taken / sizeof *taken; k++) free_number &= numbers[i] != taken[k];
    if (free_number) return numbers[i];
  }
  return 1;
}

/* The final layer's first norm of what they make of z. */
static sl_value *own_blocks(const pass *p, sl_value *z, sl_value *c) {
  for (int64_t i = 0; i < p->k->depth; i++) z = own_block(p, i, z, c);
  layer last = open_layer(p, p->k->depth);
  return first_norm(p, p->k->depth, &last, z);
}

/* --- all of it --- */

/* The final layer's first norm of what DiT's blocks make of z. */
static sl_value *dit_blocks(const pass *p, sl_value *z) {
  layer l = open_layer(p, 0);
  sl_value *h = first_norm(p, 0, &l, z), *r = NULL;
  for (int64_t i = 0; i < p->k->depth; i++) {
    push_layer(p, i);
    sl_value *y = branches(p, &l, z, h, &r);
    sl_scope_pop(p->b->g);
    z = go_on(p, i, &l, z, r, y, &h);
  }
  return h;
}

/* All blocks, and the final layer on the stream z: [N, tokens, patch * patch * out_channels]. */
static sl_value *blocks(const pass *p, sl_value *z, sl_value *c, int64_t out_channels) {
  const sl_dit_config *k = p->k;
  sl_init zero = {.kind = SL_INIT_ZERO};
  sl_value *h = ((const dit *)p->m->config)->block.build ? own_blocks(p, z, c) : dit_blocks(p, z);
  push_layer(p, k->depth);
  h = sl_nn_linear(p->b, "linear", h, k->patch * k->patch * out_channels, SL_ACT_NONE, zero);
  sl_scope_pop(p->b->g);
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
  sl_value *o = blocks(&(pass){.m = m, .b = b, .k = k, .t = t, .act = sl_silu(c)}, z, c, co);
  o = SL_PERMUTE(SL_RESHAPE(o, n, gh, gw, p, p, co), 0, 5, 1, 3, 2, 4); /* [N, C, gh, p, gw, p] */
  return sl_name(SL_RESHAPE(o, n, co, gh * p, gw * p), "out");
}

static void release_block(const sl_dit_block *block) {
  if (block->release) block->release(block->user);
}

static void dit_free(sl_model *m) {
  release_block(&((dit *)m->config)->block);
  sl_free(m->ctx, m->config);
}

/* --- what checkpoints keep --- */

#define FIELD(name, type)                                                                                              \
  { #name, SL_FIELD_##type, offsetof(dit, config.name), false, 0, 0, NULL }
static const sl_field fields[] = {
    {"input", SL_FIELD_INTEGER, offsetof(dit, config.channels), false, 3, 0, NULL}, /* and height and width */
    FIELD(patch, INTEGER),
    FIELD(hidden, INTEGER),
    FIELD(depth, INTEGER),
    FIELD(heads, INTEGER),
    FIELD(mlp_ratio, NUMBER),
    FIELD(classes, INTEGER),
    FIELD(class_dropout, NUMBER),
    FIELD(learn_sigma, BOOLEAN),
    {"block", SL_FIELD_TEXT, offsetof(dit, block.name), true, 0, sizeof((dit *)0)->block.name, NULL},
    {0},
};

static void defaults(void *config) { *(dit *)config = (dit){.config = sl_dit_defaults()}; }

static sl_status make(sl_context *ctx, const void *config, sl_routing *routing, sl_model **out) {
  const dit *d = config;
  SL_REQUIRE(!d->block.name[0], UNSUPPORTED,
             "its blocks are Lua functions (\"%s\"), and Lua in a file is run only when the file is named: "
             "sluice.load(path, { "
             "recipe = FILE }), on the command line --recipe FILE; a run keeps its recipe as recipe.lua",
             d->block.name);
  return sl_dit_new(ctx, &d->config, routing, out);
}

const sl_model_kind sl_model_dit = {.name = "dit",
                                    .forward = dit_forward,
                                    .free = dit_free,
                                    .trial = trial,
                                    .t_embed = "t_embedder.mlp.2",
                                    .landmarks = "c, tokens, blocks.0",
                                    .fields = fields,
                                    .config_bytes = sizeof(dit),
                                    .options = offsetof(dit, config.options),
                                    .defaults = defaults,
                                    .make = make};

/* --- construction --- */

/* Far beyond what anybody trains; below them no product of sizes overflows. */
#define MAX_WIDTH (1 << 20)
enum { MAX_DEPTH = 10000 };

static bool is_size(int64_t n) { return n > 0 && n <= MAX_WIDTH; }

static sl_status check_config(const sl_dit_config *c) {
  SL_REQUIRE(is_size(c->channels) && is_size(c->height) && is_size(c->width), ARG,
             "dit: input is {%lld,%lld,%lld}, expected {C,H,W}, all positive and at most %d", (long long)c->channels,
             (long long)c->height, (long long)c->width, MAX_WIDTH);
  SL_REQUIRE(c->patch > 0 && c->height % c->patch == 0 && c->width % c->patch == 0, ARG,
             "dit: patch is %lld, expected a divisor of the input's height %lld and width %lld", (long long)c->patch,
             (long long)c->height, (long long)c->width);
  SL_REQUIRE(is_size(c->hidden) && c->hidden % 4 == 0, ARG,
             "dit: hidden is %lld, expected a positive multiple of 4 (the position embedding), at most %d",
             (long long)c->hidden, MAX_WIDTH);
  SL_REQUIRE(c->heads > 0 && c->hidden % c->heads == 0, ARG, "dit: heads is %lld, expected a divisor of hidden %lld",
             (long long)c->heads, (long long)c->hidden);
  SL_REQUIRE(c->depth > 0 && c->depth <= MAX_DEPTH, ARG, "dit: depth is %lld, expected 1 to %d", (long long)c->depth,
             MAX_DEPTH);
  double mlp = (double)c->hidden * c->mlp_ratio;
  SL_REQUIRE(mlp >= 1 && mlp <= INT32_MAX, ARG, "dit: mlp_ratio is %g, expected more than 0 (%g channels of %lld)",
             c->mlp_ratio, mlp, (long long)c->hidden);
  SL_REQUIRE(c->classes > 0, ARG, "dit: classes is %lld, expected at least 1 (1: unconditional)",
             (long long)c->classes);
  SL_REQUIRE(c->class_dropout >= 0 && c->class_dropout < 1, ARG, "dit: class_dropout is %g, expected 0 … below 1",
             c->class_dropout);
  return SL_STATUS_OK;
}

sl_status sl_dit_new_with_block(sl_context *ctx, const sl_dit_config *config, sl_routing *routing,
                                const sl_dit_block *block, sl_model **out) {
  *out = NULL;
  dit *d = NULL;
  int64_t *channels = NULL;
  sl_status status = config ? check_config(config) : sl_fail(SL_STATUS_ARG, "dit: config is NULL");
  if (status == SL_STATUS_OK) {
    d = sl_alloc(ctx, sizeof *d);
    channels = sl_alloc(ctx, (size_t)config->depth * sizeof *channels);
    if (!d || !channels) status = SL_STATUS_OOM;
  }
  if (status != SL_STATUS_OK) {
    if (block) release_block(block);
    sl_free(ctx, d);
    sl_free(ctx, channels);
    return status;
  }
  *d = (dit){.config = *config};
  if (block) d->block = *block;
  sl_dit_config *c = &d->config;
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
  status = sl_model_create(ctx, &sl_model_dit, d, &info, &config->options, routing, channels, out);
  sl_free(ctx, channels);
  return status;
}

sl_status sl_dit_new(sl_context *ctx, const sl_dit_config *config, sl_routing *routing, sl_model **out) {
  return sl_dit_new_with_block(ctx, config, routing, NULL, out);
}

const sl_dit_config *sl_dit_config_of(const sl_model *m) { return m->kind == &sl_model_dit ? m->config : NULL; }
