/* cuDNN's handle, plans that are kept, running and tuning. */
#include <dlfcn.h>
#include <string.h>

#include "gpu/dnn_graph_cuda.h"
#include "gpu/gpu_fastest.h"
#include "gpu/gpu_libraries.h"

/* What equal plans share. */
struct sl_dnn_shared {
  sl_dnn *dnn;
  sl_dnn_shared *next;
  int users;
  sl_dnn_recipe recipe;
  sl_gpu *gpu;
  bool ran;
  sl_dnn_engine engine; /* none: not served, which is kept too */
  size_t bytes;         /* that the engine may use */
};

struct sl_dnn_plan {
  sl_dnn_shared *of;
  sl_dnn_desc pack;               /* addresses, for the library */
  void *packed[SL_DNN_SLOTS + 1]; /* what it holds: by uid, then the workspace */
};

/* --- the library --- */

sl_status sl__dnn_status(const sl_dnn *d, cudnnStatus_t s, const char *what) {
  if (s == CUDNN_STATUS_SUCCESS) return SL_STATUS_OK;
  char detail[256] = "";
  d->GetLastErrorString(detail, sizeof detail);
  return sl_fail(s == CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED ? SL_STATUS_OOM : SL_STATUS_DEVICE,
                 "cuDNN: %s failed: %s %s", what, d->GetErrorString(s), detail);
}

sl_status sl__dnn_load(sl_dnn *d) {
  const sl_gpu_library *lib = sl_gpu_library_find(SL_GPU_CUDNN);
  SL_REQUIRE(lib->handle, DEVICE, "cuDNN: %s", lib->text);
  void *symbol;
#define X(name)                                                                                                        \
  symbol = dlsym(lib->handle, "cudnn" #name);                                                                          \
  SL_REQUIRE(symbol, DEVICE, "cuDNN: %s has no cudnn" #name, lib->path);                                               \
  memcpy(&d->name, &symbol, sizeof symbol);
  SL_DNN_CALLS(X)
#undef X
  return SL_STATUS_OK;
}

static void shared_free(sl_dnn_shared *s) {
  sl__dnn_engine_free(s->dnn, &s->engine);
  sl_free(s->dnn->ctx, s);
}

static void dnn_free(sl_dnn *d) {
  while (d->shared) {
    sl_dnn_shared *s = d->shared;
    d->shared = s->next;
    shared_free(s);
  }
  if (d->handle) d->Destroy(d->handle);
  sl_free(d->ctx, d);
}

static sl_status dnn_open(sl_gpu *gpu, sl_dnn **out) {
  sl_dnn *d = sl_alloc_zero(gpu->ctx, sizeof *d);
  if (!d) return SL_STATUS_OOM;
  d->ctx = gpu->ctx;
  d->stream = gpu->stream;
  sl_status status;
  SL_GOTO(sl__dnn_load(d));
  SL_GOTO(sl__dnn_status(d, d->Create(&d->handle), "cudnnCreate"));
  SL_GOTO(sl__dnn_status(d, d->SetStream(d->handle, (cudaStream_t)gpu->stream), "cudnnSetStream"));
done:
  if (status == SL_STATUS_OK) *out = d;
  else dnn_free(d);
  return status;
}

/* The host stand-in (sm 0) has host memory: nothing for the library. */
sl_status sl__dnn_of(sl_gpu *gpu, sl_dnn **out) {
  *out = gpu->dnn;
  if (gpu->dnn || gpu->no_dnn || !gpu->sm) return SL_STATUS_OK;
  sl_status s = dnn_open(gpu, out);
  if (s == SL_STATUS_OOM) return s;
  if (s != SL_STATUS_OK) sl_context_log(gpu->ctx, "own kernels in place of cuDNN: %s", sl_error());
  gpu->no_dnn = s != SL_STATUS_OK;
  gpu->dnn = *out;
  return SL_STATUS_OK;
}

int sl_dnn_version(sl_gpu *gpu) {
  sl_dnn *d = NULL;
  return sl__dnn_of(gpu, &d) == SL_STATUS_OK && d ? (int)d->GetVersion() : 0;
}

void sl_dnn_close(sl_gpu *gpu) {
  if (gpu->dnn) dnn_free(gpu->dnn);
  gpu->dnn = NULL;
}

/* --- plans --- */

static bool same(const sl_dnn_recipe *a, const sl_dnn_recipe *b) {
  return a->n_key == b->n_key && !memcmp(a->key, b->key, (size_t)a->n_key * sizeof *a->key);
}

/* Moves it to the front. */
static sl_dnn_shared *find(sl_dnn *d, const sl_dnn_recipe *r) {
  for (sl_dnn_shared **at = &d->shared; *at; at = &(*at)->next) {
    sl_dnn_shared *s = *at;
    if (!same(&s->recipe, r)) continue;
    *at = s->next;
    s->next = d->shared;
    return d->shared = s;
  }
  return NULL;
}

static sl_dnn_shared *shared_new(sl_dnn *d, const sl_dnn_recipe *r) {
  sl_dnn_shared *s = sl_alloc_zero(d->ctx, sizeof *s);
  if (!s) return NULL;
  s->dnn = d;
  s->recipe = *r;
  sl_dnn_graph g;
  sl__dnn_graph_build(&g, d, r);
  if (!sl__dnn_search(&g, 1, SIZE_MAX, &s->engine))
    sl_context_log(d->ctx, "own kernels in place of cuDNN, which has no engine: %s", g.refusal);
  s->bytes = (s->engine.bytes + 255) / 256 * 256;
  sl__dnn_graph_free(&g);
  s->next = d->shared;
  return d->shared = s;
}

/* Frees what nobody has, but for the latest, which may be asked for again. */
static void trim(sl_dnn *d) {
  enum { KEPT = 256 };
  int idle = 0;
  for (sl_dnn_shared **at = &d->shared; *at;) {
    sl_dnn_shared *s = *at;
    if (s->users > 0 || ++idle <= KEPT) {
      at = &s->next;
      continue;
    }
    *at = s->next;
    shared_free(s);
  }
}

sl_status sl__dnn_plan(sl_gpu *gpu, const sl_dnn_recipe *r, sl_dnn_plan **out) {
  sl_dnn *d = NULL;
  *out = NULL;
  SL_TRY(sl__dnn_of(gpu, &d));
  if (!d) return SL_STATUS_OK;
  sl_dnn_shared *s = find(d, r);
  if (!s) s = shared_new(d, r);
  if (!s) return SL_STATUS_OOM;
  s->gpu = gpu;
  if (s->engine.exec) {
    *out = sl_alloc_zero(d->ctx, sizeof **out);
    if (!*out) return SL_STATUS_OOM;
    (*out)->of = s;
    s->users++;
  }
  trim(d);
  return SL_STATUS_OK;
}

void sl_dnn_release(sl_dnn_plan *plan) {
  if (!plan) return;
  sl_dnn *d = plan->of->dnn;
  if (plan->pack) d->BackendDestroyDescriptor(plan->pack);
  plan->of->users--;
  sl_free(d->ctx, plan);
  trim(d);
}

size_t sl_dnn_workspace(const sl_dnn_plan *plan) { return plan->of->recipe.own_bytes + plan->of->bytes; }

/* --- running --- */

/* A sealed pack may not change. */
static sl_status open_pack(const sl_dnn *d, sl_dnn_plan *p) {
  if (p->pack) d->BackendDestroyDescriptor(p->pack);
  p->pack = NULL;
  return sl__dnn_status(d, d->BackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &p->pack),
                        "a variant pack");
}

static sl_status set_pack(const sl_dnn *d, sl_dnn_plan *p, cudnnBackendAttributeName_t name,
                          cudnnBackendAttributeType_t type, int64_t n, const void *values) {
  return sl__dnn_status(d, d->BackendSetAttribute(p->pack, name, type, n, values), "setting a variant pack");
}

/* A program's addresses are the same in each run: its plans' packs are filled once. */
static sl_status fill_pack(const sl_dnn *d, sl_dnn_plan *p, void *const *data, void *workspace) {
  void *now[SL_DNN_SLOTS + 1] = {NULL};
  int64_t uid[SL_DNN_SLOTS];
  sl_dnn_recipe *r = &p->of->recipe;
  const int pointers = r->n_tensors - r->n_values;
  for (int i = 0; i < r->n_tensors; i++) {
    uid[i] = i + 1;
    now[i] = i < pointers ? data[i] : &r->value[i - pointers];
  }
  now[SL_DNN_SLOTS] = (char *)workspace + r->own_bytes;
  if (p->pack && !memcmp(now, p->packed, sizeof now)) return SL_STATUS_OK;
  memset(p->packed, 0, sizeof p->packed); /* until it is sealed it holds nothing */
  SL_TRY(open_pack(d, p));
  SL_TRY(set_pack(d, p, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, r->n_tensors, uid));
  SL_TRY(set_pack(d, p, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, r->n_tensors, now));
  SL_TRY(set_pack(d, p, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &now[SL_DNN_SLOTS]));
  SL_TRY(sl__dnn_status(d, d->BackendFinalize(p->pack), "a variant pack"));
  memcpy(p->packed, now, sizeof now);
  return SL_STATUS_OK;
}

static sl_status prepare(sl_dnn_plan *p, void *const *data, void *workspace) {
  uintptr_t bits = (uintptr_t)workspace;
  for (int i = 0; i < p->of->recipe.n_tensors - p->of->recipe.n_values; i++) bits |= (uintptr_t)data[i];
  SL_REQUIRE(bits % 16 == 0, ARG, "cuDNN: an address is no multiple of 16");
  return fill_pack(p->of->dnn, p, data, workspace);
}

static sl_status execute(const sl_dnn_plan *p, const sl_dnn_engine *e) {
  const sl_dnn *d = p->of->dnn;
  return sl__dnn_status(d, d->BackendExecute(d->handle, e->exec, p->pack), "running a plan");
}

/* --- tuning --- */

typedef struct candidates {
  const sl_dnn_plan *plan;
  sl_dnn_engine engine[SL_GPU_FASTEST_MOST];
} candidates;

static sl_status run_candidate(void *user, int i) {
  const candidates *c = user;
  return execute(c->plan, &c->engine[i]);
}

/* Exchanges the engine for the fastest, before anything was recorded that launches it. */
static sl_status tune(sl_dnn_plan *p, int tries) {
  enum { MOST = SL_GPU_FASTEST_MOST - 1 };
  sl_dnn_shared *s = p->of;
  candidates c = {.plan = p, .engine = {s->engine}};
  sl_dnn_graph g;
  int best = 0;
  sl__dnn_graph_build(&g, s->dnn, &s->recipe);
  const int n = 1 + sl__dnn_search(&g, tries < MOST ? tries : MOST, s->bytes, c.engine + 1);
  sl__dnn_graph_free(&g);
  sl_status status = sl_gpu_fastest(s->dnn->stream, n, run_candidate, &c, &best);
  s->engine = c.engine[best];
  for (int i = 0; i < n; i++)
    if (i != best) sl__dnn_engine_free(s->dnn, &c.engine[i]);
  return status;
}

sl_status sl__dnn_run(sl_dnn_plan *p, void *const *data, void *workspace) {
  sl_dnn_shared *s = p->of;
  SL_TRY(prepare(p, data, workspace));
  if (s->gpu->tune > 1 && !s->ran && !s->gpu->recording) SL_TRY(tune(p, s->gpu->tune));
  s->ran = true;
  return execute(p, &s->engine);
}
