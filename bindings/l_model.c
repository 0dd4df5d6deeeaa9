/* Models of any architecture: their methods. What makes them stands in l_<architecture>.c. */
#include "l_model.h"

#include <string.h>

#include "io/checkpoint.h"
#include "io/model_state.h"
#include "l_io.h"
#include "l_json.h"
#include "lcore.h"
#include "lfields.h"
#include "model/model_description.h"

#define MODEL "sluice.model"
#define MAX_KEEP 64

/*** sluice.Model
A network: what sluice.dit and sluice.adm make. Images are [N,C,H,W]. t is an integer, or a tensor [N], [1] or
without dimensions, of integers or f32; a fraction embeds as it is and takes the mask of the nearest integer. Labels
y are an integer for all images, a list, or a tensor [N]; nil is the null class. tostring tells kind and size.
@setup
local model = sluice.dit { input = { 1, 8, 8 }, classes = 3, patch = 4, hidden = 16, depth = 2, heads = 2,
  routing = sluice.routing.dtr {} }
@example print(model)  --> dit: 15568 parameters, 2 routed blocks */

sl_model **slL_push_model(lua_State *L) {
  sl_model **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  luaL_setmetatable(L, MODEL);
  return box;
}

sl_model *slL_check_model(lua_State *L, int idx) { return slL_check_held(L, idx, MODEL, "model"); }

sl_model *slL_field_model(lua_State *L, int idx, const char *what) {
  lua_getfield(L, idx, "model");
  if (!luaL_testudata(L, -1, MODEL)) slL_error(L, "%s: model is %s, expected a model", what, slL_what(L, -1));
  sl_model *m = slL_check_model(L, -1);
  lua_pop(L, 1);
  return m;
}

static int l_gc(lua_State *L) {
  sl_model **box = luaL_checkudata(L, 1, MODEL);
  sl_model_release(*box);
  *box = NULL;
  return 0;
}

/* --- what architectures share --- */

sl_precision slL_field_precision(lua_State *L, int idx, const char *what) {
  static const char *const names[] = {"f32", "bf16", "tf32", NULL}, *const residuals[] = {"f32", "bf16", NULL};
  const char *given = slL_field_string(L, idx, what, "precision", NULL);
  int compute = slL_field_choice(L, idx, what, "precision", names, 0);
  bool residual = slL_field_choice(L, idx, what, "residual", residuals, 0);
  return (sl_precision){given != NULL, compute == 1 ? SL_BF16 : SL_F32, residual ? SL_BF16 : SL_F32, compute == 2};
}

sl_model_options slL_field_model_options(lua_State *L, int idx, const char *what) {
  sl_precision p = slL_field_precision(L, idx, what);
  return (sl_model_options){.timesteps = slL_field_integer(L, idx, what, "timesteps", 1000),
                            .seed = slL_field_seed(L, idx, what, "seed", 0),
                            .compute = p.compute,
                            .residual = p.residual,
                            .tf32 = p.tf32,
                            .device = slL_field_device(L, idx, what)};
}

const char *slL_preset_name(lua_State *L, int idx, const char *what, const char *example) {
  int type = lua_rawgeti(L, idx, 1);
  if (type != LUA_TNIL && type != LUA_TSTRING)
    slL_error(L, "%s: the first element is %s, expected a name like \"%s\"", what, slL_what(L, -1), example);
  const char *name = lua_tostring(L, -1);
  lua_pop(L, 1);
  return name;
}

/* --- parameters --- */

static sl_tensor *weights_of(lua_State *L, sl_model *m) {
  sl_tensor *w = NULL;
  slL_try(L, sl_model_weights(m, &w));
  return w;
}

/* Pushes {name = view of flat}. */
static void push_parts(lua_State *L, sl_model *m, sl_tensor *flat) {
  int n = sl_params_count(m->params);
  lua_createtable(L, 0, n);
  for (int i = 0; i < n; i++) {
    slL_try(L, sl_params_part(m->params, i, flat, slL_push_tensor(L)));
    lua_setfield(L, -2, sl_params_get(m->params, i)->name);
  }
}

/*** model:names() -> list
Names of its parameters, in the order of the flat layout.
@return string[]
@example print(model:names()[1], #model:names()) */
static int l_names(lua_State *L) {
  sl_model *m = slL_check_model(L, 1);
  int n = sl_params_count(m->params);
  lua_createtable(L, n, 0);
  for (int i = 0; i < n; i++) {
    lua_pushstring(L, sl_params_get(m->params, i)->name);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

/*** model:state() -> parameters
Its parameters by name: tensors that see the model's own memory. Brings the weights into being.
@return table<string, sluice.Tensor>
@example print(model:state()["blocks.0.attn.qkv.weight"]:shape()[1])  --> 48 */
static int l_state(lua_State *L) {
  sl_model *m = slL_check_model(L, 1);
  push_parts(L, m, weights_of(L, m));
  return 1;
}

static void check_flat(lua_State *L, sl_model *m, sl_tensor *t) {
  if (sl_tensor_dtype(t) != SL_F32 || sl_tensor_numel(t) != sl_params_elements(m->params) ||
      !sl_tensor_is_contiguous(t))
    slL_error(L, "the array is %s, expected f32 [%I], the model's flat layout", sl_shape_text(sl_tensor_shape(t)),
              (LUAI_UACINT)sl_params_elements(m->params));
}

/*** model:parts(flat) -> parameters
A flat array, such as an EMA's weights, as tensors by name that see its memory.
@param flat sluice.Tensor  f32, as long as the model's layout
@return table<string, sluice.Tensor>
@example
local flat = model:flatten(model:state())
print(model:parts(flat)["x_embedder.proj.bias"]:shape()[1])  --> 16 */
static int l_parts(lua_State *L) {
  sl_model *m = slL_check_model(L, 1);
  sl_tensor *flat = slL_check_tensor(L, 2);
  check_flat(L, m, flat);
  push_parts(L, m, flat);
  return 1;
}

/* The table {name = tensor} at idx as a file of tensors, left on the stack. */
static sl_tensor_file *push_state(lua_State *L, int idx) {
  luaL_checktype(L, idx, LUA_TTABLE);
  sl_tensor_file **file = slL_push_tensor_file(L);
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING) slL_error(L, "load_state: expected {name = tensor}");
    sl_tensor *t = slL_test_tensor(L, -1);
    const char *name = lua_tostring(L, -2);
    if (!t) slL_error(L, "load_state: %s is %s, expected a tensor", name, slL_what(L, -1));
    slL_try(L, sl_tensor_file_add(*file, name, t));
  }
  return *file;
}

/*** model:load_state(source, options?) -> model
Takes parameters from a table, or from a file: .safetensors or .npz with the official names, a checkpoint, a run's
folder. Shapes must agree; after an error the model is as it was.
@param source string|table<string, sluice.Tensor>
@param options? table
@field strict? boolean  true: trainable parameters must all be there, and nothing else
@return sluice.Model
@example
model:load_state({ ["x_embedder.proj.bias"] = sluice.zeros { 16 } }, { strict = false }) */
static int l_load_state(lua_State *L) {
  sl_model *m = slL_check_model(L, 1);
  static const char *const fields[] = {"strict", NULL};
  bool strict = true;
  if (!lua_isnoneornil(L, 3)) {
    luaL_checktype(L, 3, LUA_TTABLE);
    slL_options(L, 3, "load_state", fields);
    strict = slL_field_boolean(L, 3, "load_state", "strict", true);
  }
  if (lua_type(L, 2) == LUA_TSTRING) slL_try(L, sl_model_load_state(m, lua_tostring(L, 2), strict));
  else slL_try(L, sl_state_load(m, push_state(L, 2), "", strict));
  lua_settop(L, 1);
  return 1;
}

/*** model:flatten(parameters) -> flat
A table of parameters, all trainable ones of the model, as one flat array f32 in the model's layout.
@param parameters table<string, sluice.Tensor>
@return sluice.Tensor
@example print(model:flatten(model:state()):rank())  --> 1 */
static int l_flatten(lua_State *L) {
  sl_model *m = slL_check_model(L, 1);
  sl_tensor_file *file = push_state(L, 2);
  return slL_try(L, sl_state_flatten(m, file, "", slL_push_tensor(L)));
}

/*** model:init(seed?) -> model
Draws the weights anew, as the reference projects initialize them.
@param seed? integer  0; 0 … 2^32-1
@return sluice.Model
@example model:init(1) */
static int l_init(lua_State *L) {
  sl_model *m = slL_check_model(L, 1);
  lua_Integer seed = luaL_optinteger(L, 2, 0);
  if (seed < 0 || seed > 0xffffffffLL) slL_error(L, "init: seed is %I, expected 0 to 4294967295", (LUAI_UACINT)seed);
  slL_try(L, sl_model_init(m, (uint32_t)seed));
  lua_settop(L, 1);
  return 1;
}

/*** model:save(path)
Writes the parameters under the official names: .npz by its name, else safetensors.
@param path string
@example model:save "weights.safetensors" */
static int l_save(lua_State *L) {
  slL_try(L, sl_model_save(slL_check_model(L, 1), luaL_checkstring(L, 2)));
  return 0;
}

/*** model:count() -> all, trainable
How many numbers its parameters hold, and how many of them are trained.
@return integer all
@return integer trainable
@example print(model:count()) */
static int l_count(lua_State *L) {
  int64_t all, trainable;
  sl_params_numel(slL_check_model(L, 1)->params, &all, &trainable);
  lua_pushinteger(L, all);
  lua_pushinteger(L, trainable);
  return 2;
}

/*** model:flops(options?) -> counts
Work of one forward pass.
@param options? table
@field batch? integer  1
@return table
@field macs integer  multiply-adds
@field flops integer  twice that
@example print(model:flops { batch = 2 }.macs == 2 * model:flops().macs)  --> true */
static int l_flops(lua_State *L) {
  sl_model *m = slL_check_model(L, 1);
  static const char *const fields[] = {"batch", NULL};
  int64_t batch = 1, macs = 0;
  if (!lua_isnoneornil(L, 2)) {
    luaL_checktype(L, 2, LUA_TTABLE);
    slL_options(L, 2, "flops", fields);
    batch = slL_field_integer(L, 2, "flops", "batch", 1);
  }
  slL_try(L, sl_model_macs(m, batch, &macs));
  lua_createtable(L, 0, 2);
  lua_pushinteger(L, macs);
  lua_setfield(L, -2, "macs");
  lua_pushinteger(L, 2 * macs);
  lua_setfield(L, -2, "flops");
  return 1;
}

/* --- running --- */

/* The tensor at idx; a number becomes one of no dimensions, left on the stack in its place. NULL for nil. */
static sl_tensor *tensor_or_number(lua_State *L, int idx) {
  if (lua_isnoneornil(L, idx)) return NULL;
  if (lua_type(L, idx) != LUA_TNUMBER) return slL_check_tensor(L, idx);
  sl_tensor **box = slL_push_tensor(L);
  if (lua_isinteger(L, idx)) {
    int64_t v = lua_tointeger(L, idx);
    slL_try(L, sl_tensor_from(slL_context(L), SL_I64, 0, NULL, &v, box));
  } else {
    float v = (float)lua_tonumber(L, idx);
    slL_try(L, sl_tensor_from(slL_context(L), SL_F32, 0, NULL, &v, box));
  }
  lua_replace(L, idx);
  return slL_check_tensor(L, idx);
}

/* Labels: a tensor, a number for every one of n images, or a list of integers; left on the stack as a tensor. */
static sl_tensor *labels_at(lua_State *L, int idx, int64_t n) {
  int64_t one = 0;
  bool list = lua_type(L, idx) == LUA_TTABLE;
  if (!list && !lua_isinteger(L, idx)) return lua_isnoneornil(L, idx) ? NULL : slL_check_tensor(L, idx);
  if (list) n = (int64_t)lua_rawlen(L, idx);
  else one = lua_tointeger(L, idx);
  sl_tensor **box = slL_push_tensor(L);
  slL_try(L, sl_tensor_new(slL_context(L), NULL, SL_I64, &SL_SHAPE(n), box));
  int64_t *to = sl_tensor_data(*box);
  for (int64_t i = 0; i < n; i++) {
    to[i] = one;
    if (!list) continue;
    lua_rawgeti(L, idx, i + 1);
    if (!lua_isinteger(L, -1))
      slL_error(L, "y: label %I is %s, expected an integer", (LUAI_UACINT)i + 1, slL_what(L, -1));
    to[i] = lua_tointeger(L, -1);
    lua_pop(L, 1);
  }
  lua_replace(L, idx);
  return slL_check_tensor(L, idx);
}

static int64_t images_of(const sl_tensor *x) { return sl_tensor_shape(x)->rank ? sl_tensor_shape(x)->dim[0] : 1; }

static int read_keep(lua_State *L, int idx, const char **keep) {
  static const char *const fields[] = {"keep", NULL};
  if (lua_isnoneornil(L, idx)) return 0;
  luaL_checktype(L, idx, LUA_TTABLE);
  slL_options(L, idx, "forward", fields);
  if (lua_getfield(L, idx, "keep") == LUA_TNIL) return 0;
  luaL_checktype(L, -1, LUA_TTABLE);
  int n = (int)lua_rawlen(L, -1);
  if (n > MAX_KEEP) slL_error(L, "forward: keep names %d values, at most %d", n, MAX_KEEP);
  for (int i = 0; i < n; i++) {
    if (lua_rawgeti(L, -1, i + 1) != LUA_TSTRING) slL_error(L, "forward: keep must be a list of names");
    keep[i] = lua_tostring(L, -1);
    lua_pop(L, 1);
  }
  return n; /* the list stays on the stack and keeps the names alive */
}

/* Runs inside a trace when x is symbolic. */
static int forward_symbolic(lua_State *L, sl_model *m) {
  slL_trace *trace = NULL;
  sl_value *x = slL_check_value(L, 1 + 1, &trace);
  sl_value *t = slL_to_value(L, 3, trace), *y = lua_isnoneornil(L, 4) ? NULL : slL_to_value(L, 4, trace);
  return slL_error(L, "forward: symbolic tensors of %s are not taken here; use the loss's s.out",
                   x && t && (y || !y) ? m->kind->name : "this model");
}

/*** model:forward(x, t, y?, options?) -> out, kept?
One pass without dropout, to [N,C,H,W], or [N,2C,H,W] with the variance.
@param x sluice.Tensor  f32 [N,C,H,W]
@param t integer|number|sluice.Tensor
@param y? integer|integer[]|sluice.Tensor  labels from 0; nil: the null class
@param options? table
@field keep? string[]  names of values to return too, at most 64: "c", "blocks.0", "blocks.0.attn.qkv"
@return sluice.Tensor out
@return table<string, sluice.Tensor>? kept  by name, with keep
@example
local out, kept = model:forward(sluice.randn { 2, 1, 8, 8 }, 500, { 0, 2 }, { keep = { "blocks.0" } })
print(out:shape()[2], kept["blocks.0"]:shape()[3])  --> 2 16 */
static int l_forward(lua_State *L) {
  sl_model *m = slL_check_model(L, 1);
  lua_settop(L, 5);
  if (slL_is_symbolic(L, 2)) return forward_symbolic(L, m);
  sl_tensor *x = slL_check_tensor(L, 2), *t = tensor_or_number(L, 3), *y = labels_at(L, 4, images_of(x));
  if (!t) slL_error(L, "forward: t is missing");
  const char *keep[MAX_KEEP];
  int n = read_keep(L, 5, keep);
  sl_tensor **out = slL_push_tensor(L), *kept[MAX_KEEP] = {NULL};
  slL_try(L, sl_model_forward(m, x, t, y, n, keep, out, kept));
  if (!n) return 1;
  int at = lua_gettop(L);
  lua_createtable(L, 0, n);
  for (int i = 0; i < n; i++) {
    sl_tensor **box = slL_push_tensor(L);
    *box = kept[i];
    lua_setfield(L, -2, keep[i]);
  }
  lua_pushvalue(L, at);
  lua_insert(L, -2);
  return 2;
}

/*** model:forward_cfg(x, t, y, scale, options?) -> out
Classifier-free guidance as the reference does it, with 2N rows: the first N images with their labels, then the same
images with the null class.
@param x sluice.Tensor  f32 [2N,C,H,W]; only the first N are used
@param t integer|number|sluice.Tensor
@param y integer|integer[]|sluice.Tensor  2N labels
@param scale number  1: no guidance
@param options? table
@field channels? integer  all input channels; how many of the first are guided (DiT's own code: 3)
@return sluice.Tensor  [2N,…]
@example
local x = sluice.randn { 2, 1, 8, 8 }
print(model:forward_cfg(x, 10, { 1, 3 }, 2):shape()[1])  --> 2 */
static int l_forward_cfg(lua_State *L) {
  sl_model *m = slL_check_model(L, 1);
  lua_settop(L, 6);
  sl_tensor *x = slL_check_tensor(L, 2), *t = tensor_or_number(L, 3), *y = labels_at(L, 4, images_of(x));
  if (!t) slL_error(L, "forward_cfg: t is missing");
  if (!y) slL_error(L, "forward_cfg: y is missing");
  double scale = luaL_checknumber(L, 5);
  int64_t channels = m->info.in_channels;
  if (!lua_isnil(L, 6)) {
    static const char *const fields[] = {"channels", NULL};
    luaL_checktype(L, 6, LUA_TTABLE);
    slL_options(L, 6, "forward_cfg", fields);
    channels = slL_field_integer(L, 6, "forward_cfg", "channels", channels);
  }
  slL_try(L, sl_model_forward_cfg(m, x, t, y, (float)scale, channels, slL_push_tensor(L)));
  return 1;
}

/*** model:gradients(x, t, y, upstream) -> gradients
The gradient of sum(output * upstream) by x and by every trainable parameter.
@param x sluice.Tensor
@param t integer|number|sluice.Tensor
@param y integer|integer[]|sluice.Tensor|nil
@param upstream sluice.Tensor  like the output
@return table<string, sluice.Tensor>  by parameter name, and "x"
@example
local x = sluice.randn { 2, 1, 8, 8 }
local g = model:gradients(x, 10, { 0, 1 }, sluice.ones { 2, 2, 8, 8 })
print(g.x:shape()[1], g["final_layer.linear.weight"]:rank())  --> 2 2 */
static int l_gradients(lua_State *L) {
  sl_model *m = slL_check_model(L, 1);
  lua_settop(L, 5);
  sl_tensor *x = slL_check_tensor(L, 2), *t = tensor_or_number(L, 3), *y = labels_at(L, 4, images_of(x)),
            *up = slL_check_tensor(L, 5);
  if (!t) slL_error(L, "gradients: t is missing");
  sl_tensor **dx = slL_push_tensor(L), **flat = slL_push_tensor(L);
  slL_try(L, sl_model_gradients(m, x, t, y, up, dx, flat));
  push_parts(L, m, *flat);
  for (int i = 0; i < sl_params_count(m->params); i++) { /* frozen ones have none */
    if (sl_params_get(m->params, i)->trainable) continue;
    lua_pushnil(L);
    lua_setfield(L, -2, sl_params_get(m->params, i)->name);
  }
  lua_pushvalue(L, 6);
  lua_setfield(L, -2, "x");
  return 1;
}

/*** model:t_embed(t) -> embedding
The timestep embedding after its MLP, [N, channels].
@param t integer|number|sluice.Tensor
@return sluice.Tensor
@example print(model:t_embed(10):shape()[2])  --> 16 */
static int l_t_embed(lua_State *L) {
  sl_model *m = slL_check_model(L, 1);
  lua_settop(L, 2);
  sl_tensor *t = tensor_or_number(L, 2);
  if (!t) slL_error(L, "t_embed: t is missing");
  slL_try(L, sl_model_t_embed(m, t, slL_push_tensor(L)));
  return 1;
}

/* --- looking inside --- */

typedef struct tracing {
  lua_State *L;
  int fn;
  bool failed;
} tracing;

static bool on_node(void *user, const sl_trace *t) {
  tracing *tr = user;
  lua_State *L = tr->L;
  lua_pushvalue(L, tr->fn);
  lua_createtable(L, 0, 8);
  lua_pushstring(L, t->name), lua_setfield(L, -2, "name");
  lua_pushstring(L, t->node->op->name), lua_setfield(L, -2, "op");
  lua_pushinteger(L, t->output + 1), lua_setfield(L, -2, "output");
  lua_pushnumber(L, t->min), lua_setfield(L, -2, "min");
  lua_pushnumber(L, t->max), lua_setfield(L, -2, "max");
  lua_pushnumber(L, t->mean), lua_setfield(L, -2, "mean");
  lua_pushnumber(L, t->rms), lua_setfield(L, -2, "rms");
  lua_pushinteger(L, t->nonfinite), lua_setfield(L, -2, "nonfinite");
  tr->failed = slL_pcall(L, 1, 1) != LUA_OK;
  if (tr->failed) return false; /* the error stays on the stack */
  bool go_on = lua_isnil(L, -1) || lua_toboolean(L, -1);
  lua_pop(L, 1);
  return go_on;
}

/*** model:trace(x, t, y, f)
Runs one forward pass and calls f with the statistics of every value as it is computed; false from f stops.
@param x sluice.Tensor
@param t integer|number|sluice.Tensor
@param y integer|integer[]|sluice.Tensor|nil
@param f fun(s: {name: string, op: string, output: integer, min: number, max: number, mean: number, rms: number,
  nonfinite: integer}): boolean?
@example
model:trace(sluice.randn { 1, 1, 8, 8 }, 500, 0, function(s)
  if s.name == "blocks.1" then print(s.op, s.rms > 0, s.nonfinite) end
end) */
static int l_trace(lua_State *L) {
  sl_model *m = slL_check_model(L, 1);
  lua_settop(L, 5);
  sl_tensor *x = slL_check_tensor(L, 2), *t = tensor_or_number(L, 3), *y = labels_at(L, 4, images_of(x));
  luaL_checktype(L, 5, LUA_TFUNCTION);
  tracing tr = {L, 5, false};
  sl_status s = sl_model_trace(m, x, t, y, on_node, &tr);
  if (tr.failed) return lua_error(L);
  if (s != SL_STATUS_CANCELLED) slL_try(L, s);
  return 0;
}

/*** model:dot(batch?) -> text
Its graph for Graphviz: `sluice -e 'print(model:dot())' | dot -Tsvg`.
@param batch? integer  1
@return string
@example print(model:dot():match "^digraph")  --> digraph */
static int l_dot(lua_State *L) {
  sl_model *m = slL_check_model(L, 1);
  int64_t batch = luaL_optinteger(L, 2, 1);
  char **text = slL_push_block(L);
  slL_try(L, sl_model_dot(m, batch, text));
  lua_pushstring(L, *text);
  return 1;
}

/*** model:info() -> facts
What every architecture tells of itself.
@return table
@field in_channels integer
@field out_channels integer
@field height integer
@field width integer
@field classes integer  0: takes no labels
@field null_class boolean  guidance and y = nil are possible
@field timesteps integer
@field routed_blocks integer
@example print(model:info().routed_blocks)  --> 2 */
static int l_info(lua_State *L) {
  const sl_model_info *f = &slL_check_model(L, 1)->info;
  lua_createtable(L, 0, 8);
  lua_pushinteger(L, f->in_channels), lua_setfield(L, -2, "in_channels");
  lua_pushinteger(L, f->out_channels), lua_setfield(L, -2, "out_channels");
  lua_pushinteger(L, f->height), lua_setfield(L, -2, "height");
  lua_pushinteger(L, f->width), lua_setfield(L, -2, "width");
  lua_pushinteger(L, f->classes), lua_setfield(L, -2, "classes");
  lua_pushboolean(L, f->null_class), lua_setfield(L, -2, "null_class");
  lua_pushinteger(L, f->timesteps), lua_setfield(L, -2, "timesteps");
  lua_pushinteger(L, f->routed_blocks), lua_setfield(L, -2, "routed_blocks");
  return 1;
}

/*** model:describe() -> description
What its maker was given, with every default, as a table fit for JSON; `kind` is "dit" or "adm".
@return table
@example print(model:describe().hidden, model:describe().routing.kind)  --> 16 dtr */
static int l_describe(lua_State *L) {
  sl_model *m = slL_check_model(L, 1);
  char **text = slL_push_block(L);
  slL_try(L, sl_model_describe(m, text));
  slL_push_json(L, *text);
  return 1;
}

/*** model:tables() -> masks
The mask tables of a routing that no formula gives back (table, custom): u8 [timesteps, C] for each routed block;
else an empty list.
@return sluice.Tensor[]
@example print(#model:tables())  --> 0 */
static int l_tables(lua_State *L) {
  sl_model *m = slL_check_model(L, 1);
  lua_newtable(L);
  if (!m->masks || sl_routing_is_formula(m->routing)) return 1;
  for (int i = 0; i < m->info.routed_blocks; i++) {
    sl_tensor **box = slL_push_tensor(L);
    *box = sl_tensor_retain(m->masks[i]);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

/*** model:to(device) -> model
Moves its weights; it runs there from now on. Trainers and samplers made before keep theirs.
@param device string  as sluice.devices lists them, or "auto"
@return sluice.Model
@example print(model:to "cpu":device())  --> cpu */
static int l_to(lua_State *L) {
  sl_model *m = slL_check_model(L, 1);
  const sl_device *dev = NULL;
  if (sl_device_find(slL_context(L), luaL_checkstring(L, 2), &dev) != SL_STATUS_OK)
    slL_error(L, "model:to: %s", sl_error());
  slL_try(L, sl_model_to(m, dev));
  lua_settop(L, 1);
  return 1;
}

/*** model:device() -> name
Where its weights lie and where it runs.
@return string
@example print(model:device()) */
static int l_device(lua_State *L) {
  lua_pushstring(L, slL_check_model(L, 1)->device->name);
  return 1;
}

static int l_tostring(lua_State *L) {
  sl_model *m = slL_check_model(L, 1);
  int64_t all, trainable;
  sl_params_numel(m->params, &all, &trainable);
  lua_pushfstring(L, "%s: %I parameters, %d routed blocks", m->kind->name, (LUAI_UACINT)all,
                  m->masks ? m->info.routed_blocks : 0);
  return 1;
}

static const luaL_Reg methods[] = {{"names", l_names},
                                   {"state", l_state},
                                   {"load_state", l_load_state},
                                   {"save", l_save},
                                   {"init", l_init},
                                   {"to", l_to},
                                   {"device", l_device},
                                   {"count", l_count},
                                   {"flops", l_flops},
                                   {"forward", l_forward},
                                   {"forward_cfg", l_forward_cfg},
                                   {"gradients", l_gradients},
                                   {"t_embed", l_t_embed},
                                   {"trace", l_trace},
                                   {"dot", l_dot},
                                   {"info", l_info},
                                   {"describe", l_describe},
                                   {"tables", l_tables},
                                   {"parts", l_parts},
                                   {"flatten", l_flatten},
                                   {NULL, NULL}};

static const luaL_Reg meta[] = {{"__gc", l_gc}, {"__close", l_gc}, {"__tostring", l_tostring}, {NULL, NULL}};

void slL_open_model(lua_State *L) { slL_class(L, MODEL, meta, methods); }

void slL_model_kind(lua_State *L, const char *name, lua_CFunction make) {
  lua_pushcfunction(L, make);
  lua_setfield(L, -2, name);
}
