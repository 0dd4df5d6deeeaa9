/* core.sampler: one batch of images being drawn, a step at a time. */
#include "diffusion/sampler.h"

#include <math.h>

#include "l_diffusion.h"
#include "l_model.h"
#include "lcore.h"
#include "lfields.h"

#define SAMPLER "sluice.sampler"

static sl_sampler *check(lua_State *L, int idx) {
  sl_sampler **box = luaL_checkudata(L, idx, SAMPLER);
  if (!*box) slL_error(L, "the sampler was released");
  return *box;
}

static int l_gc(lua_State *L) {
  sl_sampler **box = luaL_checkudata(L, 1, SAMPLER);
  sl_sampler_free(*box);
  *box = NULL;
  return 0;
}

/* t.labels as integers in a userdata left on the stack; NULL (and nil) without labels. */
static int64_t *read_labels(lua_State *L, int64_t n) {
  if (lua_getfield(L, 1, "labels") == LUA_TNIL) return NULL;
  int64_t *labels = lua_newuserdatauv(L, (size_t)n * sizeof *labels, 0);
  for (int64_t i = 0; i < n; i++) {
    lua_rawgeti(L, -2, i + 1);
    if (!lua_isinteger(L, -1))
      slL_error(L, "sluice.sample: label %I is %s, expected an integer", (LUAI_UACINT)(i + 1),
                luaL_tolstring(L, -1, NULL));
    labels[i] = lua_tointeger(L, -1);
    lua_pop(L, 1);
  }
  return labels;
}

static int l_new(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  const char *w = "sluice.sample";
  sl_sampler_options o = {.model = slL_field_model(L, 1, w), .diffusion = slL_field_diffusion(L, 1, w)};
  slL_try(L, sl_sampler_find(slL_field_string(L, 1, w, "kind", "ddpm"), &o.kind));
  o.n = slL_field_integer(L, 1, w, "n", 1);
  o.first = slL_field_integer(L, 1, w, "first", 0);
  o.params = slL_field_tensor(L, 1, w, "params");
  o.cfg = slL_field_number(L, 1, w, "cfg", 1);
  o.cfg_channels = slL_field_integer(L, 1, w, "cfg_channels", 0);
  o.cfg_lo = slL_field_number(L, 1, w, "cfg_lo", 1);
  o.cfg_hi = slL_field_number(L, 1, w, "cfg_hi", 0);
  o.eta = slL_field_number(L, 1, w, "eta", 0);
  o.clip = slL_field_boolean(L, 1, w, "clip", false);
  o.precision = slL_field_precision(L, 1, w);
  o.seed = slL_field_seed(L, 1, w, "seed", 0);
  o.noise = slL_field_tensor(L, 1, w, "noise");
  o.init = slL_field_tensor(L, 1, w, "init");
  o.mask = slL_field_tensor(L, 1, w, "mask");
  o.start = slL_field_integer(L, 1, w, "start", 0);
  if (o.n < 1) slL_error(L, "%s: n is %I, expected at least 1", w, (LUAI_UACINT)o.n);
  o.labels = read_labels(L, o.n);
  sl_sampler **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  luaL_setmetatable(L, SAMPLER);
  slL_try(L, sl_sampler_new(&o, box));
  return 1;
}

static int l_step(lua_State *L) {
  bool done;
  slL_try(L, sl_sampler_step(check(L, 1), &done));
  lua_pushboolean(L, !done);
  return 1;
}

static int steps_next(lua_State *L) {
  lua_pushvalue(L, lua_upvalueindex(1));
  bool done;
  slL_try(L, sl_sampler_step(check(L, -1), &done));
  if (done) lua_pushnil(L);
  return 1;
}

/* for s in sampler:steps() do … end */
static int l_steps(lua_State *L) {
  check(L, 1);
  lua_pushvalue(L, 1);
  lua_pushcclosure(L, steps_next, 1);
  return 1;
}

static int push_image(lua_State *L, sl_sampler *s, sl_status (*get)(sl_sampler *, sl_tensor **)) {
  sl_tensor **box = slL_push_tensor(L);
  slL_try(L, get(s, box));
  if (!*box) lua_pushnil(L);
  return 1;
}

static int l_index(lua_State *L) {
  sl_sampler *s = check(L, 1);
  const char *k = luaL_checkstring(L, 2);
  if (k[0] == 'i' && !k[1]) return lua_pushinteger(L, sl_sampler_i(s)), 1;
  if (k[0] == 't' && !k[1]) return lua_pushinteger(L, sl_sampler_t(s)), 1;
  if (k[0] == 'n' && !k[1]) return lua_pushinteger(L, sl_sampler_steps(s)), 1;
  if (k[0] == 'x' && !k[1]) return push_image(L, s, sl_sampler_x);
  if (k[0] == 'x' && k[1] == '0' && !k[2]) return push_image(L, s, sl_sampler_x0);
  return slL_push_method(L, SAMPLER, 2);
}

static int l_newindex(lua_State *L) {
  sl_sampler *s = check(L, 1);
  const char *k = luaL_checkstring(L, 2);
  if (k[0] != 'x' || k[1]) return slL_error(L, "sampler: %s cannot be assigned; x can", k);
  slL_try(L, sl_sampler_set_x(s, slL_check_tensor(L, 3)));
  return 0;
}

/* Bytes that its steps will take. */
static int l_memory(lua_State *L) {
  uint64_t bytes;
  slL_try(L, sl_sampler_forecast(check(L, 1), &bytes));
  lua_pushinteger(L, (lua_Integer)bytes);
  return 1;
}

static const luaL_Reg methods[] = {{"step", l_step}, {"steps", l_steps}, {"memory", l_memory}, {NULL, NULL}};
static const luaL_Reg meta[] = {{"__gc", l_gc}, {"__close", l_gc}, {"__newindex", l_newindex}, {NULL, NULL}};

void slL_open_sampler(lua_State *L) {
  static const char *const fields[] = {"i", "t", "n", "x", "x0", NULL};
  slL_class_with_fields(L, SAMPLER, meta, methods, l_index);
  slL_share_fields(L, SAMPLER, fields);
  slL_core(L, "sampler", l_new);
}
