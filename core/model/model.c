/* Models' life: description, parameters, mask tables, graph building. */
#include "model/model.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "ops/ops.h"

#define MODEL_PROGRAMS 16

static sl_status declare(sl_model *m) {
  sl_graph *g = NULL;
  sl_builder b = {0};
  sl_status status = sl_graph_new(m->ctx, &g);
  if (status != SL_STATUS_OK) return status;
  SL_GOTO(sl_builder_init(&b, g, m->params, true));
  const sl_model_info *i = &m->info;
  int64_t n = m->kind->trial ? m->kind->trial(m) : 1;
  sl_value *x = sl_input(g, "x", SL_F32, &SL_SHAPE(n, i->in_channels, i->height, i->width));
  sl_value *t = sl_input(g, "t", SL_I64, &SL_SHAPE(n));
  sl_value *y = i->classes ? sl_input(g, "y", SL_I64, &SL_SHAPE(n)) : NULL;
  sl_value *out = m->kind->forward(m, &b, x, t, y);
  SL_GOTO(sl_graph_status(g));
  if (!out) status = sl_fail(SL_STATUS_INTERNAL, "%s: the model gives no output", m->kind->name);
  sl_params_commit(m->params);
done:
  sl_builder_clear(&b);
  sl_graph_release(g);
  return status;
}

static bool equal_tables(const sl_tensor *a, const sl_tensor *b) {
  return sl_shape_equal(sl_tensor_shape(a), sl_tensor_shape(b)) &&
         !memcmp(sl_tensor_data(a), sl_tensor_data(b), (size_t)sl_tensor_numel(a));
}

static sl_status make_masks(sl_model *m, const int64_t *channels) {
  int n = m->info.routed_blocks;
  if (!m->routing || sl_routing_is_none(m->routing)) return SL_STATUS_OK;
  m->masks = sl_alloc_zero(m->ctx, (size_t)n * sizeof *m->masks);
  if (!m->masks) return SL_STATUS_OOM;
  for (int i = 0; i < n; i++) {
    SL_TRY(sl_routing_table(m->routing, m->ctx, m->info.timesteps, channels[i], i, n, &m->masks[i]));
    for (int k = 0; k < i; k++) {
      if (!equal_tables(m->masks[k], m->masks[i])) continue;
      sl_tensor_release(m->masks[i]);
      m->masks[i] = sl_tensor_retain(m->masks[k]);
      break;
    }
  }
  return SL_STATUS_OK;
}

static sl_status check_residual(const sl_model_kind *kind, sl_dtype residual) {
  SL_REQUIRE(residual == SL_F32 || !kind->f32_residual, UNSUPPORTED,
             "%s: residual is %s, but its blocks add in f32; give residual f32, or none", kind->name,
             sl_dtype_name(residual));
  return SL_STATUS_OK;
}

static sl_status check_options(const sl_model_kind *kind, const sl_model_options *o) {
  SL_REQUIRE(o->timesteps > 0, ARG, "%s: timesteps is %lld, expected at least 1", kind->name, (long long)o->timesteps);
  SL_TRY(check_residual(kind, o->residual));
  return sl_precision_check(kind->name, (sl_precision){true, o->compute, o->residual, o->tf32});
}

sl_status sl_model_create(sl_context *ctx, const sl_model_kind *kind, void *config, const sl_model_info *info,
                          const sl_model_options *options, sl_routing *routing, const int64_t *channels,
                          sl_model **out) {
  *out = NULL;
  sl_model *m = sl_alloc_zero(ctx, sizeof *m);
  if (!m) {
    kind->free(&(sl_model){.ctx = ctx, .kind = kind, .config = config});
    return SL_STATUS_OOM;
  }
  *m = (sl_model){.ctx = ctx, .refs = 1, .kind = kind, .config = config, .info = *info, .seed = options->seed};
  m->info.timesteps = options->timesteps;
  m->device = options->device ? options->device : &sl_device_cpu;
  m->compute = options->compute;
  m->residual = options->residual;
  m->tf32 = options->tf32;
  if (routing) m->routing = sl_routing_retain(routing);
  sl_status status;
  SL_GOTO(check_options(kind, options));
  SL_GOTO(sl_params_new(ctx, &m->params));
  sl_params_set_device(m->params, m->device);
  SL_GOTO(make_masks(m, channels));
  SL_GOTO(declare(m));
  SL_GOTO(sl_eager_new(ctx, MODEL_PROGRAMS, &m->programs));
  *out = m;
  return SL_STATUS_OK;
done:
  sl_model_release(m);
  return status;
}

sl_model *sl_model_retain(sl_model *m) {
  m->refs++;
  return m;
}

void sl_model_release(sl_model *m) {
  if (!m || --m->refs > 0) return;
  if (m->sample) m->free_sample(m->ctx, m->sample);
  sl_eager_free(m->programs);
  if (m->masks)
    for (int i = 0; i < m->info.routed_blocks; i++) sl_tensor_release(m->masks[i]);
  sl_free(m->ctx, m->masks);
  sl_tensor_release(m->weights);
  sl_params_free(m->params);
  if (m->routing) sl_routing_release(m->routing);
  m->kind->free(m);
  sl_free(m->ctx, m);
}

sl_model_info sl_model_info_of(const sl_model *m) { return m->info; }

const char *sl_model_kind_name(const sl_model *m) { return m->kind->name; }

sl_tensor *sl_model_mask_table(const sl_model *m, int block) {
  return m->masks && block >= 0 && block < m->info.routed_blocks ? m->masks[block] : NULL;
}

void sl_model_count(const sl_model *m, int64_t *all, int64_t *trainable) { sl_params_numel(m->params, all, trainable); }

/* --- weights --- */

static sl_status make_weights(sl_model *m, uint32_t seed) {
  if (!m->weights) SL_TRY(sl_params_array(m->params, &m->weights));
  return sl_params_init(m->params, seed, m->weights);
}

sl_status sl_model_to(sl_model *m, const sl_device *dev) {
  sl_tensor *moved = NULL;
  if (dev == m->device) return SL_STATUS_OK;
  if (m->weights) SL_TRY(sl_tensor_to(m->weights, SL_F32, dev, &moved));
  sl_tensor_release(m->weights);
  m->weights = moved;
  m->device = dev;
  sl_params_set_device(m->params, dev);
  return SL_STATUS_OK;
}

sl_status sl_model_weights(sl_model *m, sl_tensor **borrowed) {
  if (!m->weights) SL_TRY(make_weights(m, m->seed));
  *borrowed = m->weights;
  return SL_STATUS_OK;
}

sl_status sl_model_init(sl_model *m, uint32_t seed) {
  SL_TRY(make_weights(m, seed));
  m->seed = seed;
  m->ready = true;
  return SL_STATUS_OK;
}

/* --- building --- */

sl_value *sl_model_mask(sl_model *m, sl_builder *b, int block, sl_value *t) {
  if (!m->masks || !t) return NULL;
  char name[32];
  int first = 0; /* blocks with one table share its rows */
  while (m->masks[first] != m->masks[block]) first++;
  snprintf(name, sizeof name, "mask_rows.%d", first);
  sl_value *rows = sl_graph_find(b->g, name);
  if (rows) return rows;
  char table[32];
  snprintf(table, sizeof table, "tables.mask.%d", first);
  sl_value *task = sl_dtype_is_float(t->dtype) ? sl_cast(sl_round(t), SL_I64) : t;
  rows = sl_gather(sl_table(b->g, table, m->masks[first]), task);
  if (rows) rows->node->scope = "";
  return sl_name(rows, "%s", name);
}

sl_value *sl_model_name_block(sl_value *v, const char *fmt, ...) {
  if (!v) return NULL;
  char name[64];
  va_list args;
  va_start(args, fmt);
  vsnprintf(name, sizeof name, fmt, args);
  va_end(args);
  v->node->scope = "";
  return sl_name(v, "%s", name);
}

sl_status sl_precision_check(const char *what, sl_precision p) {
  bool fine = p.compute == SL_F32 ? p.residual == SL_F32
                                  : p.compute == SL_BF16 && (p.residual == SL_F32 || p.residual == SL_BF16);
  SL_REQUIRE(!p.given || fine, ARG,
             "%s: precision is %s with residual %s, expected f32, or bf16 with residual f32 or bf16", what,
             sl_dtype_name(p.compute), sl_dtype_name(p.residual));
  return SL_STATUS_OK;
}

void sl_precision_use(sl_precision p, sl_builder *b) {
  if (!p.given) return;
  b->compute = p.compute;
  b->residual = p.residual;
  b->tf32 = p.tf32;
  b->own_precision = true;
}

sl_value *sl_model_build(sl_model *m, sl_builder *b, sl_value *x, sl_value *t, sl_value *y) {
  const sl_model_info *i = &m->info;
  if (!x || !t || sl_graph_broken(b->g)) return NULL;
  if (x->shape.rank != 4 || x->shape.dim[1] != i->in_channels || x->shape.dim[2] != i->height ||
      x->shape.dim[3] != i->width)
    return sl_graph_fail(
        b->g, sl_fail(SL_STATUS_SHAPE, "%s: x is %s, expected [N,%lld,%lld,%lld]", m->kind->name,
                      sl_shape_text(&x->shape), (long long)i->in_channels, (long long)i->height, (long long)i->width));
  if (!b->own_precision) {
    b->compute = m->compute;
    b->residual = m->residual;
    b->tf32 = m->tf32;
  }
  sl_status s = check_residual(m->kind, b->residual);
  if (s != SL_STATUS_OK) return sl_graph_fail(b->g, s);
  if (b->tf32) sl_graph_allow_tf32(b->g);
  return sl_cast(m->kind->forward(m, b, x, t, y), SL_F32);
}

sl_value *sl_model_build_cfg(sl_model *m, sl_builder *b, sl_value *x, sl_value *t, sl_value *y, sl_value *scale,
                             int64_t channels) {
  if (!x) return NULL;
  int64_t half = x->shape.dim[0] / 2, all = m->info.out_channels;
  sl_value *first = sl_slice(x, 0, 0, half - 1, 1);
  sl_value *o = sl_model_build(m, b, sl_cat(2, (sl_value *[]){first, first}, 0), t, y);
  sl_value *guided = sl_slice(o, 1, 0, channels - 1, 1);
  sl_value *cond = sl_slice(guided, 0, 0, half - 1, 1), *uncond = sl_slice(guided, 0, half, 2 * half - 1, 1);
  sl_value *eps = sl_add(uncond, sl_mul(scale, sl_sub(cond, uncond)));
  sl_value *both = sl_cat(2, (sl_value *[]){eps, eps}, 0);
  if (channels == all) return both;
  return sl_cat(2, (sl_value *[]){both, sl_slice(o, 1, channels, all - 1, 1)}, 1);
}
