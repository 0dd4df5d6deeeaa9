#include "base/description.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define MAX_INTEGER 9007199254740992.0 /* 2^53: what JSON's numbers hold exactly */

static sl_status no_memory(void) { return sl_fail(SL_STATUS_OOM, "no memory for a description"); }

/* --- writing --- */

static cJSON *list_to_json(const sl_field *f, const char *at, int n) {
  cJSON *list = cJSON_CreateArray();
  for (int i = 0; list && i < n; i++) {
    double v = f->type == SL_FIELD_NUMBER ? ((const double *)(const void *)at)[i]
                                          : (double)((const int64_t *)(const void *)at)[i];
    if (cJSON_AddItemToArray(list, cJSON_CreateNumber(v))) continue;
    cJSON_Delete(list);
    return NULL;
  }
  return list;
}

static cJSON *field_to_json(const sl_field *f, const void *from) {
  const char *at = (const char *)from + f->offset;
  if (f->most) {
    int n = f->most;
    if (f->count) memcpy(&n, (const char *)from + f->count, sizeof n);
    return list_to_json(f, at, n);
  }
  int choice;
  switch (f->type) {
    case SL_FIELD_INTEGER: return cJSON_CreateNumber((double)*(const int64_t *)(const void *)at);
    case SL_FIELD_SEED: return cJSON_CreateNumber(*(const uint32_t *)(const void *)at);
    case SL_FIELD_NUMBER: return cJSON_CreateNumber(*(const double *)(const void *)at);
    case SL_FIELD_BOOLEAN: return cJSON_CreateBool(*(const bool *)(const void *)at);
    case SL_FIELD_TEXT: return cJSON_CreateString(at);
    default: memcpy(&choice, at, sizeof choice); return cJSON_CreateString(f->choices[choice]);
  }
}

static bool is_left_out(const sl_field *f, const void *from) {
  const char *at = (const char *)from + f->offset;
  int64_t n = 0;
  if (!f->optional) return false;
  if (f->type == SL_FIELD_TEXT) return !at[0];
  memcpy(&n, at, sizeof n);
  return n == 0;
}

sl_status sl_fields_write(const sl_field *fields, const void *from, cJSON *to) {
  for (const sl_field *f = fields; f->name; f++) {
    if (is_left_out(f, from)) continue;
    cJSON *v = field_to_json(f, from);
    if (v && cJSON_AddItemToObject(to, f->name, v)) continue;
    cJSON_Delete(v);
    return no_memory();
  }
  return SL_STATUS_OK;
}

/* --- reading --- */

static bool is_integer(const cJSON *v) {
  return cJSON_IsNumber(v) && fabs(v->valuedouble) <= MAX_INTEGER && v->valuedouble == floor(v->valuedouble);
}

/* Words for a value, in a message. */
static const char *text_of(const cJSON *v, char *room, size_t size) {
  if (cJSON_IsString(v)) snprintf(room, size, "\"%.80s\"", v->valuestring);
  else if (cJSON_IsNumber(v)) snprintf(room, size, "%.17g", v->valuedouble);
  else snprintf(room, size, "%s", cJSON_IsBool(v) ? "a boolean" : cJSON_IsArray(v) ? "a list" : "no value");
  return room;
}

#define EXPECT(cond, f, v, what)                                                                                       \
  do {                                                                                                                 \
    char room_[100];                                                                                                   \
    SL_REQUIRE(cond, FORMAT, "%s is %s, expected %s", (f)->name, text_of(v, room_, sizeof room_), what);               \
  } while (0)

static sl_status read_list(const sl_field *f, const cJSON *v, void *to) {
  bool empty = cJSON_IsObject(v) && !v->child; /* Lua's empty table */
  EXPECT(cJSON_IsArray(v) || empty, f, v, "a list");
  int n = 0;
  char *at = (char *)to + f->offset;
  for (const cJSON *e = v->child; e; e = e->next, n++) {
    SL_REQUIRE(n < f->most, FORMAT, "%s has more than %d entries", f->name, f->most);
    EXPECT(f->type == SL_FIELD_NUMBER ? cJSON_IsNumber(e) : is_integer(e), f, e, "a list of numbers");
    if (f->type == SL_FIELD_NUMBER) ((double *)(void *)at)[n] = e->valuedouble;
    else ((int64_t *)(void *)at)[n] = (int64_t)e->valuedouble;
  }
  SL_REQUIRE(f->count || n == f->most, FORMAT, "%s has %d entries, expected %d", f->name, n, f->most);
  if (f->count) memcpy((char *)to + f->count, &n, sizeof n);
  return SL_STATUS_OK;
}

static sl_status read_choice(const sl_field *f, const cJSON *v, void *at) {
  EXPECT(cJSON_IsString(v), f, v, "a name");
  for (int i = 0; f->choices[i]; i++) {
    if (strcmp(f->choices[i], v->valuestring) != 0) continue;
    memcpy(at, &i, sizeof i);
    return SL_STATUS_OK;
  }
  return sl_fail(SL_STATUS_FORMAT, "%s is \"%.80s\", which this version does not know", f->name, v->valuestring);
}

static sl_status read_field(const sl_field *f, const cJSON *v, void *to) {
  void *at = (char *)to + f->offset;
  if (f->most) return read_list(f, v, to);
  switch (f->type) {
    case SL_FIELD_INTEGER:
      EXPECT(is_integer(v), f, v, "an integer");
      *(int64_t *)at = (int64_t)v->valuedouble;
      break;
    case SL_FIELD_SEED:
      EXPECT(is_integer(v) && v->valuedouble >= 0 && v->valuedouble <= UINT32_MAX, f, v, "0 to 4294967295");
      *(uint32_t *)at = (uint32_t)v->valuedouble;
      break;
    case SL_FIELD_NUMBER:
      EXPECT(cJSON_IsNumber(v), f, v, "a number");
      *(double *)at = v->valuedouble;
      break;
    case SL_FIELD_BOOLEAN:
      EXPECT(cJSON_IsBool(v), f, v, "true or false");
      *(bool *)at = cJSON_IsTrue(v);
      break;
    case SL_FIELD_TEXT:
      EXPECT(cJSON_IsString(v) && strlen(v->valuestring) < f->count, f, v, "a short text");
      snprintf(at, f->count, "%s", v->valuestring);
      break;
    default: return read_choice(f, v, at);
  }
  return SL_STATUS_OK;
}

sl_status sl_fields_read(const sl_field *fields, cJSON *from, void *to) {
  for (const sl_field *f = fields; f->name; f++) {
    cJSON *v = cJSON_DetachItemFromObjectCaseSensitive(from, f->name);
    sl_status s = v ? read_field(f, v, to) : SL_STATUS_OK;
    cJSON_Delete(v);
    SL_TRY(s);
  }
  return SL_STATUS_OK;
}

sl_status sl_fields_none_left(const cJSON *from, const char *what) {
  SL_REQUIRE(!from->child, FORMAT, "%s has \"%.80s\", which this version does not know", what, from->child->string);
  return SL_STATUS_OK;
}

sl_status sl_fields_take_text(sl_context *ctx, cJSON *from, const char *name, char **out) {
  *out = NULL;
  cJSON *v = cJSON_DetachItemFromObjectCaseSensitive(from, name);
  sl_status s = SL_STATUS_OK;
  char room[100];
  if (v && !cJSON_IsString(v)) {
    s = sl_fail(SL_STATUS_FORMAT, "%s is %s, expected a name", name, text_of(v, room, sizeof room));
  } else if (v) {
    *out = sl_strdup(ctx, v->valuestring);
    if (!*out) s = SL_STATUS_OOM;
  }
  cJSON_Delete(v);
  return s;
}

sl_status sl_object_parse(const char *text, const char *what, cJSON **out) {
  *out = cJSON_ParseWithOpts(text, NULL, true);
  if (cJSON_IsObject(*out)) return SL_STATUS_OK;
  cJSON_Delete(*out);
  *out = NULL;
  return sl_fail(SL_STATUS_FORMAT, "%s is no JSON object", what);
}

sl_status sl_object_print(sl_context *ctx, const cJSON *object, char **out) {
  *out = NULL;
  char *text = cJSON_PrintUnformatted(object);
  if (!text) return no_memory();
  *out = sl_strdup(ctx, text);
  cJSON_free(text);
  return *out ? SL_STATUS_OK : SL_STATUS_OOM;
}
