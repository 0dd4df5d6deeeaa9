/* Tensor files and pictures. sluice.io returns nil, message, code where a file cannot be opened; all else raises. */
#include "lbind.h"
#include "lcore.h"

#include "io/picture.h"
#include "io/png.h"
#include "io/tensor_file.h"

#define FILE_BOX "sluice.tensor_file"

static int file_gc(lua_State *L) {
  sl_tensor_file **box = luaL_checkudata(L, 1, FILE_BOX);
  sl_tensor_file_free(*box);
  *box = NULL;
  return 0;
}

static sl_tensor_file **push_file(lua_State *L) {
  sl_tensor_file **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  luaL_setmetatable(L, FILE_BOX);
  return box;
}

/* A path: a string without zeros. */
static const char *check_path(lua_State *L, int idx, const char *what) {
  if (lua_type(L, idx) != LUA_TSTRING) slL_error(L, "%s: path is %s, expected a string", what, slL_what(L, idx));
  size_t n;
  const char *path = lua_tolstring(L, idx, &n);
  for (size_t i = 0; i < n; i++)
    if (!path[i]) slL_error(L, "%s: path has a zero byte in it", what);
  return path;
}

/* --- reading --- */

static int push_contents(lua_State *L, const sl_tensor_file *file) {
  lua_newtable(L);
  for (int64_t i = 0; i < sl_tensor_file_count(file); i++) {
    slL_push_shared(L, sl_tensor_file_tensor(file, i));
    lua_setfield(L, -2, sl_tensor_file_name(file, i));
  }
  lua_newtable(L);
  for (int64_t i = 0; i < sl_tensor_file_meta_count(file); i++) {
    lua_pushstring(L, sl_tensor_file_meta_value(file, i));
    lua_setfield(L, -2, sl_tensor_file_meta_key(file, i));
  }
  return 2;
}

static int failed(lua_State *L, sl_status s) {
  lua_pushnil(L);
  lua_pushstring(L, sl_error());
  lua_pushstring(L, sl_status_name(s));
  return 3;
}

static int load(lua_State *L, bool raise) {
  const char *path = check_path(L, 1, "sluice.io.load");
  sl_tensor_file **file = push_file(L);
  sl_status s = sl_tensor_file_load(slL_context(L), path, file);
  if (s == SL_STATUS_IO && !raise) return failed(L, s);
  slL_try(L, s);
  int n = push_contents(L, *file);
  sl_tensor_file_free(*file); /* the tensors live on */
  *file = NULL;
  return n;
}

static int l_load(lua_State *L) { return load(L, false); }
static int l_core_load(lua_State *L) { return load(L, true); }

/* --- writing --- */

/* Pushes the string keys of the table at idx, sorted: files made twice are equal. */
static int push_sorted_keys(lua_State *L, int idx, const char *what) {
  lua_newtable(L);
  int keys = lua_gettop(L), n = 0;
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING)
      slL_error(L, "sluice.io.save: a key of %s is %s, expected a string", what, slL_what(L, -2));
    lua_pushvalue(L, -2);
    lua_rawseti(L, keys, ++n);
  }
  lua_getglobal(L, "table");
  if (lua_type(L, -1) == LUA_TTABLE && lua_getfield(L, -1, "sort") == LUA_TFUNCTION) {
    lua_pushvalue(L, keys);
    lua_call(L, 1, 0);
  }
  lua_settop(L, keys);
  return n;
}

static void add_tensors(lua_State *L, sl_tensor_file *file) {
  int n = push_sorted_keys(L, 2, "the tensors");
  for (int i = 1; i <= n; i++) {
    lua_rawgeti(L, -1, i);
    const char *name = lua_tostring(L, -1);
    lua_pushvalue(L, -1);
    lua_rawget(L, 2);
    sl_tensor *t = slL_test_tensor(L, -1);
    if (!t) slL_error(L, "sluice.io.save: %s is %s, expected a tensor", name, slL_what(L, -1));
    slL_try(L, sl_tensor_file_add(file, name, t));
    lua_pop(L, 2);
  }
  lua_pop(L, 1);
}

static void add_meta(lua_State *L, sl_tensor_file *file) {
  int n = push_sorted_keys(L, 3, "the metadata");
  for (int i = 1; i <= n; i++) {
    lua_rawgeti(L, -1, i);
    const char *key = lua_tostring(L, -1);
    lua_pushvalue(L, -1);
    lua_rawget(L, 3);
    int type = lua_type(L, -1);
    if (type != LUA_TSTRING && type != LUA_TNUMBER)
      slL_error(L, "sluice.io.save: metadata %s is %s, expected a string", key, slL_what(L, -1));
    slL_try(L, sl_tensor_file_set_meta(file, key, lua_tostring(L, -1)));
    lua_pop(L, 2);
  }
  lua_pop(L, 1);
}

static int save(lua_State *L, bool raise) {
  lua_settop(L, 3);
  const char *path = check_path(L, 1, "sluice.io.save");
  if (lua_type(L, 2) != LUA_TTABLE)
    return slL_error(L, "sluice.io.save: tensors is %s, expected {name = tensor}", slL_what(L, 2));
  if (!lua_isnil(L, 3) && lua_type(L, 3) != LUA_TTABLE)
    return slL_error(L, "sluice.io.save: metadata is %s, expected a table of strings", slL_what(L, 3));
  sl_tensor_file **file = push_file(L);
  slL_try(L, sl_tensor_file_new(slL_context(L), file));
  add_tensors(L, *file);
  if (!lua_isnil(L, 3)) add_meta(L, *file);
  sl_status s = sl_tensor_file_save(path, *file);
  sl_tensor_file_free(*file);
  *file = NULL;
  if (s == SL_STATUS_IO && !raise) return failed(L, s);
  slL_try(L, s);
  lua_pushboolean(L, 1);
  return 1;
}

static int l_save(lua_State *L) { return save(L, false); }
static int l_core_save(lua_State *L) { return save(L, true); }

/* --- pictures --- */

static int int_field(lua_State *L, const char *name) {
  int ok = 1;
  lua_Integer v = 0;
  if (lua_getfield(L, 3, name) != LUA_TNIL) v = lua_tointegerx(L, -1, &ok);
  if (!ok || v < -1 || v > 1 << 16)
    slL_error(L, "sluice.save_png: %s is %s, expected a small integer", name, slL_what(L, -1));
  lua_pop(L, 1);
  return (int)v;
}

static const char *const png_options[] = {"columns", "quant", "pad", "scale", NULL};

/* sluice.save_png(path, images, {columns, quant, pad, scale}) */
static int l_save_png(lua_State *L) {
  static const char *const quants[] = {"dit", "adm", NULL};
  const char *what = "sluice.save_png";
  lua_settop(L, 3);
  const char *path = check_path(L, 1, what);
  sl_tensor *images = slL_check_tensor(L, 2);
  sl_png_options o = {0};
  if (!lua_isnil(L, 3)) {
    if (lua_type(L, 3) != LUA_TTABLE)
      return slL_error(L, "%s: the options are %s, expected a table", what, slL_what(L, 3));
    slL_options(L, 3, what, png_options);
    o.columns = int_field(L, "columns");
    o.pad = int_field(L, "pad");
    o.scale = int_field(L, "scale");
    if (lua_getfield(L, 3, "quant") != LUA_TNIL) {
      if (lua_type(L, -1) != LUA_TSTRING)
        return slL_error(L, "%s: quant is %s, expected \"dit\" or \"adm\"", what, slL_what(L, -1));
      if (!sl_png_quant_from_name(lua_tostring(L, -1), &o.quant))
        slL_unknown(L, what, "quant", lua_tostring(L, -1), quants);
    }
  }
  slL_try(L, sl_png_write(path, images, &o));
  return 0;
}

/* sluice.load_image(path) -> f32 [3,H,W] in [-1, 1] */
static int l_load_image(lua_State *L) {
  const char *path = check_path(L, 1, "sluice.load_image");
  return slL_try(L, sl_image_load(slL_context(L), path, slL_push_tensor(L)));
}

void slL_open_io(lua_State *L) {
  static const luaL_Reg files[] = {{"load", l_load}, {"save", l_save}, {NULL, NULL}};
  static const luaL_Reg pictures[] = {{"save_png", l_save_png}, {"load_image", l_load_image}, {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", file_gc}, {NULL, NULL}};
  slL_class(L, FILE_BOX, meta, NULL);
  lua_newtable(L);
  luaL_setfuncs(L, files, 0);
  lua_setfield(L, -2, "io");
  luaL_setfuncs(L, pictures, 0);
  slL_share_options(L, "sluice.save_png", png_options);
  slL_core(L, "load", l_core_load);
  slL_core(L, "save", l_core_save);
}
