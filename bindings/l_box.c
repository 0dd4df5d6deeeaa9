/* Tensors and traces as userdata. One metatable serves concrete and symbolic tensors, so that user functions take both.
 */
#include <stdio.h>
#include <string.h>

#include "l_tensor.h"
#include "lbind.h"

#define TRACE "sluice.trace"

typedef struct box {
  sl_tensor *t; /* first: slL_push_tensor gives its address */
  sl_value *v;
  slL_trace *trace; /* of v; kept alive by the box's user value */
} box;

struct slL_trace {
  sl_graph *graph; /* NULL once the trace has ended */
  bool as_inputs;  /* captured tensors become inputs, else tables */
  bool places;     /* nodes are told where the user's code describes them */
  int n, cap;
  sl_tensor **tensors; /* captured, one reference each */
  sl_value **values;
};

/* --- boxes --- */

sl_tensor **slL_push_tensor(lua_State *L) {
  luaL_checkstack(L, 8, "too many tensors");
  slL_account(L);
  box *b = lua_newuserdatauv(L, sizeof *b, 1);
  *b = (box){0};
  luaL_setmetatable(L, SLL_TENSOR);
  return &b->t;
}

void slL_push_shared(lua_State *L, sl_tensor *t) {
  if (!t) {
    lua_pushnil(L);
    return;
  }
  sl_tensor **out = slL_push_tensor(L);
  *out = sl_tensor_retain(t);
}

static box *test_box(lua_State *L, int idx) {
  return lua_type(L, idx) == LUA_TUSERDATA ? luaL_testudata(L, idx, SLL_TENSOR) : NULL;
}

bool slL_is_tensor(lua_State *L, int idx) { return test_box(L, idx) != NULL; }

bool slL_is_symbolic(lua_State *L, int idx) {
  box *b = test_box(L, idx);
  return b && b->v;
}

sl_tensor *slL_test_tensor(lua_State *L, int idx) {
  box *b = test_box(L, idx);
  return b ? b->t : NULL;
}

/* An argument's error, worded for tensors. */
static int wrong(lua_State *L, int idx, const char *expected) {
  lua_Debug ar;
  const char *got = slL_what(L, idx);
  if (lua_getstack(L, 0, &ar) && lua_getinfo(L, "n", &ar) && ar.name && idx > 0) {
    if (!strcmp(ar.namewhat, "method")) idx--; /* what stands before the colon is not counted */
    return slL_error(L, "%s: argument %d is %s, expected %s", ar.name, idx, got, expected);
  }
  return slL_error(L, "%s, expected %s", got, expected);
}

sl_tensor *slL_check_tensor(lua_State *L, int idx) {
  box *b = test_box(L, idx);
  if (!b) wrong(L, idx, "a tensor");
  if (b->v) wrong(L, idx, "a tensor with values: it has no value while tracing");
  if (!b->t) slL_error(L, "the tensor was released");
  return b->t;
}

sl_tensor *slL_check_host_tensor(lua_State *L, int idx) {
  sl_tensor *t = slL_check_tensor(L, idx);
  if (!sl_tensor_device(t)->gpu) return t;
  idx = lua_absindex(L, idx);
  sl_tensor **copy = slL_push_tensor(L);
  slL_try(L, sl_tensor_on_host(t, copy));
  t = *copy;
  lua_replace(L, idx);
  return t;
}

void slL_release_tensor(lua_State *L, int idx) {
  box *b = luaL_checkudata(L, idx, SLL_TENSOR);
  sl_tensor_release(b->t);
  b->t = NULL;
}

/* --- symbolic tensors --- */

/* Every way to a node goes through the values that it is made of: here is who asks for them. */
static void note_place(lua_State *L, const slL_trace *t) {
  if (!t->places) return;
  luaL_checkstack(L, 1, "too many tensors");
  sl_graph_place(t->graph, slL_push_place(L, "") ? lua_tostring(L, -1) : NULL);
  lua_pop(L, 1);
}

sl_value *slL_check_value(lua_State *L, int idx, slL_trace **trace) {
  box *b = test_box(L, idx);
  if (!b || !b->v) wrong(L, idx, "a symbolic tensor");
  if (!b->trace->graph)
    slL_error(L, "a symbolic tensor was kept after its trace; its values live only inside the traced function");
  note_place(L, b->trace);
  if (trace) *trace = b->trace;
  return b->v;
}

void slL_trace_check(lua_State *L, slL_trace *trace) {
  if (!trace->graph) slL_error(L, "the trace has ended");
  slL_try(L, sl_graph_status(trace->graph));
}

static sl_status grow(slL_trace *t, sl_context *ctx) {
  if (t->n < t->cap) return SL_STATUS_OK;
  int cap = t->cap ? 2 * t->cap : 16;
  sl_tensor **tensors = sl_realloc(ctx, t->tensors, (size_t)cap * sizeof *tensors);
  if (!tensors) return SL_STATUS_OOM;
  t->tensors = tensors;
  sl_value **values = sl_realloc(ctx, t->values, (size_t)cap * sizeof *values);
  if (!values) return SL_STATUS_OOM;
  t->values = values;
  t->cap = cap;
  return SL_STATUS_OK;
}

static sl_value *capture(lua_State *L, slL_trace *t, sl_tensor *x) {
  for (int i = 0; i < t->n; i++)
    if (t->tensors[i] == x) return t->values[i];
  slL_try(L, grow(t, slL_context(L)));
  char name[24];
  snprintf(name, sizeof name, "captured%d", t->n);
  sl_value *v = t->as_inputs
                    ? sl_input_strided(t->graph, name, sl_tensor_dtype(x), sl_tensor_shape(x), sl_tensor_strides(x))
                    : sl_table(t->graph, name, x);
  slL_trace_check(L, t);
  t->values[t->n] = v;
  t->tensors[t->n++] = sl_tensor_retain(x);
  return v;
}

sl_value *slL_to_value(lua_State *L, int idx, slL_trace *trace) {
  if (!trace->graph) slL_error(L, "the trace has ended");
  sl_value *v;
  if (lua_type(L, idx) == LUA_TNUMBER) {
    v = lua_isinteger(L, idx) ? sl_scalar(trace->graph, (double)lua_tointeger(L, idx), SL_I64)
                              : sl_scalar(trace->graph, lua_tonumber(L, idx), SL_F32);
    slL_trace_check(L, trace);
  } else if (slL_is_symbolic(L, idx)) {
    slL_trace *own = NULL;
    v = slL_check_value(L, idx, &own);
    if (own->graph != trace->graph)
      slL_error(L, "symbolic tensors of two traces meet; each belongs to the function that is traced");
  } else {
    v = capture(L, trace, slL_check_tensor(L, idx));
  }
  return v;
}

sl_value *slL_test_value(lua_State *L, int idx, slL_trace *trace) {
  box *b = test_box(L, idx);
  return b && b->v && trace->graph && b->trace->graph == trace->graph ? b->v : NULL;
}

void slL_push_value(lua_State *L, sl_value *v, slL_trace *trace) {
  if (!v) slL_trace_check(L, trace);
  luaL_checkstack(L, 8, "too many tensors");
  box *b = lua_newuserdatauv(L, sizeof *b, 1);
  *b = (box){0};
  luaL_setmetatable(L, SLL_TENSOR);
  lua_rawgetp(L, LUA_REGISTRYINDEX, trace);
  lua_setiuservalue(L, -2, 1);
  b->v = v;
  b->trace = trace;
}

/* --- traces --- */

static void end(lua_State *L, slL_trace *t) {
  if (t->graph && t->places) sl_graph_place(t->graph, NULL);
  sl_graph_release(t->graph);
  t->graph = NULL;
  sl_context *ctx = t->cap || t->tensors ? slL_context(L) : NULL;
  for (int i = 0; i < t->n; i++) sl_tensor_release(t->tensors[i]);
  if (ctx) {
    sl_free(ctx, t->tensors);
    sl_free(ctx, t->values);
  }
  t->tensors = NULL;
  t->values = NULL;
  t->n = t->cap = 0;
}

static int l_trace_end(lua_State *L) {
  slL_trace *t = luaL_checkudata(L, 1, TRACE);
  end(L, t);
  lua_pushnil(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, t);
  return 0;
}

slL_trace *slL_trace_push(lua_State *L, sl_graph *g) {
  luaL_checkstack(L, 8, "too many traces");
  slL_trace *t = lua_newuserdatauv(L, sizeof *t, 0);
  *t = (slL_trace){.as_inputs = true};
  if (luaL_newmetatable(L, TRACE)) {
    static const luaL_Reg meta[] = {{"__gc", l_trace_end}, {"__close", l_trace_end}, {NULL, NULL}};
    luaL_setfuncs(L, meta, 0);
  }
  lua_setmetatable(L, -2);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, t); /* until its end */
  t->graph = sl_graph_retain(g);
  return t;
}

typedef struct building {
  sl_graph *g;
  slL_build_fn f;
  void *user;
  slL_trace *trace; /* NULL: it could not be made */
  sl_value *value;
} building;

static int build_protected(lua_State *L) {
  building *b = lua_touserdata(L, -1);
  lua_pop(L, 1);
  b->trace = slL_trace_push(L, b->g);
  b->trace->as_inputs = false;
  b->trace->places = true;
  lua_pop(L, 1);
  b->value = b->f(L, b->trace, b->user);
  return 0;
}

sl_value *slL_build(lua_State *L, sl_graph *g, const char *what, int n, slL_build_fn f, void *user) {
  if (!lua_checkstack(L, 8)) {
    lua_pop(L, n);
    return sl_graph_fail(g, sl_fail(SL_STATUS_OOM, "%s: Lua's stack is full", what));
  }
  building b = {.g = g, .f = f, .user = user};
  lua_pushcfunction(L, build_protected);
  lua_insert(L, -1 - n);
  lua_pushlightuserdata(L, &b);
  if (slL_pcall(L, n + 1, 0) != LUA_OK) {
    b.value = NULL;
    if (sl_graph_broken(g)) slL_keep_error(L, sl_graph_status(g)); /* what the function ran into */
    else (void)sl_graph_fail(g, slL_fail(L, SL_STATUS_ARG, what));
  }
  if (!b.trace) return NULL;
  lua_rawgetp(L, LUA_REGISTRYINDEX, b.trace); /* on the stack: the registry lets go of it */
  end(L, b.trace);
  lua_pushnil(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, b.trace);
  lua_pop(L, 1);
  return b.value;
}

sl_graph *slL_trace_graph(slL_trace *trace) { return trace->graph; }

int slL_trace_captured(const slL_trace *trace, sl_tensor *const **tensors) {
  *tensors = trace->tensors;
  return trace->n;
}
