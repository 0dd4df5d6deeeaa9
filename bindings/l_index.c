/* t[i], t[{ i, { first, last } }], assignments to them, and t:totable(). */
#include <string.h>

#include "l_tensor.h"

/* --- what an index picks --- */

/* In C's terms: positions from 0, both ends included. */
typedef struct picks {
  int64_t first[SL_MAX_RANK], last[SL_MAX_RANK], step[SL_MAX_RANK];
  bool drop[SL_MAX_RANK]; /* a single position: the dimension goes */
} picks;

/* The position (from 1, negative from the end) at idx as an index from 0 below `size`. */
static int64_t check_position(lua_State *L, int idx, int64_t size) {
  int ok = 0;
  lua_Integer i = lua_tointegerx(L, idx, &ok);
  if (!ok) slL_error(L, "index %s is not an integer", slL_what(L, idx));
  if (i == 0 || i > size || i < -size) slL_error(L, "index %I is outside 1 to %I", (LUAI_UACINT)i, (LUAI_UACINT)size);
  return i > 0 ? i - 1 : i + size;
}

/* The range at idx, a table: {} all, { i } one that stays, { first, last }, { first, last, step }. */
static void read_range(lua_State *L, int idx, int64_t size, int dim, picks *p) {
  int n = (int)lua_rawlen(L, idx);
  if (n > 3) slL_error(L, "a range has %d numbers, expected { first, last } or { first, last, step }", n);
  if (n == 0) return;
  for (int i = 1; i <= n; i++) lua_rawgeti(L, idx, i);
  int at = lua_gettop(L) - n + 1, ok = 1;
  p->first[dim] = p->last[dim] = check_position(L, at, size);
  if (n > 1) p->last[dim] = check_position(L, at + 1, size);
  if (n > 2) p->step[dim] = lua_tointegerx(L, at + 2, &ok);
  if (!ok || p->step[dim] < 1) slL_error(L, "a range's step is %s, expected at least 1", slL_what(L, at + 2));
  if (p->last[dim] < p->first[dim])
    slL_error(L, "the range { %s, %s } of %I is empty", slL_what(L, at), slL_what(L, at + 1), (LUAI_UACINT)size);
  if (p->step[dim] > p->last[dim] - p->first[dim]) p->last[dim] = p->first[dim], p->step[dim] = 1; /* one position */
  lua_settop(L, at - 1);
}

static void pick_one(lua_State *L, int idx, int64_t size, int dim, picks *p) {
  p->first[dim] = p->last[dim] = check_position(L, idx, size);
  p->drop[dim] = true;
}

/* The key at 2: a position of the first dimension, or a list of one position or range for each of the first dimensions.
 */
static void read_picks(lua_State *L, const sl_shape *s, picks *p) {
  *p = (picks){.drop = {false}};
  for (int i = 0; i < s->rank; i++) p->last[i] = s->dim[i] - 1, p->step[i] = 1;
  if (lua_type(L, 2) == LUA_TNUMBER) {
    bool reading = lua_gettop(L) == 2; /* ipairs ends so, as no row is nil */
    if (reading && lua_isinteger(L, 2) && lua_tointeger(L, 2) == s->dim[0] + 1)
      slL_error(L, "index %I is outside 1 to %I; over the rows: for i, row in pairs(x)", (LUAI_UACINT)s->dim[0] + 1,
                (LUAI_UACINT)s->dim[0]);
    pick_one(L, 2, s->dim[0], 0, p);
    return;
  }
  int n = (int)lua_rawlen(L, 2);
  if (n > s->rank) slL_error(L, "%d indices for a tensor %s", n, sl_shape_text(s));
  for (int i = 0; i < n; i++) {
    lua_rawgeti(L, 2, i + 1);
    int at = lua_gettop(L);
    if (lua_istable(L, at)) read_range(L, at, s->dim[i], i, p);
    else pick_one(L, at, s->dim[i], i, p);
    lua_settop(L, at - 1);
  }
}

/* Whether the key at 2 is an index; a tensor as a key is refused with what does it. */
static bool is_index(lua_State *L) {
  if (slL_is_tensor(L, 2))
    slL_error(L,
              "a tensor cannot be an index; x:gather(i) takes rows by their numbers, sluice.where(c, a, b) chooses "
              "by a mask");
  return lua_type(L, 2) == LUA_TNUMBER || lua_type(L, 2) == LUA_TTABLE;
}

/* --- reading --- */

static int index_symbolic(lua_State *L) {
  slL_trace *trace = NULL;
  sl_value *v = slL_check_value(L, 1, &trace);
  if (v->shape.rank == 0) return slL_error(L, "a tensor of no dimensions has no elements to index; use it as it is");
  picks p;
  read_picks(L, &v->shape, &p);
  sl_graph *g = slL_trace_graph(trace);
  for (int i = 0; i < v->shape.rank; i++) {
    if (p.first[i] == 0 && p.last[i] == v->shape.dim[i] - 1 && p.step[i] == 1) continue;
    v = sl_apply(g, sl_op_find("slice"), 1, &v, &(sl_attrs){{i, p.first[i], p.last[i], p.step[i]}, {0}});
    slL_trace_check(L, trace);
  }
  sl_attrs shape = {{0}, {0}};
  for (int i = 0; i < v->shape.rank; i++)
    if (!p.drop[i]) shape.i[++shape.i[0]] = v->shape.dim[i];
  if (shape.i[0] < v->shape.rank) v = sl_apply(g, sl_op_find("reshape"), 1, &v, &shape);
  slL_trace_check(L, trace);
  slL_push_value(L, v, trace);
  return 1;
}

/* Pushes the view of t that the key at 2 picks. */
static sl_tensor *push_picked(lua_State *L, sl_tensor *t) {
  const sl_shape *s = sl_tensor_shape(t);
  const int64_t *stride = sl_tensor_strides(t);
  picks p;
  read_picks(L, s, &p);
  sl_shape to = {0};
  int64_t strides[SL_MAX_RANK], offset = 0;
  for (int i = 0; i < s->rank; i++) {
    offset += p.first[i] * stride[i];
    if (p.drop[i]) continue;
    strides[to.rank] = stride[i] * p.step[i];
    to.dim[to.rank++] = s->dim[i] ? (p.last[i] - p.first[i]) / p.step[i] + 1 : 0;
  }
  sl_tensor **out = slL_push_tensor(L);
  slL_try(L, sl_tensor_view_as(t, &to, strides, sl_shape_numel(&to) ? offset : 0, out));
  return *out;
}

/* Methods written in Lua (sluice.compose) join the others when one that is not there is asked for. */
static void add_composed(lua_State *L) {
  lua_pushboolean(L, true);
  lua_replace(L, lua_upvalueindex(2));
  lua_getglobal(L, "require");
  lua_pushliteral(L, "sluice.compose");
  lua_call(L, 1, 1);
  lua_getfield(L, -1, "methods");
  for (lua_pushnil(L); lua_next(L, -2);) {
    lua_pushvalue(L, -2);
    lua_insert(L, -2);
    lua_rawset(L, lua_upvalueindex(1));
  }
  lua_pop(L, 2);
}

int slL_tensor_index(lua_State *L) {
  lua_settop(L, 2);
  if (!is_index(L)) {
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL || lua_type(L, 2) != LUA_TSTRING) return 1;
    if (lua_toboolean(L, lua_upvalueindex(2))) return 1;
    add_composed(L);
    lua_settop(L, 2);
    lua_rawget(L, lua_upvalueindex(1));
    return 1;
  }
  if (slL_is_symbolic(L, 1)) return index_symbolic(L);
  sl_tensor *t = slL_check_tensor(L, 1);
  if (sl_tensor_shape(t)->rank == 0)
    return slL_error(L, "a tensor of no dimensions has no elements to index; use t:item()");
  push_picked(L, t);
  return 1;
}

/* --- writing --- */

int slL_tensor_newindex(lua_State *L) {
  if (!is_index(L)) return slL_error(L, "a tensor takes no fields; index it by position");
  if (slL_is_symbolic(L, 1))
    return slL_error(L, "a symbolic tensor cannot be assigned to; build a new one with sluice.where, cat or pad");
  sl_tensor *t = slL_check_tensor(L, 1);
  if (sl_tensor_shape(t)->rank == 0) return slL_error(L, "a tensor of no dimensions has no elements to assign");
  lua_settop(L, 3);
  if (slL_is_symbolic(L, 3))
    return slL_error(L, "a symbolic tensor has no value while tracing, so it cannot be stored");
  if (!slL_is_tensor(L, 3)) {
    slL_tensor_from_lua(L, 3, "assignment", SL_F64);
    lua_replace(L, 3);
  }
  slL_try(L, sl_tensor_copy(push_picked(L, t), slL_check_tensor(L, 3)));
  sl_tensor_bump(t);
  return 0;
}

/* --- totable --- */

static void push_element(lua_State *L, sl_dtype d, const char *p) {
  int64_t whole;
  switch (d) {
    case SL_I64:
      memcpy(&whole, p, sizeof whole); /* a double would round it */
      lua_pushinteger(L, whole);
      break;
    case SL_I32:
    case SL_U8:
    case SL_BOOL:
    case SL_I8:
    case SL_I16: lua_pushinteger(L, (lua_Integer)sl_element_get(d, p)); break;
    default: lua_pushnumber(L, sl_element_get(d, p));
  }
}

static void push_nested(lua_State *L, const sl_view *v, int dim, const char *at) {
  if (dim == v->shape.rank) {
    push_element(L, v->dtype, at);
    return;
  }
  int64_t n = v->shape.dim[dim], step = v->stride[dim] * (int64_t)sl_dtype_size(v->dtype);
  lua_createtable(L, n > INT32_MAX ? 0 : (int)n, 0);
  for (int64_t i = 0; i < n; i++) {
    push_nested(L, v, dim + 1, at + i * step);
    lua_rawseti(L, -2, i + 1);
  }
}

int slL_tensor_totable(lua_State *L) {
  sl_view v = sl_tensor_view(slL_check_host_tensor(L, 1));
  luaL_checkstack(L, SL_MAX_RANK + 4, "totable");
  push_nested(L, &v, 0, v.data);
  return 1;
}
