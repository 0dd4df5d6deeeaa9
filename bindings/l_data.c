/* sluice.data: data sets in memory. */
#include "l_data.h"

#include "lfields.h"

#define DATASET "sluice.dataset"

static sl_dataset **push_dataset(lua_State *L) {
  sl_dataset **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  luaL_setmetatable(L, DATASET);
  return box;
}

static sl_dataset *check(lua_State *L, int idx) { return *(sl_dataset **)luaL_checkudata(L, idx, DATASET); }

sl_dataset *slL_field_dataset(lua_State *L, int idx, const char *what) {
  sl_dataset **box = NULL;
  if (lua_getfield(L, idx, "data") != LUA_TNIL) {
    box = luaL_testudata(L, -1, DATASET);
    if (!box) slL_error(L, "%s: data is %s, expected one of sluice.data", what, slL_what(L, -1));
  }
  lua_pop(L, 1);
  return box ? *box : NULL;
}

static int l_gc(lua_State *L) {
  sl_dataset **box = luaL_checkudata(L, 1, DATASET);
  sl_dataset_release(*box);
  *box = NULL;
  return 0;
}

static int l_npz(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  slL_try(L, sl_dataset_from_npz(slL_context(L), path, push_dataset(L)));
  return 1;
}

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

/* d[i] -> image f32 [C,H,W] in [-1,1], label (nil without labels). As a method it can give both: d:get(i). */
static int push_item(lua_State *L, sl_dataset *d, lua_Integer i) {
  if (i < 1 || i > sl_dataset_count(d))
    slL_error(L, "data[%I]: there are %I images", (LUAI_UACINT)i, (LUAI_UACINT)sl_dataset_count(d));
  sl_shape shape = sl_dataset_image_shape(d);
  sl_tensor **box = slL_push_tensor(L);
  slL_try(L, sl_tensor_new(slL_context(L), NULL, SL_F32, &shape, box));
  slL_try(L, sl_dataset_get(d, i - 1, false, sl_tensor_data(*box)));
  if (!sl_dataset_classes(d)) return 1;
  lua_pushinteger(L, sl_dataset_label(d, i - 1));
  return 2;
}

static int l_get(lua_State *L) { return push_item(L, check(L, 1), luaL_checkinteger(L, 2)); }

static int l_index(lua_State *L) {
  sl_dataset *d = check(L, 1);
  if (lua_isinteger(L, 2)) return push_item(L, d, lua_tointeger(L, 2));
  return slL_push_method(L, DATASET, 2);
}

/* The images' shape {C,H,W}. */
static int l_shape(lua_State *L) {
  sl_shape s = sl_dataset_image_shape(check(L, 1));
  lua_createtable(L, 3, 0);
  for (int i = 0; i < s.rank; i++) {
    lua_pushinteger(L, s.dim[i]);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static int l_classes(lua_State *L) {
  lua_pushinteger(L, sl_dataset_classes(check(L, 1)));
  return 1;
}

/* d:batch{seed=, first=, n=, flip=} -> images [n,C,H,W], labels i64 [n]: part of the shuffled stream, first from 1. */
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

static const luaL_Reg methods[] = {
    {"get", l_get}, {"shape", l_shape}, {"classes", l_classes}, {"batch", l_batch}, {NULL, NULL}};
static const luaL_Reg meta[] = {{"__gc", l_gc}, {"__close", l_gc}, {"__len", l_len}, {NULL, NULL}};
static const luaL_Reg makers[] = {{"npz", l_npz}, {"tensors", l_tensors}, {NULL, NULL}};

void slL_open_data(lua_State *L) {
  slL_class_with_fields(L, DATASET, meta, methods, l_index);
  luaL_newlib(L, makers);
  lua_setfield(L, -2, "data");
}
