/* sluice.dit */
#include "model/dit.h"

#include "l_block.h"
#include "l_model.h"
#include "l_routing.h"
#include "lfields.h"

static const char *const fields[] = {"input",   "patch",         "hidden",      "depth",     "heads",   "mlp_ratio",
                                     "classes", "class_dropout", "learn_sigma", "timesteps", "routing", "seed",
                                     "device",  "precision",     "residual",    "block",     NULL};

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
  lua_getfield(L, 1, "block");
  sl_dit_block block;
  bool own = slL_read_block(L, -1, &c, &block); /* last: from here on it is the model's */
  lua_pop(L, 1);
  slL_try(L, sl_dit_new_with_block(slL_context(L), &c, routing, own ? &block : NULL, box));
  return 1;
}

void slL_open_dit(lua_State *L) { slL_model_kind(L, "dit", l_dit); }
