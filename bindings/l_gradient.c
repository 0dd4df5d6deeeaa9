/* sluice.value_and_grad: traces a function at each call and runs the program of the same graph if there was one before.
 */
#include <stdio.h>
#include <string.h>

#include "lbind.h"

#define PROGRAMS 32

/* --- compiled programs by graph --- */

typedef struct cached {
  uint64_t hash, tick;
  sl_program *program;
} cached;

typedef struct cache {
  sl_context *ctx;
  uint64_t tick;
  int n;
  cached row[PROGRAMS];
} cache;

static void cache_release(void *user) {
  cache *c = user;
  for (int i = 0; i < c->n; i++) sl_program_free(c->row[i].program);
  sl_free(c->ctx, c);
}

static cache *cache_of(lua_State *L) {
  void **slot = slL_program_cache(L, cache_release);
  if (*slot) return *slot;
  cache *c = sl_alloc_zero(slL_context(L), sizeof *c);
  if (!c) slL_try(L, SL_STATUS_OOM);
  c->ctx = slL_context(L);
  return *slot = c;
}

static bool same_value(const sl_value *a, const sl_value *b) {
  if (!a || !b) return !a && !b;
  return a->id == b->id && a->dtype == b->dtype && sl_shape_equal(&a->shape, &b->shape) &&
         !memcmp(a->stride, b->stride, (size_t)a->shape.rank * sizeof a->stride[0]);
}

static bool same_node(const sl_node *a, const sl_node *b) {
  bool same = a->op == b->op && a->leaf == b->leaf && a->slot == b->slot && a->param_offset == b->param_offset &&
              a->table == b->table && !memcmp(&a->constant, &b->constant, sizeof a->constant) && a->n_in == b->n_in &&
              a->n_out == b->n_out && !memcmp(&a->attrs, &b->attrs, sizeof a->attrs);
  for (int i = 0; same && i < a->n_in; i++) same = same_value(a->in[i], b->in[i]);
  for (int i = 0; same && i < a->n_out; i++) same = same_value(&a->out[i], &b->out[i]);
  return same;
}

/* Hashes may collide: what is run must be what was asked for. */
static bool same_graph(sl_graph *a, sl_program *p) {
  sl_graph *b = sl_program_graph(p);
  int n = sl_graph_node_count(a);
  if (n != sl_graph_node_count(b) || sl_graph_device(a) != sl_graph_device(b)) return false;
  for (int i = 0; i < n; i++)
    if (!same_node(sl_graph_node(a, i), sl_graph_node(b, i))) return false;
  return true;
}

/* The program of g, compiled now if need be; the cache's own. The outputs' order is part of the hash only:
 * value_and_grad always declares them last and in the order of its parameters. */
static sl_program *program_of(lua_State *L, sl_graph *g) {
  cache *c = cache_of(L);
  uint64_t hash = sl_graph_hash(g);
  int at = c->n;
  for (int i = 0; i < c->n; i++) {
    if (c->row[i].hash != hash || !same_graph(g, c->row[i].program)) continue;
    c->row[i].tick = ++c->tick;
    return c->row[i].program;
  }
  sl_program *p = NULL;
  slL_try(L, sl_graph_compile(g, NULL, &p));
  if (c->n < PROGRAMS) {
    c->n++;
  } else {
    at = 0;
    for (int i = 1; i < c->n; i++)
      if (c->row[i].tick < c->row[at].tick) at = i;
    sl_program_free(c->row[at].program);
  }
  c->row[at] = (cached){hash, ++c->tick, p};
  return p;
}

/* --- parameters --- */

typedef struct param {
  sl_tensor *t;
  sl_value *v;
  const char *name; /* as text, for its place among the others */
  int key;          /* keys[key] is the key as given, keys[-key] the text */
} param;

static sl_tensor *check_param(lua_State *L, int idx, const char *name) {
  if (slL_is_symbolic(L, idx))
    slL_error(L, "value_and_grad: parameter %s is symbolic; a traced function cannot be differentiated inside itself",
              name);
  sl_tensor *t = slL_test_tensor(L, idx);
  if (!t) slL_error(L, "value_and_grad: parameter %s is %s, expected a tensor", name, slL_what(L, idx));
  if (sl_tensor_dtype(t) != SL_F32 && sl_tensor_dtype(t) != SL_BF16)
    slL_error(L, "value_and_grad: parameter %s is %s, expected f32 or bf16", name, sl_dtype_name(sl_tensor_dtype(t)));
  return t;
}

/* Reads {key = tensor} at 2 into params, sorted by name, so that one function gives one graph whatever order lua_next
 * takes. Leaves the table of keys on the top. */
static param *read_params(lua_State *L, int *n) {
  *n = 0;
  for (lua_pushnil(L); lua_next(L, 2); lua_pop(L, 1)) ++*n;
  param *p = lua_newuserdatauv(L, (size_t)*n * sizeof *p + 1, 0);
  lua_createtable(L, *n, *n);
  int keys = lua_gettop(L), i = 0;
  for (lua_pushnil(L); lua_next(L, 2); lua_pop(L, 1), i++) {
    if (lua_type(L, -2) != LUA_TSTRING && lua_type(L, -2) != LUA_TNUMBER)
      slL_error(L, "value_and_grad: a parameter's name is %s, expected a string", slL_what(L, -2));
    lua_pushvalue(L, -2);
    lua_rawseti(L, keys, i + 1);
    lua_pushvalue(L, -2);
    const char *name = lua_tostring(L, -1); /* of a copy: lua_next must not see the key change */
    lua_rawseti(L, keys, -(i + 1));
    sl_tensor *t = check_param(L, lua_gettop(L), name);
    int at = i;
    for (; at > 0 && strcmp(p[at - 1].name, name) > 0; at--) p[at] = p[at - 1];
    p[at] = (param){t, NULL, name, i + 1};
  }
  return p;
}

/* --- the function's trace --- */

/* The program runs where the parameters lie, all of them. */
static void declare_params(lua_State *L, sl_graph *g, int n, param *p) {
  char name[24];
  for (int i = 1; i < n; i++) {
    const sl_device *a = sl_tensor_device(p[0].t), *b = sl_tensor_device(p[i].t);
    if (a->gpu != b->gpu)
      slL_error(L, "value_and_grad: parameter %s lies on %s, %s on %s; bring them together with :to(device)", p[0].name,
                a->name, p[i].name, b->name);
  }
  if (n > 0 && sl_tensor_device(p[0].t)->gpu) sl_graph_set_device(g, sl_tensor_device(p[0].t));
  for (int i = 0; i < n; i++) {
    snprintf(name, sizeof name, "param%d", i);
    p[i].v = sl_input_strided(g, name, sl_tensor_dtype(p[i].t), sl_tensor_shape(p[i].t), sl_tensor_strides(p[i].t));
  }
  slL_try(L, sl_graph_status(g));
}

static sl_value *check_loss(lua_State *L, int idx, slL_trace *trace) {
  if (!slL_is_symbolic(L, idx))
    slL_error(L, "value_and_grad: the function returned %s, expected a tensor that it made of its parameters",
              slL_what(L, idx));
  sl_value *loss = slL_to_value(L, idx, trace);
  if (sl_shape_numel(&loss->shape) != 1)
    slL_error(L, "value_and_grad: the function returned %s, expected one element (take its mean or sum)",
              sl_value_text(loss));
  return loss;
}

/* Gradients and outputs are declared; the graph is whole. */
static void finish_graph(lua_State *L, slL_trace *trace, sl_value *loss, int n, param *p) {
  sl_graph *g = slL_trace_graph(trace);
  sl_value **wrt = lua_newuserdatauv(L, 2 * (size_t)n * sizeof *wrt + 1, 0), **dout = wrt + n;
  for (int i = 0; i < n; i++) wrt[i] = p[i].v;
  slL_try(L, sl_grad(g, loss, NULL, n, wrt, false, dout));
  sl_attrs none = {{0}, {0}};
  sl_graph_output(g, "value", loss->shape.rank ? sl_apply(g, sl_op_find("reshape"), 1, &loss, &none) : loss);
  char name[24];
  for (int i = 0; i < n; i++) {
    snprintf(name, sizeof name, "grad%d", i);
    sl_graph_output(g, name, dout[i]);
  }
  slL_trace_check(L, trace);
  lua_pop(L, 1);
}

/* Pushes n + 1 tensors' boxes in a table: the value, then the gradients. */
static void run(lua_State *L, slL_trace *trace, int n, const param *p) {
  sl_program *program = program_of(L, slL_trace_graph(trace));
  sl_tensor *const *captured;
  int n_captured = slL_trace_captured(trace, &captured);
  sl_tensor **in = lua_newuserdatauv(L, (size_t)(n + n_captured) * sizeof *in + 1, 0);
  for (int i = 0; i < n; i++) in[i] = p[i].t;
  for (int i = 0; i < n_captured; i++) in[n + i] = captured[i];
  sl_tensor **out = lua_newuserdatauv(L, (size_t)(n + 1) * sizeof *out, 0), ***box;
  box = lua_newuserdatauv(L, (size_t)(n + 1) * sizeof *box, 0);
  lua_createtable(L, n + 1, 0);
  for (int i = 0; i <= n; i++) {
    box[i] = slL_push_tensor(L);
    lua_rawseti(L, -2, i + 1);
  }
  sl_step step = {.seed = slL_next_seed(L)};
  sl_status s = sl_program_call(program, &(sl_run){.inputs = in, .step = &step}, n + 1, out);
  for (int i = 0; s == SL_STATUS_OK && i <= n; i++) *box[i] = out[i];
  slL_try(L, s);
}

static slL_trace *begin(lua_State *L) {
  sl_graph *g = NULL;
  slL_try(L, sl_graph_new(slL_context(L), &g));
  slL_trace *trace = slL_trace_push(L, g); /* may only fail for want of a few bytes */
  sl_graph_release(g);
  lua_toclose(L, -1); /* an error in the function ends the trace too */
  return trace;
}

/* The function's symbolic parameters: one tensor, or a table of them under the keys that were given. */
static void push_symbolic(lua_State *L, slL_trace *trace, int n, const param *p, bool single, int keys) {
  if (single) {
    slL_push_value(L, p[0].v, trace);
    return;
  }
  lua_createtable(L, 0, n);
  for (int i = 0; i < n; i++) {
    lua_rawgeti(L, keys, p[i].key);
    slL_push_value(L, p[i].v, trace);
    lua_rawset(L, -3);
  }
}

/*** sluice.value_and_grad(f, params, ...) -> value, gradients
The value of f and its gradient by each parameter. f is called once, at this call, with symbolic tensors in the
place of the parameters, and what is given after them; what it returns is run in C. Tensors that it uses beside its
parameters are constants. A function that describes the same computation again reuses the compiled program.
@param f fun(params: any, ...: any): sluice.Tensor  gives one element: a mean or a sum
@param params sluice.Tensor|table<any, sluice.Tensor>  f32 or bf16, all on one device
@param ... any  handed on to f
@return sluice.Tensor value  one element
@return sluice.Tensor|table<any, sluice.Tensor> gradients  under the parameters' names; of one tensor its own
@example
local value, g = sluice.value_and_grad(function(p, x) return (p.w * x):square():sum() end,
  { w = sluice.tensor { 1, 2 } }, sluice.tensor { 3, 1 })
print(value:item(), g.w)  --> 13.0 f32 [2] cpu [18, 4] */
static int l_value_and_grad(lua_State *L) {
  int top = lua_gettop(L), n = 1, keys = 0;
  if (lua_type(L, 1) != LUA_TFUNCTION)
    return slL_error(L, "value_and_grad: f is %s, expected a function", slL_what(L, 1));
  bool single = slL_is_tensor(L, 2);
  if (!single && lua_type(L, 2) != LUA_TTABLE)
    return slL_error(L, "value_and_grad: params is %s, expected a table of tensors", slL_what(L, 2));
  luaL_checkstack(L, top + 32, "value_and_grad");
  param one = {single ? check_param(L, 2, "params") : NULL, NULL, "params", 0}, *p = &one;
  if (!single) {
    p = read_params(L, &n);
    keys = lua_gettop(L);
  }
  slL_trace *trace = begin(L);
  declare_params(L, slL_trace_graph(trace), n, p);
  lua_pushvalue(L, 1);
  push_symbolic(L, trace, n, p, single, keys);
  for (int i = 3; i <= top; i++) lua_pushvalue(L, i);
  lua_call(L, top < 2 ? 1 : top - 1, 1);
  sl_value *loss = check_loss(L, lua_gettop(L), trace);
  finish_graph(L, trace, loss, n, p);
  run(L, trace, n, p);
  int made = lua_gettop(L);
  lua_rawgeti(L, made, 1);
  if (single) {
    lua_rawgeti(L, made, 2);
    return 2;
  }
  lua_createtable(L, 0, n);
  for (int i = 0; i < n; i++) {
    lua_rawgeti(L, keys, p[i].key);
    lua_rawgeti(L, made, i + 2);
    lua_rawset(L, -3);
  }
  return 2;
}

void slL_open_gradient(lua_State *L) {
  lua_pushcfunction(L, l_value_and_grad);
  lua_setfield(L, -2, "value_and_grad");
}
