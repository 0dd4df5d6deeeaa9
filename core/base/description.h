/* Structs as JSON objects and back, by a table of their fields: what checkpoints keep of models and samplers. */
#ifndef SL_BASE_DESCRIPTION_H
#define SL_BASE_DESCRIPTION_H

#include "base/context.h"

struct cJSON;

typedef enum sl_field_type {
  SL_FIELD_INTEGER, /* int64_t, within ±2^53 */
  SL_FIELD_SEED,    /* uint32_t */
  SL_FIELD_NUMBER,  /* double */
  SL_FIELD_BOOLEAN, /* bool */
  SL_FIELD_CHOICE,  /* an enum, by its name in `choices` */
  SL_FIELD_TEXT,    /* char[count] */
} sl_field_type;

typedef struct sl_field {
  const char *name; /* NULL ends a table */
  sl_field_type type;
  size_t offset; /* in the struct */
  bool optional; /* an integer or a text: left out where it is 0 or empty */
  int most;      /* of a list of integers or numbers: room for so many; 0: no list */
  size_t count;  /* of a list: where its length, an int, lies; 0: it always has `most` entries; a text's room */
  const char *const *choices; /* ended by NULL */
} sl_field;

/* Adds every field of the struct to the object. OOM. */
SL_MUST_USE sl_status sl_fields_write(const sl_field *fields, const void *from, struct cJSON *to);
/* Takes the fields that are there out of the object, into the struct; others stay as they were. FORMAT names the field.
 */
SL_MUST_USE sl_status sl_fields_read(const sl_field *fields, struct cJSON *from, void *to);
/* FORMAT names what is left in the object, which this version does not know. what: "the architecture". */
SL_MUST_USE sl_status sl_fields_none_left(const struct cJSON *from, const char *what);
/* Takes a text out of the object; *out (from sl_alloc, the caller's) is NULL where it has none. FORMAT: it is no text.
 */
SL_MUST_USE sl_status sl_fields_take_text(sl_context *ctx, struct cJSON *from, const char *name, char **out);
/* A text as an object; cJSON_Delete frees it. FORMAT, with `what` before it. */
SL_MUST_USE sl_status sl_object_parse(const char *text, const char *what, struct cJSON **out);
/* An object as text, from sl_alloc. OOM. */
SL_MUST_USE sl_status sl_object_print(sl_context *ctx, const struct cJSON *object, char **out);

#endif
