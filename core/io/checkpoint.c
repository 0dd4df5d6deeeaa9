#include "io/checkpoint.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/description.h"
#include "base/number.h"
#include "diffusion/diffusion_description.h"
#include "diffusion/sample_images.h"
#include "io/model_state.h"
#include "model/model_description.h"

#define FORMAT_NAME "sluice-checkpoint-1"

struct sl_checkpoint {
  sl_context *ctx;
  char *path;
  sl_tensor_file *meta; /* the file's metadata, without its tensors */
  sl_model *model;
  sl_diffusion *diffusion;
  int64_t step;
  sl_dtype dtype; /* of the weights in the file */
};

/* --- reading a file --- */

static bool is_digest(const char *text) {
  return text && !strncmp(text, "xxh3:", 5) && text[5] && strspn(text + 5, "0123456789abcdef") == strlen(text + 5);
}

sl_status sl_checkpoint_read(sl_context *ctx, const char *path, sl_tensor_file **out) {
  SL_TRY(sl_tensor_file_load(ctx, path, out));
  if (!sl_tensor_file_meta(*out, "format") || is_digest(sl_tensor_file_meta(*out, "digest"))) return SL_STATUS_OK;
  sl_tensor_file_free(*out);
  *out = NULL;
  return sl_fail(SL_STATUS_FORMAT, "%s: it is damaged: its digest is missing", path);
}

static sl_status check_format(const sl_tensor_file *file, const char *path) {
  const char *format = sl_tensor_file_meta(file, "format");
  SL_REQUIRE(format, UNSUPPORTED,
             "%s has no architecture in it (an export?); make the model and use model:load_state(path), in C "
             "sl_model_load_state",
             path);
  SL_REQUIRE(!strcmp(format, FORMAT_NAME), UNSUPPORTED, "%s has format %.100s, this version reads %s", path, format,
             FORMAT_NAME);
  return SL_STATUS_OK;
}

static const char *text_of(const sl_tensor_file *file, const char *key) {
  const char *text = sl_tensor_file_meta(file, key);
  return text ? text : "";
}

/* --- its parts --- */

/* tables.mask.0 and so on; *tables is from sl_alloc, what stands in it borrowed. */
static sl_status find_tables(sl_context *ctx, const sl_tensor_file *file, int *n, sl_tensor ***tables) {
  char name[40];
  *n = 0;
  *tables = sl_alloc(ctx, (size_t)sl_tensor_file_count(file) * sizeof **tables);
  if (!*tables) return SL_STATUS_OOM;
  for (;; ++*n) {
    snprintf(name, sizeof name, "tables.mask.%d", *n);
    sl_tensor *t = sl_tensor_file_find(file, name);
    if (!t) return SL_STATUS_OK;
    (*tables)[*n] = t;
  }
}

static sl_status model_from_file(const sl_tensor_file *file, sl_checkpoint *c) {
  int n = 0;
  sl_tensor **tables = NULL;
  SL_TRY(find_tables(c->ctx, file, &n, &tables));
  sl_status status = sl_model_from_description(c->ctx, text_of(file, "architecture"), n, tables, &c->model);
  sl_free(c->ctx, tables);
  return status;
}

/* ema: the list of decays as they stand in the tensors' names. */
static sl_status read_averages(const sl_tensor_file *file, const sl_checkpoint *c, const cJSON *ema, sl_averages *a) {
  SL_REQUIRE(cJSON_IsArray(ema) || (cJSON_IsObject(ema) && !ema->child), FORMAT, "ema is no list of decays");
  for (const cJSON *e = ema->child; e; e = e->next) {
    SL_REQUIRE(a->n < SL_MAX_AVERAGES, FORMAT, "ema names more than %d decays", SL_MAX_AVERAGES);
    SL_REQUIRE(cJSON_IsString(e) && strlen(e->valuestring) < 40, FORMAT, "ema holds no text");
    char prefix[64];
    snprintf(prefix, sizeof prefix, "ema.%s.", e->valuestring);
    SL_TRY(sl_state_flatten(c->model, file, prefix, &a->weights[a->n]));
    a->decay[a->n++] = sl_number_from_text(e->valuestring);
  }
  return SL_STATUS_OK;
}

static sl_status keep_sample(const sl_tensor_file *file, sl_checkpoint *c) {
  sl_averages a = {0};
  cJSON *ema = cJSON_Parse(text_of(file, "ema"));
  sl_status status = read_averages(file, c, ema, &a);
  cJSON_Delete(ema);
  if (status == SL_STATUS_OK) status = sl_sample_keep(c->model, c->diffusion, &a, text_of(file, "sample"));
  for (int i = 0; i < SL_MAX_AVERAGES; i++) sl_tensor_release(a.weights[i]);
  return status;
}

static sl_status keep_meta(const sl_tensor_file *file, sl_checkpoint *c) {
  SL_TRY(sl_tensor_file_new(c->ctx, &c->meta));
  for (int64_t i = 0; i < sl_tensor_file_meta_count(file); i++)
    SL_TRY(sl_tensor_file_set_meta(c->meta, sl_tensor_file_meta_key(file, i), sl_tensor_file_meta_value(file, i)));
  return SL_STATUS_OK;
}

typedef struct loading {
  sl_context *ctx;
  sl_checkpoint_model_fn make_model; /* NULL: by its description */
  void *user;
  sl_checkpoint *c;
} loading;

static sl_status assemble(const loading *l, const sl_tensor_file *file, sl_checkpoint *c) {
  SL_TRY(l->make_model ? l->make_model(l->user, file, &c->model) : model_from_file(file, c));
  sl_status status = sl_state_load(c->model, file, "model.", true);
  if (status != SL_STATUS_OK && l->make_model) return SL_STATUS_UNSUPPORTED; /* the model's fault, not the file's */
  SL_TRY(status);
  SL_TRY(sl_diffusion_from_description(c->ctx, text_of(file, "diffusion"), sl_tensor_file_find(file, "tables.betas"),
                                       &c->diffusion));
  SL_TRY(keep_sample(file, c));
  const char *first = sl_params_get(c->model->params, 0)->name;
  char name[256];
  snprintf(name, sizeof name, "model.%s", first);
  const sl_tensor *weights = sl_tensor_file_find(file, name);
  c->dtype = weights ? sl_tensor_dtype(weights) : SL_F32;
  c->step = strtoll(text_of(file, "step"), NULL, 10);
  return keep_meta(file, c);
}

/* --- loading --- */

static sl_status load_file(void *user, const char *path) {
  loading *l = user;
  sl_tensor_file *file = NULL;
  sl_checkpoint *c = NULL;
  sl_status status;
  SL_GOTO(sl_checkpoint_read(l->ctx, path, &file));
  SL_GOTO(check_format(file, path));
  c = sl_alloc_zero(l->ctx, sizeof *c);
  status = SL_STATUS_OOM;
  if (!c) goto done;
  c->ctx = l->ctx;
  c->path = sl_strdup(l->ctx, path);
  if (!c->path) goto done;
  status = assemble(l, file, c);
  if (status != SL_STATUS_OK) sl_fail_context(status, "%s", path);
done:
  sl_tensor_file_free(file);
  if (status == SL_STATUS_OK) l->c = c;
  else sl_checkpoint_free(c);
  return status;
}

sl_status sl_checkpoint_load_with(sl_context *ctx, const char *path, sl_checkpoint_model_fn make_model, void *user,
                                  sl_checkpoint **out) {
  *out = NULL;
  SL_REQUIRE(path, ARG, "checkpoint: path is NULL");
  loading l = {ctx, make_model, user, NULL};
  SL_TRY(sl_checkpoint_newest(ctx, path, load_file, &l));
  *out = l.c;
  return SL_STATUS_OK;
}

sl_status sl_checkpoint_load(sl_context *ctx, const char *path, sl_checkpoint **out) {
  return sl_checkpoint_load_with(ctx, path, NULL, NULL, out);
}

void sl_checkpoint_free(sl_checkpoint *c) {
  if (!c) return;
  sl_diffusion_release(c->diffusion);
  sl_model_release(c->model);
  sl_tensor_file_free(c->meta);
  sl_free(c->ctx, c->path);
  sl_free(c->ctx, c);
}

sl_model *sl_checkpoint_model(const sl_checkpoint *c) { return c->model; }
sl_diffusion *sl_checkpoint_diffusion(const sl_checkpoint *c) { return c->diffusion; }
int64_t sl_checkpoint_step(const sl_checkpoint *c) { return c->step; }
sl_dtype sl_checkpoint_dtype(const sl_checkpoint *c) { return c->dtype; }
const char *sl_checkpoint_path(const sl_checkpoint *c) { return c->path; }
const char *sl_checkpoint_meta(const sl_checkpoint *c, const char *key) { return sl_tensor_file_meta(c->meta, key); }

const sl_tensor_file *sl_checkpoint_metadata(const sl_checkpoint *c) { return c->meta; }

sl_status sl_model_load(sl_context *ctx, const char *path, sl_model **out) {
  *out = NULL;
  sl_checkpoint *c = NULL;
  SL_TRY(sl_checkpoint_load(ctx, path, &c));
  *out = sl_model_retain(c->model);
  sl_checkpoint_free(c);
  return SL_STATUS_OK;
}

/* --- weights alone --- */

typedef struct state_loading {
  sl_model *model;
  bool strict;
} state_loading;

static sl_status load_state(void *user, const char *path) {
  const state_loading *l = user;
  sl_tensor_file *file = NULL;
  SL_TRY(sl_checkpoint_read(l->model->ctx, path, &file));
  bool bare = !sl_tensor_file_meta(file, "format");
  sl_status status = sl_state_load(l->model, file, bare ? "" : "model.", l->strict);
  sl_tensor_file_free(file);
  return status == SL_STATUS_OK ? status : sl_fail_context(status, "%s", path);
}

sl_status sl_model_load_state(sl_model *m, const char *path, bool strict) {
  SL_REQUIRE(path, ARG, "load_state: path is NULL");
  return sl_checkpoint_newest(m->ctx, path, load_state, &(state_loading){m, strict});
}

static sl_status add_parameters(sl_model *m, sl_tensor_file *file) {
  sl_tensor *weights = NULL;
  SL_TRY(sl_model_weights(m, &weights));
  for (int i = 0; i < sl_params_count(m->params); i++) {
    sl_tensor *part = NULL;
    SL_TRY(sl_params_part(m->params, i, weights, &part));
    sl_status status = sl_tensor_file_add(file, sl_params_get(m->params, i)->name, part);
    sl_tensor_release(part);
    SL_TRY(status);
  }
  return SL_STATUS_OK;
}

sl_status sl_model_save(sl_model *m, const char *path) {
  SL_REQUIRE(path, ARG, "model: path is NULL");
  sl_tensor_file *file = NULL;
  SL_TRY(sl_tensor_file_new(m->ctx, &file));
  sl_status status = add_parameters(m, file);
  if (status == SL_STATUS_OK) status = sl_tensor_file_save(path, file);
  sl_tensor_file_free(file);
  return status;
}
