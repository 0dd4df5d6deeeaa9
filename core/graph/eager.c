/* Eager use of the graph: one-op (and one-function) programs in a bounded cache, by what they do and what they are
 * given. */
#include <stdio.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "graph/program.h"

#define KEY_MAX 2048

typedef struct entry {
  uint64_t hash, tick;
  size_t key_size;
  uint8_t *key;
  sl_program *program;
} entry;

struct sl_eager {
  sl_context *ctx;
  int capacity, n;
  uint64_t tick;
  entry *entries;
};

typedef struct key {
  size_t used;
  bool overflow;
  uint8_t data[KEY_MAX];
} key;

sl_status sl_eager_new(sl_context *ctx, int capacity, sl_eager **out) {
  *out = NULL;
  sl_eager *e = sl_alloc_zero(ctx, sizeof *e);
  entry *entries = sl_alloc_zero(ctx, (size_t)capacity * sizeof *entries);
  if (!e || !entries) {
    sl_free(ctx, e);
    sl_free(ctx, entries);
    return SL_STATUS_OOM;
  }
  *e = (sl_eager){ctx, capacity, 0, 0, entries};
  *out = e;
  return SL_STATUS_OK;
}

static void entry_clear(sl_eager *e, entry *x) {
  sl_program_free(x->program);
  sl_free(e->ctx, x->key);
  *x = (entry){0};
}

void sl_eager_free(sl_eager *e) {
  if (!e) return;
  for (int i = 0; i < e->n; i++) entry_clear(e, &e->entries[i]);
  sl_free(e->ctx, e->entries);
  sl_free(e->ctx, e);
}

static void key_add(key *k, const void *data, size_t n) {
  if (k->used + n > KEY_MAX) {
    k->overflow = true;
    return;
  }
  memcpy(k->data + k->used, data, n);
  k->used += n;
}

static void key_add_tensors(key *k, int n_in, sl_tensor *const *in) {
  for (int i = 0; i < n_in; i++) {
    int32_t head[2] = {in[i] ? (int32_t)sl_tensor_dtype(in[i]) : -1, in[i] ? sl_tensor_shape(in[i])->rank : 0};
    key_add(k, head, sizeof head);
    if (!in[i]) continue;
    key_add(k, sl_tensor_shape(in[i])->dim, (size_t)head[1] * sizeof(int64_t));
    key_add(k, sl_tensor_strides(in[i]), (size_t)head[1] * sizeof(int64_t));
  }
}

static uint64_t key_hash(const key *k) { return XXH3_64bits(k->data, k->used); }

static sl_program *cache_find(sl_eager *e, const key *k, uint64_t hash) {
  for (int i = 0; i < e->n; i++) {
    entry *x = &e->entries[i];
    if (x->hash != hash || x->key_size != k->used || memcmp(x->key, k->data, k->used)) continue;
    x->tick = ++e->tick;
    return x->program;
  }
  return NULL;
}

static sl_status cache_store(sl_eager *e, const key *k, uint64_t hash, sl_program *p) {
  uint8_t *bytes = sl_alloc(e->ctx, k->used);
  if (!bytes) return SL_STATUS_OOM;
  memcpy(bytes, k->data, k->used);
  int at = e->n;
  if (e->n < e->capacity) {
    e->n++;
  } else {
    at = 0;
    for (int i = 1; i < e->n; i++)
      if (e->entries[i].tick < e->entries[at].tick) at = i;
    entry_clear(e, &e->entries[at]);
  }
  e->entries[at] = (entry){hash, ++e->tick, k->used, bytes, p};
  return SL_STATUS_OK;
}

/* Where a call runs: where its parameters lie; without any, on the GPU of the inputs that lie on one. Numbers (0-d) may
 * lie on the CPU all the same, other inputs only if the parameters say where to go. */
static sl_status device_of(int n_in, sl_tensor *const *in, const sl_run *run, const sl_device **out) {
  const sl_tensor *on = NULL;
  *out = &sl_device_cpu;
  if (run && run->params) {
    *out = sl_tensor_device(run->params);
    return SL_STATUS_OK;
  }
  for (int i = 0; i < n_in; i++)
    if (in[i] && sl_tensor_device(in[i])->gpu) on = on ? on : in[i];
  if (!on) return SL_STATUS_OK;
  *out = sl_tensor_device(on);
  for (int i = 0; i < n_in; i++)
    SL_REQUIRE(!in[i] || sl_tensor_device(in[i])->gpu == (*out)->gpu ||
                   (!sl_tensor_device(in[i])->gpu && sl_tensor_shape(in[i])->rank == 0),
               DEVICE, "an input lies on %s, another on %s; bring them together with :to(device)", (*out)->name,
               sl_tensor_device(in[i])->name);
  return SL_STATUS_OK;
}

static sl_status build_program(sl_eager *e, const sl_device *dev, sl_build_fn build, void *user, int n_in,
                               sl_tensor *const *in, int n_out, sl_program **out) {
  sl_graph *g = NULL;
  SL_TRY(sl_graph_new(e->ctx, &g));
  sl_graph_set_device(g, dev);
  sl_value *vin[SL_MAX_INPUTS] = {NULL}, *vout[SL_MAX_CALL_OUTPUTS] = {NULL};
  char name[16];
  for (int i = 0; i < n_in; i++) {
    if (!in[i]) continue;
    snprintf(name, sizeof name, "x%d", i);
    vin[i] = sl_input_strided(g, name, sl_tensor_dtype(in[i]), sl_tensor_shape(in[i]), sl_tensor_strides(in[i]));
  }
  sl_status status = sl_graph_status(g);
  if (status == SL_STATUS_OK) status = build(user, g, n_in, vin, n_out, vout);
  for (int i = 0; i < n_out; i++) {
    snprintf(name, sizeof name, "o%d", i);
    if (status == SL_STATUS_OK) sl_graph_output(g, name, vout[i]);
  }
  if (status == SL_STATUS_OK) status = sl_graph_compile(g, NULL, out);
  sl_graph_release(g);
  return status;
}

static sl_status call_cached(sl_eager *e, key *k, sl_build_fn build, void *user, int n_in, sl_tensor *const *in,
                             const sl_run *given, int n_out, sl_tensor **out) {
  if (out) memset(out, 0, (size_t)n_out * sizeof *out);
  SL_REQUIRE(n_in <= SL_MAX_INPUTS && n_out <= SL_MAX_CALL_OUTPUTS, ARG, "at most %d inputs and %d outputs",
             SL_MAX_INPUTS, SL_MAX_CALL_OUTPUTS);
  const sl_device *dev;
  int32_t counts[2] = {n_in, n_out};
  SL_TRY(device_of(n_in, in, given, &dev));
  key_add(k, &dev, sizeof dev);
  key_add(k, counts, sizeof counts);
  key_add_tensors(k, n_in, in);
  SL_REQUIRE(!k->overflow, INTERNAL, "the key of an eager call is longer than %d bytes", KEY_MAX);
  uint64_t hash = key_hash(k);
  sl_program *p = cache_find(e, k, hash);
  if (!p) {
    SL_TRY(build_program(e, dev, build, user, n_in, in, n_out, &p));
    sl_status s = cache_store(e, k, hash, p);
    if (s != SL_STATUS_OK) {
      sl_program_free(p);
      return s;
    }
  }
  /* Inputs that are absent are not declared: positions close up. */
  sl_tensor *bound[SL_MAX_INPUTS];
  int n = 0;
  for (int i = 0; i < n_in; i++)
    if (in[i]) bound[n++] = in[i];
  sl_run run = given ? *given : (sl_run){0};
  run.inputs = bound;
  return out ? sl_program_call(p, &run, n_out, out) : sl_program_run(p, &run);
}

typedef struct one_op {
  const sl_op *op;
  const sl_attrs *attrs;
} one_op;

static sl_status build_one(void *user, sl_graph *g, int n_in, sl_value *const *in, int n_out, sl_value **out) {
  const one_op *o = user;
  sl_value *v = sl_apply(g, o->op, n_in, in, o->attrs);
  SL_TRY(sl_graph_status(g));
  for (int i = 0; i < n_out; i++) {
    out[i] = sl_output(v, i);
    if (i == 0) out[i] = v; /* a composed op may return any output of another node */
  }
  return SL_STATUS_OK;
}

sl_status sl_eager_apply(sl_eager *e, const sl_op *op, int n_in, sl_tensor *const *in, const sl_attrs *attrs,
                         const sl_step *step, int n_out, sl_tensor **out) {
  key k = {.used = 0};
  sl_attrs a = attrs ? *attrs : sl_op_defaults(op);
  key_add(&k, &op, sizeof op);
  key_add(&k, &a, sizeof a);
  one_op one = {op, &a};
  return call_cached(e, &k, build_one, &one, n_in, in, &(sl_run){.step = step}, n_out, out);
}

sl_status sl_eager_call(sl_eager *e, const void *key_bytes, size_t key_size, sl_build_fn build, void *user, int n_in,
                        sl_tensor *const *in, const sl_run *run, int n_out, sl_tensor **out) {
  key k = {.used = 0};
  key_add(&k, "call", 4);
  key_add(&k, key_bytes, key_size);
  return call_cached(e, &k, build, user, n_in, in, run, n_out, out);
}
