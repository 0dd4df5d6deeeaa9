/* cuDNN's graphs of operations, and the search for an engine. Through the backend API of cuDNN 9. */
#include <stdio.h>
#include <string.h>

#include "gpu/dnn_graph_cuda.h"

/* --- building --- */

static void refuse(sl_dnn_graph *g, cudnnStatus_t s, const char *what) {
  if (g->refusal[0]) return;
  char detail[160] = "";
  g->dnn->GetLastErrorString(detail, sizeof detail);
  snprintf(g->refusal, sizeof g->refusal, "%s: %s %s", what, g->dnn->GetErrorString(s), detail);
}

sl_dnn_desc sl__dnn_make(sl_dnn_graph *g, cudnnBackendDescriptorType_t type) {
  if (g->refusal[0]) return NULL;
  SL_ASSERT(g->n_made < SL_DNN_MADE);
  sl_dnn_desc d = NULL;
  cudnnStatus_t s = g->dnn->BackendCreateDescriptor(type, &d);
  if (s == CUDNN_STATUS_SUCCESS) g->made[g->n_made++] = d;
  else refuse(g, s, "a descriptor");
  return d;
}

void sl__dnn_set(sl_dnn_graph *g, sl_dnn_desc d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                 int64_t count, const void *values) {
  if (g->refusal[0]) return;
  cudnnStatus_t s = g->dnn->BackendSetAttribute(d, name, type, count, values);
  char what[32];
  snprintf(what, sizeof what, "attribute %d", (int)name);
  if (s != CUDNN_STATUS_SUCCESS) refuse(g, s, what);
}

void sl__dnn_link(sl_dnn_graph *g, sl_dnn_desc d, cudnnBackendAttributeName_t name, sl_dnn_desc other) {
  sl__dnn_set(g, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &other);
}

void sl__dnn_seal(sl_dnn_graph *g, sl_dnn_desc d, const char *what) {
  if (g->refusal[0]) return;
  cudnnStatus_t s = g->dnn->BackendFinalize(d);
  if (s != CUDNN_STATUS_SUCCESS) refuse(g, s, what);
}

void sl__dnn_add(sl_dnn_graph *g, sl_dnn_desc op, const char *what) {
  sl__dnn_seal(g, op, what);
  if (g->refusal[0]) return;
  SL_ASSERT(g->n_ops < SL_DNN_OPS);
  g->op[g->n_ops++] = op;
}

static sl_dnn_desc tensor(sl_dnn_graph *g, int64_t uid, cudnnDataType_t type, sl_dnn_shape s, bool by_value) {
  sl_dnn_desc d = sl__dnn_make(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  const bool is_virtual = uid == SL_DNN_VIRTUAL;
  const int64_t alignment = by_value ? 4 : 16;
  if (is_virtual) uid = 1000 + g->n_made; /* nobody asks for it, but uids must differ */
  sl__dnn_set(g, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid);
  sl__dnn_set(g, d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
  sl__dnn_set(g, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, s.dim);
  sl__dnn_set(g, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, s.stride);
  sl__dnn_set(g, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
  sl__dnn_set(g, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual);
  sl__dnn_set(g, d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &by_value);
  sl__dnn_seal(g, d, "a tensor");
  return d;
}

sl_dnn_desc sl__dnn_tensor(sl_dnn_graph *g, int64_t uid, cudnnDataType_t type, sl_dnn_shape s) {
  return tensor(g, uid, type, s, false);
}

sl_dnn_desc sl__dnn_scalar(sl_dnn_graph *g, int64_t uid) {
  return tensor(g, uid, CUDNN_DATA_FLOAT, (sl_dnn_shape){{1, 1, 1, 1}, {1, 1, 1, 1}}, true);
}

sl_dnn_desc sl__dnn_pointwise(sl_dnn_graph *g, cudnnPointwiseMode_t mode, sl_dnn_desc x, sl_dnn_desc b, sl_dnn_desc y) {
  const cudnnDataType_t f32 = CUDNN_DATA_FLOAT;
  sl_dnn_desc how = sl__dnn_make(g, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
  sl__dnn_set(g, how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
  sl__dnn_set(g, how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &f32);
  sl__dnn_seal(g, how, "a pointwise mode");
  sl_dnn_desc op = sl__dnn_make(g, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
  sl__dnn_link(g, op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how);
  sl__dnn_link(g, op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
  if (b) sl__dnn_link(g, op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b);
  sl__dnn_link(g, op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
  sl__dnn_add(g, op, "a pointwise operation");
  return y;
}

void sl__dnn_graph_build(sl_dnn_graph *g, const sl_dnn *d, const sl_dnn_recipe *r) {
  memset(g, 0, sizeof *g);
  g->dnn = d;
  g->strict = r->strict;
  r->build(g, r);
  g->whole = sl__dnn_make(g, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  if (d->handle) sl__dnn_set(g, g->whole, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &d->handle);
  sl__dnn_set(g, g->whole, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, g->n_ops, g->op);
  sl__dnn_seal(g, g->whole, "the graph");
}

/* Plans that were made of a graph do not need it any more. */
void sl__dnn_graph_free(sl_dnn_graph *g) {
  while (g->n_made > 0) g->dnn->BackendDestroyDescriptor(g->made[--g->n_made]);
}

/* --- engines --- */

typedef struct engine {
  int64_t index;
  unsigned notes, behaviour;
} engine;

#define BIT(note) (1u << CUDNN_NUMERICAL_NOTE_##note)

static bool usable(const sl_dnn_graph *g, const engine *e) {
  unsigned barred = BIT(NONDETERMINISTIC) | BIT(REDUCED_PRECISION_REDUCTION);
  if (g->strict) barred |= BIT(TENSOR_CORE) | BIT(DOWN_CONVERT_INPUTS);
  return e->index >= 0 && !(e->notes & barred);
}

static unsigned read_notes(const sl_dnn *d, sl_dnn_desc e, cudnnBackendAttributeName_t name,
                           cudnnBackendAttributeType_t type) {
  enum { MOST = 32 };
  int note[MOST]; /* both kinds of notes are enumerations as wide as an int */
  int64_t n = 0;
  unsigned bits = 0;
  _Static_assert(sizeof(cudnnBackendNumericalNote_t) == sizeof(int), "a note's size");
  if (d->BackendGetAttribute(e, name, type, MOST, &n, note) != CUDNN_STATUS_SUCCESS) return ~0u; /* barred */
  for (int i = 0; i < n && i < MOST; i++) bits |= 1u << (note[i] & 31);
  return bits;
}

static engine engine_of(const sl_dnn *d, sl_dnn_desc config) {
  engine e = {.index = -1};
  sl_dnn_desc it = NULL;
  int64_t n = 0;
  if (d->BackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &it) != CUDNN_STATUS_SUCCESS) return e;
  if (d->BackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &n, &it) ==
      CUDNN_STATUS_SUCCESS) {
    d->BackendGetAttribute(it, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &n, &e.index);
    e.notes = read_notes(d, it, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE);
    e.behaviour = read_notes(d, it, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE);
  }
  d->BackendDestroyDescriptor(it);
  return e;
}

/* --- the search --- */

/* Sees a configuration; keeps it by setting *config to NULL; true: enough. */
typedef bool take_fn(sl_dnn_graph *g, sl_dnn_desc *config, const engine *e, void *user);

static sl_dnn_desc heuristic(sl_dnn_graph *g, cudnnBackendHeurMode_t mode) {
  sl_dnn_desc h = sl__dnn_make(g, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  sl__dnn_link(g, h, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, g->whole);
  sl__dnn_set(g, h, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
  if (g->dnn->device) sl__dnn_link(g, h, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, g->dnn->device);
  sl__dnn_seal(g, h, "the heuristic");
  return g->refusal[0] ? NULL : h;
}

/* One mode's configurations, best first. */
static bool search_mode(sl_dnn_graph *g, cudnnBackendHeurMode_t mode, take_fn *take, void *user) {
  enum { MOST = 64 };
  const sl_dnn *d = g->dnn;
  sl_dnn_desc config[MOST] = {NULL}, h = heuristic(g, mode);
  int64_t n = 0, got = 0;
  bool enough = false;
  if (!h) return false;
  d->BackendGetAttribute(h, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, &n, NULL);
  if (n > MOST) n = MOST;
  for (int64_t i = 0; i < n; i++)
    if (d->BackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &config[i]) != CUDNN_STATUS_SUCCESS) n = i;
  if (n > 0) d->BackendGetAttribute(h, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, n, &got, config);
  for (int64_t i = 0; i < got && i < n && !enough; i++) {
    engine e = engine_of(d, config[i]);
    enough = take(g, &config[i], &e, user);
  }
  for (int64_t i = 0; i < n; i++)
    if (config[i]) d->BackendDestroyDescriptor(config[i]);
  return enough;
}

/* A mode that refuses the graph has no configurations; the first refusal is told if no mode has any. */
static void search(sl_dnn_graph *g, take_fn *take, void *user) {
  static const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_B, CUDNN_HEUR_MODE_FALLBACK};
  char first[sizeof g->refusal] = "";
  for (int i = 0; i < 3; i++) {
    if (search_mode(g, modes[i], take, user)) return;
    if (!first[0]) memcpy(first, g->refusal, sizeof first);
    g->refusal[0] = 0;
  }
  memcpy(g->refusal, first, sizeof first);
}

/* An execution plan of a configuration, or NULL and the reason in g->refusal. */
static sl_dnn_desc finish(sl_dnn_graph *g, sl_dnn_desc config, int64_t *bytes) {
  const sl_dnn *d = g->dnn;
  sl_dnn_desc p = sl__dnn_make(g, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
  int64_t n = 0;
  if (!p) return NULL;
  if (d->handle) sl__dnn_set(g, p, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &d->handle);
  else sl__dnn_link(g, p, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, d->device);
  sl__dnn_link(g, p, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
  sl__dnn_seal(g, p, "the plan");
  if (!g->refusal[0]) {
    cudnnStatus_t s =
        d->BackendGetAttribute(p, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &n, bytes);
    if (s != CUDNN_STATUS_SUCCESS) refuse(g, s, "the plan's workspace");
  }
  g->n_made--; /* the latest made: not the graph's */
  if (!g->refusal[0]) return p;
  d->BackendDestroyDescriptor(p);
  return NULL;
}

typedef struct found {
  int most, n;
  size_t room;
  sl_dnn_engine *engine;
  char refusal[256]; /* the first */
} found;

static bool take_engine(sl_dnn_graph *g, sl_dnn_desc *config, const engine *e, void *user) {
  found *f = user;
  int64_t bytes = 0;
  if (!usable(g, e)) return false;
  sl_dnn_desc exec = finish(g, *config, &bytes);
  if (!f->refusal[0]) memcpy(f->refusal, g->refusal, sizeof f->refusal);
  g->refusal[0] = 0; /* the next configuration may do */
  if (!exec) return false;
  if ((uint64_t)bytes > f->room) {
    g->dnn->BackendDestroyDescriptor(exec);
    return false;
  }
  f->engine[f->n++] = (sl_dnn_engine){exec, *config, (size_t)bytes};
  *config = NULL;
  return f->n == f->most;
}

int sl__dnn_search(sl_dnn_graph *g, int most, size_t room, sl_dnn_engine *out) {
  found f = {.most = most, .room = room, .engine = out};
  if (!g->refusal[0]) search(g, take_engine, &f);
  if (!g->refusal[0]) memcpy(g->refusal, f.refusal, sizeof g->refusal);
  return f.n;
}

void sl__dnn_engine_free(const sl_dnn *d, sl_dnn_engine *e) {
  if (e->exec) d->BackendDestroyDescriptor(e->exec);
  if (e->config) d->BackendDestroyDescriptor(e->config);
  *e = (sl_dnn_engine){NULL, NULL, 0};
}

/* --- without a device --- */

static void note_engine(sl_dnn_report *r, const engine *e) {
  int at = 0;
  while (at < r->engines && r->engine[at] != (int)e->index) at++;
  if (at < r->engines || at == SL_DNN_REPORTED) return;
  r->engine[at] = (int)e->index;
  r->notes[at] = e->notes;
  r->behaviour[at] = e->behaviour;
  r->engines++;
}

static bool take_report(sl_dnn_graph *g, sl_dnn_desc *config, const engine *e, void *user) {
  sl_dnn_report *r = user;
  const sl_dnn *d = g->dnn;
  int64_t n = 0;
  r->configurations++;
  note_engine(r, e);
  if (!usable(g, e) || r->usable++) return false;
  r->first = (int)e->index;
  d->BackendGetAttribute(*config, CUDNN_ATTR_ENGINECFG_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &n, &r->workspace);
  if (e->behaviour & 1u << CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION) return false;
  sl_dnn_desc exec = finish(g, *config, &r->workspace);
  r->finished = exec != NULL;
  if (exec) d->BackendDestroyDescriptor(exec);
  else memcpy(r->refusal, g->refusal, sizeof r->refusal);
  g->refusal[0] = 0;
  return false;
}

static sl_status describe_device(sl_dnn *d, const char *json) {
  const int64_t length = (int64_t)strlen(json);
  SL_TRY(
      sl__dnn_status(d, d->BackendCreateDescriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &d->device), "a description"));
  SL_TRY(sl__dnn_status(
      d, d->BackendSetAttribute(d->device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, length, json),
      "the description of a device"));
  return sl__dnn_status(d, d->BackendFinalize(d->device), "the description of a device");
}

sl_status sl__dnn_check(sl_context *ctx, const char *device_json, const sl_dnn_recipe *r, sl_dnn_report *out) {
  *out = (sl_dnn_report){.first = -1, .workspace = -1};
  sl_dnn d = {.ctx = ctx};
  sl_dnn_graph g;
  SL_TRY(sl__dnn_load(&d));
  sl_status status;
  SL_GOTO(describe_device(&d, device_json));
  out->version = (int)d.GetVersion();
  sl__dnn_graph_build(&g, &d, r);
  if (!g.refusal[0]) search(&g, take_report, out);
  if (g.refusal[0] && !out->refusal[0]) memcpy(out->refusal, g.refusal, sizeof out->refusal);
  sl__dnn_graph_free(&g);
done:
  if (d.device) d.BackendDestroyDescriptor(d.device);
  return status;
}
