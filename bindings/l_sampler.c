/* core.sampler: one batch of images being drawn, a step at a time. The first user value of a sampler that is written
 * in Lua is the function that takes a step of it (lua/sluice/own_sampler.lua). */
#include "diffusion/sampler.h"

#include <math.h>

#include "l_diffusion.h"
#include "l_model.h"
#include "lcore.h"
#include "lfields.h"

/*** sluice.Sampler
Images being drawn, a step at a time; what sluice.sampler makes. `sampler.x` may be assigned between steps.
@field i integer  steps done
@field n integer  steps in all
@field t integer  original timestep of the last step; of the first one before it
@field x sluice.Tensor  f32 [n,C,H,W], the images as they are: a copy, which may be assigned; the next step goes on from
  it
@field x0? sluice.Tensor  what the network's last prediction says of the finished images; nil before the first step, and
  after one of an own sampler that asked for no prediction
@setup
local model = sluice.dit { input = { 1, 8, 8 }, classes = 3, patch = 4, hidden = 16, depth = 1, heads = 2 }:init(0)
local sampler = sluice.sampler { model = model, diffusion = sluice.diffusion {}, n = 2, labels = 1, steps = 5,
  seed = 1 }
@example
sampler:step()
print(sampler.i, sampler.n, sampler.t, sampler.x:shape()[1])  --> 1 5 999 2
sampler.x = sampler.x * 0.9 */

#define SAMPLER "sluice.sampler"

static sl_sampler *check(lua_State *L, int idx) { return slL_check_held(L, idx, SAMPLER, "sampler"); }

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
  bool own = lua_getfield(L, 1, "advance") == LUA_TFUNCTION;
  lua_pop(L, 1);
  o.kind = &sl_sampler_own;
  if (!own) slL_try(L, sl_sampler_find(slL_field_string(L, 1, w, "kind", "ddpm"), &o.kind));
  o.whole = slL_field_diffusion_or_null(L, 1, w, "whole");
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
  sl_sampler **box = lua_newuserdatauv(L, sizeof *box, 1);
  *box = NULL;
  luaL_setmetatable(L, SAMPLER);
  lua_getfield(L, 1, "advance");
  lua_setiuservalue(L, -2, 1);
  slL_try(L, sl_sampler_new(&o, box));
  return 1;
}

/* Goes a step on; false if none was left. idx: absolute. */
static bool advance(lua_State *L, int idx) {
  sl_sampler *s = check(L, idx);
  bool done = sl_sampler_i(s) >= sl_sampler_steps(s);
  if (!done && lua_getiuservalue(L, idx, 1) == LUA_TFUNCTION) {
    lua_pushvalue(L, idx);
    lua_call(L, 1, 0);
    return true;
  }
  if (!done) slL_try(L, sl_sampler_step(s, &done));
  return !done;
}

/*** sampler:step() -> went
Goes one step on. A step that ends in an error or is interrupted leaves the sampler as the last whole step did.
@return boolean  false: there was none left, and nothing was done
@example
while sampler:step() do end
print(sampler.i)  --> 5 */
static int l_step(lua_State *L) {
  lua_pushboolean(L, advance(L, 1));
  return 1;
}

static int steps_next(lua_State *L) {
  lua_settop(L, 0);
  lua_pushvalue(L, lua_upvalueindex(1));
  bool more = advance(L, 1);
  lua_settop(L, 1);
  if (!more) lua_pushnil(L);
  return 1;
}

/*** sampler:steps() -> iterator
For a loop over the steps that are left, which gives the sampler after each; what was left by break goes on in another
loop, or by step().
@return fun(): sluice.Sampler?
@example
for s in sampler:steps() do
  if s.i == 3 then break end
end
print(sampler.i)  --> 3 */
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

/*** sampler:memory() -> bytes
Bytes that its steps take beside what exists already.
@return integer
@example print(sampler:memory() > 0)  --> true */
static int l_memory(lua_State *L) {
  uint64_t bytes;
  slL_try(L, sl_sampler_forecast(check(L, 1), &bytes));
  lua_pushinteger(L, (lua_Integer)bytes);
  return 1;
}

/* --- for steps taken in Lua --- */

/* core.sampler_predict(s, x, t) -> out, index of t, whether it is one of the whole diffusion */
static int l_predict(lua_State *L) {
  sl_sampler *s = check(L, 1);
  sl_tensor *x = slL_check_tensor(L, 2);
  int ok;
  lua_Integer t = lua_tointegerx(L, 3, &ok);
  if (!ok) return slL_error(L, "sampler: t is %s, expected an original timestep", slL_what(L, 3));
  sl_diffusion *d;
  int64_t i;
  slL_try(L, sl_sampler_find_t(s, t, &d, &i));
  slL_try(L, sl_sampler_predict(s, x, t, slL_push_tensor(L)));
  lua_pushinteger(L, i);
  lua_pushboolean(L, d->steps == d->original_steps);
  return 3;
}

/* core.sampler_noise(s, number): 1 is what the built-in samplers draw */
static int l_noise(lua_State *L) {
  sl_sampler *s = check(L, 1);
  int ok = 1;
  lua_Integer number = lua_isnoneornil(L, 2) ? 1 : lua_tointegerx(L, 2, &ok);
  if (!ok) return slL_error(L, "sampler: noise(%s), expected a number 1, 2, …", slL_what(L, 2));
  slL_try(L, sl_sampler_noise(s, number - 1, slL_push_tensor(L)));
  return 1;
}

/* core.sampler_take(s, x, x0): ends the step */
static int l_take(lua_State *L) {
  sl_sampler *s = check(L, 1);
  return slL_try(L, sl_sampler_take(s, slL_check_tensor(L, 2), slL_test_tensor(L, 3)));
}

static const luaL_Reg methods[] = {{"step", l_step}, {"steps", l_steps}, {"memory", l_memory}, {NULL, NULL}};
static const luaL_Reg meta[] = {{"__gc", l_gc}, {"__close", l_gc}, {"__newindex", l_newindex}, {NULL, NULL}};

void slL_open_sampler(lua_State *L) {
  slL_class_with_fields(L, SAMPLER, meta, methods, l_index);
  slL_core(L, "sampler", l_new);
  slL_core(L, "sampler_predict", l_predict);
  slL_core(L, "sampler_noise", l_noise);
  slL_core(L, "sampler_take", l_take);
}
