/* core.load_checkpoint: what sluice.load gives, but for its metatable. */
#include "io/checkpoint.h"
#include "l_diffusion.h"
#include "l_json.h"
#include "l_model.h"
#include "lcore.h"

#define BOX "sluice.checkpoint_box"

static int box_gc(lua_State *L) {
  sl_checkpoint **box = luaL_checkudata(L, 1, BOX);
  sl_checkpoint_free(*box);
  *box = NULL;
  return 0;
}

static void push_meta(lua_State *L, const sl_tensor_file *meta) {
  lua_newtable(L);
  for (int64_t i = 0; i < sl_tensor_file_meta_count(meta); i++) {
    lua_pushstring(L, sl_tensor_file_meta_value(meta, i));
    lua_setfield(L, -2, sl_tensor_file_meta_key(meta, i));
  }
}

/* { {decay, weights} … } */
static void push_averages(lua_State *L, const sl_model *m) {
  lua_newtable(L);
  for (int i = 0; i < sl_sample_averages(m); i++) {
    double decay;
    sl_tensor *weights;
    slL_try(L, sl_sample_average(m, i, &decay, &weights));
    lua_createtable(L, 0, 2);
    lua_pushnumber(L, decay);
    lua_setfield(L, -2, "decay");
    slL_push_shared(L, weights);
    lua_setfield(L, -2, "weights");
    lua_rawseti(L, -2, i + 1);
  }
}

/* --- models that a function makes --- */

static int call_maker(lua_State *L) {
  lua_pushvalue(L, 1);
  push_meta(L, lua_touserdata(L, 2));
  lua_call(L, 1, 1);
  lua_pushlightuserdata(L, sl_model_retain(slL_check_model(L, -1)));
  return 1;
}

/* user: the state, the function at 2. */
static sl_status make_model(void *user, const sl_tensor_file *meta, sl_model **out) {
  lua_State *L = user;
  lua_pushcfunction(L, call_maker);
  lua_pushvalue(L, 2);
  lua_pushlightuserdata(L, (void *)(uintptr_t)meta);
  if (slL_pcall(L, 2, 1) != LUA_OK) return slL_fail(L, SL_STATUS_UNSUPPORTED, "the function that makes the model");
  *out = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return SL_STATUS_OK;
}

/* core.load_checkpoint(path[, make]) -> { model, diffusion, ema, sample, step, dtype, meta, path }; make(meta) -> the
 * model, where its description is not enough. */
static int l_load(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  lua_settop(L, 2);
  luaL_checkstack(L, 32, "load_checkpoint");
  sl_checkpoint **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  luaL_setmetatable(L, BOX);
  slL_try(L, sl_checkpoint_load_with(slL_context(L), path, lua_isnil(L, 2) ? NULL : make_model, L, box));
  const sl_checkpoint *c = *box;
  lua_createtable(L, 0, 8);
  *slL_push_model(L) = sl_model_retain(sl_checkpoint_model(c)), lua_setfield(L, -2, "model");
  slL_push_diffusion(L, sl_checkpoint_diffusion(c)), lua_setfield(L, -2, "diffusion");
  push_averages(L, sl_checkpoint_model(c)), lua_setfield(L, -2, "ema");
  slL_push_json(L, sl_checkpoint_meta(c, "sample")), lua_setfield(L, -2, "sample");
  push_meta(L, sl_checkpoint_metadata(c)), lua_setfield(L, -2, "meta");
  lua_pushinteger(L, sl_checkpoint_step(c)), lua_setfield(L, -2, "step");
  lua_pushstring(L, sl_dtype_name(sl_checkpoint_dtype(c))), lua_setfield(L, -2, "dtype");
  lua_pushstring(L, sl_checkpoint_path(c)), lua_setfield(L, -2, "path");
  sl_checkpoint_free(*box);
  *box = NULL;
  return 1;
}

void slL_open_checkpoint(lua_State *L) {
  static const luaL_Reg meta[] = {{"__gc", box_gc}, {NULL, NULL}};
  slL_class(L, BOX, meta, NULL);
  slL_core(L, "load_checkpoint", l_load);
}
