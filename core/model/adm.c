#include "model/adm.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "nn/layers.h"

#define GROUPS 32 /* of every norm */
#define MAX_RES_BLOCKS 64
#define MAX_IN_CHANNELS (1 << 20)

/* --- configuration --- */

static const char *const mask_names[] = {
#define X(e, name) name,
    SL_ADM_MASKS(X)
#undef X
        NULL};

const char *sl_adm_mask_name(sl_adm_mask mask) { return mask_names[mask]; }

sl_adm_config sl_adm_defaults(void) {
  return (sl_adm_config){.in_channels = 3, .num_heads = 1, .conv_resample = true, .options.timesteps = 1000};
}

/* Source: guided-diffusion README.md, the flags of the released models; script_util.py, create_model (channel_mult). */
static const struct {
  int64_t image_size, model_channels, num_res_blocks, num_heads, num_head_channels;
  bool new_order;
  double dropout;
  int levels;
  double channel_mult[7];
} presets[] = {
    {64, 192, 3, 1, 64, true, 0.1, 4, {1, 2, 3, 4}},
    {128, 256, 2, 4, 0, false, 0, 5, {1, 1, 2, 3, 4}},
    {256, 256, 2, 1, 64, false, 0, 6, {1, 1, 2, 2, 4, 4}},
    {512, 256, 2, 1, 64, false, 0, 7, {0.5, 1, 1, 2, 2, 4, 4}},
};

sl_status sl_adm_preset(const char *name, sl_adm_config *c) {
  SL_REQUIRE(name, ARG, "adm: the preset's name is NULL");
  for (size_t i = 0; i < sizeof presets / sizeof *presets; i++) {
    char base[32];
    int n = snprintf(base, sizeof base, "ADM-%d", (int)presets[i].image_size);
    bool uncond = !strncmp(name, base, (size_t)n) && !strcmp(name + n, "-uncond");
    if (!uncond && strcmp(name, base)) continue;
    c->image_size = presets[i].image_size;
    c->model_channels = presets[i].model_channels;
    c->num_res_blocks = presets[i].num_res_blocks;
    c->num_heads = presets[i].num_heads;
    c->num_head_channels = presets[i].num_head_channels;
    c->use_new_attention_order = presets[i].new_order;
    c->dropout = presets[i].dropout;
    c->levels = presets[i].levels;
    memcpy(c->channel_mult, presets[i].channel_mult, sizeof presets[i].channel_mult);
    c->attentions = 3;
    memcpy(c->attention_resolutions, (const int64_t[]){32, 16, 8}, 3 * sizeof(int64_t));
    c->use_scale_shift_norm = c->resblock_updown = true;
    c->classes = uncond ? 0 : 1000;
    return SL_STATUS_OK;
  }
  return sl_fail(
      SL_STATUS_ARG,
      "adm: there is no \"%s\"; the names are ADM-64, ADM-128, ADM-256 and ADM-512, with -uncond for no labels", name);
}

static int64_t level_channels(const sl_adm_config *c, int level) {
  return (int64_t)(c->channel_mult[level] * (double)c->model_channels);
}

static sl_status check_levels(const sl_adm_config *c) {
  SL_REQUIRE(c->levels >= 1 && c->levels <= SL_ADM_MAX_LEVELS, ARG,
             "adm: channel_mult has %d entries, expected 1 to %d", c->levels, SL_ADM_MAX_LEVELS);
  int64_t least = (int64_t)1 << (c->levels - 1);
  SL_REQUIRE(c->image_size > 0 && c->image_size % least == 0, ARG,
             "adm: image_size is %lld, expected a multiple of %lld, as channel_mult has %d levels",
             (long long)c->image_size, (long long)least, c->levels);
  for (int i = 0; i < c->levels; i++) {
    double wanted = c->channel_mult[i] * (double)c->model_channels;
    SL_REQUIRE(
        wanted >= GROUPS && wanted < 1 << 24 && level_channels(c, i) % GROUPS == 0, ARG,
        "adm: channel_mult[%d] = %g of model_channels = %lld makes %g channels, expected a multiple of %d (GroupNorm)",
        i + 1, c->channel_mult[i], (long long)c->model_channels, wanted, GROUPS);
  }
  SL_REQUIRE(c->attentions >= 0 && c->attentions <= SL_ADM_MAX_LEVELS, ARG,
             "adm: attention_resolutions has %d entries, expected at most %d", c->attentions, SL_ADM_MAX_LEVELS);
  for (int i = 0; i < c->attentions; i++) {
    bool found = false;
    for (int l = 0; l < c->levels; l++) found |= c->attention_resolutions[i] == c->image_size >> l;
    SL_REQUIRE(found, ARG,
               "adm: attention_resolutions[%d] is %lld, expected one of the levels' sizes, %lld down to %lld by halves",
               i + 1, (long long)c->attention_resolutions[i], (long long)c->image_size,
               (long long)(c->image_size / least));
  }
  return SL_STATUS_OK;
}

static sl_status check_heads(const sl_adm_config *c, int64_t channels) {
  if (c->num_head_channels > 0) {
    SL_REQUIRE(channels % c->num_head_channels == 0, ARG,
               "adm: num_head_channels is %lld, expected a divisor of %lld, the channels of an attention block",
               (long long)c->num_head_channels, (long long)channels);
  } else {
    SL_REQUIRE(c->num_heads > 0 && channels % c->num_heads == 0, ARG,
               "adm: num_heads is %lld, expected a divisor of %lld, the channels of an attention block",
               (long long)c->num_heads, (long long)channels);
  }
  return SL_STATUS_OK;
}

static sl_status check_config(const sl_adm_config *c) {
  SL_REQUIRE(c->out_channels == c->in_channels || c->out_channels == 2 * c->in_channels, ARG,
             "adm: out_channels is %lld, expected %lld, as in_channels, or %lld (learned variance)",
             (long long)c->out_channels, (long long)c->in_channels, (long long)(2 * c->in_channels));
  SL_REQUIRE(c->num_res_blocks >= 1 && c->num_res_blocks <= MAX_RES_BLOCKS, ARG,
             "adm: num_res_blocks is %lld, expected 1 to %d", (long long)c->num_res_blocks, MAX_RES_BLOCKS);
  SL_REQUIRE(c->model_channels >= 2, ARG, "adm: model_channels is %lld, expected at least 2",
             (long long)c->model_channels);
  SL_TRY(check_levels(c));
  SL_REQUIRE(c->num_head_channels >= 0, ARG, "adm: num_head_channels is %lld, expected at least 1, or none",
             (long long)c->num_head_channels);
  SL_REQUIRE((unsigned)c->mask_at < SL_ADM_MASK_COUNT, ARG, "adm: mask_at is %d, which is none of sl_adm_mask",
             (int)c->mask_at);
  SL_REQUIRE(c->dropout >= 0 && c->dropout < 1, ARG, "adm: dropout is %g, expected 0 … below 1", c->dropout);
  SL_REQUIRE(c->classes >= 0, ARG, "adm: classes is %lld, expected at least 1, or none", (long long)c->classes);
  SL_REQUIRE(c->class_dropout >= 0 && c->class_dropout < 1, ARG, "adm: class_dropout is %g, expected 0 … below 1",
             c->class_dropout);
  SL_REQUIRE(c->classes > 0 || c->class_dropout == 0, ARG, "adm: class_dropout is %g, but there are no classes",
             c->class_dropout);
  return SL_STATUS_OK;
}

/* --- the plan: the network's pieces in the order of building, under the reference's numbers --- */

typedef enum piece_kind {
  PIECE_CONV,
  PIECE_RES,
  PIECE_RES_DOWN, /* residual blocks that resample */
  PIECE_RES_UP,
  PIECE_DOWN,
  PIECE_UP,
  PIECE_ATTENTION,
} piece_kind;

typedef enum part { PART_INPUT, PART_MIDDLE, PART_OUTPUT } part;

typedef struct piece {
  piece_kind kind;
  part part;
  int block, index; /* "input_blocks.<block>.<index>"; in the middle, index alone */
  bool last;        /* of its block */
  int64_t in, out;  /* channels */
} piece;

typedef struct adm {
  sl_adm_config config;
  int n, blocks; /* pieces; input blocks */
  piece pieces[];
} adm;

typedef struct planner {
  adm *a;
  part part;
  int block, index;
  int64_t channels; /* of what the last piece gives */
} planner;

static void begin_block(planner *p, part where, int block) {
  p->part = where;
  p->block = block;
  p->index = 0;
}

static void put(planner *p, piece_kind kind, int64_t in, int64_t out) {
  p->a->pieces[p->a->n++] = (piece){kind, p->part, p->block, p->index++, true, in, out};
  if (p->index > 1) p->a->pieces[p->a->n - 2].last = false;
  p->channels = out;
}

static void put_attention(planner *p, int level) {
  const sl_adm_config *c = &p->a->config;
  for (int i = 0; i < c->attentions; i++) {
    if (c->attention_resolutions[i] != c->image_size >> level) continue;
    put(p, PIECE_ATTENTION, p->channels, p->channels);
    return;
  }
}

/* Source: UNetModel.__init__. skip[] takes the channels of each input block. */
static void plan_input(planner *p, int64_t *skip) {
  const sl_adm_config *c = &p->a->config;
  int block = 0;
  begin_block(p, PART_INPUT, block);
  put(p, PIECE_CONV, c->in_channels, level_channels(c, 0));
  skip[block++] = p->channels;
  for (int level = 0; level < c->levels; level++) {
    for (int64_t i = 0; i < c->num_res_blocks; i++) {
      begin_block(p, PART_INPUT, block);
      put(p, PIECE_RES, p->channels, level_channels(c, level));
      put_attention(p, level);
      skip[block++] = p->channels;
    }
    if (level == c->levels - 1) break;
    begin_block(p, PART_INPUT, block);
    put(p, c->resblock_updown ? PIECE_RES_DOWN : PIECE_DOWN, p->channels, p->channels);
    skip[block++] = p->channels;
  }
  p->a->blocks = block;
}

static void plan_output(planner *p, const int64_t *skip) {
  const sl_adm_config *c = &p->a->config;
  int from = p->a->blocks, block = 0;
  for (int level = c->levels; level-- > 0;)
    for (int64_t i = 0; i <= c->num_res_blocks; i++) {
      begin_block(p, PART_OUTPUT, block++);
      put(p, PIECE_RES, p->channels + skip[--from], level_channels(c, level));
      put_attention(p, level);
      if (level > 0 && i == c->num_res_blocks)
        put(p, c->resblock_updown ? PIECE_RES_UP : PIECE_UP, p->channels, p->channels);
    }
}

static sl_status plan_new(sl_context *ctx, const sl_adm_config *c, adm **out) {
  int64_t blocks = (c->num_res_blocks + 1) * c->levels; /* on each side, at most */
  adm *a = sl_alloc(ctx, sizeof *a + (size_t)(5 * blocks + 3) * sizeof *a->pieces);
  int64_t *skip = sl_alloc(ctx, (size_t)(blocks + 1) * sizeof *skip);
  if (!a || !skip) {
    sl_free(ctx, a);
    sl_free(ctx, skip);
    return SL_STATUS_OOM;
  }
  *out = a;
  *a = (adm){.config = *c};
  planner p = {.a = a};
  plan_input(&p, skip);
  begin_block(&p, PART_MIDDLE, 0);
  put(&p, PIECE_RES, p.channels, p.channels);
  put(&p, PIECE_ATTENTION, p.channels, p.channels);
  put(&p, PIECE_RES, p.channels, p.channels);
  plan_output(&p, skip);
  sl_free(ctx, skip);
  return SL_STATUS_OK;
}

static bool is_residual(const piece *q) {
  return q->kind == PIECE_RES || q->kind == PIECE_RES_DOWN || q->kind == PIECE_RES_UP;
}

/* Whether a mask stands after the first norm of a piece, and after its second. */
static bool masks_in(const sl_adm_config *c, const piece *q) {
  return q->kind == PIECE_ATTENTION || (is_residual(q) && c->mask_at != SL_ADM_MASK_OUT_NORM);
}

static bool masks_out(const sl_adm_config *c, const piece *q) {
  return is_residual(q) && (c->mask_at == SL_ADM_MASK_OUT_NORM || c->mask_at == SL_ADM_MASK_BOTH);
}

/* The channels of every routed place, if channels is given; their number. */
static int routed_places(const adm *a, int64_t *channels) {
  int n = 0;
  for (int i = 0; i < a->n; i++) {
    const piece *q = &a->pieces[i];
    if (masks_in(&a->config, q) && ++n && channels) channels[n - 1] = q->in;
    if (masks_out(&a->config, q) && ++n && channels) channels[n - 1] = q->out;
  }
  return n;
}

/* --- forward --- */

typedef struct pass {
  sl_model *m;
  sl_builder *b;
  sl_value *t, *act; /* timesteps; SiLU of the embedding, for every block */
  int place;         /* the next routed one */
  int64_t site;      /* the next dropout */
} pass;

static const sl_init as_torch = {.kind = SL_INIT_FAN_IN_UNIFORM}, zero = {.kind = SL_INIT_ZERO};

static const sl_adm_config *config_of(const sl_model *m) { return &((const adm *)m->config)->config; }

static sl_value *next_mask(pass *p, bool wanted) { return wanted ? sl_model_mask(p->m, p->b, p->place++, p->t) : NULL; }

static sl_value *resample(const piece *q, sl_value *x) {
  return q->kind == PIECE_RES_DOWN ? sl_downsample(x, 2) : q->kind == PIECE_RES_UP ? sl_upsample(x, 2) : x;
}

/* Source: unet.py, ResBlock; the masks: Pseudo Code 2. */
static sl_value *res_block(pass *p, const piece *q, sl_value *x, sl_value *mask_in, sl_value *mask_out) {
  const sl_adm_config *c = config_of(p->m);
  sl_builder *b = p->b;
  sl_value *h = sl_nn_group_norm(b, "in_layers.0", x, NULL, NULL, SL_ACT_SILU, mask_in);
  h = resample(q, h);
  x = resample(q, x);
  h = sl_nn_conv2d(b, "in_layers.2", h, q->out, 3, 1, as_torch);
  int64_t width = c->use_scale_shift_norm ? 2 * q->out : q->out;
  sl_value *e = sl_nn_linear(b, "emb_layers.1", p->act, width, SL_ACT_NONE, as_torch), *scale = NULL, *shift = NULL;
  if (c->use_scale_shift_norm) {
    sl_value *parts = sl_chunk(e, 2, -1);
    scale = sl_output(parts, 0);
    shift = sl_output(parts, 1);
  } else if (e) {
    h = sl_add(h, SL_RESHAPE(e, e->shape.dim[0], width, 1, 1));
  }
  h = sl_nn_group_norm(b, "out_layers.0", h, scale, shift, SL_ACT_SILU, mask_out);
  h = sl_nn_dropout(b, h, c->dropout, p->site++);
  h = sl_nn_conv2d(b, "out_layers.3", h, q->out, 3, 1, zero);
  if (q->in != q->out) x = sl_nn_conv2d(b, "skip_connection", x, q->out, 1, 1, as_torch);
  return sl_add(x, h);
}

/* Source: unet.py, AttentionBlock with QKVAttention (new order) or QKVAttentionLegacy. */
static sl_value *attention_block(pass *p, const piece *q, sl_value *x, sl_value *mask) {
  const sl_adm_config *c = config_of(p->m);
  sl_value *z = sl_nn_group_norm(p->b, "norm", x, NULL, NULL, SL_ACT_NONE, mask);
  if (!z) return NULL;
  int64_t n = z->shape.dim[0], side = z->shape.dim[2], C = q->in;
  int64_t heads = c->num_head_channels > 0 ? C / c->num_head_channels : c->num_heads;
  z = SL_RESHAPE(SL_PERMUTE(z, 0, 2, 3, 1), n, side * side, C);
  sl_value *qkv = sl_nn_pointwise(p->b, "qkv", z, 3 * C, as_torch);
  if (c->use_new_attention_order) {
    qkv = SL_RESHAPE(qkv, n, side * side, 3, heads, C / heads);
  } else {
    qkv = SL_PERMUTE(SL_RESHAPE(qkv, n, side * side, heads, 3, C / heads), 0, 1, 3, 2, 4);
  }
  sl_value *o = sl_name(sl_attention_qkv(qkv, 0.0), "softmax");
  o = sl_nn_pointwise(p->b, "proj_out", SL_RESHAPE(o, n, side * side, C), C, zero);
  o = SL_PERMUTE(SL_RESHAPE(o, n, side, side, C), 0, 3, 1, 2);
  return sl_add(x, x && sl_value_is_dense(x) ? sl_contiguous(o) : o); /* the stream goes on as it lies */
}

static sl_value *build_piece(pass *p, const piece *q, sl_value *x) {
  const sl_adm_config *c = config_of(p->m);
  bool segment = p->b->recompute && (is_residual(q) || q->kind == PIECE_ATTENTION);
  sl_value *mask_in = next_mask(p, masks_in(c, q)), *mask_out = next_mask(p, masks_out(c, q));
  if (segment) sl_segment_begin(p->b->g);
  switch (q->kind) {
    case PIECE_CONV: x = sl_nn_conv2d(p->b, "0", x, q->out, 3, 1, as_torch); break;
    case PIECE_ATTENTION: x = attention_block(p, q, x, mask_in); break;
    case PIECE_DOWN:
      x = c->conv_resample ? sl_nn_conv2d(p->b, "op", x, q->out, 3, 2, as_torch) : sl_downsample(x, 2);
      break;
    case PIECE_UP:
      x = sl_upsample(x, 2);
      if (c->conv_resample) x = sl_nn_conv2d(p->b, "conv", x, q->out, 3, 1, as_torch);
      break;
    default: x = res_block(p, q, x, mask_in, mask_out); break;
  }
  if (segment) sl_segment_end(p->b->g);
  return x;
}

static sl_value *embed(pass *p, sl_value *y) {
  const sl_adm_config *c = config_of(p->m);
  int64_t width = 4 * c->model_channels;
  sl_value *emb = sl_nn_timestep(p->b, "time_embed", p->t, c->model_channels, width, as_torch);
  if (c->classes) {
    sl_init normal = {.kind = SL_INIT_NORMAL, .a = 1};
    int64_t rows = c->classes + (p->m->info.null_class ? 1 : 0);
    emb = sl_add(emb, sl_nn_embedding(p->b, "label_emb", y, rows, width, normal));
  }
  return sl_name(emb, "emb");
}

static sl_value *build_pieces(pass *p, sl_value *x, sl_value **skips) {
  static const char *const parts[] = {"input_blocks.%d", "middle_block", "output_blocks.%d"};
  const adm *a = p->m->config;
  int kept = 0;
  for (int i = 0; i < a->n && x; i++) {
    const piece *q = &a->pieces[i];
    if (q->part == PART_OUTPUT && q->index == 0) x = sl_cat(2, (sl_value *[]){x, skips[--kept]}, 1);
    char block[32];
    snprintf(block, sizeof block, parts[q->part], q->block);
    sl_scope_push(p->b->g, "%s", block);
    if (q->kind != PIECE_CONV) sl_scope_push(p->b->g, "%d", q->index);
    x = build_piece(p, q, x);
    if (q->kind != PIECE_CONV) sl_scope_pop(p->b->g);
    sl_scope_pop(p->b->g);
    if (!q->last) continue;
    sl_model_name_block(x, "%s", block);
    if (q->part == PART_INPUT) skips[kept++] = x;
  }
  return x;
}

static sl_value *adm_forward(sl_model *m, sl_builder *b, sl_value *x, sl_value *t, sl_value *y) {
  const adm *a = m->config;
  if (!x) return NULL;
  pass p = {.m = m, .b = b, .t = t};
  p.act = sl_silu(embed(&p, y));
  sl_value **skips = sl_alloc(m->ctx, (size_t)a->blocks * sizeof *skips);
  if (!skips) return sl_graph_fail(b->g, SL_STATUS_OOM);
  x = build_pieces(&p, x, skips);
  sl_free(m->ctx, skips);
  x = sl_nn_group_norm(b, "out.0", x, NULL, NULL, SL_ACT_SILU, NULL);
  return sl_model_name_block(sl_nn_conv2d(b, "out.2", x, a->config.out_channels, 3, 1, zero), "out");
}

static void adm_free(sl_model *m) { sl_free(m->ctx, m->config); }

/* --- what checkpoints keep --- */

#define FIELD(name, type)                                                                                              \
  { #name, SL_FIELD_##type, offsetof(sl_adm_config, name), false, 0, 0, NULL }
#define OPTIONAL(name)                                                                                                 \
  { #name, SL_FIELD_INTEGER, offsetof(sl_adm_config, name), true, 0, 0, NULL }
#define LIST(name, type, count)                                                                                        \
  {                                                                                                                    \
#name, SL_FIELD_##type, offsetof(sl_adm_config, name), false, SL_ADM_MAX_LEVELS, offsetof(sl_adm_config, count),   \
        NULL                                                                                                           \
  }
static const sl_field fields[] = {
    FIELD(image_size, INTEGER),
    FIELD(in_channels, INTEGER),
    FIELD(out_channels, INTEGER),
    FIELD(model_channels, INTEGER),
    FIELD(num_res_blocks, INTEGER),
    LIST(attention_resolutions, INTEGER, attentions),
    LIST(channel_mult, NUMBER, levels),
    OPTIONAL(classes),
    FIELD(class_dropout, NUMBER),
    FIELD(num_heads, INTEGER),
    OPTIONAL(num_head_channels),
    FIELD(use_scale_shift_norm, BOOLEAN),
    FIELD(resblock_updown, BOOLEAN),
    FIELD(use_new_attention_order, BOOLEAN),
    FIELD(conv_resample, BOOLEAN),
    FIELD(dropout, NUMBER),
    {"mask_at", SL_FIELD_CHOICE, offsetof(sl_adm_config, mask_at), false, 0, 0, mask_names},
    {0},
};

static void defaults(void *config) { *(sl_adm_config *)config = sl_adm_defaults(); }

static sl_status make(sl_context *ctx, const void *config, sl_routing *routing, sl_model **out) {
  return sl_adm_new(ctx, config, routing, out);
}

const sl_model_kind sl_model_adm = {.name = "adm",
                                    .forward = adm_forward,
                                    .free = adm_free,
                                    .f32_residual = true,
                                    .t_embed = "time_embed.2",
                                    .landmarks = "emb, input_blocks.1, middle_block, output_blocks.0",
                                    .fields = fields,
                                    .config_bytes = sizeof(sl_adm_config),
                                    .options = offsetof(sl_adm_config, options),
                                    .defaults = defaults,
                                    .make = make};

/* --- construction --- */

static sl_model_info info_of(const adm *a) {
  const sl_adm_config *c = &a->config;
  return (sl_model_info){
      .in_channels = c->in_channels,
      .out_channels = c->out_channels,
      .height = c->image_size,
      .width = c->image_size,
      .classes = c->classes,
      .null_class = c->class_dropout > 0,
      .one_class = c->classes == 1,
      .class_dropout = c->class_dropout,
      .learn_sigma = c->out_channels != c->in_channels,
      .routed_blocks = routed_places(a, NULL),
  };
}

sl_status sl_adm_new(sl_context *ctx, const sl_adm_config *config, sl_routing *routing, sl_model **out) {
  *out = NULL;
  SL_REQUIRE(config, ARG, "adm: config is NULL");
  sl_adm_config c = *config;
  SL_REQUIRE(c.in_channels > 0 && c.in_channels <= MAX_IN_CHANNELS, ARG, "adm: in_channels is %lld, expected 1 to %d",
             (long long)c.in_channels, MAX_IN_CHANNELS);
  if (!c.out_channels) c.out_channels = 2 * c.in_channels;
  SL_TRY(check_config(&c));
  if (c.classes == 1) c.class_dropout = 0;
  adm *a = NULL;
  int64_t *channels = NULL;
  sl_status status;
  SL_GOTO(plan_new(ctx, &c, &a));
  for (int i = 0; i < a->n; i++)
    if (a->pieces[i].kind == PIECE_ATTENTION) SL_GOTO(check_heads(&c, a->pieces[i].in));
  sl_model_info info = info_of(a);
  channels = sl_alloc(ctx, (size_t)info.routed_blocks * sizeof *channels);
  status = channels ? SL_STATUS_OK : SL_STATUS_OOM;
  if (!channels) goto done;
  routed_places(a, channels);
  status = sl_model_create(ctx, &sl_model_adm, a, &info, &c.options, routing, channels, out);
  a = NULL; /* the model's, whatever became of it */
done:
  sl_free(ctx, channels);
  sl_free(ctx, a);
  return status;
}

const sl_adm_config *sl_adm_config_of(const sl_model *m) { return m->kind == &sl_model_adm ? config_of(m) : NULL; }
