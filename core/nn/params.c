#include "nn/params.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define ALIGN_ELEMENTS 16

struct sl_params {
  sl_context *ctx;
  const sl_device *device;
  sl_param *list;
  int n, cap;
  bool committed;
  int64_t elements, trainable_elements;
};

sl_status sl_params_new(sl_context *ctx, sl_params **out) {
  *out = sl_alloc_zero(ctx, sizeof **out);
  if (!*out) return SL_STATUS_OOM;
  (*out)->ctx = ctx;
  (*out)->device = &sl_device_cpu;
  return SL_STATUS_OK;
}

void sl_params_set_device(sl_params *p, const sl_device *dev) { p->device = dev; }

void sl_params_free(sl_params *p) {
  if (!p) return;
  for (int i = 0; i < p->n; i++) sl_free(p->ctx, p->list[i].name);
  sl_free(p->ctx, p->list);
  sl_free(p->ctx, p);
}

int sl_params_find(const sl_params *p, const char *name) {
  for (int i = 0; i < p->n; i++)
    if (!strcmp(p->list[i].name, name)) return i;
  return -1;
}

static sl_status grow(sl_params *p) {
  if (p->n < p->cap) return SL_STATUS_OK;
  int cap = p->cap ? 2 * p->cap : 64;
  size_t bytes = (size_t)cap * sizeof *p->list;
  sl_param *list = p->list ? sl_realloc(p->ctx, p->list, bytes) : sl_alloc(p->ctx, bytes);
  if (!list) return SL_STATUS_OOM;
  p->list = list;
  p->cap = cap;
  return SL_STATUS_OK;
}

sl_status sl_params_declare(sl_params *p, const char *name, const sl_shape *shape, sl_init init, int *index) {
  *index = sl_params_find(p, name);
  if (*index >= 0) {
    SL_REQUIRE(sl_shape_equal(&p->list[*index].shape, shape), ARG, "parameter %s is declared as %s and again as %s",
               name, sl_shape_text(&p->list[*index].shape), sl_shape_text(shape));
    return SL_STATUS_OK;
  }
  SL_REQUIRE(!p->committed, INTERNAL, "parameter %s is declared after the layout was fixed", name);
  SL_TRY(grow(p));
  char *copy = sl_strdup(p->ctx, name);
  if (!copy) return SL_STATUS_OOM;
  p->list[p->n] = (sl_param){copy, *shape, init, init.kind != SL_INIT_FIXED, 0};
  *index = p->n++;
  return SL_STATUS_OK;
}

void sl_params_commit(sl_params *p) {
  if (p->committed) return;
  int64_t at = 0;
  for (int pass = 0; pass < 2; pass++) {
    for (int i = p->n; i-- > 0;) {
      if (p->list[i].trainable != (pass == 0)) continue;
      p->list[i].offset = at;
      at += (sl_shape_numel(&p->list[i].shape) + ALIGN_ELEMENTS - 1) / ALIGN_ELEMENTS * ALIGN_ELEMENTS;
    }
    if (pass == 0) p->trainable_elements = at;
  }
  p->elements = at;
  p->committed = true;
}

int sl_params_count(const sl_params *p) { return p->n; }
const sl_param *sl_params_get(const sl_params *p, int i) { return &p->list[i]; }
int64_t sl_params_elements(const sl_params *p) { return p->elements; }
int64_t sl_params_trainable_elements(const sl_params *p) { return p->trainable_elements; }

void sl_params_numel(const sl_params *p, int64_t *all, int64_t *trainable) {
  *all = *trainable = 0;
  for (int i = 0; i < p->n; i++) {
    int64_t n = sl_shape_numel(&p->list[i].shape);
    *all += n;
    if (p->list[i].trainable) *trainable += n;
  }
}

sl_status sl_params_array(const sl_params *p, sl_tensor **out) {
  return sl_tensor_zeros(p->ctx, p->device, SL_F32, &SL_SHAPE(p->elements), out);
}

sl_status sl_params_part(const sl_params *p, int i, sl_tensor *flat, sl_tensor **out) {
  const sl_param *q = &p->list[i];
  int64_t stride[SL_MAX_RANK];
  sl_shape_strides(&q->shape, stride);
  return sl_tensor_view_as(flat, &q->shape, stride, q->offset, out);
}

/* Of a parameter of n elements, drawn from -bound to bound. */
static float uniform_bound(const sl_param *q, int64_t n) {
  int64_t fan_out = q->shape.rank ? q->shape.dim[0] : 1, fan_in = fan_out ? n / fan_out : 0;
  if (q->init.kind == SL_INIT_UNIFORM) return q->init.a;
  return q->init.kind == SL_INIT_FAN_IN_UNIFORM ? 1.0f / sqrtf((float)fan_in) : sqrtf(6.0f / (float)(fan_out + fan_in));
}

static void init_one(const sl_param *q, uint32_t seed, uint32_t number, float *out) {
  int64_t n = sl_shape_numel(&q->shape);
  sl_rng_key key = {seed, SL_STREAM_INIT};
  switch (q->init.kind) {
    case SL_INIT_ZERO: memset(out, 0, (size_t)n * sizeof *out); break;
    case SL_INIT_ONE:
      for (int64_t i = 0; i < n; i++) out[i] = 1.0f;
      break;
    case SL_INIT_NORMAL:
      sl_random_normal(key, number, 0, 0, n, out);
      for (int64_t i = 0; i < n; i++) out[i] *= q->init.a;
      break;
    case SL_INIT_XAVIER_UNIFORM:
    case SL_INIT_FAN_IN_UNIFORM:
    case SL_INIT_UNIFORM: {
      float bound = uniform_bound(q, n);
      sl_random_uniform(key, number, 0, 0, n, out);
      for (int64_t i = 0; i < n; i++) out[i] = (2.0f * out[i] - 1.0f) * bound;
      break;
    }
    case SL_INIT_FIXED: q->init.fill(q->init.user, &q->shape, out); break;
  }
}

sl_status sl_params_init(const sl_params *p, uint32_t seed, sl_tensor *flat) {
  sl_tensor *host = NULL; /* the flat array itself, or what is brought to its device */
  if (sl_tensor_device(flat)->gpu) SL_TRY(sl_tensor_zeros(p->ctx, NULL, SL_F32, sl_tensor_shape(flat), &host));
  float *data = sl_tensor_data(host ? host : flat);
  for (int i = 0; i < p->n; i++) init_one(&p->list[i], seed, (uint32_t)i, data + p->list[i].offset);
  sl_status status = host ? sl_tensor_copy(flat, host) : SL_STATUS_OK;
  sl_tensor_release(host);
  sl_tensor_bump(flat);
  return status;
}

/* --- builder --- */

sl_status sl_builder_init(sl_builder *b, sl_graph *g, sl_params *params, bool declaring) {
  *b = (sl_builder){.g = g, .params = params, .declaring = declaring};
  if (declaring) return SL_STATUS_OK;
  b->n_values = params->n;
  b->values = sl_alloc_zero(params->ctx, ((size_t)params->n + 1) * sizeof *b->values);
  return b->values ? SL_STATUS_OK : SL_STATUS_OOM;
}

void sl_builder_clear(sl_builder *b) {
  if (b->params) sl_free(b->params->ctx, b->values);
  b->values = NULL;
}

sl_value *sl_builder_param(sl_builder *b, const char *name, const sl_shape *shape, sl_init init) {
  if (sl_graph_broken(b->g)) return NULL;
  char full[256];
  const char *scope = sl_graph_scope(b->g);
  snprintf(full, sizeof full, "%s%s%s", scope, *scope ? "." : "", name);
  int i;
  sl_status s = sl_params_declare(b->params, full, shape, init, &i);
  if (s != SL_STATUS_OK) return sl_graph_fail(b->g, s);
  if (!b->declaring && b->values[i]) return b->values[i];
  sl_value *v = sl_param_value(b->g, i, b->params->list[i].offset, full, shape);
  if (!b->declaring) b->values[i] = v;
  return v;
}
