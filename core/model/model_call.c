/* Running models on tensors: forward, guidance, gradients, trace. */
#include <stdio.h>
#include <string.h>

#include "model/model.h"
#include "ops/ops.h"

typedef enum call_kind { CALL_FORWARD, CALL_CFG, CALL_GRADIENTS, CALL_T_EMBED } call_kind;

typedef struct call {
  sl_model *m;
  call_kind kind;
  int n_keep;
  const char *const *keep;
  int64_t channels;
} call;

/* --- conditions --- */

static sl_status make_t(sl_model *m, int64_t n, sl_tensor *t, sl_tensor **out) {
  sl_dtype d = sl_tensor_dtype(t);
  int64_t have = sl_tensor_numel(t);
  SL_REQUIRE(sl_tensor_shape(t)->rank <= 1 && (have == n || have == 1), SHAPE,
             "%s: t is %s, expected [%lld], [1] or a number", m->kind->name, sl_shape_text(sl_tensor_shape(t)),
             (long long)n);
  sl_dtype want = sl_dtype_is_float(d) ? SL_F32 : SL_I64;
  SL_TRY(sl_tensor_new(m->ctx, NULL, want, &SL_SHAPE(n), out));
  for (int64_t i = 0; i < n; i++) {
    double v = sl_tensor_at(t, have == 1 ? 0 : i);
    if (!(v >= 0 && v <= (double)(m->info.timesteps - 1))) {
      sl_tensor_release(*out);
      *out = NULL;
      return sl_fail(SL_STATUS_ARG, "%s: t is %g, expected 0 … %lld", m->kind->name, v,
                     (long long)m->info.timesteps - 1);
    }
    sl_element_set(want, (char *)sl_tensor_data(*out) + (size_t)i * sl_dtype_size(want), v);
  }
  return SL_STATUS_OK;
}

static sl_status check_y(const sl_model *m, int64_t n, sl_tensor *y) {
  const sl_model_info *f = &m->info;
  if (!y) {
    SL_REQUIRE(f->null_class || f->one_class, ARG,
               "%s: y is nil, but with class_dropout = 0 there is no null class; give labels 0 … %lld", m->kind->name,
               (long long)f->classes - 1);
    return SL_STATUS_OK;
  }
  sl_dtype d = sl_tensor_dtype(y);
  SL_REQUIRE(d == SL_I64 || d == SL_I32 || d == SL_U8, DTYPE, "%s: y is %s, expected integers", m->kind->name,
             sl_dtype_name(d));
  SL_REQUIRE(sl_tensor_shape(y)->rank == 1 && sl_tensor_numel(y) == n, SHAPE, "%s: y is %s, expected [%lld]",
             m->kind->name, sl_shape_text(sl_tensor_shape(y)), (long long)n);
  int64_t top = f->classes - 1 + (f->null_class ? 1 : 0);
  for (int64_t i = 0; i < n; i++) {
    double v = sl_tensor_at(y, i);
    SL_REQUIRE(v >= 0 && v <= (double)top, ARG, "%s: label %g is outside 0 … %lld", m->kind->name, v, (long long)top);
  }
  return SL_STATUS_OK;
}

static sl_status make_y(sl_model *m, int64_t n, sl_tensor *y, sl_tensor **out) {
  SL_TRY(sl_tensor_new(m->ctx, NULL, SL_I64, &SL_SHAPE(n), out));
  int64_t *label = sl_tensor_data(*out), null = m->info.one_class ? 0 : m->info.classes;
  for (int64_t i = 0; i < n; i++) label[i] = y ? (int64_t)sl_tensor_at(y, i) : null;
  return SL_STATUS_OK;
}

sl_status sl_model_conditions(sl_model *m, int64_t n, sl_tensor *t, sl_tensor *y, sl_tensor **t_out,
                              sl_tensor **y_out) {
  sl_tensor *t_host = NULL, *y_host = NULL;
  sl_status status;
  *t_out = *y_out = NULL;
  SL_GOTO(sl_tensor_on_host(t, &t_host));
  if (y) SL_GOTO(sl_tensor_on_host(y, &y_host));
  if (!m->info.classes && y)
    SL_GOTO(sl_fail(SL_STATUS_ARG, "%s: the model takes no labels, y must be nil", m->kind->name));
  if (m->info.classes) SL_GOTO(check_y(m, n, y_host));
  SL_GOTO(make_t(m, n, t_host, t_out));
  if (m->info.classes) status = make_y(m, n, y_host, y_out);
done:
  sl_tensor_release(t_host);
  sl_tensor_release(y_host);
  if (status == SL_STATUS_OK) return SL_STATUS_OK;
  sl_tensor_release(*t_out);
  *t_out = NULL;
  return status;
}

/* --- programs --- */

static sl_status keep_values(const call *c, sl_graph *g, sl_value **out) {
  for (int i = 0; i < c->n_keep; i++) {
    out[1 + i] = sl_graph_find(g, c->keep[i]);
    SL_REQUIRE(out[1 + i], ARG,
               "%s: keep names \"%s\", which the model does not have; there are %s and every layer's name",
               c->m->kind->name, c->keep[i], c->m->kind->landmarks);
  }
  return SL_STATUS_OK;
}

static sl_status build_gradients(sl_builder *b, sl_value *out, sl_value *x, sl_value *upstream, sl_value **dx) {
  sl_graph *g = b->g;
  SL_TRY(sl_graph_status(g));
  sl_value **wrt = sl_alloc(sl_graph_context(g), (size_t)(b->n_values + 1) * 2 * sizeof *wrt);
  if (!wrt) return SL_STATUS_OOM;
  sl_value **grads = wrt + b->n_values + 1;
  int n = 0;
  wrt[n++] = x;
  for (int i = 0; i < b->n_values; i++)
    if (b->values[i] && sl_params_get(b->params, i)->trainable) wrt[n++] = b->values[i];
  sl_status s = sl_grad(g, out, upstream, n, wrt, false, grads);
  if (s == SL_STATUS_OK) *dx = grads[0];
  for (int i = 1; s == SL_STATUS_OK && i < n; i++) sl_graph_accumulate(g, wrt[i], grads[i]);
  sl_free(sl_graph_context(g), wrt);
  return s == SL_STATUS_OK ? sl_graph_status(g) : s;
}

/* in: x, t, y (if the model has classes), then upstream or scale. */
static sl_status build_call(void *user, sl_graph *g, int n_in, sl_value *const *in, int n_out, sl_value **out) {
  const call *c = user;
  (void)n_in, (void)n_out;
  bool classes = c->m->info.classes > 0;
  sl_value *x = in[0], *t = in[1], *y = classes ? in[2] : NULL, *last = in[classes ? 3 : 2];
  sl_builder b;
  SL_TRY(sl_builder_init(&b, g, c->m->params, false));
  sl_status s = SL_STATUS_OK;
  if (c->kind == CALL_CFG) {
    out[0] = sl_model_build_cfg(c->m, &b, x, t, y, last, c->channels);
  } else {
    out[0] = sl_model_build(c->m, &b, x, t, y);
    if (c->kind == CALL_GRADIENTS) s = build_gradients(&b, out[0], x, last, &out[0]);
    if (c->kind == CALL_T_EMBED && !sl_graph_broken(g)) out[0] = sl_graph_find(g, c->m->kind->t_embed);
  }
  if (s == SL_STATUS_OK) s = sl_graph_status(g);
  if (s == SL_STATUS_OK) s = keep_values(c, g, out);
  sl_builder_clear(&b);
  return s;
}

void sl_model_warn_fresh(sl_model *m) {
  if (m->ready || m->warned) return;
  m->warned = true;
  sl_context_log(m->ctx,
                 "%s: running with fresh weights: the model was not loaded, trained or initialised (:init(seed))",
                 m->kind->name);
}

/* Results back to where x lies. */
static sl_status return_to(const sl_device *dev, int n, sl_tensor **out) {
  for (int i = 0; i < n; i++) {
    sl_tensor *there = NULL;
    if (sl_tensor_device(out[i])->gpu == dev->gpu) continue;
    SL_TRY(sl_tensor_to(out[i], sl_tensor_dtype(out[i]), dev, &there));
    sl_tensor_release(out[i]);
    out[i] = there;
  }
  return SL_STATUS_OK;
}

static void release_all(int n, sl_tensor **t) {
  for (int i = 0; i < n; i++) {
    sl_tensor_release(t[i]);
    t[i] = NULL;
  }
}

static sl_status run_call(const call *c, sl_tensor *x, sl_tensor *t, sl_tensor *y, sl_tensor *last, const sl_run *extra,
                          sl_tensor **out) {
  sl_model *m = c->m;
  const sl_model_info *f = &m->info;
  SL_REQUIRE(x && t, ARG, "%s: x and t must be given", m->kind->name);
  const sl_shape *s = sl_tensor_shape(x);
  SL_REQUIRE(sl_tensor_dtype(x) == SL_F32, DTYPE, "%s: x is %s, expected f32", m->kind->name,
             sl_dtype_name(sl_tensor_dtype(x)));
  SL_REQUIRE(
      s->rank == 4 && s->dim[0] > 0 && s->dim[1] == f->in_channels && s->dim[2] == f->height && s->dim[3] == f->width,
      SHAPE, "%s: x is %s, expected [N,%lld,%lld,%lld]", m->kind->name, sl_shape_text(s), (long long)f->in_channels,
      (long long)f->height, (long long)f->width);
  sl_model_warn_fresh(m);
  sl_run run = extra ? *extra : (sl_run){0};
  SL_TRY(sl_model_weights(m, &run.params));
  sl_tensor *in[4] = {x};
  SL_TRY(sl_model_conditions(m, s->dim[0], t, y, &in[1], &in[2]));
  int n = f->classes ? 3 : 2;
  if (last) in[n++] = last;
  char key[1024];
  int used = snprintf(key, sizeof key, "%d %lld", (int)c->kind, (long long)c->channels);
  for (int i = 0; i < c->n_keep && used < (int)sizeof key; i++)
    used += snprintf(key + used, sizeof key - (size_t)used, ",%s", c->keep[i]);
  sl_status status = used >= (int)sizeof key
                         ? sl_fail(SL_STATUS_ARG, "%s: the names to keep are too many for one call", m->kind->name)
                         : sl_eager_call(m->programs, key, (size_t)used, build_call, (void *)(uintptr_t)c, n, in, &run,
                                         1 + c->n_keep, out);
  sl_tensor_release(in[1]);
  if (f->classes) sl_tensor_release(in[2]);
  if (status != SL_STATUS_OK) return status;
  status = return_to(sl_tensor_device(x), 1 + c->n_keep, out);
  if (status != SL_STATUS_OK) release_all(1 + c->n_keep, out);
  return status;
}

sl_status sl_model_forward(sl_model *m, sl_tensor *x, sl_tensor *t, sl_tensor *y, int n_keep, const char *const *keep,
                           sl_tensor **out, sl_tensor **kept) {
  *out = NULL;
  SL_REQUIRE(n_keep >= 0 && n_keep < SL_MAX_CALL_OUTPUTS, ARG, "%s: keep names %d values, at most %d", m->kind->name,
             n_keep, SL_MAX_CALL_OUTPUTS - 1);
  SL_REQUIRE(!n_keep || (keep && kept), ARG, "%s: n_keep is %d, but keep or kept is NULL", m->kind->name, n_keep);
  for (int i = 0; i < n_keep; i++) SL_REQUIRE(keep[i], ARG, "%s: name %d to keep is NULL", m->kind->name, i + 1);
  call c = {.m = m, .kind = CALL_FORWARD, .n_keep = n_keep, .keep = keep};
  sl_tensor *all[SL_MAX_CALL_OUTPUTS];
  SL_TRY(run_call(&c, x, t, y, NULL, NULL, all));
  *out = all[0];
  if (n_keep) memcpy(kept, all + 1, (size_t)n_keep * sizeof *kept);
  return SL_STATUS_OK;
}

sl_status sl_model_forward_cfg(sl_model *m, sl_tensor *x, sl_tensor *t, sl_tensor *y, float scale, int64_t channels,
                               sl_tensor **out) {
  *out = NULL;
  SL_REQUIRE(m->info.null_class, ARG, "%s: guidance needs a null class, and with %s there is none", m->kind->name,
             m->info.one_class ? "classes = 1" : "class_dropout = 0");
  SL_REQUIRE(x, ARG, "%s: x must be given", m->kind->name);
  const sl_shape *s = sl_tensor_shape(x);
  SL_REQUIRE(s->rank == 4 && s->dim[0] > 0 && s->dim[0] % 2 == 0, SHAPE,
             "%s: x is %s, expected [2n,C,H,W] for guidance", m->kind->name, sl_shape_text(s));
  SL_REQUIRE(channels >= 1 && channels <= m->info.in_channels, ARG, "%s: channels is %lld, expected 1 … %lld",
             m->kind->name, (long long)channels, (long long)m->info.in_channels);
  call c = {.m = m, .kind = CALL_CFG, .channels = channels};
  sl_tensor *scale_tensor = NULL;
  SL_TRY(sl_tensor_from(m->ctx, SL_F32, 0, NULL, &scale, &scale_tensor));
  sl_status status = run_call(&c, x, t, y, scale_tensor, NULL, out);
  sl_tensor_release(scale_tensor);
  return status;
}

sl_status sl_model_gradients(sl_model *m, sl_tensor *x, sl_tensor *t, sl_tensor *y, sl_tensor *upstream, sl_tensor **dx,
                             sl_tensor **flat) {
  *dx = *flat = NULL;
  call c = {.m = m, .kind = CALL_GRADIENTS};
  sl_run run = {0};
  SL_TRY(sl_params_array(m->params, &run.grads));
  sl_status status = run_call(&c, x, t, y, upstream, &run, dx);
  if (status == SL_STATUS_OK) status = return_to(sl_tensor_device(x), 1, &run.grads);
  if (status == SL_STATUS_OK) {
    *flat = run.grads;
    return SL_STATUS_OK;
  }
  sl_tensor_release(run.grads);
  release_all(1, dx);
  return status;
}

sl_status sl_model_t_embed(sl_model *m, sl_tensor *t, sl_tensor **out) {
  *out = NULL;
  call c = {.m = m, .kind = CALL_T_EMBED};
  int64_t n = sl_tensor_numel(t);
  sl_tensor *x = NULL, *y = NULL, *flat = NULL;
  SL_TRY(sl_tensor_zeros(m->ctx, NULL, SL_F32, &SL_SHAPE(n, m->info.in_channels, m->info.height, m->info.width), &x));
  sl_status status = SL_STATUS_OK;
  if (m->info.classes) SL_GOTO(sl_tensor_zeros(m->ctx, NULL, SL_I64, &SL_SHAPE(n), &y));
  SL_GOTO(sl_tensor_reshape(t, &SL_SHAPE(n), &flat));
  SL_GOTO(run_call(&c, x, flat, y, NULL, NULL, out));
done:
  sl_tensor_release(x);
  sl_tensor_release(y);
  sl_tensor_release(flat);
  return status;
}

sl_status sl_model_trace(sl_model *m, sl_tensor *x, sl_tensor *t, sl_tensor *y,
                         bool (*trace)(void *user, const sl_trace *t), void *user) {
  call c = {.m = m, .kind = CALL_FORWARD};
  sl_run run = {.trace = trace, .user = user};
  sl_tensor *out = NULL;
  SL_TRY(run_call(&c, x, t, y, NULL, &run, &out));
  sl_tensor_release(out);
  return SL_STATUS_OK;
}

/* --- the graph by itself --- */

#define MAX_COUNTED (1 << 20) /* images whose multiply-adds still fit into their number */

static sl_status with_graph(sl_model *m, int64_t batch, sl_status (*use)(sl_graph *g, void *out), void *result) {
  SL_REQUIRE(batch > 0 && batch <= MAX_COUNTED, ARG, "%s: batch is %lld, expected 1 to %d", m->kind->name,
             (long long)batch, MAX_COUNTED);
  sl_graph *g = NULL;
  sl_builder b = {0};
  sl_status status;
  SL_TRY(sl_graph_new(m->ctx, &g));
  sl_graph_set_device(g, m->device);
  SL_GOTO(sl_builder_init(&b, g, m->params, false));
  sl_value *x = sl_input(g, "x", SL_F32, &SL_SHAPE(batch, m->info.in_channels, m->info.height, m->info.width));
  sl_value *t = sl_input(g, "t", SL_I64, &SL_SHAPE(batch));
  sl_value *y = m->info.classes ? sl_input(g, "y", SL_I64, &SL_SHAPE(batch)) : NULL;
  sl_graph_output(g, "out", sl_model_build(m, &b, x, t, y));
  SL_GOTO(sl_graph_status(g));
  status = use(g, result);
done:
  sl_builder_clear(&b);
  sl_graph_release(g);
  return status;
}

static sl_status count_macs(sl_graph *g, void *out) {
  *(int64_t *)out = sl_graph_macs(g);
  return SL_STATUS_OK;
}

static sl_status draw(sl_graph *g, void *out) { return sl_graph_dot(g, out); }

sl_status sl_model_macs(sl_model *m, int64_t batch, int64_t *macs) { return with_graph(m, batch, count_macs, macs); }
sl_status sl_model_dot(sl_model *m, int64_t batch, char **out) { return with_graph(m, batch, draw, out); }
