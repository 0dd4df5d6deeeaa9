#include "diffusion/diffusion_description.h"

#include <cjson/cJSON.h>
#include <string.h>

#include "base/description.h"

typedef struct described {
  int64_t steps;
  sl_predict predict;
  sl_variance variance;
} described;

static const sl_field fields[] = {
    {"steps", SL_FIELD_INTEGER, offsetof(described, steps), false, 0, 0, NULL},
    {"predict", SL_FIELD_CHOICE, offsetof(described, predict), false, 0, 0, sl_predict_names},
    {"variance", SL_FIELD_CHOICE, offsetof(described, variance), false, 0, 0, sl_variance_names},
    {0},
};

/* --- writing --- */

static bool by_formula(const sl_diffusion *d) {
  return strcmp(d->schedule->name, "custom") != 0 && d->steps == d->original_steps;
}

static sl_status add_timesteps(const sl_diffusion *d, cJSON *to) {
  cJSON *list = cJSON_AddArrayToObject(to, "timesteps");
  for (int64_t i = 0; list && i < d->steps; i++)
    if (!cJSON_AddItemToArray(list, cJSON_CreateNumber((double)d->schedule->timestep_map[i]))) list = NULL;
  SL_REQUIRE(list, OOM, "no memory for a description");
  return SL_STATUS_OK;
}

sl_status sl_diffusion_describe(const sl_diffusion *d, char **text, sl_tensor **betas) {
  *text = NULL;
  *betas = NULL;
  described v = {d->original_steps, d->predict, d->variance};
  cJSON *object = cJSON_CreateObject();
  sl_status status = SL_STATUS_OK;
  if (!object || !cJSON_AddStringToObject(object, "schedule", d->schedule->name))
    status = sl_fail(SL_STATUS_OOM, "no memory for a description");
  if (status == SL_STATUS_OK) status = sl_fields_write(fields, &v, object);
  if (status == SL_STATUS_OK && !by_formula(d)) status = add_timesteps(d, object);
  if (status == SL_STATUS_OK) status = sl_object_print(d->ctx, object, text);
  cJSON_Delete(object);
  if (status == SL_STATUS_OK && !by_formula(d))
    status = sl_tensor_from(d->ctx, SL_F64, 1, &d->steps, d->schedule->betas, betas);
  if (status != SL_STATUS_OK) {
    sl_free(d->ctx, *text);
    *text = NULL;
  }
  return status;
}

/* --- reading --- */

/* The original timesteps that are left: ascending, 0 … T-1. */
static sl_status read_timesteps(const cJSON *list, int64_t T, sl_schedule *s) {
  SL_REQUIRE(cJSON_IsArray(list) && cJSON_GetArraySize(list) == s->T, FORMAT,
             "the timesteps and the betas differ in number");
  int64_t i = 0, last = -1;
  for (const cJSON *v = list->child; v; v = v->next) {
    bool fine = cJSON_IsNumber(v) && v->valuedouble > (double)last && v->valuedouble < (double)T &&
                (double)(int64_t)v->valuedouble == v->valuedouble;
    SL_REQUIRE(fine, FORMAT, "timesteps must ascend from 0 to %lld", (long long)T - 1);
    s->timestep_map[i++] = last = (int64_t)v->valuedouble;
  }
  return SL_STATUS_OK;
}

static sl_status from_betas(sl_context *ctx, const described *v, const char *name, const cJSON *timesteps,
                            const sl_tensor *betas, sl_diffusion **out) {
  SL_REQUIRE(sl_tensor_dtype(betas) == SL_F64 && sl_tensor_is_contiguous(betas), FORMAT, "tables.betas is not f64");
  sl_schedule *s = NULL;
  SL_TRY(sl_schedule_from_betas(ctx, sl_tensor_data(betas), sl_tensor_numel(betas), &s));
  s->name = sl_schedule_known_name(name);
  sl_status status = read_timesteps(timesteps, v->steps, s);
  if (status == SL_STATUS_OK) return sl_diffusion_new(ctx, s, v->steps, v->predict, v->variance, out);
  sl_schedule_free(s);
  return status;
}

static sl_status read_object(sl_context *ctx, cJSON *object, const sl_tensor *betas, sl_diffusion **out) {
  described v = {.steps = 1000};
  char *name = NULL;
  SL_TRY(sl_fields_read(fields, object, &v));
  SL_TRY(sl_fields_take_text(ctx, object, "schedule", &name));
  cJSON *timesteps = cJSON_DetachItemFromObjectCaseSensitive(object, "timesteps");
  sl_status status = sl_fields_none_left(object, "the diffusion");
  if (status == SL_STATUS_OK && betas) {
    status = from_betas(ctx, &v, name, timesteps, betas, out);
  } else if (status == SL_STATUS_OK && timesteps) {
    status = sl_fail(SL_STATUS_FORMAT, "the diffusion has timesteps, but there is no tensor tables.betas");
  } else if (status == SL_STATUS_OK) {
    sl_process_options o = {.steps = v.steps, .schedule = name, .predict = v.predict, .variance = v.variance};
    status = v.steps > 0 ? sl_diffusion_make(ctx, &o, out) : sl_fail(SL_STATUS_FORMAT, "the diffusion has no steps");
  }
  cJSON_Delete(timesteps);
  sl_free(ctx, name);
  return status;
}

sl_status sl_diffusion_from_description(sl_context *ctx, const char *text, const sl_tensor *betas, sl_diffusion **out) {
  *out = NULL;
  cJSON *object = NULL;
  SL_TRY(sl_object_parse(text, "the diffusion", &object));
  sl_status status = read_object(ctx, object, betas, out);
  cJSON_Delete(object);
  return status;
}
