#include "routing/routing_description.h"

#include <cjson/cJSON.h>
#include <string.h>

typedef struct numbers {
  double alpha, beta;
  uint32_t seed;
  sl_routing_variant variant;
} numbers;

static const char *const variants[] = {"reference", "eq4", NULL};
_Static_assert(sizeof variants / sizeof *variants == SL_ROUTING_VARIANT_COUNT + 1, "a name for every variant");

#define FIELD(name, type)                                                                                              \
  { #name, SL_FIELD_##type, offsetof(numbers, name), false, 0, 0, NULL }
static const sl_field dtr[] = {
    FIELD(alpha, NUMBER),
    FIELD(beta, NUMBER),
    {"variant", SL_FIELD_CHOICE, offsetof(numbers, variant), false, 0, 0, variants},
    {0},
};
static const sl_field random_fields[] = {FIELD(beta, NUMBER), FIELD(seed, SEED), {0}};
static const sl_field nothing[] = {{0}};

static const sl_field *fields_of(sl_routing_kind kind) {
  return kind == SL_ROUTING_DTR ? dtr : kind == SL_ROUTING_RANDOM ? random_fields : nothing;
}

sl_status sl_routing_describe(const sl_routing *r, cJSON *to) {
  sl_routing_kind kind = r ? sl_routing_kind_of(r) : SL_ROUTING_NONE;
  SL_REQUIRE(cJSON_AddStringToObject(to, "kind", sl_routing_kind_name(kind)), OOM, "no memory for a description");
  if (!r) return SL_STATUS_OK;
  numbers n = {sl_routing_alpha(r), sl_routing_beta(r), sl_routing_seed(r), sl_routing_variant_of(r)};
  return sl_fields_write(fields_of(kind), &n, to);
}

static sl_status find_kind(const char *name, bool tables, sl_routing_kind *kind) {
  for (int k = 0; k < SL_ROUTING_KIND_COUNT; k++) {
    *kind = (sl_routing_kind)k;
    bool formula = k == SL_ROUTING_NONE || k == SL_ROUTING_DTR || k == SL_ROUTING_RANDOM;
    if (name && !strcmp(name, sl_routing_kind_name(*kind)) && (formula || tables)) return SL_STATUS_OK;
  }
  return sl_fail(SL_STATUS_UNSUPPORTED, "there is no routing %s", name ? name : "without a kind");
}

sl_status sl_routing_from_description(sl_context *ctx, cJSON *from, int n, sl_tensor *const *tables, sl_routing **out) {
  *out = NULL;
  char *name = NULL;
  sl_routing_kind kind = SL_ROUTING_NONE;
  SL_TRY(sl_fields_take_text(ctx, from, "kind", &name));
  sl_status s = find_kind(name, n > 0, &kind);
  sl_free(ctx, name);
  SL_TRY(s);
  numbers v = {.variant = SL_ROUTING_REFERENCE};
  SL_TRY(sl_fields_read(fields_of(kind), from, &v));
  SL_TRY(sl_fields_none_left(from, "the routing"));
  if (n > 0) return sl_routing_from_tables(ctx, n, tables, out);
  if (kind == SL_ROUTING_DTR) return sl_routing_dtr(ctx, v.alpha, v.beta, v.variant, out);
  if (kind == SL_ROUTING_RANDOM) return sl_routing_random(ctx, v.beta, v.seed, out);
  return SL_STATUS_OK;
}
