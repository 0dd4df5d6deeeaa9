/* What a block in Lua builds with: b:linear, b:attention and the like. */
#include "l_builder.h"

#include <string.h>

#include "lfields.h"

#define BUILDER "sluice.builder"
#define EPS 1e-6       /* of DiT's norms */
#define SITES 1024     /* uses of dropout in a block */
#define NAME_LENGTH 96 /* of a layer */

/*** sluice.Builder
What a block in Lua (`block` of sluice.dit) gets as its third argument: layers that declare parameters by name, below
the block's own ("blocks.3"). It serves inside that call only.
@field index integer  the block's number, from 1
@field blocks integer  how many there are
@field hidden integer  width of the tokens and of the condition
@field heads integer  the model's
@field height integer  rows of the grid of tokens
@field width integer  columns of the grid of tokens
@field training boolean  whether what is built is a training step
@example
local function block(z, c, b) -- DiT's own
  local shift1, scale1, gate1, shift2, scale2, gate2 = b:modulation(c, 6)
  z = z + b:gate(b:attention("attn", b:adaln(z, shift1, scale1)), gate1)
  local h = b:linear("mlp.fc1", b:adaln(z, shift2, scale2), 4 * b.hidden, { act = "gelu" })
  return z + b:gate(b:linear("mlp.fc2", h, b.hidden), gate2)
end
local o = { input = { 1, 8, 8 }, classes = 3, patch = 4, hidden = 16, depth = 2, heads = 2, block = block }
print(sluice.dit(o))  --> dit: 15568 parameters, 0 routed blocks */

static slL_builder *check(lua_State *L) {
  slL_builder *u = luaL_checkudata(L, 1, BUILDER);
  if (!u->b) slL_error(L, "block: its builder was kept after the function returned; layers are made inside it");
  return u;
}

static sl_value *value_at(lua_State *L, slL_builder *u, int idx, const char *method) {
  if (lua_type(L, idx) != LUA_TNUMBER && !slL_is_tensor(L, idx))
    slL_error(L, "b:%s: argument %d is %s, expected a tensor", method, idx - 1, slL_what(L, idx));
  return slL_to_value(L, idx, u->trace);
}

static int push(lua_State *L, slL_builder *u, sl_value *v) {
  slL_push_value(L, v, u->trace);
  return 1;
}

/* The options at idx; an empty table in their place if there are none. */
static void options(lua_State *L, int idx, const char *what, const char *const *names) {
  lua_settop(L, idx);
  if (lua_isnil(L, idx)) {
    lua_newtable(L);
    lua_replace(L, idx);
  }
  if (lua_type(L, idx) != LUA_TTABLE) slL_error(L, "%s: the options are %s, expected a table", what, slL_what(L, idx));
  slL_options(L, idx, what, names);
}

static sl_init read_init(lua_State *L, int idx, const char *what, const char *def) {
  static const char *const names[] = {"zero", "one", "normal", "xavier", "fan_in", NULL};
  static const sl_init_kind kinds[] = {SL_INIT_ZERO, SL_INIT_ONE, SL_INIT_NORMAL, SL_INIT_XAVIER_UNIFORM,
                                       SL_INIT_FAN_IN_UNIFORM};
  int k = 0;
  while (strcmp(names[k], def)) k++;
  k = slL_field_choice(L, idx, what, "init", names, k);
  double std = slL_field_number(L, idx, what, "std", 0.02);
  return (sl_init){.kind = kinds[k], .a = (float)std};
}

static const char *name_at(lua_State *L, const char *method) {
  size_t n = 0;
  const char *name = lua_type(L, 2) == LUA_TSTRING ? lua_tolstring(L, 2, &n) : NULL;
  if (!name || !n || n > NAME_LENGTH || strlen(name) != n)
    slL_error(L, "b:%s: the layer's name is %s, expected a string of 1 to %d letters, as in the state dict", method,
              slL_what(L, 2), NAME_LENGTH);
  return name;
}

static int64_t width_at(lua_State *L, int idx, const char *method) {
  int ok = 0;
  lua_Integer n = lua_tointegerx(L, idx, &ok);
  if (!ok || n < 1 || n > 1 << 20)
    slL_error(L, "b:%s: the width is %s, expected an integer of 1 to %d", method, slL_what(L, idx), 1 << 20);
  return n;
}

/* --- layers --- */

/*** builder:linear(name, x, out, options?) -> tensor
act(x Wᵀ + b) over the last dimension, with parameters `<name>.weight` [out, in] and `<name>.bias` [out] below the
block's name.
@param name string
@param x sluice.Tensor  [..., in]
@param out integer
@param options? table
@field init? string  of the weight: "xavier" (the default), "zero", "normal", "fan_in" (torch's own), "one"
@field std? number  of "normal"; 0.02
@field act? string  "none" (the default), "gelu", "gelu_erf", "silu"
@return sluice.Tensor  [..., out] */
static int l_linear(lua_State *L) {
  static const char *const names[] = {"init", "std", "act", NULL}, *const acts[] = {"none", "gelu", "gelu_erf", "silu",
                                                                                    NULL};
  slL_builder *u = check(L);
  const char *name = name_at(L, "linear");
  options(L, 5, "b:linear", names);
  sl_value *x = value_at(L, u, 3, "linear");
  if (!x->shape.rank) return slL_error(L, "b:linear: x has no dimensions");
  int64_t out = width_at(L, 4, "linear");
  int act = slL_field_choice(L, 5, "b:linear", "act", acts, SL_ACT_NONE);
  return push(L, u, sl_nn_linear(u->b, name, x, out, (sl_act)act, read_init(L, 5, "b:linear", "xavier")));
}

/*** builder:attention(name, x, options?) -> tensor
Multi-head self-attention over the tokens, as timm's: `<name>.qkv` and `<name>.proj`.
@param name string
@param x sluice.Tensor  [N, tokens, D]
@param options? table
@field heads? integer  a divisor of D; the model's
@return sluice.Tensor  [N, tokens, D] */
static int l_attention(lua_State *L) {
  static const char *const names[] = {"heads", NULL};
  slL_builder *u = check(L);
  const char *name = name_at(L, "attention");
  options(L, 4, "b:attention", names);
  sl_value *x = value_at(L, u, 3, "attention");
  int64_t heads = slL_field_integer(L, 4, "b:attention", "heads", u->of->heads);
  if (x->shape.rank != 3) return slL_error(L, "b:attention: x is %s, expected [N,tokens,D]", sl_value_text(x));
  if (heads < 1 || x->shape.dim[2] % heads)
    return slL_error(L, "b:attention: heads is %I, expected a divisor of x's width %I", (LUAI_UACINT)heads,
                     (LUAI_UACINT)x->shape.dim[2]);
  return push(L, u, sl_nn_self_attention(u->b, name, x, (int)heads));
}

/*** builder:norm(x) -> tensor
LayerNorm over the last dimension, without parameters.
@param x sluice.Tensor  [..., D]
@return sluice.Tensor */
static int l_norm(lua_State *L) {
  slL_builder *u = check(L);
  return push(L, u, sl_layer_norm(value_at(L, u, 2, "norm"), NULL, NULL, EPS));
}

/*** builder:adaln(x, shift, scale) -> tensor
LayerNorm without parameters, then * (1 + scale) + shift.
@param x sluice.Tensor  [N, tokens, D]
@param shift sluice.Tensor  [N, D]
@param scale sluice.Tensor  [N, D]
@return sluice.Tensor  [N, tokens, D] */
static int l_adaln(lua_State *L) {
  slL_builder *u = check(L);
  sl_value *x = value_at(L, u, 2, "adaln"), *shift = value_at(L, u, 3, "adaln"), *scale = value_at(L, u, 4, "adaln");
  return push(L, u, sl_adaln(x, shift, scale, NULL, EPS));
}

/*** builder:gate(x, gate) -> tensor
x * gate, one gate for all tokens.
@param x sluice.Tensor  [N, tokens, D]
@param gate sluice.Tensor  [N, D]
@return sluice.Tensor  [N, tokens, D] */
static int l_gate(lua_State *L) {
  slL_builder *u = check(L);
  sl_value *x = value_at(L, u, 2, "gate"), *gate = value_at(L, u, 3, "gate");
  if (gate->shape.rank != 2) return slL_error(L, "b:gate: gate is %s, expected [N,D]", sl_value_text(gate));
  return push(L, u, sl_mul(x, SL_RESHAPE(gate, gate->shape.dim[0], 1, gate->shape.dim[1])));
}

/*** builder:modulation(c, parts) -> tensor, …
What DiT's blocks make of the condition: `adaLN_modulation.1` (it starts at zero) of SiLU(c), in `parts` pieces: shifts,
scales and gates.
@param c sluice.Tensor  [N, hidden]
@param parts integer  1 to 16
@return sluice.Tensor ...  each [N, hidden] */
static int l_modulation(lua_State *L) {
  slL_builder *u = check(L);
  sl_value *c = value_at(L, u, 2, "modulation");
  int ok = 0;
  lua_Integer parts = lua_tointegerx(L, 3, &ok);
  if (!ok || parts < 1 || parts > 16)
    return slL_error(L, "b:modulation: parts is %s, expected an integer of 1 to 16", slL_what(L, 3));
  sl_init zero = {.kind = SL_INIT_ZERO};
  sl_value *m = sl_nn_linear(u->b, "adaLN_modulation.1", sl_silu(c), parts * u->of->hidden, SL_ACT_NONE, zero);
  m = sl_chunk(m, (int)parts, -1);
  luaL_checkstack(L, (int)parts + 8, "b:modulation");
  for (int i = 0; i < (int)parts; i++) push(L, u, i && m ? sl_output(m, i) : m);
  return (int)parts;
}

/*** builder:conv2d(name, x, out, options?) -> tensor
A convolution with a square kernel and padding side // 2: `<name>.weight` [out, C, side, side] and `<name>.bias`. Tokens
become images with `x:reshape { n, b.height, b.width, D }:permute { 1, 4, 2, 3 }`.
@param name string
@param x sluice.Tensor  [N, C, H, W]
@param out integer
@param options? table
@field side? integer  odd; 3
@field stride? integer  1
@field init? string  as linear's
@field std? number
@return sluice.Tensor  [N, out, H/stride, W/stride] */
static int l_conv2d(lua_State *L) {
  static const char *const names[] = {"side", "stride", "init", "std", NULL};
  slL_builder *u = check(L);
  const char *name = name_at(L, "conv2d"), *w = "b:conv2d";
  options(L, 5, w, names);
  sl_value *x = value_at(L, u, 3, "conv2d");
  int64_t out = width_at(L, 4, "conv2d"), side = slL_field_integer(L, 5, w, "side", 3),
          stride = slL_field_integer(L, 5, w, "stride", 1);
  if (x->shape.rank != 4) return slL_error(L, "b:conv2d: x is %s, expected [N,C,H,W]", sl_value_text(x));
  if (side < 1 || side > 63 || side % 2 == 0 || stride < 1 || stride > 64)
    return slL_error(L, "b:conv2d: side is %I and stride %I, expected an odd side and a positive stride",
                     (LUAI_UACINT)side, (LUAI_UACINT)stride);
  return push(L, u, sl_nn_conv2d(u->b, name, x, out, side, stride, read_init(L, 5, w, "xavier")));
}

/*** builder:dropout(x, p) -> tensor
While training, drops elements with probability p and divides the others by 1 - p; else x.
@param x sluice.Tensor
@param p number  0 … below 1
@return sluice.Tensor */
static int l_dropout(lua_State *L) {
  slL_builder *u = check(L);
  sl_value *x = value_at(L, u, 2, "dropout");
  if (lua_type(L, 3) != LUA_TNUMBER || !(lua_tonumber(L, 3) >= 0 && lua_tonumber(L, 3) < 1))
    return slL_error(L, "b:dropout: p is %s, expected a number of 0 to below 1", slL_what(L, 3));
  if (u->sites == SITES) return slL_error(L, "b:dropout: more than %d uses in a block", SITES);
  return push(L, u, sl_nn_dropout(u->b, x, lua_tonumber(L, 3), (int64_t)u->index * SITES + u->sites++));
}

/*** builder:param(name, shape, options?) -> tensor
A parameter of the block's own.
@param name string
@param shape integer|integer[]
@param options? table
@field init? string  "zero" (the default), "one", "normal", "xavier", "fan_in"
@field std? number  of "normal"; 0.02
@return sluice.Tensor  f32 */
static int l_param(lua_State *L) {
  static const char *const names[] = {"init", "std", NULL};
  slL_builder *u = check(L);
  const char *name = name_at(L, "param");
  options(L, 4, "b:param", names);
  sl_shape shape = slL_check_shape(L, 3, "b:param");
  return push(L, u, sl_builder_param(u->b, name, &shape, read_init(L, 4, "b:param", "zero")));
}

static const luaL_Reg methods[] = {{"linear", l_linear}, {"attention", l_attention}, {"norm", l_norm},
                                   {"adaln", l_adaln},   {"gate", l_gate},           {"modulation", l_modulation},
                                   {"conv2d", l_conv2d}, {"dropout", l_dropout},     {"param", l_param},
                                   {NULL, NULL}};

static int l_index(lua_State *L) {
  slL_builder *u = check(L);
  const char *k = luaL_checkstring(L, 2);
  const struct {
    const char *name;
    int64_t value;
  } fields[] = {{"index", u->index + 1}, {"blocks", u->of->depth},  {"hidden", u->of->hidden},
                {"heads", u->of->heads}, {"height", u->of->height}, {"width", u->of->width}};
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
    if (!strcmp(k, fields[i].name)) return lua_pushinteger(L, fields[i].value), 1;
  if (!strcmp(k, "training")) return lua_pushboolean(L, u->b->training), 1;
  slL_push_method(L, BUILDER, 2);
  if (!lua_isnil(L, -1)) return 1;
  static const char *const names[] = {"linear", "attention", "norm",  "adaln",    "gate",   "modulation",
                                      "conv2d", "dropout",   "param", "index",    "blocks", "hidden",
                                      "heads",  "height",    "width", "training", NULL};
  return slL_unknown(L, "block's builder", "method", k, names);
}

slL_builder *slL_push_builder(lua_State *L, slL_builder value) {
  slL_builder *u = lua_newuserdatauv(L, sizeof *u, 0);
  *u = value;
  luaL_setmetatable(L, BUILDER);
  return u;
}

void slL_open_builder(lua_State *L) {
  static const luaL_Reg meta[] = {{NULL, NULL}};
  slL_class_with_fields(L, BUILDER, meta, methods, l_index);
}
