/* sluice.dit */
#include "model/dit.h"

#include "l_model.h"
#include "l_routing.h"
#include "lfields.h"

static const char *const fields[] = {"input",   "patch",         "hidden",      "depth",     "heads",   "mlp_ratio",
                                     "classes", "class_dropout", "learn_sigma", "timesteps", "routing", "seed",
                                     "device",  "precision",     "residual",    NULL};

static void read_input(lua_State *L, sl_dit_config *c) {
  int type = lua_getfield(L, 1, "input");
  if (type != LUA_TTABLE) slL_error(L, "sluice.dit: input is %s, expected {C,H,W}", slL_what(L, -1));
  if (lua_rawlen(L, -1) != 3)
    slL_error(L, "sluice.dit: input has %I sizes, expected {C,H,W}", (LUAI_UACINT)lua_rawlen(L, -1));
  int64_t *to[] = {&c->channels, &c->height, &c->width};
  for (int i = 0; i < 3; i++) {
    lua_rawgeti(L, -1, i + 1);
    if (!lua_isinteger(L, -1)) slL_error(L, "sluice.dit: input must hold three integers, {C,H,W}");
    *to[i] = lua_tointeger(L, -1);
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
}

static void read_config(lua_State *L, sl_dit_config *c) {
  const char *w = "sluice.dit", *preset = slL_preset_name(L, 1, w, "DiT-B/2");
  *c = sl_dit_defaults();
  if (preset) slL_try(L, sl_dit_preset(preset, c));
  read_input(L, c);
  c->patch = slL_field_integer(L, 1, w, "patch", c->patch);
  c->hidden = slL_field_integer(L, 1, w, "hidden", c->hidden);
  c->depth = slL_field_integer(L, 1, w, "depth", c->depth);
  c->heads = slL_field_integer(L, 1, w, "heads", c->heads);
  if (!c->patch || !c->hidden || !c->depth || !c->heads)
    slL_error(L, "sluice.dit: %s is missing or 0; give patch, hidden, depth and heads, or a name like \"DiT-B/2\"",
              !c->patch    ? "patch"
              : !c->hidden ? "hidden"
              : !c->depth  ? "depth"
                           : "heads");
  c->mlp_ratio = slL_field_number(L, 1, w, "mlp_ratio", c->mlp_ratio);
  c->classes = slL_field_integer(L, 1, w, "classes", c->classes);
  c->class_dropout = slL_field_number(L, 1, w, "class_dropout", c->class_dropout);
  c->learn_sigma = slL_field_boolean(L, 1, w, "learn_sigma", c->learn_sigma);
}

static int l_dit(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  slL_options(L, 1, "sluice.dit", fields);
  sl_dit_config c;
  read_config(L, &c);
  c.options = slL_field_model_options(L, 1, "sluice.dit");
  lua_getfield(L, 1, "routing");
  sl_routing *routing = slL_opt_routing(L, -1, "sluice.dit");
  sl_model **box = slL_push_model(L);
  slL_try(L, sl_dit_new(slL_context(L), &c, routing, box));
  return 1;
}

static int describe(lua_State *L) {
  const sl_dit_config *c = sl_dit_config_of(slL_check_model(L, 1));
  lua_createtable(L, 0, 12);
  lua_createtable(L, 3, 0);
  lua_pushinteger(L, c->channels), lua_rawseti(L, -2, 1);
  lua_pushinteger(L, c->height), lua_rawseti(L, -2, 2);
  lua_pushinteger(L, c->width), lua_rawseti(L, -2, 3);
  lua_setfield(L, -2, "input");
  lua_pushinteger(L, c->patch), lua_setfield(L, -2, "patch");
  lua_pushinteger(L, c->hidden), lua_setfield(L, -2, "hidden");
  lua_pushinteger(L, c->depth), lua_setfield(L, -2, "depth");
  lua_pushinteger(L, c->heads), lua_setfield(L, -2, "heads");
  lua_pushnumber(L, c->mlp_ratio), lua_setfield(L, -2, "mlp_ratio");
  lua_pushinteger(L, c->classes), lua_setfield(L, -2, "classes");
  lua_pushnumber(L, c->class_dropout), lua_setfield(L, -2, "class_dropout");
  lua_pushboolean(L, c->learn_sigma), lua_setfield(L, -2, "learn_sigma");
  return 1;
}

void slL_open_dit(lua_State *L) {
  slL_model_kind(L, "dit", l_dit, describe);
  slL_share_options(L, "sluice.dit", fields);
}
