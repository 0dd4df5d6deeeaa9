/* Tensor files and pictures. sluice.io returns nil, message, code where a file cannot be opened; all else raises. */
#include "l_io.h"

#include <string.h>

#include "lcore.h"

#include "io/picture.h"
#include "io/png.h"
#include "io/tensor_file.h"

/*** sluice.io
Files of named tensors. What cannot be opened gives nil, a message and a code, as Lua's io; all else raises. */

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

sl_tensor_file **slL_push_tensor_file(lua_State *L) {
  sl_tensor_file **box = push_file(L);
  slL_try(L, sl_tensor_file_new(slL_context(L), box));
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

/*** sluice.io.load(path) -> tensors, metadata
Reads .safetensors, .npz or .npy, told apart by content; tensors keep the file's dtypes and lie on the CPU. A file
with a digest is checked against it.
@param path string
@return table<string, sluice.Tensor>? tensors  of an .npy "arr_0"; nil: it cannot be opened
@return table<string, string>|string metadata  of .safetensors; or why not
@return string? code  "IO"
@example
sluice.io.save("two.safetensors", { a = sluice.ones { 2 } }, { made = "today" })
local tensors, metadata = sluice.io.load "two.safetensors"
print(tensors.a, metadata.made)  --> f32 [2] cpu [1, 1] today */
static int l_load(lua_State *L) { return load(L, false); }
static int l_core_load(lua_State *L) { return load(L, true); }

/* --- writing --- */

/* Pushes the string keys of the table at idx, sorted: files made twice are equal. */
static int push_sorted_keys(lua_State *L, int idx, const char *what) {
  lua_newtable(L);
  int keys = lua_gettop(L), n = 0;
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING) slL_error(L, "%s: a key is %s, expected a string", what, slL_what(L, -2));
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
  int n = push_sorted_keys(L, 2, "sluice.io.save: the tensors");
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
  int n = push_sorted_keys(L, 3, "sluice.io.save: the metadata");
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
  sl_tensor_file **file = slL_push_tensor_file(L);
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

/*** sluice.io.save(path, tensors, metadata?) -> ok
Writes tensors under their names, whole or not at all: .npz by the path's end, else safetensors. An .npz takes
neither metadata nor bf16.
@param path string
@param tensors table<string, sluice.Tensor>
@param metadata? table<string, string|number>  a key `digest` becomes the digest of the file
@return boolean? ok  true; nil: it cannot be opened
@return string? message
@return string? code
@example print(sluice.io.save("one.npz", { x = sluice.arange(3) }))  --> true */
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

/* The field text = {key = string} as an array in a userdata left on the stack, sorted by key. */
static void read_text(lua_State *L, const char *what, sl_png_options *o) {
  if (lua_getfield(L, 3, "text") == LUA_TNIL) return;
  int text = lua_gettop(L);
  if (lua_type(L, text) != LUA_TTABLE) slL_error(L, "%s: text is %s, expected {key = string}", what, slL_what(L, text));
  int n = push_sorted_keys(L, text, "sluice.save_png: text"), keys = lua_gettop(L);
  sl_png_text *items = lua_newuserdatauv(L, (size_t)(n + 1) * sizeof *items, 0);
  for (int i = 0; i < n; i++) {
    lua_rawgeti(L, keys, i + 1);
    lua_pushvalue(L, -1);
    items[i].key = lua_tostring(L, -1); /* the table has it */
    if (lua_rawget(L, text) != LUA_TSTRING)
      slL_error(L, "%s: text.%s is %s, expected a string", what, items[i].key, slL_what(L, -1));
    size_t size;
    items[i].value = lua_tolstring(L, -1, &size);
    if (strlen(items[i].value) != size) slL_error(L, "%s: text.%s has a zero byte in it", what, items[i].key);
    lua_pop(L, 2);
  }
  o->n_text = n;
  o->text = items;
}

/*** sluice.save_png(path, images, options?)
Writes images as one picture, several as a grid. The file appears whole or not at all.
@param path string
@param images sluice.Tensor  floats [N,C,H,W] or [C,H,W] in [-1, 1], or u8 [N,H,W,C] or [H,W,C]; C is 1 or 3
@param options? table
@field columns? integer  the square root of N, rounded up
@field quant? "dit"|"adm"  "dit"; how floats become bytes: as DiT's or as guided-diffusion's code does
@field pad? integer  2; black pixels around each picture of a grid; -1: none
@field scale? integer  1; each pixel becomes scale x scale
@field text? table<string, string>  text chunks, as made:text() of sluice.sample gives them
@example sluice.save_png("noise.png", sluice.randn({ 4, 3, 16, 16 }, { seed = 1 }), { columns = 4, scale = 2 }) */
static int l_save_png(lua_State *L) {
  static const char *const fields[] = {"columns", "quant", "pad", "scale", "text", NULL}, *const quants[] = {
                                                                                              "dit", "adm", NULL};
  const char *what = "sluice.save_png";
  lua_settop(L, 3);
  const char *path = check_path(L, 1, what);
  sl_tensor *images = slL_check_tensor(L, 2);
  sl_png_options o = {0};
  if (!lua_isnil(L, 3)) {
    if (lua_type(L, 3) != LUA_TTABLE)
      return slL_error(L, "%s: the options are %s, expected a table", what, slL_what(L, 3));
    slL_options(L, 3, what, fields);
    o.columns = int_field(L, "columns");
    o.pad = int_field(L, "pad");
    o.scale = int_field(L, "scale");
    if (lua_getfield(L, 3, "quant") != LUA_TNIL) {
      if (lua_type(L, -1) != LUA_TSTRING)
        return slL_error(L, "%s: quant is %s, expected \"dit\" or \"adm\"", what, slL_what(L, -1));
      if (!sl_png_quant_from_name(lua_tostring(L, -1), &o.quant))
        slL_unknown(L, what, "quant", lua_tostring(L, -1), quants);
    }
    read_text(L, what, &o);
  }
  slL_try(L, sl_png_write_as(path, images, &o));
  return 0;
}

/*** sluice.png_text(path) -> table<string, string>
The text chunks of a PNG file; of sluice's own pictures Description, and sluice, which says how it was made.
@param path string
@return table<string, string>
@example
sluice.save_png("said.png", sluice.ones { 3, 4, 5 }, { text = { Description = "all white" } })
print(sluice.png_text("said.png").Description)  --> all white */
static int l_png_text(lua_State *L) {
  const char *path = check_path(L, 1, "sluice.png_text");
  sl_png_text **items = slL_push_block(L);
  int n;
  slL_try(L, sl_png_read_text(slL_context(L), path, items, &n));
  lua_createtable(L, 0, n);
  for (int i = 0; i < n; i++) {
    lua_pushstring(L, (*items)[i].value);
    lua_setfield(L, -2, (*items)[i].key);
  }
  return 1;
}

/*** sluice.load_image(path) -> image
A PNG or JPEG file as f32 [3,H,W] in [-1, 1].
@param path string
@return sluice.Tensor
@example
sluice.save_png("white.png", sluice.ones { 3, 4, 5 })
print(sluice.load_image("white.png"):shape()[3])  --> 5 */
static int l_load_image(lua_State *L) {
  const char *path = check_path(L, 1, "sluice.load_image");
  return slL_try(L, sl_image_load(slL_context(L), path, slL_push_tensor(L)));
}

void slL_open_io(lua_State *L) {
  static const luaL_Reg files[] = {{"load", l_load}, {"save", l_save}, {NULL, NULL}};
  static const luaL_Reg pictures[] = {
      {"save_png", l_save_png}, {"png_text", l_png_text}, {"load_image", l_load_image}, {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", file_gc}, {NULL, NULL}};
  slL_class(L, FILE_BOX, meta, NULL);
  lua_newtable(L);
  luaL_setfuncs(L, files, 0);
  lua_setfield(L, -2, "io");
  luaL_setfuncs(L, pictures, 0);
  slL_core(L, "load", l_core_load);
  slL_core(L, "save", l_core_save);
}
