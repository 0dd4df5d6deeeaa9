/* t[i], t[i] = v and t:totable(). */
#include <string.h>

#include "l_tensor.h"

/* The position (from 1, negative from the end) at idx as an index from 0 below `size`. */
static int64_t check_position(lua_State *L, int idx, int64_t size) {
  int ok = 0;
  lua_Integer i = lua_tointegerx(L, idx, &ok);
  if (!ok) slL_error(L, "index %s is not an integer", slL_what(L, idx));
  if (i == 0 || i > size || i < -size) slL_error(L, "index %I is outside 1 to %I", (LUAI_UACINT)i, (LUAI_UACINT)size);
  return i > 0 ? i - 1 : i + size;
}

static int index_symbolic(lua_State *L) {
  slL_trace *trace = NULL;
  sl_value *v = slL_check_value(L, 1, &trace);
  if (v->shape.rank == 0) return slL_error(L, "a tensor of no dimensions has no elements to index; use it as it is");
  int64_t i = check_position(L, 2, v->shape.dim[0]);
  sl_graph *g = slL_trace_graph(trace);
  sl_attrs slice = {{0, i, i, 1}, {0}}, shape = {{v->shape.rank - 1}, {0}};
  memcpy(&shape.i[1], &v->shape.dim[1], (size_t)(v->shape.rank - 1) * sizeof(int64_t));
  sl_value *row = sl_apply(g, sl_op_find("slice"), 1, &v, &slice);
  sl_value *out = sl_apply(g, sl_op_find("reshape"), 1, &row, &shape);
  slL_trace_check(L, trace);
  slL_push_value(L, out, trace);
  return 1;
}

int slL_tensor_index(lua_State *L) {
  if (lua_type(L, 2) != LUA_TNUMBER) {
    lua_settop(L, 2);
    lua_rawget(L, lua_upvalueindex(1));
    return 1;
  }
  if (slL_is_symbolic(L, 1)) return index_symbolic(L);
  sl_tensor *t = slL_check_tensor(L, 1);
  if (sl_tensor_shape(t)->rank == 0)
    return slL_error(L, "a tensor of no dimensions has no elements to index; use t:item()");
  int64_t i = check_position(L, 2, sl_tensor_shape(t)->dim[0]);
  return slL_try(L, sl_tensor_select(t, 0, i, slL_push_tensor(L)));
}

int slL_tensor_newindex(lua_State *L) {
  if (lua_type(L, 2) != LUA_TNUMBER) return slL_error(L, "a tensor takes no fields; index it by position");
  if (slL_is_symbolic(L, 1))
    return slL_error(L, "a symbolic tensor cannot be assigned to; build a new one with sluice.where, cat or pad");
  sl_tensor *t = slL_check_tensor(L, 1);
  if (sl_tensor_shape(t)->rank == 0) return slL_error(L, "a tensor of no dimensions has no elements to assign");
  int64_t i = check_position(L, 2, sl_tensor_shape(t)->dim[0]);
  lua_settop(L, 3);
  if (slL_is_symbolic(L, 3))
    return slL_error(L, "a symbolic tensor has no value while tracing, so it cannot be stored");
  if (!slL_is_tensor(L, 3)) {
    slL_tensor_from_lua(L, 3, "assignment", SL_F64);
    lua_replace(L, 3);
  }
  sl_tensor **row = slL_push_tensor(L);
  slL_try(L, sl_tensor_select(t, 0, i, row));
  slL_try(L, sl_tensor_copy(*row, slL_check_tensor(L, 3)));
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
