/* sluice.data: data sets in memory, packed, and in folders. */
#include "l_data.h"

#include <inttypes.h>
#include <stdio.h>

#include "data/resize.h"
#include "lcore.h"
#include "lfields.h"

/*** sluice.data
Constructors of data sets: images with labels and captions, or without. */

#define DATASET "sluice.dataset"

/*** sluice.Dataset
Images to train on. `#d` is how many there are; `d[i]` is image i, f32 [C,H,W] in [-1, 1], `d:get(i)` also its label
and caption.
@field [integer] sluice.Tensor
@operator len: integer
@setup
local images = sluice.rand({ 10, 1, 8, 8 }, { seed = 1 }) * 2 - 1
local dataset = sluice.data.tensors { images = images, labels = sluice.arange(0, 9) }
@example print(#dataset, dataset[1]:shape()[2])  --> 10 8 */
static sl_dataset **push_dataset(lua_State *L) {
  sl_dataset **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  luaL_setmetatable(L, DATASET);
  return box;
}

static sl_dataset *check(lua_State *L, int idx) { return slL_check_held(L, idx, DATASET, "data set"); }

sl_dataset *slL_field_dataset(lua_State *L, int idx, const char *what, const char *name) {
  sl_dataset *d = NULL;
  if (lua_getfield(L, idx, name) != LUA_TNIL) {
    if (!luaL_testudata(L, -1, DATASET))
      slL_error(L, "%s: %s is %s, expected one of sluice.data", what, name, slL_what(L, -1));
    d = check(L, -1);
  }
  lua_pop(L, 1);
  return d;
}

static int l_gc(lua_State *L) {
  sl_dataset **box = luaL_checkudata(L, 1, DATASET);
  sl_dataset_release(*box);
  *box = NULL;
  return 0;
}

/*** sluice.data.npz(path) -> dataset
A file of arrays (.npz, .safetensors, .npy): "images" and perhaps "labels", or guided-diffusion's "arr_0" and
"arr_1". Images are u8 [N,C,H,W], [N,H,W,C] or [N,H,W], or floats [N,C,H,W] in [-1, 1].
@param path string
@return sluice.Dataset
@example
sluice.io.save("faces.npz", { images = sluice.zeros({ 4, 3, 8, 8 }, { dtype = "u8" }) })
print(#sluice.data.npz "faces.npz")  --> 4 */
static int l_npz(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  slL_try(L, sl_dataset_from_npz(slL_context(L), path, push_dataset(L)));
  return 1;
}

/* on_bad = "refuse" (the default) or "skip" */
static bool field_skip(lua_State *L, int idx, const char *what) {
  static const char *const names[] = {"refuse", "skip", NULL};
  return slL_field_choice(L, idx, what, "on_bad", names, 0) == 1;
}

/* The options at idx, an empty table if there are none. */
static void check_options(lua_State *L, int idx, const char *what, const char *const *names) {
  lua_settop(L, idx);
  if (lua_isnil(L, idx)) {
    lua_newtable(L);
    lua_replace(L, idx);
  }
  luaL_checktype(L, idx, LUA_TTABLE);
  slL_options(L, idx, what, names);
}

/*** sluice.data.pack(path, options?) -> dataset
A packed set, as dataset:pack and `sluice pack` write it; images are unpacked when they are read.
@param path string
@param options? table
@field on_bad? "refuse"|"skip"  "refuse": what is broken is an error when it is read; "skip": named and left out at
  once
@return sluice.Dataset
@example print(#sluice.data.pack "data/digits/digits.pack") */
static int l_pack(lua_State *L) {
  static const char *const names[] = {"on_bad", NULL};
  const char *w = "sluice.data.pack", *path = luaL_checkstring(L, 1);
  check_options(L, 2, w, names);
  bool skip = field_skip(L, 2, w);
  slL_try(L, sl_dataset_from_pack(slL_context(L), path, skip, push_dataset(L)));
  return 1;
}

/*** sluice.data.folder(path, options?) -> dataset
PNG and JPEG files below a folder, read when they are needed. With a table (columns `file`, `class`, `caption`,
between tabs) they are those that it lists; without, each subfolder is a class, in the order of its name.
@param path string
@param options? table
@field size? integer  images become size x size as sluice.center_crop makes them; without it they are of one size
@field channels? integer  3; 1: grey
@field index? string  "index.tsv", if it is there
@field on_bad? "refuse"|"skip"  "refuse": what cannot be read is an error when it is; "skip": named and left out at
  once
@return sluice.Dataset
@example
for class = 1, 2 do
  os.execute("mkdir -p photos/class" .. class)
  sluice.save_png(("photos/class%d/one.png"):format(class), sluice.rand({ 3, 9, 12 }, { seed = class }))
end
local dataset = sluice.data.folder("photos", { size = 8 })
print(#dataset, table.concat(dataset:names(), " "))  --> 2 class1 class2 */
static int l_folder(lua_State *L) {
  static const char *const names[] = {"size", "channels", "index", "on_bad", NULL};
  const char *w = "sluice.data.folder", *path = luaL_checkstring(L, 1);
  check_options(L, 2, w, names);
  sl_folder_options o = {.size = slL_field_integer(L, 2, w, "size", 0),
                         .channels = (int)slL_field_integer(L, 2, w, "channels", 3),
                         .index = slL_field_string(L, 2, w, "index", NULL),
                         .skip = field_skip(L, 2, w)};
  slL_try(L, sl_dataset_from_folder(slL_context(L), path, &o, push_dataset(L)));
  return 1;
}

/*** sluice.data.tensors { images =, labels = } -> dataset
A data set of tensors.
@param options table
@field images sluice.Tensor  u8 [N,C,H,W] or [N,H,W], or floats [N,C,H,W] in [-1, 1]
@field labels? sluice.Tensor  integers [N], from 0
@return sluice.Dataset
@example print(#sluice.data.tensors { images = sluice.zeros { 5, 3, 8, 8 } })  --> 5 */
static int l_tensors(lua_State *L) {
  static const char *const names[] = {"images", "labels", NULL};
  const char *w = "sluice.data.tensors";
  luaL_checktype(L, 1, LUA_TTABLE);
  slL_options(L, 1, w, names);
  sl_tensor *images = slL_field_tensor(L, 1, w, "images"), *labels = slL_field_tensor(L, 1, w, "labels");
  if (!images) slL_error(L, "%s: images is missing", w);
  slL_try(L, sl_dataset_from_tensors(images, labels, push_dataset(L)));
  return 1;
}

static int l_len(lua_State *L) {
  lua_pushinteger(L, sl_dataset_count(check(L, 1)));
  return 1;
}

/* d[i] -> image f32 [C,H,W] in [-1,1], label, caption (nil without). As a method it can give all: d:get(i). */
static int push_item(lua_State *L, sl_dataset *d, lua_Integer i) {
  if (i < 1 || i > sl_dataset_count(d))
    slL_error(L, "data[%I]: there are %I images", (LUAI_UACINT)i, (LUAI_UACINT)sl_dataset_count(d));
  sl_shape shape = sl_dataset_image_shape(d);
  sl_tensor **box = slL_push_tensor(L);
  slL_try(L, sl_tensor_new(slL_context(L), NULL, SL_F32, &shape, box));
  slL_try(L, sl_dataset_get(d, i - 1, false, sl_tensor_data(*box)));
  if (sl_dataset_classes(d)) lua_pushinteger(L, sl_dataset_label(d, i - 1));
  else lua_pushnil(L);
  lua_pushstring(L, sl_dataset_caption(d, i - 1)); /* nil for NULL */
  return 3;
}

/*** dataset:get(i) -> image, label?, caption?
One image and what is known of it.
@param i integer  1 … #dataset
@return sluice.Tensor image  f32 [C,H,W] in [-1, 1]
@return integer? label  from 0; nil without labels
@return string? caption
@example print((select(2, dataset:get(3))))  --> 2 */
static int l_get(lua_State *L) { return push_item(L, check(L, 1), luaL_checkinteger(L, 2)); }

static int l_index(lua_State *L) {
  sl_dataset *d = check(L, 1);
  if (lua_isinteger(L, 2)) return push_item(L, d, lua_tointeger(L, 2));
  return slL_push_method(L, DATASET, 2);
}

/*** dataset:shape() -> {C, H, W}
The shape that all images have.
@return integer[]
@example print(table.concat(dataset:shape(), " "))  --> 1 8 8 */
static int l_shape(lua_State *L) {
  sl_shape s = sl_dataset_image_shape(check(L, 1));
  lua_createtable(L, 3, 0);
  for (int i = 0; i < s.rank; i++) {
    lua_pushinteger(L, s.dim[i]);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

/*** dataset:classes() -> n
The largest label plus 1; 0 without labels.
@return integer
@example print(dataset:classes())  --> 10 */
static int l_classes(lua_State *L) {
  lua_pushinteger(L, sl_dataset_classes(check(L, 1)));
  return 1;
}

/*** dataset:batch(options) -> images, labels
A part of the endless shuffled stream from which training draws, the same for the same seed.
@param options table
@field seed? integer  0
@field first? integer  1; number of the first sample
@field n? integer  1; how many
@field flip? boolean  false; mirrors half of them left to right
@return sluice.Tensor images  f32 [n,C,H,W]
@return sluice.Tensor labels  i64 [n]; zeros without labels
@example print(dataset:batch { seed = 1, first = 11, n = 10 }:shape()[1])  --> 10 */
static int l_batch(lua_State *L) {
  static const char *const names[] = {"seed", "first", "n", "flip", NULL};
  sl_dataset *d = check(L, 1);
  const char *w = "batch";
  luaL_checktype(L, 2, LUA_TTABLE);
  slL_options(L, 2, w, names);
  int64_t n = slL_field_integer(L, 2, w, "n", 1), first = slL_field_integer(L, 2, w, "first", 1);
  if (n < 1 || first < 1) slL_error(L, "batch: n and first must be at least 1");
  sl_shape s = sl_dataset_image_shape(d);
  sl_tensor **images = slL_push_tensor(L), **labels = slL_push_tensor(L);
  slL_try(L, sl_tensor_new(slL_context(L), NULL, SL_F32, &SL_SHAPE(n, s.dim[0], s.dim[1], s.dim[2]), images));
  slL_try(L, sl_tensor_new(slL_context(L), NULL, SL_I64, &SL_SHAPE(n), labels));
  slL_try(
      L, sl_dataset_batch(d, slL_field_seed(L, 2, w, "seed", 0), first - 1, n,
                          slL_field_boolean(L, 2, w, "flip", false), sl_tensor_data(*images), sl_tensor_data(*labels)));
  return 2;
}

/*** dataset:names() -> names?
The classes' names in the order of their labels; nil where they have none.
@return string[]?
@example print(dataset:names()) */
static int l_names(lua_State *L) {
  sl_dataset *d = check(L, 1);
  if (!sl_dataset_class_name(d, 0)) return 0;
  lua_newtable(L);
  for (int64_t k = 0; k < sl_dataset_classes(d); k++) {
    lua_pushstring(L, sl_dataset_class_name(d, k));
    lua_rawseti(L, -2, k + 1);
  }
  return 1;
}

/*** dataset:all() -> images, labels
All images at once.
@return sluice.Tensor images  f32 [N,C,H,W]
@return sluice.Tensor labels  i64 [N]; zeros without labels
@example print(dataset:all():shape()[1])  --> 10 */
static int l_all(lua_State *L) {
  sl_dataset *d = check(L, 1);
  int64_t n = sl_dataset_count(d);
  sl_shape s = sl_dataset_image_shape(d);
  sl_tensor **images = slL_push_tensor(L), **labels = slL_push_tensor(L);
  slL_try(L, sl_tensor_new(slL_context(L), NULL, SL_F32, &SL_SHAPE(n, s.dim[0], s.dim[1], s.dim[2]), images));
  slL_try(L, sl_tensor_new(slL_context(L), NULL, SL_I64, &SL_SHAPE(n), labels));
  float *to = sl_tensor_data(*images);
  for (int64_t i = 0; i < n; i++) {
    slL_try(L, sl_dataset_get(d, i, false, to + i * sl_shape_numel(&s)));
    ((int64_t *)sl_tensor_data(*labels))[i] = sl_dataset_label(d, i);
  }
  return 2;
}

/*** dataset:split(n) -> rest, held
Keeps n images back, the same ones for the same data set.
@param n integer
@return sluice.Dataset rest
@return sluice.Dataset held
@example
local rest, held = dataset:split(3)
print(#rest, #held)  --> 7 3 */
static int l_split(lua_State *L) {
  sl_dataset *d = check(L, 1);
  int64_t n = luaL_checkinteger(L, 2);
  sl_dataset **rest = push_dataset(L), **held = push_dataset(L);
  slL_try(L, sl_dataset_split(d, n, rest, held));
  return 2;
}

/*** dataset:digest() -> text
16 hexadecimal digits, which differ where images or labels do.
@return string
@example print(#dataset:digest())  --> 16 */
static int l_digest(lua_State *L) {
  char text[24];
  snprintf(text, sizeof text, "%016" PRIx64, sl_dataset_digest(check(L, 1)));
  lua_pushstring(L, text);
  return 1;
}

/*** dataset:note() -> text
Source and licence as a pack has them; "" without.
@return string
@example print(sluice.data.pack("data/digits/digits.pack"):note() ~= "")  --> true */
static int l_note(lua_State *L) {
  lua_pushstring(L, sl_dataset_note(check(L, 1)));
  return 1;
}

typedef struct lua_progress {
  lua_State *L;
  bool failed;
} lua_progress;

/* Calls the function at stack position 4; an error in it stops the writing and stays on the stack. */
static bool on_progress(void *user, int64_t done, int64_t count) {
  lua_progress *p = user;
  lua_pushvalue(p->L, 4);
  lua_pushinteger(p->L, done);
  lua_pushinteger(p->L, count);
  p->failed = slL_pcall(p->L, 2, 0) != LUA_OK;
  return !p->failed;
}

/*** dataset:pack(path, options?)
Writes a u8 data set with labels, names and captions as one packed file, whole or not at all.
@param path string
@param options? table
@field level? integer  19; of zstd, 1 … 19
@field note? string  source and licence
@field progress? fun(done: integer, count: integer)  called now and then
@example
local bytes = sluice.data.tensors { images = sluice.zeros({ 4, 3, 8, 8 }, { dtype = "u8" }) }
bytes:pack("zeros.pack", { level = 3, note = "nothing, CC0" })
print(sluice.data.pack("zeros.pack"):note())  --> nothing, CC0 */
static int l_write_pack(lua_State *L) {
  static const char *const names[] = {"level", "note", "progress", NULL};
  const char *w = "pack", *path = luaL_checkstring(L, 2);
  sl_dataset *d = check(L, 1);
  check_options(L, 3, w, names);
  sl_pack_options o = {.level = (int)slL_field_integer(L, 3, w, "level", 0),
                       .note = slL_field_string(L, 3, w, "note", NULL)};
  lua_progress p = {L, false};
  if (lua_getfield(L, 3, "progress") != LUA_TNIL) {
    luaL_checktype(L, -1, LUA_TFUNCTION);
    o.progress = on_progress;
    o.user = &p;
  }
  sl_status s = sl_dataset_write_pack(d, path, &o);
  if (p.failed) return lua_error(L);
  slL_try(L, s);
  return 0;
}

/*** sluice.center_crop(image, size) -> image
Brings a picture to size x size as guided-diffusion's center_crop_arr, to the bit: halved, scaled, the middle cut
out.
@param image sluice.Tensor  u8 [H,W,C]
@param size integer
@return sluice.Tensor  u8 [size,size,C]
@example print(sluice.center_crop(sluice.zeros({ 40, 30, 3 }, { dtype = "u8" }), 8):shape()[1])  --> 8 */
static int l_center_crop(lua_State *L) {
  sl_tensor *image = slL_check_host_tensor(L, 1);
  int64_t size = luaL_checkinteger(L, 2);
  return slL_try(L, sl_center_crop(image, size, slL_push_tensor(L)));
}

static int l_resize(lua_State *L) {
  static const char *const names[] = {"box", "bicubic", NULL};
  sl_tensor *image = slL_check_host_tensor(L, 1);
  int64_t height = luaL_checkinteger(L, 2), width = luaL_checkinteger(L, 3);
  int filter = luaL_checkoption(L, 4, "bicubic", names);
  return slL_try(L, sl_resize(image, height, width, filter ? SL_RESIZE_BICUBIC : SL_RESIZE_BOX, slL_push_tensor(L)));
}

static int l_tostring(lua_State *L) {
  const sl_dataset *d = check(L, 1);
  sl_shape s = sl_dataset_image_shape(d);
  lua_pushfstring(L, "%I images %s", (LUAI_UACINT)sl_dataset_count(d), sl_shape_text(&s));
  if (sl_dataset_classes(d) > 0) lua_pushfstring(L, ", %I classes", (LUAI_UACINT)sl_dataset_classes(d));
  else lua_pushliteral(L, "");
  lua_concat(L, 2);
  return 1;
}

static const luaL_Reg methods[] = {{"get", l_get},         {"shape", l_shape},   {"classes", l_classes},
                                   {"batch", l_batch},     {"names", l_names},   {"all", l_all},
                                   {"split", l_split},     {"digest", l_digest}, {"note", l_note},
                                   {"pack", l_write_pack}, {NULL, NULL}};
static const luaL_Reg meta[] = {
    {"__gc", l_gc}, {"__close", l_gc}, {"__len", l_len}, {"__tostring", l_tostring}, {NULL, NULL}};
static const luaL_Reg makers[] = {
    {"npz", l_npz}, {"tensors", l_tensors}, {"pack", l_pack}, {"folder", l_folder}, {NULL, NULL}};

void slL_open_data(lua_State *L) {
  slL_class_with_fields(L, DATASET, meta, methods, l_index);
  luaL_newlib(L, makers);
  lua_setfield(L, -2, "data");
  lua_pushcfunction(L, l_center_crop);
  lua_setfield(L, -2, "center_crop");
  slL_core(L, "resize", l_resize);
}
