/* Stored sampling settings: JSON under the names of sluice.sample's options. */
#include <cjson/cJSON.h>
#include <string.h>

#include "base/description.h"
#include "diffusion/sample_images.h"

#define FIELD(name, type)                                                                                              \
  { #name, SL_FIELD_##type, offsetof(sl_sample_options, name), false, 0, 0, NULL }
static const sl_field fields[] = {
    FIELD(n, INTEGER), FIELD(cfg, NUMBER),   FIELD(cfg_channels, INTEGER), FIELD(steps, INTEGER), FIELD(eta, NUMBER),
    FIELD(seed, SEED), FIELD(clip, BOOLEAN), FIELD(start, INTEGER),        FIELD(batch, INTEGER), {0},
};

static bool is_label(const cJSON *v) { return cJSON_IsNumber(v) && v->valuedouble == (double)v->valueint; }

static sl_status read_interval(const cJSON *v, sl_sample_options *o) {
  if (!v) return SL_STATUS_OK;
  SL_REQUIRE(
      cJSON_IsArray(v) && cJSON_GetArraySize(v) == 2 && cJSON_IsNumber(v->child) && cJSON_IsNumber(v->child->next),
      FORMAT, "sample: cfg_interval is not two timesteps");
  o->cfg_lo = v->child->valuedouble;
  o->cfg_hi = v->child->next->valuedouble;
  return SL_STATUS_OK;
}

static sl_status read_list(sl_context *ctx, const cJSON *v, sl_sample_options *o, int64_t **list) {
  int n = cJSON_GetArraySize(v), i = 0;
  *list = sl_alloc(ctx, (size_t)n * sizeof **list);
  if (!*list) return SL_STATUS_OOM;
  for (const cJSON *e = v->child; e; e = e->next, i++) {
    SL_REQUIRE(is_label(e), FORMAT, "sample: label %d is no integer", i + 1);
    (*list)[i] = e->valueint;
  }
  o->labels = SL_LABELS_LIST;
  o->label_list = *list;
  o->label_count = o->n = n;
  return SL_STATUS_OK;
}

static sl_status read_labels(sl_context *ctx, const cJSON *v, sl_sample_options *o, int64_t **list) {
  if (!v) return SL_STATUS_OK;
  if (cJSON_IsArray(v)) return read_list(ctx, v, o, list);
  if (is_label(v)) {
    o->labels = SL_LABELS_ONE;
    o->label = v->valueint;
    return SL_STATUS_OK;
  }
  bool balanced = cJSON_IsString(v) && !strcmp(v->valuestring, "balanced");
  SL_REQUIRE(balanced || (cJSON_IsString(v) && !strcmp(v->valuestring, "uniform")), FORMAT,
             "sample: labels are neither a list, a class, \"balanced\" nor \"uniform\"");
  o->labels = balanced ? SL_LABELS_BALANCED : SL_LABELS_UNIFORM;
  return SL_STATUS_OK;
}

static sl_status read_precision(const cJSON *v, sl_sample_options *o) {
  if (!v) return SL_STATUS_OK;
  const char *name = cJSON_IsString(v) ? v->valuestring : "";
  bool bf16 = !strcmp(name, "bf16"), tf32 = !strcmp(name, "tf32");
  SL_REQUIRE(bf16 || tf32 || !strcmp(name, "f32"), FORMAT, "sample: precision is not f32, bf16 or tf32");
  o->precision = (sl_precision){true, bf16 ? SL_BF16 : SL_F32, SL_F32, tf32};
  return SL_STATUS_OK;
}

static sl_status read_ema(const cJSON *v, double *ema) {
  if (!v) return SL_STATUS_OK;
  bool none = cJSON_IsString(v) && !strcmp(v->valuestring, "none");
  SL_REQUIRE(none || cJSON_IsNumber(v), FORMAT, "sample: ema is neither a decay nor \"none\"");
  *ema = none ? -1 : v->valuedouble;
  return SL_STATUS_OK;
}

/* The name, known here or not: sampling says so if it is not. */
static sl_status read_sampler(sl_context *ctx, cJSON *from, sl_sample_options *o, char **sampler) {
  SL_TRY(sl_fields_take_text(ctx, from, "sampler", sampler));
  o->sampler = *sampler;
  return SL_STATUS_OK;
}

static sl_status read_all(sl_context *ctx, cJSON *from, sl_sample_options *o, sl_settings *to) {
  static const char *const known[] = {"cfg_interval", "labels", "precision", "ema", "columns", NULL};
  const cJSON *v[5];
  for (int i = 0; known[i]; i++) v[i] = cJSON_GetObjectItemCaseSensitive(from, known[i]);
  SL_TRY(read_labels(ctx, v[1], o, &to->label_list));
  SL_TRY(sl_fields_read(fields, from, o));
  SL_REQUIRE(o->labels != SL_LABELS_LIST || o->n == o->label_count, FORMAT, "sample: %lld labels for n = %lld images",
             (long long)o->label_count, (long long)o->n);
  SL_TRY(read_interval(v[0], o));
  SL_TRY(read_precision(v[2], o));
  SL_TRY(read_ema(v[3], &to->ema));
  SL_TRY(read_sampler(ctx, from, o, &to->sampler));
  for (int i = 0; known[i]; i++) cJSON_DeleteItemFromObjectCaseSensitive(from, known[i]);
  for (const cJSON *c = from->child; c; c = c->next)
    sl_context_log(ctx, "warning: the stored sampling setting %.80s is not known here and is passed over", c->string);
  return SL_STATUS_OK;
}

sl_status sl_sample_read_settings(sl_context *ctx, const char *text, sl_sample_options *o, sl_settings *to) {
  *to = (sl_settings){0};
  cJSON *object = NULL;
  SL_TRY(sl_object_parse(text, "sample", &object));
  sl_status status = read_all(ctx, object, o, to);
  cJSON_Delete(object);
  return status;
}
