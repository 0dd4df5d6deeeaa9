#include "io/model_state.h"

#include <stdio.h>
#include <string.h>

enum { MAX_NAME = 256 };

/* DTR's own buffers of random masks, which are not parameters. */
static bool is_routing_buffer(const char *name) { return strstr(name, ".routing._unit_mapping") != NULL; }

static sl_status copy_part(const sl_model *m, int i, sl_tensor *from, sl_tensor *flat) {
  const sl_param *p = sl_params_get(m->params, i);
  SL_REQUIRE(sl_shape_equal(sl_tensor_shape(from), &p->shape), SHAPE, "load_state: %s is %s, expected %s", p->name,
             sl_shape_text(sl_tensor_shape(from)), sl_shape_text(&p->shape));
  sl_tensor *part = NULL;
  SL_TRY(sl_params_part(m->params, i, flat, &part));
  sl_status status = sl_tensor_copy(part, from);
  sl_tensor_release(part);
  return status;
}

sl_status sl_state_read(const sl_model *m, const sl_tensor_file *file, const char *prefix, bool strict,
                        sl_tensor *flat) {
  int loaded = 0;
  for (int i = 0; i < sl_params_count(m->params); i++) {
    const sl_param *p = sl_params_get(m->params, i);
    char name[MAX_NAME];
    snprintf(name, sizeof name, "%s%s", prefix, p->name);
    sl_tensor *from = sl_tensor_file_find(file, name);
    SL_REQUIRE(from || !strict || !p->trainable, ARG,
               "load_state: %s is missing (strict = false to keep what is there)", p->name);
    if (!from) continue;
    SL_TRY(copy_part(m, i, from, flat));
    loaded++;
  }
  SL_REQUIRE(loaded, ARG, "load_state: none of the model's parameters is there");
  return SL_STATUS_OK;
}

sl_status sl_state_flatten(const sl_model *m, const sl_tensor_file *file, const char *prefix, sl_tensor **flat) {
  SL_TRY(sl_params_array(m->params, flat));
  sl_status status = sl_state_read(m, file, prefix, true, *flat);
  if (status == SL_STATUS_OK) return status;
  sl_tensor_release(*flat);
  *flat = NULL;
  return status;
}

static sl_status refuse_strangers(const sl_model *m, const sl_tensor_file *file, const char *prefix) {
  size_t n = strlen(prefix);
  for (int64_t i = 0; i < sl_tensor_file_count(file); i++) {
    const char *name = sl_tensor_file_name(file, i);
    if (strncmp(name, prefix, n) != 0) continue;
    SL_REQUIRE(sl_params_find(m->params, name + n) >= 0 || is_routing_buffer(name), ARG,
               "load_state: the model has no parameter %.200s (strict = false to pass over it)", name + n);
  }
  return SL_STATUS_OK;
}

sl_status sl_state_load(sl_model *m, const sl_tensor_file *file, const char *prefix, bool strict) {
  if (strict) SL_TRY(refuse_strangers(m, file, prefix));
  sl_tensor *weights = NULL, *copy = NULL;
  SL_TRY(sl_model_weights(m, &weights));
  SL_TRY(sl_tensor_to(weights, SL_F32, NULL, &copy)); /* a failure half-way must leave the model as it was */
  sl_status status = sl_state_read(m, file, prefix, strict, copy);
  if (status == SL_STATUS_OK) status = sl_tensor_copy(weights, copy);
  sl_tensor_release(copy);
  if (status != SL_STATUS_OK) return status;
  sl_tensor_bump(weights);
  m->ready = true;
  return SL_STATUS_OK;
}
