/* Making tensors: from Lua's values, filled, counted, drawn. */
#include <math.h>
#include <string.h>

#include "base/random.h"
#include "lbind.h"

/* --- readers --- */

sl_dtype slL_check_dtype(lua_State *L, int idx, const char *what) {
  static const char *const names[] = {"f32", "bf16", "i32", "i64", "u8", "f16", "f64", "bool", "i8", "i16", NULL};
  if (lua_type(L, idx) != LUA_TSTRING)
    slL_error(L, "%s: dtype is %s, expected a name like \"f32\"", what, slL_what(L, idx));
  sl_dtype d = SL_F32;
  if (!sl_dtype_from_name(lua_tostring(L, idx), &d)) slL_unknown(L, what, "dtype", lua_tostring(L, idx), names);
  return d;
}

static int64_t check_size(lua_State *L, int idx, const char *what) {
  int ok = 0;
  lua_Integer n = lua_type(L, idx) == LUA_TNUMBER ? lua_tointegerx(L, idx, &ok) : 0;
  if (!ok) slL_error(L, "%s: shape holds %s, expected integers", what, slL_what(L, idx));
  if (n < 0) slL_error(L, "%s: shape holds %I, expected 0 or more", what, (LUAI_UACINT)n);
  return n;
}

sl_shape slL_check_shape(lua_State *L, int idx, const char *what) {
  sl_shape s = {0};
  if (lua_type(L, idx) == LUA_TNUMBER) return SL_SHAPE(check_size(L, idx, what));
  if (lua_type(L, idx) != LUA_TTABLE)
    slL_error(L, "%s: shape is %s, expected a list of integers", what, slL_what(L, idx));
  lua_Unsigned n = lua_rawlen(L, idx);
  if (n > SL_MAX_RANK) slL_error(L, "%s: shape has %I dimensions, at most %d", what, (LUAI_UACINT)n, SL_MAX_RANK);
  for (s.rank = 0; s.rank < (int)n; s.rank++) {
    lua_rawgeti(L, idx, s.rank + 1);
    s.dim[s.rank] = check_size(L, -1, what);
    lua_pop(L, 1);
  }
  lua_pushnil(L);
  while (lua_next(L, idx)) { /* {shape = …} and the like would else pass for a list of none */
    if (!lua_isinteger(L, -2))
      slL_error(L, "%s: shape has the field %s, expected a list of integers", what, slL_what(L, -2));
    lua_pop(L, 1);
  }
  return s;
}

/* --- nested tables --- */

typedef struct filler {
  lua_State *L;
  const char *what;
  sl_dtype dtype;
  sl_shape shape;
  char *at;
} filler;

static void put(filler *f, int idx) {
  lua_State *L = f->L;
  if (f->dtype == SL_I64 && lua_isinteger(L, idx)) {
    int64_t v = lua_tointeger(L, idx);
    memcpy(f->at, &v, sizeof v);
  } else if (lua_type(L, idx) == LUA_TNUMBER) {
    sl_element_set(f->dtype, f->at, lua_tonumber(L, idx));
  } else if (lua_type(L, idx) == LUA_TBOOLEAN) {
    sl_element_set(f->dtype, f->at, lua_toboolean(L, idx));
  } else if (slL_test_tensor(L, idx) && sl_tensor_numel(slL_test_tensor(L, idx)) == 1) {
    sl_element_set(f->dtype, f->at, sl_tensor_at(slL_check_host_tensor(L, idx), 0));
  } else {
    slL_error(L, "%s: an element is %s, expected a number", f->what, slL_what(L, idx));
  }
  f->at += sl_dtype_size(f->dtype);
}

static void fill(filler *f, int idx, int dim) {
  lua_State *L = f->L;
  if (dim == f->shape.rank) {
    put(f, idx);
    return;
  }
  if (lua_type(L, idx) != LUA_TTABLE)
    slL_error(L, "%s: nested tables of unequal depth: %s where a table was expected", f->what, slL_what(L, idx));
  lua_Unsigned n = lua_rawlen(L, idx);
  if ((int64_t)n != f->shape.dim[dim])
    slL_error(L, "%s: rows of unequal length: %I and %I elements in dimension %d", f->what,
              (LUAI_UACINT)f->shape.dim[dim], (LUAI_UACINT)n, dim + 1);
  for (lua_Unsigned i = 1; i <= n; i++) {
    lua_rawgeti(L, idx, (lua_Integer)i);
    fill(f, lua_gettop(L), dim + 1);
    lua_pop(L, 1);
  }
}

void slL_tensor_from_lua(lua_State *L, int idx, const char *what, sl_dtype dtype) {
  idx = lua_absindex(L, idx);
  luaL_checkstack(L, 2 * SL_MAX_RANK + 8, what);
  filler f = {.L = L, .what = what, .dtype = dtype};
  int top = lua_gettop(L);
  for (lua_pushvalue(L, idx); lua_type(L, -1) == LUA_TTABLE; lua_rawgeti(L, -1, 1)) {
    if (f.shape.rank == SL_MAX_RANK) slL_error(L, "%s: tables are nested deeper than %d", what, SL_MAX_RANK);
    f.shape.dim[f.shape.rank++] = (int64_t)lua_rawlen(L, -1);
    if (lua_rawlen(L, -1) == 0) break;
  }
  lua_settop(L, top);
  sl_tensor **out = slL_push_tensor(L);
  slL_try(L, sl_tensor_new(slL_context(L), NULL, dtype, &f.shape, out));
  f.at = sl_tensor_data(*out);
  fill(&f, idx, 0);
}

/* --- options --- */

typedef struct options {
  sl_dtype dtype;
  const sl_device *device;
  uint32_t seed;
  bool typed;
} options;

static uint32_t check_seed(lua_State *L, int idx, const char *what) {
  int ok = 0;
  lua_Integer seed = lua_type(L, idx) == LUA_TNUMBER ? lua_tointegerx(L, idx, &ok) : 0;
  if (!ok || seed < 0 || seed > 0xffffffffLL)
    slL_error(L, "%s: seed is %s, expected 0 to 4294967295", what, slL_what(L, idx));
  return (uint32_t)seed;
}

/* The table at idx, or nothing. */
static options read_options(lua_State *L, int idx, const char *what, bool draws) {
  static const char *const plain[] = {"dtype", "device", NULL}, *const drawn[] = {"dtype", "device", "seed", NULL};
  options o = {.dtype = SL_F32, .device = &sl_device_cpu};
  bool seeded = false;
  if (!lua_isnoneornil(L, idx)) {
    if (lua_type(L, idx) != LUA_TTABLE)
      slL_error(L, "%s: the options are %s, expected a table%s", what, slL_what(L, idx),
                lua_type(L, idx) == LUA_TNUMBER ? "; several numbers go into one table, { 2, 3 }" : "");
    slL_options(L, idx, what, draws ? drawn : plain);
    if (lua_getfield(L, idx, "dtype") != LUA_TNIL) o.dtype = slL_check_dtype(L, -1, what), o.typed = true;
    if (lua_getfield(L, idx, "device") != LUA_TNIL) {
      if (lua_type(L, -1) != LUA_TSTRING) slL_error(L, "%s: device is %s, expected a name", what, slL_what(L, -1));
      slL_try(L, sl_device_find(slL_context(L), lua_tostring(L, -1), &o.device));
    }
    seeded = draws && lua_getfield(L, idx, "seed") != LUA_TNIL;
    if (seeded) o.seed = check_seed(L, -1, what);
  }
  if (draws && !seeded) o.seed = slL_next_seed(L);
  return o;
}

/* What was made on the CPU, as the options want it. */
static int finish(lua_State *L, sl_tensor *t, const options *o, sl_dtype dtype) {
  if (dtype == sl_tensor_dtype(t) && !o->device->gpu) return 1;
  return slL_try(L, sl_tensor_to(t, dtype, o->device, slL_push_tensor(L)));
}

/* --- constructors --- */

/*** sluice.tensor(values, options?) -> tensor
A new tensor of a number, of nested tables of numbers (rows of one length), or of a list and a shape. true and false
are 1 and 0. Of a tensor: a copy, in the dtype and on the device that are asked for.
@param values number|boolean|table|sluice.Tensor  or { data = list, shape = shape }
@param options? table
@field dtype? sluice.DType  "f32"; of a tensor its own
@field device? string  "cpu"
@return sluice.Tensor
@example
print(sluice.tensor({ { 1, 2 }, { 3, 4 } }):shape()[2])  --> 2
print(sluice.tensor({ data = { 1, 2, 3, 4 }, shape = { 2, 2 } }, { dtype = "i64" }):sum(1))  --> i64 [2] cpu [4, 6] */
static int l_tensor(lua_State *L) {
  static const char *const fields[] = {"data", "shape", NULL};
  const char *what = "sluice.tensor";
  lua_settop(L, 2);
  options o = read_options(L, 2, what, false);
  lua_settop(L, 2);
  if (slL_is_symbolic(L, 1)) return slL_error(L, "%s: a symbolic tensor has no value while tracing", what);
  if (slL_is_tensor(L, 1)) {
    sl_tensor *t = slL_check_tensor(L, 1);
    return slL_try(L, sl_tensor_to(t, o.typed ? o.dtype : sl_tensor_dtype(t), o.device, slL_push_tensor(L)));
  }
  int type = lua_type(L, 1);
  if (type != LUA_TTABLE && type != LUA_TNUMBER && type != LUA_TBOOLEAN)
    return slL_error(L, "%s: got %s, expected a number or nested tables of numbers", what, slL_what(L, 1));
  if (type != LUA_TTABLE || lua_getfield(L, 1, "data") == LUA_TNIL) {
    slL_tensor_from_lua(L, 1, what, o.dtype);
    return finish(L, slL_check_tensor(L, -1), &o, o.dtype);
  }
  slL_options(L, 1, what, fields);
  lua_getfield(L, 1, "shape");
  sl_shape s = slL_check_shape(L, lua_gettop(L), what);
  slL_tensor_from_lua(L, 3, what, o.dtype);
  sl_tensor *flat = slL_check_tensor(L, -1);
  if (sl_tensor_numel(flat) != sl_shape_numel(&s))
    return slL_error(L, "%s: data has %I elements, shape %s needs %I", what, (LUAI_UACINT)sl_tensor_numel(flat),
                     sl_shape_text(&s), (LUAI_UACINT)sl_shape_numel(&s));
  sl_tensor **shaped = slL_push_tensor(L);
  slL_try(L, sl_tensor_reshape(flat, &s, shaped));
  return finish(L, *shaped, &o, o.dtype);
}

static int filled(lua_State *L, const char *what, double v, int options_at) {
  sl_shape s = slL_check_shape(L, 1, what);
  options o = read_options(L, options_at, what, false);
  sl_tensor **out = slL_push_tensor(L);
  slL_try(L, sl_tensor_zeros(slL_context(L), o.device, o.dtype, &s, out));
  if (v == 0) return 1;
  sl_tensor **one = slL_push_tensor(L);
  slL_try(L, sl_tensor_from(slL_context(L), SL_F64, 0, NULL, &v, one));
  slL_try(L, sl_tensor_copy(*out, *one));
  lua_pop(L, 1);
  return 1;
}

/*** sluice.zeros(shape, options?) -> tensor
A tensor of zeros.
@param shape integer|integer[]  sizes; {} for a single number
@param options? table
@field dtype? sluice.DType  "f32"
@field device? string  "cpu"
@return sluice.Tensor
@example print(sluice.zeros { 2, 3 }:numel())  --> 6 */
static int l_zeros(lua_State *L) { return lua_settop(L, 2), filled(L, "sluice.zeros", 0, 2); }
/*** sluice.ones(shape, options?) -> tensor
A tensor of ones.
@param shape integer|integer[]  sizes
@param options? table
@field dtype? sluice.DType  "f32"
@field device? string  "cpu"
@return sluice.Tensor
@example print(sluice.ones({ 3 }, { dtype = "u8" }))  --> u8 [3] cpu [1, 1, 1] */
static int l_ones(lua_State *L) { return lua_settop(L, 2), filled(L, "sluice.ones", 1, 2); }

/*** sluice.full(shape, value, options?) -> tensor
A tensor of one value.
@param shape integer|integer[]  sizes
@param value number
@param options? table
@field dtype? sluice.DType  "f32"
@field device? string  "cpu"
@return sluice.Tensor
@example print(sluice.full({ 2 }, 0.5))  --> f32 [2] cpu [0.5, 0.5] */
static int l_full(lua_State *L) {
  lua_settop(L, 3);
  if (lua_type(L, 2) != LUA_TNUMBER)
    return slL_error(L, "sluice.full: the value is %s, expected a number", slL_what(L, 2));
  return filled(L, "sluice.full", lua_tonumber(L, 2), 3);
}

/*** sluice.arange(first, last?, step?, options?) -> tensor
The numbers from first to last, both included, in steps; `arange(n)` is 1 … n. Options may follow the last number
that is given. i64 if all numbers are integers, else f32.
@param first number  the last, if it is the only one
@param last? number|table
@param step? number|table  1; may be negative
@param options? table
@field dtype? sluice.DType
@field device? string  "cpu"
@return sluice.Tensor
@example
print(sluice.arange(4))  --> i64 [4] cpu [1, 2, 3, 4]
print(sluice.arange(0, 1, 0.5, { dtype = "f32" }))  --> f32 [3] cpu [0.0, 0.5, 1.0] */
static int l_arange(lua_State *L) {
  const char *what = "sluice.arange";
  int n = 0;
  double v[3] = {1, 1, 1};
  bool whole = true;
  while (n < 3 && lua_type(L, n + 1) == LUA_TNUMBER) {
    v[n] = lua_tonumber(L, n + 1);
    n++;
    whole = whole && lua_isinteger(L, n);
  }
  if (n == 0) return slL_error(L, "%s: the first number is %s", what, slL_what(L, 1));
  if (n == 1) v[1] = v[0], v[0] = 1;
  if (lua_gettop(L) > n + 1)
    return slL_error(L, "%s: %s is too much; it takes first, last, step and options", what, slL_what(L, n + 2));
  options o = read_options(L, n + 1, what, false);
  if (!o.typed && whole) o.dtype = SL_I64;
  double count = floor((v[1] - v[0]) / v[2] + 1 + 1e-9);
  if (v[2] == 0 || !isfinite(count) || count > 1e15)
    return slL_error(L, "%s: the step %f does not lead from %f to %f", what, v[2], v[0], v[1]);
  sl_tensor **out = slL_push_tensor(L);
  slL_try(L, sl_tensor_new(slL_context(L), NULL, o.dtype, &SL_SHAPE(count < 0 ? 0 : (int64_t)count), out));
  char *at = sl_tensor_data(*out);
  for (int64_t i = 0; i < sl_tensor_numel(*out); i++)
    sl_element_set(o.dtype, at + (size_t)i * sl_dtype_size(o.dtype), v[0] + (double)i * v[2]);
  return finish(L, *out, &o, o.dtype);
}

/* --- draws: seed as given, or the next of sluice.seed's count --- */

static int drawn(lua_State *L, const char *what,
                 void (*draw)(sl_rng_key, uint32_t, uint32_t, uint64_t, int64_t, float *)) {
  lua_settop(L, 2);
  sl_shape s = slL_check_shape(L, 1, what);
  options o = read_options(L, 2, what, true);
  sl_tensor **out = slL_push_tensor(L);
  slL_try(L, sl_tensor_new(slL_context(L), NULL, SL_F32, &s, out));
  draw((sl_rng_key){o.seed, SL_STREAM_USER}, 0, 0, 0, sl_tensor_numel(*out), sl_tensor_data(*out));
  return finish(L, *out, &o, o.dtype);
}

/*** sluice.randn(shape, options?) -> tensor
Normal deviates of mean 0 and variance 1; the same seed gives the same numbers for any number of threads.
@param shape integer|integer[]  sizes
@param options? table
@field seed? integer  0 … 2^32-1; without one the next of sluice.seed's count
@field dtype? sluice.DType  "f32"
@field device? string  "cpu"
@return sluice.Tensor
@example print(sluice.randn({ 2, 3 }, { seed = 1 })) */
static int l_randn(lua_State *L) { return drawn(L, "sluice.randn", sl_random_normal); }
/*** sluice.rand(shape, options?) -> tensor
Uniform deviates in (0, 1), as `sluice.randn` draws.
@param shape integer|integer[]  sizes
@param options? table
@field seed? integer  0 … 2^32-1; without one the next of sluice.seed's count
@field dtype? sluice.DType  "f32"
@field device? string  "cpu"
@return sluice.Tensor
@example print(sluice.rand({ 3 }, { seed = 1 }):max():item() < 1)  --> true */
static int l_rand(lua_State *L) { return drawn(L, "sluice.rand", sl_random_uniform); }

/*** sluice.randint(lo, hi, shape, options?) -> tensor
Integers lo … hi, both included, each as likely as any other; at most 2^32-1 different ones.
@param lo integer
@param hi integer  at least lo
@param shape integer|integer[]  sizes
@param options? table
@field seed? integer  0 … 2^32-1; without one the next of sluice.seed's count
@field dtype? sluice.DType  "i64"
@field device? string  "cpu"
@return sluice.Tensor
@example print(sluice.randint(1, 6, { 100 }, { seed = 1 }):max():item())  --> 6 */
static int l_randint(lua_State *L) {
  const char *what = "sluice.randint";
  lua_settop(L, 4);
  int ok[2];
  lua_Integer lo = lua_tointegerx(L, 1, &ok[0]), hi = lua_tointegerx(L, 2, &ok[1]);
  if (!ok[0] || !ok[1]) return slL_error(L, "%s: expected lo, hi and a shape", what);
  if (hi < lo || (lua_Unsigned)hi - (lua_Unsigned)lo >= 0xffffffffu)
    return slL_error(L, "%s: from %I to %I there are no integers, or more than 4294967295", what, (LUAI_UACINT)lo,
                     (LUAI_UACINT)hi);
  sl_shape s = slL_check_shape(L, 3, what);
  options o = read_options(L, 4, what, true);
  if (!o.typed) o.dtype = SL_I64;
  sl_tensor **out = slL_push_tensor(L);
  slL_try(L, sl_tensor_new(slL_context(L), NULL, SL_I64, &s, out));
  int64_t *at = sl_tensor_data(*out), n = sl_tensor_numel(*out);
  uint32_t span = (uint32_t)(hi - lo) + 1;
  for (int64_t i = 0; i < n; i++)
    at[i] = lo + sl_random_below((sl_rng_key){o.seed, SL_STREAM_USER}, 0, 0, (uint64_t)i, span);
  return finish(L, *out, &o, o.dtype);
}

/*** sluice.seed(n)
Sets the count from which draws take their seed when they name none: the next one uses n, the one after it n + 1. It
starts at 0.
@param n integer  0 … 2^32-1
@example
sluice.seed(7)
local a = sluice.randn { 2 }
print(a:sub(sluice.randn({ 2 }, { seed = 7 })):abs():max():item())  --> 0.0 */
static int l_seed(lua_State *L) {
  slL_set_seed(L, check_seed(L, 1, "sluice.seed"));
  return 0;
}

static const luaL_Reg functions[] = {{"tensor", l_tensor}, {"zeros", l_zeros}, {"ones", l_ones}, {"full", l_full},
                                     {"arange", l_arange}, {"randn", l_randn}, {"rand", l_rand}, {"randint", l_randint},
                                     {"seed", l_seed},     {NULL, NULL}};

void slL_open_create(lua_State *L) { luaL_setfuncs(L, functions, 0); }
