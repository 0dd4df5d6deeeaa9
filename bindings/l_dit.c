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

/*** sluice.dit { name?, input = {C, H, W}, … } -> model
A diffusion transformer (DiT), with or without routing. A name gives patch, hidden, depth and heads: "DiT-S/2",
DiT-S, DiT-B, DiT-L or DiT-XL with /2, /4 or /8; what is given beside it goes over it. Without a name these four
must be given. Parameters have the names of the official state dict.
@param options table
@field [1]? string  a name like "DiT-B/2"
@field input integer[]  {channels, height, width} of the images; height and width are multiples of patch
@field patch? integer  pixels on a patch's side
@field hidden? integer  channels of a token; a multiple of heads and of 4
@field depth? integer  blocks
@field heads? integer
@field mlp_ratio? number  4; the MLP's channels over hidden
@field classes? integer  1000; with 1 the label table has one row and nothing is dropped
@field class_dropout? number  0.1; how often training drops a label; 0: no null class, and no guidance
@field learn_sigma? boolean  true; the output has twice the channels, the second half for the variance
@field routing? sluice.Routing  none
@field block? fun(z: sluice.Tensor, c: sluice.Tensor, b: sluice.Builder): sluice.Tensor  a block in the place of DiT's
own: z [N, tokens, hidden], masked by the routing, and the condition c [N, hidden] give a tensor like z, which becomes
(1-m) z
  + block(m z). It is called with symbolic tensors, when parameters are declared and when a graph is built, never in a
step
@field timesteps? integer  1000; as many as the diffusion's original steps
@field seed? integer  0; of the weights, if nothing is loaded
@field device? string  "auto": the first GPU, else the CPU; SLUICE_DEVICE names another
@field precision? "f32"|"tf32"|"bf16"  "f32"; of products
@field residual? "f32"|"bf16"  "f32"; of the stream between blocks, with precision = "bf16"
@return sluice.Model
@example
local model = sluice.dit { "DiT-S/2", input = { 4, 32, 32 }, routing = sluice.routing.dtr {} }
print(model:count())  --> 32963360 32865056
local small = sluice.dit { input = { 1, 28, 28 }, classes = 10, patch = 7, hidden = 64, depth = 2, heads = 2 } */
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
