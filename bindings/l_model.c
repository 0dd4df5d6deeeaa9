/* Models of any architecture: their methods. What makes them stands in l_<architecture>.c. */
#include "l_model.h"

#include <string.h>

#include "l_routing.h"
#include "lcore.h"
#include "lfields.h"

#define MODEL "sluice.model"
#define DESCRIBERS "sluice.describers" /* [kind] in the registry: a model's options as a table */
#define MAX_KEEP 64

static const char *const strict_option[] = {"strict", NULL}, *const batch_option[] = {"batch", NULL},
                         *const keep_option[] = {"keep", NULL}, *const channels_option[] = {"channels", NULL};

sl_model **slL_push_model(lua_State *L) {
  sl_model **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  luaL_setmetatable(L, MODEL);
  return box;
}

sl_model *slL_check_model(lua_State *L, int idx) { return *(sl_model **)luaL_checkudata(L, idx, MODEL); }

sl_model *slL_field_model(lua_State *L, int idx, const char *what) {
  lua_getfield(L, idx, "model");
  sl_model **box = luaL_testudata(L, -1, MODEL);
  if (!box) slL_error(L, "%s: model is %s, expected a model", what, luaL_typename(L, -1));
  lua_pop(L, 1);
  return *box;
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
    slL_error(L, "%s: the first element is %s, expected a name like \"%s\"", what, luaL_typename(L, -1), example);
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

static int l_parts(lua_State *L) {
  sl_model *m = slL_check_model(L, 1);
  sl_tensor *flat = slL_check_tensor(L, 2);
  check_flat(L, m, flat);
  push_parts(L, m, flat);
  return 1;
}

/* Copies the table {name = tensor} at idx into flat. Strict: names must match one to one. */
static void load_parts(lua_State *L, sl_model *m, int idx, bool strict, sl_tensor *flat) {
  int loaded = 0;
  for (int i = 0; i < sl_params_count(m->params); i++) {
    const sl_param *p = sl_params_get(m->params, i);
    if (lua_getfield(L, idx, p->name) == LUA_TNIL) {
      if (strict && p->trainable)
        slL_error(L, "load_state: %s is missing (strict = false to keep what is there)", p->name);
      lua_pop(L, 1);
      continue;
    }
    sl_tensor *t = slL_check_tensor(L, -1);
    if (!sl_shape_equal(sl_tensor_shape(t), &p->shape))
      slL_error(L, "load_state: %s is %s, expected %s", p->name, sl_shape_text(sl_tensor_shape(t)),
                sl_shape_text(&p->shape));
    sl_tensor **part = slL_push_tensor(L);
    slL_try(L, sl_params_part(m->params, i, flat, part));
    slL_try(L, sl_tensor_copy(*part, t));
    lua_pop(L, 2);
    loaded++;
  }
  if (!loaded) slL_error(L, "load_state: none of the model's parameters is there");
}

static bool is_routing_buffer(const char *name) { return strstr(name, ".routing._unit_mapping") != NULL; }

static void refuse_strangers(lua_State *L, sl_model *m, int idx) {
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
    const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : NULL;
    if (!name) slL_error(L, "load_state: expected {name = tensor}");
    if (sl_params_find(m->params, name) < 0 && !is_routing_buffer(name))
      slL_error(L, "load_state: the model has no parameter %s (strict = false to pass over it)", name);
  }
}

static int l_load_state(lua_State *L) {
  sl_model *m = slL_check_model(L, 1);
  bool strict = true;
  if (!lua_isnoneornil(L, 3)) {
    luaL_checktype(L, 3, LUA_TTABLE);
    slL_options(L, 3, "load_state", strict_option);
    strict = slL_field_boolean(L, 3, "load_state", "strict", true);
  }
  if (lua_type(L, 2) == LUA_TSTRING) { /* a file: sluice.checkpoint knows its forms */
    lua_getglobal(L, "require");
    lua_pushliteral(L, "sluice.checkpoint");
    lua_call(L, 1, 1);
    lua_getfield(L, -1, "state");
    lua_pushvalue(L, 2);
    lua_call(L, 1, 1);
    lua_replace(L, 2);
  }
  luaL_checktype(L, 2, LUA_TTABLE);
  if (strict) refuse_strangers(L, m, 2);
  /* into a copy first: a failure half-way must leave the model as it was */
  sl_tensor *weights = weights_of(L, m), **copy = slL_push_tensor(L);
  slL_try(L, sl_tensor_to(weights, SL_F32, NULL, copy));
  load_parts(L, m, 2, strict, *copy);
  slL_try(L, sl_tensor_copy(weights, *copy));
  sl_tensor_bump(weights);
  m->ready = true;
  lua_settop(L, 1);
  return 1;
}

/* model:flatten {name = tensor} -> a flat array (what is missing stays 0). */
static int l_flatten(lua_State *L) {
  sl_model *m = slL_check_model(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  sl_tensor **flat = slL_push_tensor(L);
  slL_try(L, sl_params_array(m->params, flat));
  load_parts(L, m, 2, true, *flat);
  return 1;
}

static int l_init(lua_State *L) {
  sl_model *m = slL_check_model(L, 1);
  lua_Integer seed = luaL_optinteger(L, 2, 0);
  if (seed < 0 || seed > 0xffffffffLL) slL_error(L, "init: seed is %I, expected 0 to 4294967295", (LUAI_UACINT)seed);
  slL_try(L, sl_model_init(m, (uint32_t)seed));
  lua_settop(L, 1);
  return 1;
}

static int l_save(lua_State *L) {
  slL_check_model(L, 1);
  const char *path = luaL_checkstring(L, 2);
  lua_getglobal(L, "require");
  lua_pushliteral(L, "sluice.checkpoint");
  lua_call(L, 1, 1);
  lua_getfield(L, -1, "write");
  lua_pushstring(L, path);
  lua_pushcfunction(L, l_state);
  lua_pushvalue(L, 1);
  lua_call(L, 1, 1);
  lua_call(L, 2, 0);
  return 0;
}

static int l_count(lua_State *L) {
  int64_t all, trainable;
  sl_params_numel(slL_check_model(L, 1)->params, &all, &trainable);
  lua_pushinteger(L, all);
  lua_pushinteger(L, trainable);
  return 2;
}

static int l_flops(lua_State *L) {
  sl_model *m = slL_check_model(L, 1);
  int64_t batch = 1, macs = 0;
  if (!lua_isnoneornil(L, 2)) {
    luaL_checktype(L, 2, LUA_TTABLE);
    slL_options(L, 2, "flops", batch_option);
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
  if (lua_isnoneornil(L, idx)) return 0;
  luaL_checktype(L, idx, LUA_TTABLE);
  slL_options(L, idx, "forward", keep_option);
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

static int l_forward_cfg(lua_State *L) {
  sl_model *m = slL_check_model(L, 1);
  lua_settop(L, 6);
  sl_tensor *x = slL_check_tensor(L, 2), *t = tensor_or_number(L, 3), *y = labels_at(L, 4, images_of(x));
  if (!t) slL_error(L, "forward_cfg: t is missing");
  if (!y) slL_error(L, "forward_cfg: y is missing");
  double scale = luaL_checknumber(L, 5);
  int64_t channels = m->info.in_channels;
  if (!lua_isnil(L, 6)) {
    luaL_checktype(L, 6, LUA_TTABLE);
    slL_options(L, 6, "forward_cfg", channels_option);
    channels = slL_field_integer(L, 6, "forward_cfg", "channels", channels);
  }
  slL_try(L, sl_model_forward_cfg(m, x, t, y, (float)scale, channels, slL_push_tensor(L)));
  return 1;
}

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
  tr->failed = lua_pcall(L, 1, 1, 0) != LUA_OK;
  if (tr->failed) return false; /* the error stays on the stack */
  bool go_on = lua_isnil(L, -1) || lua_toboolean(L, -1);
  lua_pop(L, 1);
  return go_on;
}

/* model:trace(x, t, y, f): calls f{name, op, output, min, max, mean, rms, nonfinite} for every value; false stops. */
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

static int l_dot(lua_State *L) {
  sl_model *m = slL_check_model(L, 1);
  char *text = NULL;
  slL_try(L, sl_model_dot(m, luaL_optinteger(L, 2, 1), &text));
  lua_pushstring(L, text);
  sl_free(slL_context(L), text);
  return 1;
}

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

/* What `sluice.<kind>` takes to make such a model again, as data. */
static int l_describe(lua_State *L) {
  sl_model *m = slL_check_model(L, 1);
  lua_getfield(L, LUA_REGISTRYINDEX, DESCRIBERS);
  lua_getfield(L, -1, m->kind->name);
  lua_pushvalue(L, 1);
  lua_call(L, 1, 1);
  lua_pushstring(L, m->kind->name), lua_setfield(L, -2, "kind");
  lua_pushinteger(L, m->info.timesteps), lua_setfield(L, -2, "timesteps");
  lua_pushinteger(L, m->seed), lua_setfield(L, -2, "seed");
  lua_pushstring(L, m->tf32 ? "tf32" : sl_dtype_name(m->compute)), lua_setfield(L, -2, "precision");
  lua_pushstring(L, sl_dtype_name(m->residual)), lua_setfield(L, -2, "residual");
  slL_push_routing_description(L, m->routing);
  lua_setfield(L, -2, "routing");
  return 1;
}

/* The mask tables of routings that no formula gives back: one per routed block. */
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

/* model:to(device) -> model: moves its weights, and where it runs from now on. */
static int l_to(lua_State *L) {
  sl_model *m = slL_check_model(L, 1);
  const sl_device *dev = NULL;
  if (sl_device_find(slL_context(L), luaL_checkstring(L, 2), &dev) != SL_STATUS_OK)
    slL_error(L, "model:to: %s", sl_error());
  slL_try(L, sl_model_to(m, dev));
  lua_settop(L, 1);
  return 1;
}

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

void slL_open_model(lua_State *L) {
  slL_class(L, MODEL, meta, methods);
  slL_share_options(L, "model:load_state", strict_option);
  slL_share_options(L, "model:flops", batch_option);
  slL_share_options(L, "model:forward", keep_option);
  slL_share_options(L, "model:forward_cfg", channels_option);
}

void slL_model_kind(lua_State *L, const char *name, lua_CFunction make, lua_CFunction describe) {
  lua_pushcfunction(L, make);
  lua_setfield(L, -2, name);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, DESCRIBERS);
  lua_pushcfunction(L, describe);
  lua_setfield(L, -2, name);
  lua_pop(L, 1);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  luaL_getsubtable(L, -1, "sluice.core");
  luaL_getsubtable(L, -1, "models");
  lua_pushcfunction(L, make);
  lua_setfield(L, -2, name);
  lua_pop(L, 3);
}
