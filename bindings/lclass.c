/* Classes of userdata, and what userdata hold. */
#include <string.h>

#include "lbind.h"

#define BLOCK "sluice.memory_block"
#define CLASSES "sluice.classes" /* in the registry: the names that slL_class was given */

/* --- what userdata hold --- */

void *slL_check_held(lua_State *L, int idx, const char *class, const char *word) {
  void *held;
  memcpy(&held, luaL_checkudata(L, idx, class), sizeof held);
  if (!held) slL_error(L, "the %s was released", word);
  return held;
}

static int block_gc(lua_State *L) {
  void **box = luaL_checkudata(L, 1, BLOCK), *block;
  memcpy(&block, box, sizeof block);
  if (block) sl_free(slL_context(L), block);
  *box = NULL;
  return 0;
}

void *slL_push_block(lua_State *L) {
  void **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  if (luaL_newmetatable(L, BLOCK)) {
    lua_pushcfunction(L, block_gc);
    lua_setfield(L, -2, "__gc");
  }
  lua_setmetatable(L, -2);
  return box;
}

slL_function slL_hold_function(lua_State *L, int idx) {
  slL_function f;
  idx = lua_absindex(L, idx);
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
  f.L = lua_tothread(L, -1);
  lua_pop(L, 1);
  lua_pushvalue(L, idx);
  f.ref = luaL_ref(L, LUA_REGISTRYINDEX);
  return f;
}

void slL_release_function(slL_function f) { luaL_unref(f.L, LUA_REGISTRYINDEX, f.ref); }

/* --- classes --- */

void slL_class(lua_State *L, const char *name, const luaL_Reg *meta, const luaL_Reg *methods) {
  luaL_getsubtable(L, LUA_REGISTRYINDEX, CLASSES);
  lua_pushboolean(L, true);
  lua_setfield(L, -2, name);
  lua_pop(L, 1);
  luaL_newmetatable(L, name);
  lua_newtable(L);
  if (methods) luaL_setfuncs(L, methods, 0);
  lua_setfield(L, -2, "__index");
  lua_pushliteral(L, "sluice: locked"); /* getmetatable would hand out __gc */
  lua_setfield(L, -2, "__metatable");
  if (meta) luaL_setfuncs(L, meta, 0);
  lua_pop(L, 1);
}

void slL_class_with_fields(lua_State *L, const char *name, const luaL_Reg *meta, const luaL_Reg *methods,
                           lua_CFunction index) {
  slL_class(L, name, meta, methods);
  luaL_getmetatable(L, name);
  lua_getfield(L, -1, "__index");
  lua_setfield(L, -2, "methods");
  lua_pushcfunction(L, index);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
}

/* Pushes the names of the methods of the class `name` as a list. */
static void push_methods(lua_State *L, const char *name) {
  luaL_getmetatable(L, name);
  if (lua_getfield(L, -1, "methods") == LUA_TNIL) lua_getfield(L, -2, "__index");
  int methods = lua_gettop(L);
  lua_Integer n = 0;
  lua_newtable(L);
  for (lua_pushnil(L); lua_next(L, methods); lua_pop(L, 1)) {
    lua_pushvalue(L, -2);
    lua_rawseti(L, -4, ++n);
  }
}

int slL_push_classes(lua_State *L) {
  lua_newtable(L);
  int out = lua_gettop(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, CLASSES);
  for (lua_pushnil(L); lua_next(L, out + 1); lua_settop(L, out + 2)) {
    const char *name = lua_tostring(L, -2);
    push_methods(L, name);
    lua_setfield(L, out, name);
  }
  lua_settop(L, out);
  return 1;
}

int slL_push_method(lua_State *L, const char *name, int key) {
  luaL_getmetatable(L, name);
  lua_getfield(L, -1, "methods");
  lua_pushvalue(L, key);
  lua_rawget(L, -2);
  return 1;
}
