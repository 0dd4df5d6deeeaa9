/* The model of docs/guide/add-a-model.md: what stands there compiles, computes and differentiates. The page quotes the
 * parts between the rulers word for word (tests/lua/examples_spec.lua compares them). */
#include <math.h>

/* --- part 1 --- */
#include "model/model.h"
#include "nn/layers.h"

typedef struct plain_config {
  int64_t in_channels, side, channels, blocks;
  sl_model_options options;
} plain_config;

static sl_value *block(sl_model *m, sl_builder *b, sl_value *x, sl_value *emb, sl_value *mask) {
  const plain_config *c = m->config;
  sl_init weights = {.kind = SL_INIT_FAN_IN_UNIFORM}, zero = {.kind = SL_INIT_ZERO};
  sl_value *e = sl_chunk(sl_nn_linear(b, "emb", emb, 2 * c->channels, SL_ACT_NONE, weights), 2, -1);
  sl_value *h = sl_nn_group_norm(b, "norm", x, sl_output(e, 0), sl_output(e, 1), SL_ACT_SILU, mask);
  return sl_add(x, sl_nn_conv2d(b, "conv", h, c->channels, 3, 1, zero)); /* zeros: a fresh block is the identity */
}

static sl_value *plain_forward(sl_model *m, sl_builder *b, sl_value *x, sl_value *t, sl_value *y) {
  const plain_config *c = m->config;
  sl_init weights = {.kind = SL_INIT_FAN_IN_UNIFORM};
  (void)y; /* no classes: always NULL */
  sl_value *emb = sl_silu(sl_nn_timestep(b, "time_embed", t, c->channels, 4 * c->channels, weights));
  x = sl_nn_conv2d(b, "in", x, c->channels, 3, 1, weights);
  for (int i = 0; i < c->blocks; i++) {
    sl_value *mask = sl_model_mask(m, b, i, t); /* outside the segment: blocks share equal rows */
    sl_scope_push(b->g, "blocks.%d", i);
    if (b->recompute) sl_segment_begin(b->g);
    x = block(m, b, x, emb, mask);
    if (b->recompute) sl_segment_end(b->g);
    sl_scope_pop(b->g);
    sl_model_name_block(x, "blocks.%d", i);
  }
  return sl_model_name_block(sl_nn_conv2d(b, "out", x, m->info.out_channels, 3, 1, weights), "out");
}

static void plain_free(sl_model *m) { sl_free(m->ctx, m->config); }
/* --- part 2 --- */
#define FIELD(name)                                                                                                    \
  { #name, SL_FIELD_INTEGER, offsetof(plain_config, name), false, 0, 0, NULL }
static const sl_field plain_fields[] = {FIELD(in_channels), FIELD(side), FIELD(channels), FIELD(blocks), {0}};

static void plain_defaults(void *config) { *(plain_config *)config = (plain_config){.options.timesteps = 1000}; }

static sl_status plain_new(sl_context *ctx, const void *config, sl_routing *routing, sl_model **out);

static const sl_model_kind plain_kind = {.name = "plain",
                                         .forward = plain_forward,
                                         .free = plain_free,
                                         .f32_residual = true,
                                         .t_embed = "time_embed.2",
                                         .landmarks = "blocks.0",
                                         .fields = plain_fields,
                                         .config_bytes = sizeof(plain_config),
                                         .options = offsetof(plain_config, options),
                                         .defaults = plain_defaults,
                                         .make = plain_new};

static sl_status plain_new(sl_context *ctx, const void *described, sl_routing *routing, sl_model **out) {
  const plain_config *config = described;
  *out = NULL;
  SL_REQUIRE(config->channels > 0 && config->channels % 32 == 0, ARG,
             "plain: channels is %lld, expected a multiple of 32 (GroupNorm)", (long long)config->channels);
  SL_REQUIRE(config->blocks >= 1 && config->blocks <= 64, ARG, "plain: blocks is %lld, expected 1 to 64",
             (long long)config->blocks);
  plain_config *c = sl_alloc(ctx, sizeof *c);
  if (!c) return SL_STATUS_OOM;
  *c = *config;
  int64_t channels[64];
  for (int64_t i = 0; i < c->blocks; i++) channels[i] = c->channels; /* that each block's mask is over */
  sl_model_info info = {.in_channels = c->in_channels,
                        .out_channels = 2 * c->in_channels,
                        .height = c->side,
                        .width = c->side,
                        .learn_sigma = true,
                        .routed_blocks = (int)c->blocks};
  return sl_model_create(ctx, &plain_kind, c, &info, &config->options, routing, channels, out); /* c is its own now */
}
/* --- end --- */

#include "model/model_description.h"
#include "on_context.h"

static void test_it_works(void **state) {
  (void)state;
  plain_config c = {.in_channels = 3, .side = 8, .channels = 32, .blocks = 2, .options = {.timesteps = 100, .seed = 1}};
  sl_routing *routing;
  sl_model *m;
  sl_tensor *x, *t, *out, *kept, *dx, *flat;
  OK(sl_routing_dtr(ctx, 4, 0.8, SL_ROUTING_REFERENCE, &routing));
  OK(plain_new(ctx, &c, routing, &m));
  sl_routing_release(routing);
  OK(sl_model_init(m, 1));
  OK(sl_tensor_zeros(ctx, NULL, SL_F32, &SL_SHAPE(2, 3, 8, 8), &x));
  for (int64_t i = 0; i < sl_tensor_numel(x); i++) ((float *)sl_tensor_data(x))[i] = sinf((float)i);
  OK(sl_tensor_from(ctx, SL_I64, 1, (int64_t[]){2}, (int64_t[]){5, 90}, &t));
  OK(sl_model_forward(m, x, t, NULL, 1, (const char *const[]){"blocks.1"}, &out, &kept));
  assert_true(sl_shape_equal(sl_tensor_shape(out), &SL_SHAPE(2, 6, 8, 8)));
  assert_true(sl_shape_equal(sl_tensor_shape(kept), &SL_SHAPE(2, 32, 8, 8)));
  OK(sl_model_gradients(m, x, t, NULL, out, &dx, &flat));
  double along = 0, squares = 0; /* d (|out|^2 / 2): positive along x's own contribution, finite everywhere */
  for (int64_t i = 0; i < sl_tensor_numel(dx); i++) {
    assert_true(isfinite(sl_tensor_at(dx, i)));
    along += fabs(sl_tensor_at(dx, i));
  }
  for (int64_t i = 0; i < sl_tensor_numel(flat); i++) squares += pow(sl_tensor_at(flat, i), 2);
  assert_true(along > 0 && squares > 0 && isfinite(squares));
  c.channels = 48;
  sl_model *wrong;
  assert_int_equal(plain_new(ctx, &c, NULL, &wrong), SL_STATUS_ARG);
  sl_tensor *all[] = {x, t, out, kept, dx, flat};
  for (int i = 0; i < 6; i++) sl_tensor_release(all[i]);
  sl_model_release(m);
}

/* What a checkpoint keeps makes the same model; a key that it does not know is named. */
static void test_it_is_described(void **state) {
  (void)state;
  plain_config c = {.in_channels = 3, .side = 8, .channels = 32, .blocks = 2, .options = {.timesteps = 50, .seed = 7}};
  sl_routing *routing;
  sl_model *m, *again;
  char *text, *second;
  OK(sl_routing_random(ctx, 0.5, 3, &routing));
  OK(plain_new(ctx, &c, routing, &m));
  sl_routing_release(routing);
  OK(sl_model_describe(m, &text));
  OK(sl_model_of_kind(ctx, &plain_kind, text, 0, NULL, &again));
  OK(sl_model_describe(again, &second));
  assert_string_equal(text, second);
  assert_non_null(strstr(text, "\"channels\":32") && strstr(text, "\"timesteps\":50"));
  assert_memory_equal(sl_tensor_data(sl_model_mask_table(m, 1)), sl_tensor_data(sl_model_mask_table(again, 1)),
                      50 * 32);
  sl_model_release(again);
  assert_int_equal(sl_model_of_kind(ctx, &plain_kind, "{\"channels\":32,\"wings\":2}", 0, NULL, &again),
                   SL_STATUS_FORMAT);
  assert_non_null(strstr(sl_error(), "the architecture has \"wings\", which this version does not know"));
  sl_free(ctx, text);
  sl_free(ctx, second);
  sl_model_release(m);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_it_works), cmocka_unit_test(test_it_is_described)};
  return cmocka_run_group_tests(tests, setup, teardown);
}
