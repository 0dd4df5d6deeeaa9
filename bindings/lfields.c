#include "lfields.h"

#include <string.h>

/* Pushes t[name]; true unless nil (then nothing is left on the stack). */
static bool push_field(lua_State *L, int idx, const char *name) {
  if (lua_getfield(L, idx, name) != LUA_TNIL) return true;
  lua_pop(L, 1);
  return false;
}

static int wrong(lua_State *L, const char *what, const char *name, const char *expected) {
  const char *got = luaL_tolstring(L, -1, NULL);
  return slL_error(L, "%s: %s is %s, expected %s", what, name, got, expected);
}

double slL_field_number(lua_State *L, int idx, const char *what, const char *name, double def) {
  if (!push_field(L, idx, name)) return def;
  if (lua_type(L, -1) != LUA_TNUMBER) wrong(L, what, name, "a number");
  double v = lua_tonumber(L, -1);
  lua_pop(L, 1);
  return v;
}

int64_t slL_field_integer(lua_State *L, int idx, const char *what, const char *name, int64_t def) {
  if (!push_field(L, idx, name)) return def;
  int ok = 0;
  lua_Integer v = lua_type(L, -1) == LUA_TNUMBER ? lua_tointegerx(L, -1, &ok) : 0;
  if (!ok) wrong(L, what, name, "an integer");
  lua_pop(L, 1);
  return v;
}

bool slL_field_boolean(lua_State *L, int idx, const char *what, const char *name, bool def) {
  if (!push_field(L, idx, name)) return def;
  if (lua_type(L, -1) != LUA_TBOOLEAN) wrong(L, what, name, "true or false");
  bool v = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return v;
}

const char *slL_field_string(lua_State *L, int idx, const char *what, const char *name, const char *def) {
  if (!push_field(L, idx, name)) return def;
  if (lua_type(L, -1) != LUA_TSTRING) wrong(L, what, name, "a string");
  const char *v = lua_tostring(L, -1); /* the table keeps it alive */
  lua_pop(L, 1);
  return v;
}

uint32_t slL_field_seed(lua_State *L, int idx, const char *what, const char *name, uint32_t def) {
  int64_t v = slL_field_integer(L, idx, what, name, def);
  if (v < 0 || v > 0xffffffffLL) slL_error(L, "%s: %s is %I, expected 0 to 4294967295", what, name, (LUAI_UACINT)v);
  return (uint32_t)v;
}

sl_tensor *slL_field_floats(lua_State *L, int idx, const char *what, const char *name) {
  idx = lua_absindex(L, idx);
  if (!push_field(L, idx, name)) {
    lua_pushnil(L);
    return NULL;
  }
  if (lua_type(L, -1) != LUA_TTABLE) wrong(L, what, name, "a list of numbers");
  int64_t n = (int64_t)lua_rawlen(L, -1);
  sl_tensor **box = slL_push_tensor(L);
  slL_try(L, sl_tensor_new(slL_context(L), NULL, SL_F32, &SL_SHAPE(n), box));
  float *out = sl_tensor_data(*box);
  for (int64_t i = 0; i < n; i++) {
    lua_rawgeti(L, -2, i + 1);
    if (lua_type(L, -1) != LUA_TNUMBER) wrong(L, what, name, "a list of numbers");
    out[i] = (float)lua_tonumber(L, -1);
    lua_pop(L, 1);
  }
  lua_remove(L, -2);
  return *box;
}

sl_tensor *slL_field_tensor(lua_State *L, int idx, const char *what, const char *name) {
  if (!push_field(L, idx, name)) return NULL;
  sl_tensor *t = slL_test_tensor(L, -1);
  if (!t) wrong(L, what, name, "a tensor");
  lua_pop(L, 1);
  return t;
}

int slL_field_choice(lua_State *L, int idx, const char *what, const char *name, const char *const *names, int def) {
  const char *text = slL_field_string(L, idx, what, name, NULL);
  if (!text) return def;
  luaL_Buffer b;
  for (int i = 0; names[i]; i++)
    if (!strcmp(names[i], text)) return i;
  luaL_buffinit(L, &b);
  for (int i = 0; names[i]; i++) {
    if (i) luaL_addstring(&b, ", ");
    luaL_addstring(&b, names[i]);
  }
  luaL_pushresult(&b);
  return slL_error(L, "%s: %s is \"%s\", expected one of %s", what, name, text, lua_tostring(L, -1));
}

const sl_device *slL_field_device(lua_State *L, int idx, const char *what) {
  const sl_device *dev = NULL;
  const char *name = slL_field_string(L, idx, what, "device", "auto");
  if (sl_device_find(slL_context(L), name, &dev) != SL_STATUS_OK) slL_error(L, "%s: %s", what, sl_error());
  return dev;
}
