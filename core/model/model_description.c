#include "model/model_description.h"

#include <cjson/cJSON.h>
#include <string.h>

#include "model/adm.h"
#include "model/dit.h"
#include "routing/routing_description.h"

static const sl_model_kind *const kinds[] = {&sl_model_dit, &sl_model_adm};

static const char *const precisions[] = {"f32", "bf16", "tf32", NULL}, *const residuals[] = {"f32", "bf16", NULL};
enum { F32, BF16, TF32 };

/* Of every kind, beside its own fields and the routing. */
typedef struct common {
  int64_t timesteps;
  uint32_t seed;
  int precision, residual;
} common;

static const sl_field common_fields[] = {
    {"timesteps", SL_FIELD_INTEGER, offsetof(common, timesteps), false, 0, 0, NULL},
    {"seed", SL_FIELD_SEED, offsetof(common, seed), false, 0, 0, NULL},
    {"precision", SL_FIELD_CHOICE, offsetof(common, precision), false, 0, 0, precisions},
    {"residual", SL_FIELD_CHOICE, offsetof(common, residual), false, 0, 0, residuals},
    {0},
};

/* --- writing --- */

static sl_status write_model(const sl_model *m, cJSON *to) {
  common c = {m->info.timesteps, m->seed,
              m->tf32                 ? TF32
              : m->compute == SL_BF16 ? BF16
                                      : F32,
              m->residual == SL_BF16 ? BF16 : F32};
  SL_REQUIRE(cJSON_AddStringToObject(to, "kind", m->kind->name), OOM, "no memory for a description");
  SL_TRY(sl_fields_write(m->kind->fields, m->config, to));
  SL_TRY(sl_fields_write(common_fields, &c, to));
  cJSON *routing = cJSON_AddObjectToObject(to, "routing");
  SL_REQUIRE(routing, OOM, "no memory for a description");
  return sl_routing_describe(m->routing, routing);
}

sl_status sl_model_describe(const sl_model *m, char **text) {
  *text = NULL;
  SL_REQUIRE(m->kind->fields, UNSUPPORTED, "%s: checkpoints cannot keep this architecture: it tells no fields",
             m->kind->name);
  cJSON *object = cJSON_CreateObject();
  SL_REQUIRE(object, OOM, "no memory for a description");
  sl_status s = write_model(m, object);
  if (s == SL_STATUS_OK) s = sl_object_print(m->ctx, object, text);
  cJSON_Delete(object);
  return s;
}

/* --- reading --- */

static sl_status read_routing(sl_context *ctx, cJSON *from, int n, sl_tensor *const *tables, sl_routing **out) {
  cJSON *described = cJSON_DetachItemFromObjectCaseSensitive(from, "routing"), *none = NULL;
  if (!described) described = none = cJSON_CreateObject();
  sl_status s = SL_STATUS_OK;
  if (none) s = cJSON_AddStringToObject(none, "kind", "none") ? SL_STATUS_OK : sl_fail(SL_STATUS_OOM, "no memory");
  else if (!cJSON_IsObject(described)) s = sl_fail(SL_STATUS_FORMAT, "routing is no object");
  if (s == SL_STATUS_OK) s = sl_routing_from_description(ctx, described, n, tables, out);
  cJSON_Delete(described);
  return s;
}

static sl_status read_options(sl_context *ctx, cJSON *from, sl_model_options *o) {
  common c = {.timesteps = 1000};
  SL_TRY(sl_fields_read(common_fields, from, &c));
  *o = (sl_model_options){.timesteps = c.timesteps,
                          .seed = c.seed,
                          .compute = c.precision == BF16 ? SL_BF16 : SL_F32,
                          .residual = c.residual == BF16 ? SL_BF16 : SL_F32,
                          .tf32 = c.precision == TF32};
  return sl_device_default(ctx, &o->device);
}

/* from: without its "kind"; emptied. */
static sl_status make(sl_context *ctx, const sl_model_kind *kind, cJSON *from, int n, sl_tensor *const *tables,
                      sl_model **out) {
  SL_REQUIRE(kind->fields, UNSUPPORTED, "%s: this architecture is not made from a description", kind->name);
  char *config = sl_alloc_zero(ctx, kind->config_bytes);
  if (!config) return SL_STATUS_OOM;
  kind->defaults(config);
  sl_routing *routing = NULL;
  sl_status status;
  SL_GOTO(sl_fields_read(kind->fields, from, config));
  SL_GOTO(read_options(ctx, from, (sl_model_options *)(void *)(config + kind->options)));
  SL_GOTO(read_routing(ctx, from, n, tables, &routing));
  SL_GOTO(sl_fields_none_left(from, "the architecture"));
  SL_GOTO(kind->make(ctx, config, routing, out));
done:
  sl_routing_release(routing);
  sl_free(ctx, config);
  return status;
}

static sl_status find_kind(const char *name, const sl_model_kind **out) {
  for (size_t i = 0; name && i < sizeof kinds / sizeof *kinds; i++) {
    *out = kinds[i];
    if (!strcmp(name, kinds[i]->name)) return SL_STATUS_OK;
  }
  return sl_fail(SL_STATUS_UNSUPPORTED, "the architecture is %s, which this version does not know",
                 name ? name : "without a kind");
}

/* kind NULL: the one that the text names. */
static sl_status from_text(sl_context *ctx, const sl_model_kind *kind, const char *text, int n,
                           sl_tensor *const *tables, sl_model **out) {
  *out = NULL;
  cJSON *object = NULL;
  char *name = NULL;
  SL_TRY(sl_object_parse(text, "the architecture", &object));
  sl_status s = sl_fields_take_text(ctx, object, "kind", &name);
  if (s == SL_STATUS_OK && !kind) s = find_kind(name, &kind);
  if (s == SL_STATUS_OK) s = make(ctx, kind, object, n, tables, out);
  sl_free(ctx, name);
  cJSON_Delete(object);
  return s;
}

sl_status sl_model_from_description(sl_context *ctx, const char *text, int n, sl_tensor *const *tables,
                                    sl_model **out) {
  return from_text(ctx, NULL, text, n, tables, out);
}

sl_status sl_model_of_kind(sl_context *ctx, const sl_model_kind *kind, const char *text, int n,
                           sl_tensor *const *tables, sl_model **out) {
  return from_text(ctx, kind, text, n, tables, out);
}
