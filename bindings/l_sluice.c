/* The module: puts its parts together, and carries the Lua files of lua/sluice. */
#include <stdio.h>
#include <string.h>

#include "embedded_lua.h"
#include "lbind.h"
#include "lcore.h"
#include "sluice/version.h"

/* --- the files inside --- */

static int load_embedded(lua_State *L) {
  const struct sl_embedded_lua *e = lua_touserdata(L, lua_upvalueindex(1));
  char chunk[128];
  snprintf(chunk, sizeof chunk, "=[%s]", e->name); /* the form that slL_error passes over */
  if (luaL_loadbufferx(L, (const char *)e->data, e->size, chunk, "t") != LUA_OK) return lua_error(L);
  lua_pushstring(L, e->name);
  lua_call(L, 1, 1);
  return 1;
}

static void preload_embedded(lua_State *L) {
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  for (const struct sl_embedded_lua *e = sl_embedded_lua; e->name; e++) {
    lua_pushlightuserdata(L, (void *)(uintptr_t)e);
    lua_pushcclosure(L, load_embedded, 1);
    lua_setfield(L, -2, e->name);
  }
  lua_pop(L, 1);
}

static const struct lazy {
  const char *name, *module, *field;
} lazy_rows[] = {
#define SL_LUA_PART(name)
#define SL_LUA_LAZY(name, module, field) {#name, module, field},
#include "modules.def"
#undef SL_LUA_PART
#undef SL_LUA_LAZY
    {NULL, NULL, NULL}};

/* The module's __index: parts written in Lua are loaded at their first use, so that a script starts fast. */
static int index_lazy(lua_State *L) {
  lua_settop(L, 2);
  const char *name = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
  const struct lazy *row = lazy_rows;
  while (row->name && strcmp(row->name, name)) row++;
  if (!row->name) return 0;
  lua_getglobal(L, "require");
  lua_pushstring(L, row->module);
  lua_call(L, 1, 1);
  if (row->field) lua_getfield(L, -1, row->field);
  lua_pushvalue(L, 2);
  lua_pushvalue(L, -2);
  lua_rawset(L, 1);
  return 1;
}

/* core.lazy_names(): the names that index_lazy knows. */
static int l_lazy_names(lua_State *L) {
  lua_newtable(L);
  for (int i = 0; lazy_rows[i].name; i++) {
    lua_pushstring(L, lazy_rows[i].name);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}
/*** sluice.version: string
Major, minor and patch number, as "0.1.0".
@example print(sluice.version:match "^%d+%.%d+%.%d+$" ~= nil)  --> true */

/* --- small functions --- */

/*** sluice.devices() -> names
Devices that this machine and this build have, the CPU first.
@return string[]
@example print(sluice.devices()[1])  --> cpu */
static int l_devices(lua_State *L) {
  lua_createtable(L, 2, 0);
  for (int i = 0; sl_device_name(i); i++) {
    lua_pushstring(L, sl_device_name(i));
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static void set_bytes(lua_State *L, const char *name, uint64_t bytes) {
  lua_pushinteger(L, (lua_Integer)bytes);
  lua_setfield(L, -2, name);
}

/* Of a GPU: bytes that could still be taken, that it has, that this process took and took at most. */
static int device_memory(lua_State *L) {
  const sl_device *dev = NULL;
  sl_device_memory m;
  slL_try(L, sl_device_find(slL_context(L), luaL_checkstring(L, 1), &dev));
  if (!dev->memory)
    return slL_error(L, "sluice.memory: %s is no GPU; without a name, memory() tells of the host", dev->name);
  slL_try(L, dev->memory(dev, &m));
  lua_createtable(L, 0, 4);
  set_bytes(L, "available", m.available);
  set_bytes(L, "total", m.total);
  set_bytes(L, "bytes", m.used);
  set_bytes(L, "peak_bytes", m.peak);
  return 1;
}

/*** sluice.memory(device?) -> facts
The library's own memory on the host; of a GPU by its name, what there is and what this process took, in bytes.
@param device? string  a GPU
@return table
@field bytes integer  taken now
@field peak_bytes integer  taken at most so far
@field limit? integer  of the host: what may be taken (SLUICE_MEMORY, --memory); 0: no limit
@field blocks? integer  of the host: blocks that are alive
@field calls? integer  of the host: allocations so far
@field available? integer  of a GPU: what could still be taken
@field total? integer  of a GPU: what it has
@example
local t = sluice.zeros { 1000 }
print(sluice.memory().bytes >= 4000)  --> true */
static int l_memory(lua_State *L) {
  if (!lua_isnoneornil(L, 1)) return device_memory(L);
  sl_memory m = sl_context_memory(slL_context(L));
  lua_createtable(L, 0, 5);
  set_bytes(L, "bytes", m.bytes);
  set_bytes(L, "peak_bytes", m.peak_bytes);
  set_bytes(L, "limit", sl_context_memory_limit(slL_context(L)));
  set_bytes(L, "blocks", m.blocks);
  set_bytes(L, "calls", m.calls);
  return 1;
}

/*** sluice.threads() -> n
How many threads compute: one for each core that the process may use, or what sluice.set_threads said.
@return integer
@example print(sluice.threads() >= 1)  --> true */
static int l_threads(lua_State *L) {
  lua_pushinteger(L, sl_context_threads(slL_context(L)));
  return 1;
}

/*** sluice.set_threads(n)
How many threads compute from now on; results do not depend on it.
@param n integer  1 … 1024
@example
sluice.set_threads(2)
print(sluice.threads())  --> 2 */
static int l_set_threads(lua_State *L) {
  lua_Integer n = luaL_checkinteger(L, 1);
  if (n < 1 || n > 1024) return slL_error(L, "sluice.set_threads: %I threads, expected 1 to 1024", (LUAI_UACINT)n);
  sl_context_set_threads(slL_context(L), (int)n);
  return 0;
}

/* core.set_memory("24G"): the limit from now on. */
static int l_set_memory(lua_State *L) {
  uint64_t bytes = slL_parse_bytes(L, "--memory", luaL_checkstring(L, 1));
  sl_context_set_memory_limit(slL_context(L), bytes);
  return 0;
}

static int l_next_seed(lua_State *L) {
  lua_pushinteger(L, slL_next_seed(L));
  return 1;
}

static void add_default(luaL_Buffer *b, const sl_op_attr *a) {
  char text[64];
  if (a->kind == 'l' || a->kind == 'L') {
    luaL_addchar(b, '{');
    for (int i = 0; i < a->n_list; i++) {
      snprintf(text, sizeof text, "%s%d", i ? ", " : "", a->list[i]);
      luaL_addstring(b, text);
    }
    luaL_addchar(b, '}');
    return;
  }
  bool position = (a->kind == 'd' || a->kind == 'p') && a->number >= 0; /* Lua counts from 1 */
  if (a->kind == 'b') snprintf(text, sizeof text, "%s", a->number != 0 ? "true" : "false");
  else if (a->kind == 't') snprintf(text, sizeof text, "\"%s\"", sl_dtype_name((sl_dtype)a->number));
  else if (a->kind == 'e') snprintf(text, sizeof text, "one of %s", a->choices);
  else snprintf(text, sizeof text, "%.10g", a->number + position);
  luaL_addstring(b, text);
}

/* core.signature(name): "softmax(x, dim=-1)" of a public operation, else nil; core.signature(): all their names. */
static int l_signature(lua_State *L) {
  const char *name = luaL_optstring(L, 1, NULL);
  if (!name) {
    lua_newtable(L);
    for (int i = 0, n = 0; i < sl_op_count; i++) {
      if (sl_ops[i].flags & SL_OP_PRIVATE) continue;
      lua_pushstring(L, sl_ops[i].name);
      lua_rawseti(L, -2, ++n);
    }
    return 1;
  }
  const sl_op *op = sl_op_find(name);
  if (!op || op->flags & SL_OP_PRIVATE) return 0;
  sl_op_signature s;
  sl_op_describe(op, &s);
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  luaL_addstring(&b, name);
  luaL_addchar(&b, '(');
  for (int i = 0; i < s.n_inputs; i++) {
    if (i) luaL_addstring(&b, ", ");
    luaL_addstring(&b, s.input[i]);
    if (s.variadic) luaL_addstring(&b, "…");
    else if (i >= s.n_required) luaL_addstring(&b, "|nil");
  }
  for (int k = 0; k < s.n_attrs; k++) {
    if (k || s.n_inputs) luaL_addstring(&b, ", ");
    luaL_addstring(&b, s.attr[k].name);
    if (s.attr[k].required) continue;
    luaL_addchar(&b, '=');
    add_default(&b, &s.attr[k]);
  }
  luaL_addchar(&b, ')');
  luaL_pushresult(&b);
  return 1;
}

static const luaL_Reg functions[] = {
    {"devices", l_devices}, {"memory", l_memory}, {"threads", l_threads}, {"set_threads", l_set_threads}, {NULL, NULL}};

/* core.classes() -> {class name = {method names}}: their metatables are locked. */
static int l_classes(lua_State *L) { return slL_push_classes(L); }

static void share_with_core(lua_State *L, int module) {
  slL_core(L, "next_seed", l_next_seed);
  slL_core(L, "signature", l_signature);
  slL_core(L, "set_memory", l_set_memory);
  slL_core(L, "classes", l_classes);
  slL_core(L, "lazy_names", l_lazy_names);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  luaL_getsubtable(L, -1, "sluice.core");
  lua_getfield(L, module, "version");
  lua_setfield(L, -2, "version");
  lua_getfield(L, module, "tensor");
  lua_setfield(L, -2, "tensor");
  lua_pop(L, 2);
}

int luaopen_sluice(lua_State *L) {
  luaL_checkversion(L);
  slL_open_state(L);
  luaL_newlib(L, functions);
  int module = lua_gettop(L);
  lua_pushliteral(L, SLUICE_VERSION);
  lua_setfield(L, -2, "version");
#define SL_LUA_PART(name) slL_open_##name(L), lua_settop(L, module);
#define SL_LUA_LAZY(name, module, field)
#include "modules.def"
#undef SL_LUA_PART
#undef SL_LUA_LAZY
  share_with_core(L, module);
  preload_embedded(L);
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, index_lazy);
  lua_setfield(L, -2, "__index");
  lua_setmetatable(L, module);
  return 1;
}
