/* Routings as objects: construction, description, tables. */
#include "routing/routing.h"

#include <math.h>
#include <string.h>

#include "base/random.h"
#include "routing/routing_rows.h"

#define MAX_TIMESTEPS ((int64_t)1 << 32) /* a timestep is one word of the random counter */

struct sl_routing {
  sl_context *ctx;
  int refs;
  sl_routing_kind kind;
  sl_routing_variant variant;
  double alpha, beta;
  uint32_t seed;
  int blocks;
  sl_tensor **tables; /* [blocks] u8 [T, C] */
  sl_routing_fn fn;
  void *user;
  void (*release)(void *user);
};

static const char *const kind_names[] = {
#define X(e, name) name,
    SL_ROUTING_KINDS(X)
#undef X
};

static const char *const variant_names[] = {"reference", "eq4"};

static sl_status create(sl_context *ctx, sl_routing value, sl_routing **out) {
  sl_routing *r = sl_alloc(ctx, sizeof *r);
  if (!r) return SL_STATUS_OOM;
  *r = value;
  r->ctx = ctx;
  r->refs = 1;
  *out = r;
  return SL_STATUS_OK;
}

sl_status sl_routing_none(sl_context *ctx, sl_routing **out) {
  *out = NULL;
  return create(ctx, (sl_routing){.kind = SL_ROUTING_NONE}, out);
}

static sl_status check_beta(const char *kind, double beta) {
  SL_REQUIRE(beta > 0 && beta <= 1, ARG, "routing.%s: beta is %g, expected above 0 and at most 1", kind, beta);
  return SL_STATUS_OK;
}

sl_status sl_routing_dtr(sl_context *ctx, double alpha, double beta, sl_routing_variant variant, sl_routing **out) {
  *out = NULL;
  SL_REQUIRE(alpha > 0 && isfinite(alpha), ARG, "routing.dtr: alpha is %g, expected a finite number above 0", alpha);
  SL_TRY(check_beta("dtr", beta));
  SL_REQUIRE(variant == SL_ROUTING_REFERENCE || variant == SL_ROUTING_EQ4, ARG,
             "routing.dtr: variant is %d, expected reference (0) or eq4 (1)", (int)variant);
  sl_routing value = {.kind = SL_ROUTING_DTR, .variant = variant, .alpha = alpha, .beta = beta};
  return create(ctx, value, out);
}

sl_status sl_routing_random(sl_context *ctx, double beta, uint32_t seed, sl_routing **out) {
  *out = NULL;
  SL_TRY(check_beta("random", beta));
  return create(ctx, (sl_routing){.kind = SL_ROUTING_RANDOM, .beta = beta, .seed = seed}, out);
}

static sl_status keep_table(sl_context *ctx, const sl_tensor *table, int block, sl_tensor **out) {
  SL_REQUIRE(table, ARG, "routing.table: the table of block %d is missing, expected a u8 tensor [T,C]", block + 1);
  sl_dtype dtype = sl_tensor_dtype(table);
  const sl_shape *s = sl_tensor_shape(table);
  SL_REQUIRE(dtype == SL_U8 || dtype == SL_BOOL, DTYPE,
             "routing.table: the table of block %d is %s, expected u8 or bool", block + 1, sl_dtype_name(dtype));
  SL_REQUIRE(s->rank == 2 && sl_shape_numel(s) > 0, SHAPE, "routing.table: the table of block %d is %s, expected [T,C]",
             block + 1, sl_shape_text(s));
  SL_TRY(sl_tensor_zeros(ctx, NULL, SL_U8, s, out));
  SL_TRY(sl_tensor_copy(*out, table));
  return sl_routing_check_rows(sl_tensor_data(*out), 1, s->dim[0], s->dim[1], block, "routing.table");
}

sl_status sl_routing_from_tables(sl_context *ctx, int blocks, sl_tensor *const *tables, sl_routing **out) {
  *out = NULL;
  SL_REQUIRE(blocks >= 1 && tables, ARG, "routing.table: no tables, expected one u8 tensor [T,C] per routed block");
  sl_routing *r;
  SL_TRY(create(ctx, (sl_routing){.kind = SL_ROUTING_TABLE, .blocks = blocks}, &r));
  r->tables = sl_alloc_zero(ctx, (size_t)blocks * sizeof *r->tables);
  sl_status status = r->tables ? SL_STATUS_OK : SL_STATUS_OOM;
  for (int i = 0; status == SL_STATUS_OK && i < blocks; i++) status = keep_table(ctx, tables[i], i, &r->tables[i]);
  if (status == SL_STATUS_OK) {
    *out = r;
  } else {
    sl_routing_release(r);
  }
  return status;
}

sl_status sl_routing_custom(sl_context *ctx, sl_routing_fn fn, void *user, void (*release)(void *user),
                            sl_routing **out) {
  *out = NULL;
  SL_REQUIRE(fn, ARG, "routing.custom: the function is missing");
  return create(ctx, (sl_routing){.kind = SL_ROUTING_CUSTOM, .fn = fn, .user = user, .release = release}, out);
}

sl_routing *sl_routing_retain(sl_routing *r) {
  r->refs++;
  return r;
}

void sl_routing_release(sl_routing *r) {
  if (!r || --r->refs > 0) return;
  for (int i = 0; r->tables && i < r->blocks; i++) sl_tensor_release(r->tables[i]);
  sl_free(r->ctx, r->tables);
  if (r->release) r->release(r->user);
  sl_free(r->ctx, r);
}

sl_routing_kind sl_routing_kind_of(const sl_routing *r) { return r->kind; }
const char *sl_routing_kind_name(sl_routing_kind kind) {
  return (unsigned)kind < SL_ROUTING_KIND_COUNT ? kind_names[kind] : "?";
}
double sl_routing_alpha(const sl_routing *r) { return r->alpha; }
double sl_routing_beta(const sl_routing *r) { return r->beta; }
uint32_t sl_routing_seed(const sl_routing *r) { return r->seed; }
sl_routing_variant sl_routing_variant_of(const sl_routing *r) { return r->variant; }
const char *sl_routing_variant_name(sl_routing_variant variant) {
  return (unsigned)variant < SL_ROUTING_VARIANT_COUNT ? variant_names[variant] : "?";
}
bool sl_routing_is_none(const sl_routing *r) { return r->kind == SL_ROUTING_NONE; }
bool sl_routing_is_formula(const sl_routing *r) { return r->kind != SL_ROUTING_TABLE && r->kind != SL_ROUTING_CUSTOM; }

sl_status sl_routing_variant_from_name(const char *name, sl_routing_variant *out) {
  for (int i = 0; name && i < SL_ROUTING_VARIANT_COUNT; i++) {
    if (strcmp(name, variant_names[i])) continue;
    *out = (sl_routing_variant)i;
    return SL_STATUS_OK;
  }
  return sl_fail(SL_STATUS_ARG, "routing.dtr: variant is \"%s\", expected \"reference\" or \"eq4\"",
                 name ? name : "NULL");
}

/* --- tables --- */

static sl_status fill_random(const sl_routing *r, sl_context *ctx, int64_t T, int64_t C, int block, uint8_t *mask) {
  float *uniforms = sl_alloc(ctx, (size_t)C * sizeof *uniforms);
  uint64_t *order = sl_alloc(ctx, (size_t)C * sizeof *order);
  if (uniforms && order) {
    sl_rng_key key = {r->seed, SL_STREAM_ROUTING};
    for (int64_t t = 0; t < T; t++) {
      sl_random_uniform(key, (uint32_t)block, (uint32_t)t, 0, C, uniforms);
      sl_routing_random_row(uniforms, C, sl_routing_width(C, r->beta), order, mask + t * C);
    }
  }
  sl_status status = uniforms && order ? SL_STATUS_OK : SL_STATUS_OOM;
  sl_free(ctx, uniforms);
  sl_free(ctx, order);
  return status;
}

static sl_status fill_stored(const sl_routing *r, int64_t T, int64_t C, int block, int blocks, uint8_t *mask) {
  SL_REQUIRE(block < r->blocks && (blocks == 0 || r->blocks == blocks), SHAPE,
             "routing.table: there are tables of %d blocks, expected %d", r->blocks, blocks ? blocks : block + 1);
  const sl_shape *s = sl_tensor_shape(r->tables[block]);
  SL_REQUIRE(s->dim[0] == T && s->dim[1] == C, SHAPE, "routing.table: the table of block %d is %s, expected %s ([T,C])",
             block + 1, sl_shape_text(s), sl_shape_text(&SL_SHAPE(T, C)));
  memcpy(mask, sl_tensor_data(r->tables[block]), (size_t)(T * C));
  return SL_STATUS_OK;
}

static sl_status fill_custom(const sl_routing *r, int64_t T, int64_t C, int block, int blocks, uint8_t *mask) {
  memset(mask, 0, (size_t)(T * C));
  for (int64_t t = 0; t < T; t++) SL_TRY(r->fn(r->user, t, T, C, block, blocks ? blocks : block + 1, mask + t * C));
  return sl_routing_check_rows(mask, 1, T, C, block, "routing.custom");
}

sl_status sl_routing_table(const sl_routing *r, sl_context *ctx, int64_t T, int64_t C, int block, int blocks,
                           sl_tensor **out) {
  *out = NULL;
  const char *name = kind_names[r->kind];
  SL_REQUIRE(T >= 1 && T < MAX_TIMESTEPS, ARG, "routing.%s: T is %lld, expected at least 1 timestep", name,
             (long long)T);
  SL_REQUIRE(C >= 1, ARG, "routing.%s: C is %lld, expected at least 1 channel", name, (long long)C);
  SL_REQUIRE(blocks >= 0 && block >= 0 && (blocks == 0 || block < blocks), ARG,
             "routing.%s: block is %d of %d, blocks count from 1", name, block + 1, blocks);
  SL_REQUIRE(r->beta == 0 || sl_routing_width(C, r->beta) >= 1, ARG,
             "routing.%s: beta is %g, which leaves none of %lld channels active", name, r->beta, (long long)C);
  sl_tensor *table;
  SL_TRY(sl_tensor_new(ctx, NULL, SL_U8, &SL_SHAPE(T, C), &table));
  uint8_t *mask = sl_tensor_data(table);
  sl_status status = SL_STATUS_OK;
  switch (r->kind) {
    case SL_ROUTING_DTR: sl_routing_dtr_rows(r->alpha, r->beta, r->variant, T, C, mask); break;
    case SL_ROUTING_RANDOM: status = fill_random(r, ctx, T, C, block, mask); break;
    case SL_ROUTING_TABLE: status = fill_stored(r, T, C, block, blocks, mask); break;
    case SL_ROUTING_CUSTOM: status = fill_custom(r, T, C, block, blocks, mask); break;
    default: memset(mask, 1, (size_t)(T * C)); break;
  }
  if (status == SL_STATUS_OK) {
    *out = table;
  } else {
    sl_tensor_release(table);
  }
  return status;
}
