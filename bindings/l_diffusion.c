/* sluice.diffusion: the process and its functions on tensors, concrete and symbolic alike. */
#include "l_diffusion.h"

#include <string.h>

#include "diffusion/respace.h"
#include "lcore.h"
#include "lfields.h"

#define DIFFUSION "sluice.diffusion"
#define MAX_STEPS 1000000

static const char *const predict_names[] = {"eps", "x0", "v", NULL};
static const char *const variance_names[] = {"learned", "fixed_small", "fixed_large", NULL};

static sl_diffusion **push_box(lua_State *L) {
  sl_diffusion **box = lua_newuserdatauv(L, sizeof *box, 1);
  *box = NULL;
  luaL_setmetatable(L, DIFFUSION);
  return box;
}

static sl_diffusion *check(lua_State *L, int idx) { return *(sl_diffusion **)luaL_checkudata(L, idx, DIFFUSION); }

sl_diffusion *slL_field_diffusion(lua_State *L, int idx, const char *what) {
  lua_getfield(L, idx, "diffusion");
  sl_diffusion **box = luaL_testudata(L, -1, DIFFUSION);
  if (!box) slL_error(L, "%s: diffusion is %s, expected a sluice.diffusion", what, luaL_typename(L, -1));
  lua_pop(L, 1);
  return *box;
}

static int l_gc(lua_State *L) {
  sl_diffusion **box = luaL_checkudata(L, 1, DIFFUSION);
  sl_diffusion_release(*box);
  *box = NULL;
  return 0;
}

/* --- making --- */

/* Betas from a Lua function(i, T), i = 0 … T-1, in a userdata left on the stack. */
static double *betas_of_function(lua_State *L, int fn, int64_t T) {
  double *betas = lua_newuserdatauv(L, (size_t)T * sizeof *betas, 0);
  for (int64_t i = 0; i < T; i++) {
    lua_pushvalue(L, fn);
    lua_pushinteger(L, i);
    lua_pushinteger(L, T);
    lua_call(L, 2, 1);
    if (lua_type(L, -1) != LUA_TNUMBER)
      slL_error(L, "sluice.diffusion: schedule(%I, %I) returned %s, expected beta", (LUAI_UACINT)i, (LUAI_UACINT)T,
                luaL_typename(L, -1));
    betas[i] = lua_tonumber(L, -1);
    lua_pop(L, 1);
  }
  return betas;
}

static sl_schedule *make_schedule(lua_State *L, int64_t T) {
  const char *w = "sluice.diffusion";
  static const char *const names[] = {"cosine", "linear", NULL};
  if (T < 1 || T > MAX_STEPS) slL_error(L, "%s: steps is %I, expected 1 to %d", w, (LUAI_UACINT)T, MAX_STEPS);
  sl_context *ctx = slL_context(L);
  sl_schedule *s = NULL;
  if (lua_getfield(L, 1, "schedule") == LUA_TFUNCTION) {
    double *betas = betas_of_function(L, lua_gettop(L), T);
    slL_try(L, sl_schedule_from_betas(ctx, betas, T, &s));
  } else if (slL_field_choice(L, 1, w, "schedule", names, 0) == 0) {
    slL_try(L, sl_schedule_cosine(ctx, T, &s));
  } else {
    slL_try(L, sl_schedule_linear(ctx, T, &s));
  }
  return s;
}

/* The value at idx as a spec, pushed: "250", "ddim50", or a list of counts of sections joined by commas. */
static const char *push_spec(lua_State *L, int idx) {
  if (lua_type(L, idx) == LUA_TSTRING || lua_isinteger(L, idx)) {
    lua_pushvalue(L, idx);
    return lua_tostring(L, -1);
  }
  if (lua_type(L, idx) != LUA_TTABLE)
    slL_error(L, "respacing is %s, expected \"250\", \"ddim50\" or a list of counts", luaL_typename(L, idx));
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  lua_Integer n = (lua_Integer)lua_rawlen(L, idx);
  for (lua_Integer i = 1; i <= n; i++) {
    if (i > 1) luaL_addchar(&b, ',');
    lua_rawgeti(L, idx, i);
    luaL_addvalue(&b);
  }
  luaL_pushresult(&b);
  return lua_tostring(L, -1);
}

static const char *const option_names[] = {"steps", "schedule", "predict", "variance", "respacing", NULL};

/* A schedule owned by C while Lua could raise would leak: it sits in a box with __gc from the start. */
static int l_new(lua_State *L) {
  const char *w = "sluice.diffusion";
  if (lua_isnoneornil(L, 1)) {
    lua_settop(L, 0);
    lua_newtable(L);
  }
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  slL_options(L, 1, w, option_names);
  int64_t T = slL_field_integer(L, 1, w, "steps", 1000);
  sl_predict predict = (sl_predict)slL_field_choice(L, 1, w, "predict", predict_names, 0);
  sl_variance variance = (sl_variance)slL_field_choice(L, 1, w, "variance", variance_names, 0);
  const char *spec = lua_getfield(L, 1, "respacing") != LUA_TNIL ? push_spec(L, lua_gettop(L)) : NULL;
  sl_diffusion **box = push_box(L);
  int at = lua_gettop(L);
  sl_schedule *s = make_schedule(L, T);
  sl_status status = SL_STATUS_OK;
  if (spec) {
    sl_schedule *full = s;
    status = sl_schedule_respace_spec(full, spec, &s);
    sl_schedule_free(full);
  }
  if (status == SL_STATUS_OK) status = sl_diffusion_new(slL_context(L), s, T, predict, variance, box);
  slL_try(L, status);
  lua_settop(L, at);
  lua_getfield(L, 1, "schedule"); /* its name, for descriptions */
  if (lua_type(L, -1) != LUA_TSTRING) {
    lua_pop(L, 1);
    lua_getfield(L, 1, "schedule");
    bool custom = lua_isfunction(L, -1);
    lua_pop(L, 1);
    lua_pushstring(L, custom ? "custom" : "cosine");
  }
  lua_setiuservalue(L, at, 1);
  return 1;
}

/* d:respace(spec): the same process with fewer steps. */
static int l_respace(lua_State *L) {
  sl_diffusion *d = check(L, 1);
  const char *spec = push_spec(L, 2);
  sl_diffusion **box = push_box(L);
  sl_schedule *s = NULL;
  slL_try(L, sl_schedule_respace_spec(d->schedule, spec, &s));
  slL_try(L, sl_diffusion_new(d->ctx, s, d->original_steps, d->predict, d->variance, box));
  lua_getiuservalue(L, 1, 1);
  lua_setiuservalue(L, -2, 1);
  return 1;
}

/* --- functions of tensors --- */

typedef struct arguments {
  int n, first;
  sl_diffusion_options o;
  int weight; /* stack position of the weight's table over t, or 0 */
} arguments;

static int push_weight_table(lua_State *L, int weight) {
  if (!lua_istable(L, weight) || lua_getfield(L, weight, "table") != LUA_TFUNCTION) /* a sluice.weight has it */
    slL_error(L, "losses: weight is %s, expected one of sluice.weight", luaL_typename(L, weight));
  lua_pushvalue(L, weight);
  lua_pushvalue(L, 1);
  lua_call(L, 2, 1);
  lua_createtable(L, 0, 1);
  lua_insert(L, -2);
  lua_setfield(L, -2, "weight");
  slL_field_floats(L, -1, "losses", "weight");
  return lua_gettop(L);
}

/* A number t, for all images of the tensor before it, becomes i64 [N] in its place. */
static void spread_t(lua_State *L, const char *what, int first, int at) {
  if (lua_type(L, at) != LUA_TNUMBER) return;
  int ok;
  lua_Integer t = lua_tointegerx(L, at, &ok);
  if (!ok) slL_error(L, "%s: t is %s, expected an integer", what, slL_what(L, at));
  const sl_shape *s =
      slL_is_symbolic(L, first) ? &slL_check_value(L, first, NULL)->shape : sl_tensor_shape(slL_check_tensor(L, first));
  int64_t n = s->rank ? s->dim[0] : 1;
  sl_tensor **box = slL_push_tensor(L);
  slL_try(L, sl_tensor_new(slL_context(L), NULL, SL_I64, &SL_SHAPE(n), box));
  for (int64_t i = 0; i < n; i++) ((int64_t *)sl_tensor_data(*box))[i] = t;
  lua_replace(L, at);
}

/* Which input is t, from 0. */
static int t_input(sl_diffusion_fn fn) {
  if (fn == SL_FN_Q_SAMPLE || fn == SL_FN_Q_MEAN_VARIANCE) return 1;
  return fn == SL_FN_VB_BPD || fn == SL_FN_LOSSES ? 3 : 2;
}

static const char *const *function_options(sl_diffusion_fn fn) {
  static const char *const none[] = {NULL}, *const clip[] = {"clip", NULL}, *const eta[] = {"eta", "clip", NULL},
                           *const weight[] = {"weight", NULL};
  return fn == SL_FN_LOSSES ? weight : fn == SL_FN_DDIM_SAMPLE ? eta : fn >= SL_FN_P_MEAN_VARIANCE ? clip : none;
}

static void read_arguments(lua_State *L, sl_diffusion_fn fn, const char *what, arguments *a) {
  const char *const *names = function_options(fn);
  int tensors = sl_diffusion_fn_inputs(fn) - (fn == SL_FN_LOSSES);
  *a = (arguments){.n = tensors, .first = 2};
  int top = tensors + 2;
  if (fn == SL_FN_DDIM_SAMPLE && lua_istable(L, top - 1) && lua_isnoneornil(L, top)) { /* noise left out */
    lua_settop(L, top - 1);
    lua_pushnil(L);
    lua_insert(L, top - 1);
  }
  lua_settop(L, top);
  spread_t(L, what, 2, 2 + t_input(fn));
  if (lua_isnil(L, top)) return;
  luaL_checktype(L, top, LUA_TTABLE);
  slL_options(L, top, what, names);
  a->o.clip = slL_field_boolean(L, top, what, "clip", false);
  a->o.eta = slL_field_number(L, top, what, "eta", 0);
  if (fn == SL_FN_LOSSES && lua_getfield(L, top, "weight") != LUA_TNIL) a->weight = push_weight_table(L, lua_gettop(L));
}

static int call_concrete(lua_State *L, sl_diffusion *d, sl_diffusion_fn fn, const arguments *a, int n_out) {
  sl_tensor *in[SL_MAX_INPUTS] = {NULL}, *out[4] = {NULL};
  for (int i = 0; i < a->n; i++)
    if (!lua_isnil(L, a->first + i)) in[i] = slL_check_tensor(L, a->first + i);
  if (a->weight) in[a->n] = slL_check_tensor(L, a->weight);
  sl_tensor **box[4];
  for (int k = 0; k < n_out; k++) box[k] = slL_push_tensor(L);
  slL_try(L, sl_diffusion_call(d, fn, a->o, in, out));
  for (int k = 0; k < n_out; k++) *box[k] = out[k];
  return n_out;
}

static int call_symbolic(lua_State *L, sl_diffusion *d, sl_diffusion_fn fn, const arguments *a, int n_out,
                         slL_trace *trace) {
  sl_value *in[SL_MAX_INPUTS] = {NULL}, *out[4] = {NULL};
  for (int i = 0; i < a->n; i++)
    if (!lua_isnil(L, a->first + i)) in[i] = slL_to_value(L, a->first + i, trace);
  if (a->weight) in[a->n] = slL_to_value(L, a->weight, trace);
  slL_try(L, sl_diffusion_build(d, fn, a->o, slL_trace_graph(trace), in, out));
  for (int k = 0; k < n_out; k++) slL_push_value(L, out[k], trace);
  return n_out;
}

static int call(lua_State *L, sl_diffusion_fn fn, const char *what) {
  sl_diffusion *d = check(L, 1);
  arguments a;
  read_arguments(L, fn, what, &a);
  int n_out = sl_diffusion_fn_outputs(fn);
  for (int i = 0; i < a.n; i++) {
    slL_trace *trace = NULL;
    if (!slL_is_symbolic(L, a.first + i)) continue;
    slL_check_value(L, a.first + i, &trace);
    return call_symbolic(L, d, fn, &a, n_out, trace);
  }
  return call_concrete(L, d, fn, &a, n_out);
}

static int named(lua_State *L, int n, const char *const *names) {
  lua_createtable(L, 0, n);
  for (int k = 0; k < n; k++) {
    lua_pushvalue(L, -1 - n + k);
    lua_setfield(L, -2, names[k]);
  }
  return 1;
}

static int l_q_sample(lua_State *L) { return call(L, SL_FN_Q_SAMPLE, "q_sample"); }
static int l_q_mean_variance(lua_State *L) { return call(L, SL_FN_Q_MEAN_VARIANCE, "q_mean_variance"); }
static int l_q_posterior(lua_State *L) { return call(L, SL_FN_Q_POSTERIOR, "q_posterior"); }
static int l_p_sample(lua_State *L) { return call(L, SL_FN_P_SAMPLE, "p_sample"); }
static int l_ddim_sample(lua_State *L) { return call(L, SL_FN_DDIM_SAMPLE, "ddim_sample"); }
static int l_ddim_reverse(lua_State *L) { return call(L, SL_FN_DDIM_REVERSE, "ddim_reverse"); }
static int l_vb_bpd(lua_State *L) { return call(L, SL_FN_VB_BPD, "vb_bpd"); }

static int l_p_mean_variance(lua_State *L) {
  static const char *const names[] = {"mean", "variance", "log_variance", "pred_xstart"};
  return named(L, call(L, SL_FN_P_MEAN_VARIANCE, "p_mean_variance"), names);
}

static int l_losses(lua_State *L) {
  static const char *const names[] = {"loss", "mse", "vb"};
  return named(L, call(L, SL_FN_LOSSES, "losses"), names);
}

/* --- reading --- */

static int push_doubles(lua_State *L, const double *v, int64_t n) {
  lua_createtable(L, (int)n, 0);
  for (int64_t i = 0; i < n; i++) {
    lua_pushnumber(L, v[i]);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static int push_timesteps(lua_State *L, const sl_diffusion *d) {
  lua_createtable(L, (int)d->steps, 0);
  for (int64_t i = 0; i < d->steps; i++) {
    lua_pushinteger(L, d->schedule->timestep_map[i]);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static int l_index(lua_State *L) {
  sl_diffusion *d = check(L, 1);
  const char *k = luaL_checkstring(L, 2);
  sl_tensor *t = sl_diffusion_find(d, k);
  if (t) {
    *slL_push_tensor(L) = sl_tensor_retain(t);
    return 1;
  }
  if (!strcmp(k, "steps")) return lua_pushinteger(L, d->steps), 1;
  if (!strcmp(k, "original_steps")) return lua_pushinteger(L, d->original_steps), 1;
  if (!strcmp(k, "respaced")) return lua_pushboolean(L, d->steps != d->original_steps), 1;
  if (!strcmp(k, "predict")) return lua_pushstring(L, predict_names[d->predict]), 1;
  if (!strcmp(k, "variance")) return lua_pushstring(L, variance_names[d->variance]), 1;
  if (!strcmp(k, "timesteps")) return push_timesteps(L, d);
  if (!strcmp(k, "alphas_cumprod64")) return push_doubles(L, d->schedule->alphas_cumprod, d->steps);
  return slL_push_method(L, DIFFUSION, 2);
}

/* What l_index knows, for completion. */
static void share_fields(lua_State *L) {
  static const char *const own[] = {"steps",    "original_steps", "respaced",         "predict",
                                    "variance", "timesteps",      "alphas_cumprod64", "timestep_map"};
  enum { OWN = sizeof own / sizeof *own };
  const char *all[OWN + SL_DIFFUSION_TABLE_COUNT + 1] = {NULL};
  for (int i = 0; i < OWN; i++) all[i] = own[i];
  for (int k = 0; k < SL_DIFFUSION_TABLE_COUNT; k++) all[OWN + k] = sl_diffusion_table_name((sl_diffusion_table)k);
  slL_share_fields(L, DIFFUSION, all);
}

/* What sluice.diffusion takes, as data; and for a schedule of its own or a respaced one the betas, f64 [steps]. */
static int l_describe(lua_State *L) {
  sl_diffusion *d = check(L, 1);
  lua_createtable(L, 0, 5);
  lua_pushinteger(L, d->original_steps), lua_setfield(L, -2, "steps");
  lua_getiuservalue(L, 1, 1);
  bool formula = strcmp(lua_tostring(L, -1), "custom") != 0;
  lua_setfield(L, -2, "schedule");
  lua_pushstring(L, predict_names[d->predict]), lua_setfield(L, -2, "predict");
  lua_pushstring(L, variance_names[d->variance]), lua_setfield(L, -2, "variance");
  if (formula && d->steps == d->original_steps) return 1;
  push_timesteps(L, d);
  lua_setfield(L, -2, "timesteps");
  slL_try(L, sl_tensor_from(d->ctx, SL_F64, 1, &d->steps, d->schedule->betas, slL_push_tensor(L)));
  return 2;
}

/* core.diffusion_from(description, betas): what describe gave, made again. */
static int l_from(lua_State *L) {
  const char *w = "sluice.load";
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 2);
  if (lua_isnil(L, 2)) {
    lua_settop(L, 1);
    return l_new(L);
  }
  sl_tensor *betas = slL_check_tensor(L, 2);
  sl_predict predict = (sl_predict)slL_field_choice(L, 1, w, "predict", predict_names, 0);
  sl_variance variance = (sl_variance)slL_field_choice(L, 1, w, "variance", variance_names, 0);
  int64_t T = slL_field_integer(L, 1, w, "steps", 1000), n = sl_tensor_numel(betas);
  if (sl_tensor_dtype(betas) != SL_F64 || !sl_tensor_is_contiguous(betas))
    slL_error(L, "%s: tables.betas is not f64", w);
  lua_getfield(L, 1, "timesteps");
  luaL_checktype(L, -1, LUA_TTABLE);
  if ((int64_t)lua_rawlen(L, -1) != n) slL_error(L, "%s: the timesteps and the betas differ in number", w);
  sl_diffusion **box = push_box(L);
  sl_schedule *s = NULL;
  slL_try(L, sl_schedule_from_betas(slL_context(L), sl_tensor_data(betas), n, &s));
  for (int64_t i = 0; i < n; i++) {
    lua_rawgeti(L, 3, i + 1);
    s->timestep_map[i] = lua_tointeger(L, -1);
    lua_pop(L, 1);
  }
  slL_try(L, sl_diffusion_new(slL_context(L), s, T, predict, variance, box));
  lua_getfield(L, 1, "schedule");
  lua_setiuservalue(L, -2, 1);
  return 1;
}

/* core.weight_table(d, kind, gamma, k): a list over the steps. */
static int l_weight_table(lua_State *L) {
  static const char *const kinds[] = {"constant", "min_snr", "p2", NULL};
  sl_diffusion *d = check(L, 1);
  sl_weight w = {.kind = (sl_weight_kind)luaL_checkoption(L, 2, NULL, kinds),
                 .gamma = luaL_optnumber(L, 3, 0),
                 .k = luaL_optnumber(L, 4, 0)};
  double *out = lua_newuserdatauv(L, (size_t)d->steps * sizeof *out, 0);
  slL_try(L, sl_weight_table(&w, d->schedule, d->predict, out));
  return push_doubles(L, out, d->steps);
}

static const luaL_Reg methods[] = {{"q_sample", l_q_sample},
                                   {"q_mean_variance", l_q_mean_variance},
                                   {"q_posterior", l_q_posterior},
                                   {"p_mean_variance", l_p_mean_variance},
                                   {"p_sample", l_p_sample},
                                   {"ddim_sample", l_ddim_sample},
                                   {"ddim_reverse", l_ddim_reverse},
                                   {"vb_bpd", l_vb_bpd},
                                   {"losses", l_losses},
                                   {"respace", l_respace},
                                   {"describe", l_describe},
                                   {NULL, NULL}};
static const luaL_Reg meta[] = {{"__gc", l_gc}, {"__close", l_gc}, {NULL, NULL}};

void slL_open_diffusion(lua_State *L) {
  static const struct {
    const char *name;
    sl_diffusion_fn fn;
  } with_options[] = {{"diffusion:p_mean_variance", SL_FN_P_MEAN_VARIANCE},
                      {"diffusion:p_sample", SL_FN_P_SAMPLE},
                      {"diffusion:ddim_sample", SL_FN_DDIM_SAMPLE},
                      {"diffusion:ddim_reverse", SL_FN_DDIM_REVERSE},
                      {"diffusion:vb_bpd", SL_FN_VB_BPD},
                      {"diffusion:losses", SL_FN_LOSSES}};
  slL_class_with_fields(L, DIFFUSION, meta, methods, l_index);
  share_fields(L);
  slL_share_options(L, "sluice.diffusion", option_names);
  for (size_t i = 0; i < sizeof with_options / sizeof *with_options; i++)
    slL_share_options(L, with_options[i].name, function_options(with_options[i].fn));
  lua_pushcfunction(L, l_new);
  lua_setfield(L, -2, "diffusion");
  slL_core(L, "diffusion_from", l_from);
  slL_core(L, "weight_table", l_weight_table);
}
