/* The methods of tensors that are no operations. */
#include "l_tensor.h"

#include <string.h>

/*** sluice.Tensor
Numbers of one dtype in a shape. `t[i]` is a tensor, row i of the first dimension, and sees the same memory; `t[i] =
v` writes a number, nested tables or a tensor there. `#t` is the size of the first dimension, and `for i, row in
pairs(t)` goes through its rows; `+ - * / ^` and unary `-` are operations; `<` and `<=` compare tensors of one element
and give booleans, `t:lt(u)` compares elements. tostring shows dtype, shape, device and a few elements.

Inside a function that is traced (sluice.value_and_grad, a loss of a recipe) tensors are symbolic: they have shape
and dtype, but no values, so that `item`, `totable`, `#t` and `<` raise an error. Lua cannot catch `if t` and `==`.
@field [integer] sluice.Tensor
@operator add(sluice.Tensor|number): sluice.Tensor
@operator sub(sluice.Tensor|number): sluice.Tensor
@operator mul(sluice.Tensor|number): sluice.Tensor
@operator div(sluice.Tensor|number): sluice.Tensor
@operator pow(sluice.Tensor|number): sluice.Tensor
@operator unm: sluice.Tensor
@operator len: integer
@setup local tensor = sluice.tensor { { 1, 2, 3 }, { 4, 5, 6 } }
@example
tensor[1] = { 7, 8, 9 }
tensor[2][3] = -1
print(tensor[1], (tensor * 2):sum():item())  --> f32 [3] cpu [7, 8, 9] 64.0
print(tensor:slice(2, 1, 2):permute { 2, 1 })  --> f32 [2,2] cpu [[7, 4], [8, 5]] */
static int no_value(lua_State *L, const char *what) {
  return slL_error(L, "%s: a symbolic tensor has no value while tracing", what);
}

/* The tensor at 1, for methods that read values. */
static sl_tensor *with_values(lua_State *L, const char *what) {
  if (slL_is_symbolic(L, 1)) no_value(L, what);
  return slL_check_tensor(L, 1);
}

/* Of the tensor at 1, concrete or symbolic. */
static const sl_shape *shape_of(lua_State *L) {
  return slL_is_symbolic(L, 1) ? &slL_check_value(L, 1, NULL)->shape : sl_tensor_shape(slL_check_tensor(L, 1));
}

/* --- shapes: lists that print as [2,3] and compare by their numbers --- */

static int l_shape_tostring(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  luaL_addchar(&b, '[');
  int n = (int)lua_rawlen(L, 1);
  for (int i = 1; i <= n; i++) {
    lua_rawgeti(L, 1, i);
    luaL_tolstring(L, -1, NULL);
    lua_remove(L, -2);
    luaL_addvalue(&b);
    if (i < n) luaL_addchar(&b, ',');
  }
  luaL_addchar(&b, ']');
  luaL_pushresult(&b);
  return 1;
}

static int l_shape_eq(lua_State *L) {
  bool same = lua_istable(L, 1) && lua_istable(L, 2) && lua_rawlen(L, 1) == lua_rawlen(L, 2);
  for (int i = 1; same && i <= (int)lua_rawlen(L, 1); i++) {
    lua_rawgeti(L, 1, i);
    lua_rawgeti(L, 2, i);
    same = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
  }
  lua_pushboolean(L, same);
  return 1;
}

/*** tensor:shape() -> sizes
The sizes of the dimensions, as a list that prints as [2,3] and that == compares by its numbers with another shape.
@return integer[]
@example print(tensor:shape(), tensor:shape() == sluice.zeros({ 2, 3 }):shape())  --> [2,3] true */
static int l_shape(lua_State *L) {
  const sl_shape *s = shape_of(L);
  lua_createtable(L, s->rank, 0);
  for (int i = 0; i < s->rank; i++) {
    lua_pushinteger(L, s->dim[i]);
    lua_rawseti(L, -2, i + 1);
  }
  if (luaL_newmetatable(L, "sluice.shape")) {
    static const luaL_Reg meta_of_shapes[] = {{"__tostring", l_shape_tostring}, {"__eq", l_shape_eq}, {NULL, NULL}};
    luaL_setfuncs(L, meta_of_shapes, 0);
  }
  lua_setmetatable(L, -2);
  return 1;
}

/*** tensor:dtype() -> name
f32, bf16, i32, i64 and u8 compute; f16, f64, bool, i8 and i16 are stored, converted and read.
@return sluice.DType
@example print(tensor:dtype(), tensor:lt(3):dtype())  --> f32 u8 */
static int l_dtype(lua_State *L) {
  sl_dtype d = slL_is_symbolic(L, 1) ? slL_check_value(L, 1, NULL)->dtype : sl_tensor_dtype(slL_check_tensor(L, 1));
  lua_pushstring(L, sl_dtype_name(d));
  return 1;
}

/*** tensor:device() -> name
Where it lies: "cpu" or a GPU's name, as `sluice.devices` lists them. A symbolic tensor's is "cpu".
@return string
@example print(tensor:device())  --> cpu */
static int l_device(lua_State *L) {
  if (slL_is_symbolic(L, 1)) lua_pushliteral(L, "cpu");
  else lua_pushstring(L, sl_tensor_device(slL_check_tensor(L, 1))->name);
  return 1;
}

/*** tensor:rank() -> n
How many dimensions it has; 0 for a single number.
@return integer
@example print(tensor:rank(), tensor:sum():rank())  --> 2 0 */
static int l_rank(lua_State *L) {
  lua_pushinteger(L, slL_is_symbolic(L, 1) ? slL_check_value(L, 1, NULL)->shape.rank
                                           : sl_tensor_shape(slL_check_tensor(L, 1))->rank);
  return 1;
}

/*** tensor:numel() -> n
How many elements it has.
@return integer
@example print(tensor:numel())  --> 6 */
static int l_numel(lua_State *L) {
  lua_pushinteger(L, slL_is_symbolic(L, 1) ? sl_shape_numel(&slL_check_value(L, 1, NULL)->shape)
                                           : sl_tensor_numel(slL_check_tensor(L, 1)));
  return 1;
}

static int to_symbolic(lua_State *L, bool to_dtype, sl_dtype dtype) {
  sl_value *v = slL_check_value(L, 1, NULL);
  if (!to_dtype || v->dtype == dtype) {
    lua_settop(L, 1);
    return 1;
  }
  return slL_call_op(L, sl_op_find("cast"), 1, (int[]){1}, &(sl_attrs){{dtype}, {0}});
}

/*** tensor:to(what) -> tensor
The tensor in another dtype or on another device; itself where nothing changes. Floats become integers by dropping
their fraction.
@param what sluice.DType|string  a dtype, or a device as sluice.devices lists them
@return sluice.Tensor
@example print(tensor:to "i32":dtype())  --> i32 */
static int l_to(lua_State *L) {
  const char *name = luaL_checkstring(L, 2);
  sl_dtype dtype = SL_F32;
  const sl_device *dev = NULL;
  bool to_dtype = sl_dtype_from_name(name, &dtype);
  if (!to_dtype && sl_device_find(slL_context(L), name, &dev) != SL_STATUS_OK) {
    static const char *const names[] = {"f32",  "bf16", "i32", "i64", "u8",   "f16", "f64",
                                        "bool", "i8",   "i16", "cpu", "cuda", NULL};
    if (!strncmp(name, "cuda", 4)) return slL_error(L, "to: %s", sl_error());
    slL_unknown(L, "to", "dtype or device", name, names);
  }
  if (slL_is_symbolic(L, 1)) return to_symbolic(L, to_dtype, dtype);
  sl_tensor *t = slL_check_tensor(L, 1);
  if (!dev) dev = sl_tensor_device(t);
  if (!to_dtype) dtype = sl_tensor_dtype(t);
  if (dev == sl_tensor_device(t) && dtype == sl_tensor_dtype(t)) {
    lua_settop(L, 1);
    return 1;
  }
  return slL_try(L, sl_tensor_to(t, dtype, dev, slL_push_tensor(L)));
}

/*** tensor:clone() -> tensor
A copy with memory of its own; a symbolic tensor is given back as it is.
@return sluice.Tensor
@example
local copy = tensor:clone()
copy[1] = 0
print(tensor[1][3]:item())  --> 3.0 */
static int l_clone(lua_State *L) {
  if (slL_is_symbolic(L, 1)) {
    slL_check_value(L, 1, NULL);
    lua_settop(L, 1);
    return 1;
  }
  sl_tensor *t = slL_check_tensor(L, 1);
  return slL_try(L, sl_tensor_to(t, sl_tensor_dtype(t), NULL, slL_push_tensor(L)));
}

/*** tensor:item() -> number
The number in a tensor of one element, of any shape; an integer of integer dtypes. Raises for more elements.
@return number
@example print(tensor:mean():item())  --> 3.5 */
static int l_item(lua_State *L) {
  sl_tensor *t = with_values(L, "item");
  if (sl_tensor_numel(t) != 1)
    return slL_error(L, "item: the tensor is %s, expected one element", sl_shape_text(sl_tensor_shape(t)));
  slL_tensor_totable(L);
  while (lua_type(L, -1) == LUA_TTABLE) lua_rawgeti(L, -1, 1);
  return 1;
}

/*** tensor:totable() -> table
Nested tables of numbers, one level per dimension; a number for a tensor without dimensions.
@return table|number
@example print(tensor:totable()[2][3])  --> 6.0 */
static int l_totable(lua_State *L) {
  with_values(L, "totable");
  return slL_tensor_totable(L);
}

static int l_length(lua_State *L) {
  const sl_shape *s = sl_tensor_shape(with_values(L, "#"));
  if (s->rank == 0) return slL_error(L, "#: a tensor of no dimensions has no length");
  lua_pushinteger(L, s->dim[0]);
  return 1;
}

static int l_next_row(lua_State *L) {
  lua_Integer i = luaL_checkinteger(L, 2) + 1;
  const sl_shape *s = shape_of(L);
  if (i < 1 || s->rank == 0 || i > s->dim[0]) {
    lua_pushnil(L);
    return 1;
  }
  lua_pushinteger(L, i);
  lua_geti(L, 1, i);
  return 2;
}

static int l_pairs(lua_State *L) {
  if (shape_of(L)->rank == 0) return slL_error(L, "pairs: a tensor of no dimensions has no rows; use it as it is");
  lua_pushcfunction(L, l_next_row);
  lua_pushvalue(L, 1);
  lua_pushinteger(L, 0);
  return 3;
}

/*** tensor:release()
Frees the memory now instead of at Lua's collection, unless other tensors see it too. The tensor raises when used
afterwards; `local t <close> = …` does the same at the end of a block.
@example tensor:release() */
static int l_release(lua_State *L) {
  if (slL_is_symbolic(L, 1)) return 0;
  slL_release_tensor(L, 1);
  return 0;
}

static int dim_of(lua_State *L, int idx, int rank) {
  lua_Integer d = luaL_checkinteger(L, idx);
  if (d == 0 || d > rank || d < -rank) slL_error(L, "transpose: dimension %I is outside 1 to %d", (LUAI_UACINT)d, rank);
  return (int)(d > 0 ? d - 1 : d + rank);
}

/*** tensor:transpose(a?, b?) -> tensor
Swaps two dimensions, by default the last two; sees the same memory.
@param a? integer  from 1, or from the end with -1
@param b? integer
@return sluice.Tensor
@example print(table.concat(tensor:transpose():shape(), " x "))  --> 3 x 2 */
static int l_transpose(lua_State *L) {
  lua_settop(L, 3);
  l_rank(L);
  int rank = (int)lua_tointeger(L, -1);
  if (lua_isnil(L, 2) && lua_isnil(L, 3)) {
    lua_pushinteger(L, -2), lua_replace(L, 2);
    lua_pushinteger(L, -1), lua_replace(L, 3);
  }
  int a = dim_of(L, 2, rank), b = dim_of(L, 3, rank);
  sl_attrs attrs = {{rank}, {0}};
  for (int i = 0; i < rank; i++) attrs.i[1 + i] = i == a ? b : i == b ? a : i;
  return slL_call_op(L, sl_op_find("permute"), 1, (int[]){1}, &attrs);
}

/* --- comparisons by operators --- */

static double number_of(lua_State *L, int idx, const char *what) {
  if (lua_type(L, idx) == LUA_TNUMBER) return lua_tonumber(L, idx);
  if (slL_is_symbolic(L, idx)) no_value(L, what);
  sl_tensor *t = slL_check_tensor(L, idx);
  if (sl_tensor_numel(t) != 1)
    slL_error(L, "%s on tensors must be true or false: of %s there is no one answer; write x:lt(y), x:le(y)", what,
              sl_shape_text(sl_tensor_shape(t)));
  return sl_tensor_at(slL_check_host_tensor(L, idx), 0);
}

/* Lua's order operators give booleans, so they take one element on each side. */
static int l_lt(lua_State *L) {
  if (slL_is_symbolic(L, 2)) no_value(L, "<");
  lua_pushboolean(L, number_of(L, 1, "<") < number_of(L, 2, "<"));
  return 1;
}

static int l_le(lua_State *L) {
  if (slL_is_symbolic(L, 2)) no_value(L, "<=");
  lua_pushboolean(L, number_of(L, 1, "<=") <= number_of(L, 2, "<="));
  return 1;
}

static int l_gc(lua_State *L) {
  slL_release_tensor(L, 1);
  return 0;
}

/*** sluice.is_tensor(value) -> boolean
Whether a value is a tensor, concrete or symbolic.
@param value any
@return boolean
@example print(sluice.is_tensor(sluice.zeros { 2 }), sluice.is_tensor { 0, 0 })  --> true false */
static int l_is_tensor(lua_State *L) {
  lua_pushboolean(L, slL_is_tensor(L, 1));
  return 1;
}

static const luaL_Reg methods[] = {{"shape", l_shape},     {"dtype", l_dtype},         {"device", l_device},
                                   {"rank", l_rank},       {"numel", l_numel},         {"to", l_to},
                                   {"clone", l_clone},     {"item", l_item},           {"totable", l_totable},
                                   {"release", l_release}, {"transpose", l_transpose}, {NULL, NULL}};

static const luaL_Reg meta[] = {{"__gc", l_gc},
                                {"__close", l_gc},
                                {"__len", l_length},
                                {"__pairs", l_pairs},
                                {"__lt", l_lt},
                                {"__le", l_le},
                                {"__newindex", slL_tensor_newindex},
                                {"__tostring", slL_tensor_tostring},
                                {NULL, NULL}};

void slL_open_tensor(lua_State *L) {
  slL_class(L, SLL_TENSOR, meta, methods);
  luaL_getmetatable(L, SLL_TENSOR);
  lua_getfield(L, -1, "__index");
  lua_pushvalue(L, -1);
  lua_setfield(L, -3, "methods"); /* where l_ops.c adds one per operation */
  lua_pushboolean(L, false);
  lua_pushcclosure(L, slL_tensor_index, 2);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  lua_pushcfunction(L, l_is_tensor);
  lua_setfield(L, -2, "is_tensor");
}
