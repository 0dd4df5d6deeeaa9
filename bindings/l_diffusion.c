/* sluice.diffusion: the process and its functions on tensors, concrete and symbolic alike. */
#include "l_diffusion.h"

#include <string.h>

#include "diffusion/diffusion_description.h"
#include "l_json.h"
#include "lcore.h"
#include "lfields.h"

/*** sluice.Diffusion
The diffusion process: its tables and its functions of tensors, symbolic ones too. Everywhere t is an index from 0
into this process's own (perhaps respaced) steps, an integer for all images or i64 [N]; the network is given
timestep_map[t]. x0, x and noise are [N,C,H,W]; out is the network's output, [N,2C,H,W] with learned variance.
Tables are f32 [steps], computed in double; that of step t is table[t + 1]. Results lie where the tensors do.
@field steps integer  of this process
@field original_steps integer  of the process before respacing
@field respaced boolean
@field predict string  "eps", "x0" or "v"
@field variance string  "learned", "fixed_small" or "fixed_large"
@field timesteps integer[]  the original timestep of each step, as a list
@field timestep_map sluice.Tensor  the same, i64
@field betas sluice.Tensor  the variance of the noise that a step adds
@field alphas_cumprod sluice.Tensor  the product of 1 - beta up to each step: the share of the image left
@field alphas_cumprod64 number[]  the same unrounded, as a list
@field alphas_cumprod_prev sluice.Tensor  the same a step before; 1 at the first
@field alphas_cumprod_next sluice.Tensor  the same a step later; 0 at the last
@field sqrt_alphas_cumprod sluice.Tensor
@field sqrt_one_minus_alphas_cumprod sluice.Tensor
@field log_one_minus_alphas_cumprod sluice.Tensor
@field sqrt_recip_alphas_cumprod sluice.Tensor  sqrt(1 / alphas_cumprod)
@field sqrt_recipm1_alphas_cumprod sluice.Tensor  sqrt(1 / alphas_cumprod - 1)
@field posterior_variance sluice.Tensor  of x a step before, given x and x0
@field posterior_log_variance_clipped sluice.Tensor  its logarithm; the first is the second's
@field posterior_mean_coef1 sluice.Tensor  what the posterior's mean takes of x0
@field posterior_mean_coef2 sluice.Tensor  what it takes of x
@field snr sluice.Tensor  alphas_cumprod / (1 - alphas_cumprod)
@field log_betas sluice.Tensor
@field fixed_large_log_variance sluice.Tensor  log_betas, but the first is that of posterior_variance's second
@setup
local diffusion = sluice.diffusion { respacing = "50" }
local x0, noise = sluice.rand({ 2, 1, 4, 4 }, { seed = 1 }), sluice.randn({ 2, 1, 4, 4 }, { seed = 2 })
local out = sluice.randn({ 2, 2, 4, 4 }, { seed = 3 })
local x = diffusion:q_sample(x0, 30, noise)
@example print(diffusion.steps, diffusion.alphas_cumprod[50]:item() < 1e-4)  --> 50 true */

#define DIFFUSION "sluice.diffusion"
#define MAX_STEPS 1000000

static sl_diffusion **push_box(lua_State *L) {
  sl_diffusion **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  luaL_setmetatable(L, DIFFUSION);
  return box;
}

static sl_diffusion *check(lua_State *L, int idx) { return slL_check_held(L, idx, DIFFUSION, "diffusion"); }

sl_diffusion *slL_field_diffusion_or_null(lua_State *L, int idx, const char *what, const char *name) {
  bool none = lua_getfield(L, idx, name) == LUA_TNIL;
  if (!none && !luaL_testudata(L, -1, DIFFUSION))
    slL_error(L, "%s: %s is %s, expected a sluice.diffusion", what, name, slL_what(L, -1));
  sl_diffusion *d = none ? NULL : check(L, -1);
  lua_pop(L, 1);
  return d;
}

sl_diffusion *slL_field_diffusion(lua_State *L, int idx, const char *what) {
  sl_diffusion *d = slL_field_diffusion_or_null(L, idx, what, "diffusion");
  if (!d) slL_error(L, "%s: diffusion is nil, expected a sluice.diffusion", what);
  return d;
}

void slL_push_diffusion(lua_State *L, sl_diffusion *d) { *push_box(L) = sl_diffusion_retain(d); }

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
                slL_what(L, -1));
    betas[i] = lua_tonumber(L, -1);
    lua_pop(L, 1);
  }
  return betas;
}

/* The schedule's name, or the betas that its function gives (left on the stack). */
static void read_schedule(lua_State *L, sl_process_options *o) {
  const char *w = "sluice.diffusion";
  static const char *const names[] = {"cosine", "linear", NULL};
  if (o->steps < 1 || o->steps > MAX_STEPS)
    slL_error(L, "%s: steps is %I, expected 1 to %d", w, (LUAI_UACINT)o->steps, MAX_STEPS);
  if (lua_getfield(L, 1, "schedule") == LUA_TFUNCTION) o->betas = betas_of_function(L, lua_gettop(L), o->steps);
  else o->schedule = names[slL_field_choice(L, 1, w, "schedule", names, 0)];
}

/* The value at idx as a spec, pushed: "250", "ddim50", or a list of counts of sections joined by commas. */
static const char *push_spec(lua_State *L, int idx) {
  if (lua_type(L, idx) == LUA_TSTRING || lua_isinteger(L, idx)) {
    lua_pushvalue(L, idx);
    return lua_tostring(L, -1);
  }
  if (lua_type(L, idx) != LUA_TTABLE)
    slL_error(L, "respacing is %s, expected \"250\", \"ddim50\" or a list of counts", slL_what(L, idx));
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

/*** sluice.diffusion(options?) -> diffusion
A process of so many steps of noise.
@param options? table
@field steps? integer  1000; at most 1000000
@field schedule? "cosine"|"linear"|fun(i: integer, T: integer): number  "cosine"; a function returns beta number i,
  i = 0 … T-1
@field predict? "eps"|"x0"|"v"  "eps"; what the network says: the noise, the image, or sqrt(a) eps - sqrt(1-a) x0
@field variance? "learned"|"fixed_small"|"fixed_large"  "learned"; the network's second half, or the posterior's, or
  beta
@field respacing? string|integer|integer[]  all steps; "250" of them, "ddim50", or counts of sections as {10, 15,
  20}
@return sluice.Diffusion
@example
local diffusion = sluice.diffusion { schedule = "linear", respacing = "250" }
print(diffusion.steps, diffusion.original_steps, diffusion.timesteps[250])  --> 250 1000 999 */
static int l_new(lua_State *L) {
  static const char *const fields[] = {"steps", "schedule", "predict", "variance", "respacing", NULL};
  const char *w = "sluice.diffusion";
  if (lua_isnoneornil(L, 1)) {
    lua_settop(L, 0);
    lua_newtable(L);
  }
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  slL_options(L, 1, w, fields);
  sl_process_options o = {.steps = slL_field_integer(L, 1, w, "steps", 1000)};
  o.predict = (sl_predict)slL_field_choice(L, 1, w, "predict", sl_predict_names, 0);
  o.variance = (sl_variance)slL_field_choice(L, 1, w, "variance", sl_variance_names, 0);
  if (lua_getfield(L, 1, "respacing") != LUA_TNIL) o.respacing = push_spec(L, lua_gettop(L));
  read_schedule(L, &o);
  return slL_try(L, sl_diffusion_make(slL_context(L), &o, push_box(L)));
}

/*** diffusion:respace(spec) -> diffusion
The same process with fewer steps.
@param spec string|integer|integer[]  as the option respacing
@return sluice.Diffusion
@example print(diffusion:respace("10").steps)  --> 10 */
static int l_respace(lua_State *L) {
  sl_diffusion *d = check(L, 1);
  const char *spec = push_spec(L, 2);
  return slL_try(L, sl_diffusion_respace(d, spec, push_box(L)));
}

/* --- functions of tensors --- */

typedef struct arguments {
  int n, first;
  sl_diffusion_options o;
  int weight; /* stack position of the weight's table over t, or 0 */
} arguments;

static int push_weight_table(lua_State *L, int weight) {
  if (!lua_istable(L, weight) || lua_getfield(L, weight, "table") != LUA_TFUNCTION) /* a sluice.weight has it */
    slL_error(L, "losses: weight is %s, expected one of sluice.weight", slL_what(L, weight));
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

static void read_arguments(lua_State *L, sl_diffusion_fn fn, const char *what, arguments *a) {
  static const char *const none[] = {NULL}, *const clip[] = {"clip", NULL}, *const eta[] = {"eta", "clip", NULL},
                           *const weight[] = {"weight", NULL};
  const char *const *names = fn == SL_FN_LOSSES            ? weight
                             : fn == SL_FN_DDIM_SAMPLE     ? eta
                             : fn >= SL_FN_P_MEAN_VARIANCE ? clip
                                                           : none;
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

/*** diffusion:q_sample(x0, t, noise) -> xt
Images with the noise of step t: sqrt(alphas_cumprod) x0 + sqrt(1 - alphas_cumprod) noise.
@param x0 sluice.Tensor
@param t integer|sluice.Tensor
@param noise sluice.Tensor
@return sluice.Tensor
@example print(diffusion:q_sample(x0, 49, noise):shape()[1])  --> 2 */
static int l_q_sample(lua_State *L) { return call(L, SL_FN_Q_SAMPLE, "q_sample"); }
/*** diffusion:q_mean_variance(x0, t) -> mean, variance, log_variance
Of the distribution of x at step t given x0; the mean like x0, the others [N].
@param x0 sluice.Tensor
@param t integer|sluice.Tensor
@return sluice.Tensor mean
@return sluice.Tensor variance
@return sluice.Tensor log_variance
@example print(select("#", diffusion:q_mean_variance(x0, 10)))  --> 3 */
static int l_q_mean_variance(lua_State *L) { return call(L, SL_FN_Q_MEAN_VARIANCE, "q_mean_variance"); }
/*** diffusion:q_posterior(x0, xt, t) -> mean, variance, log_variance
Of the distribution of x a step before t given x at t and x0; the mean like x0, the others [N].
@param x0 sluice.Tensor
@param xt sluice.Tensor
@param t integer|sluice.Tensor
@return sluice.Tensor mean
@return sluice.Tensor variance
@return sluice.Tensor log_variance
@example print((select(2, diffusion:q_posterior(x0, x, 30))):shape()[1])  --> 2 */
static int l_q_posterior(lua_State *L) { return call(L, SL_FN_Q_POSTERIOR, "q_posterior"); }
/*** diffusion:p_sample(out, x, t, noise, options?) -> sample, pred_xstart
One ancestral step (DDPM) from x at t; no noise enters at t = 0.
@param out sluice.Tensor  the network's output for x
@param x sluice.Tensor
@param t integer|sluice.Tensor
@param noise sluice.Tensor
@param options? table
@field clip? boolean  false; brings the predicted x0 into [-1, 1]
@return sluice.Tensor sample  x a step before
@return sluice.Tensor pred_xstart  the x0 that the network predicts
@example print(diffusion:p_sample(out, x, 30, noise, { clip = true }):shape()[2])  --> 1 */
static int l_p_sample(lua_State *L) { return call(L, SL_FN_P_SAMPLE, "p_sample"); }
/*** diffusion:ddim_sample(out, x, t, noise?, options?) -> sample, pred_xstart
One step of DDIM from x at t. The noise may be left out where eta is 0; the options then stand in its place.
@param out sluice.Tensor
@param x sluice.Tensor
@param t integer|sluice.Tensor
@param noise? sluice.Tensor|table
@param options? table
@field eta? number  0; how much noise enters: 1 is as much as DDPM's
@field clip? boolean  false; brings the predicted x0 into [-1, 1]
@return sluice.Tensor sample  x a step before
@return sluice.Tensor pred_xstart
@example print(diffusion:ddim_sample(out, x, 30, { clip = true }):shape()[2])  --> 1 */
static int l_ddim_sample(lua_State *L) { return call(L, SL_FN_DDIM_SAMPLE, "ddim_sample"); }
/*** diffusion:ddim_reverse(out, x, t, options?) -> sample, pred_xstart
The step of DDIM the other way, from t to t + 1.
@param out sluice.Tensor
@param x sluice.Tensor
@param t integer|sluice.Tensor
@param options? table
@field clip? boolean  false; brings the predicted x0 into [-1, 1]
@return sluice.Tensor sample  x a step later
@return sluice.Tensor pred_xstart
@example print(diffusion:ddim_reverse(out, x, 30):shape()[2])  --> 1 */
static int l_ddim_reverse(lua_State *L) { return call(L, SL_FN_DDIM_REVERSE, "ddim_reverse"); }
/*** diffusion:vb_bpd(out, x0, xt, t, options?) -> bits
The term of the variational bound at t, in bits per dimension, [N].
@param out sluice.Tensor
@param x0 sluice.Tensor
@param xt sluice.Tensor
@param t integer|sluice.Tensor
@param options? table
@field clip? boolean  false; brings the predicted x0 into [-1, 1]
@return sluice.Tensor
@example print(diffusion:vb_bpd(out, x0, x, 30):shape()[1])  --> 2 */
static int l_vb_bpd(lua_State *L) { return call(L, SL_FN_VB_BPD, "vb_bpd"); }

/*** diffusion:p_mean_variance(out, x, t, options?) -> parts
The distribution of x a step before t, as the network predicts it; all parts like x.
@param out sluice.Tensor
@param x sluice.Tensor
@param t integer|sluice.Tensor
@param options? table
@field clip? boolean  false; brings the predicted x0 into [-1, 1]
@return table
@field mean sluice.Tensor
@field variance sluice.Tensor
@field log_variance sluice.Tensor
@field pred_xstart sluice.Tensor  the x0 that the network predicts
@example print(diffusion:p_mean_variance(out, x, 30).mean:shape()[2])  --> 1 */
static int l_p_mean_variance(lua_State *L) {
  static const char *const names[] = {"mean", "variance", "log_variance", "pred_xstart"};
  return named(L, call(L, SL_FN_P_MEAN_VARIANCE, "p_mean_variance"), names);
}

/*** diffusion:losses(out, x0, xt, t, noise, options?) -> parts
Losses of each image: the squared error of what is predicted, and with learned variance the variational bound, whose
mean passes no gradient to out.
@param out sluice.Tensor
@param x0 sluice.Tensor
@param xt sluice.Tensor
@param t integer|sluice.Tensor
@param noise sluice.Tensor
@param options? table
@field weight? sluice.Weight  1; multiplies the squared error
@return table
@field loss sluice.Tensor  [N], mse + vb
@field mse sluice.Tensor  [N]
@field vb sluice.Tensor  [N]; zeros without learned variance
@example
print(diffusion:losses(out, x0, x, 30, noise, { weight = sluice.weight.min_snr(5) }).loss:shape()[1])  --> 2 */
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
  if (!strcmp(k, "predict")) return lua_pushstring(L, sl_predict_names[d->predict]), 1;
  if (!strcmp(k, "variance")) return lua_pushstring(L, sl_variance_names[d->variance]), 1;
  if (!strcmp(k, "timesteps")) return push_timesteps(L, d);
  if (!strcmp(k, "alphas_cumprod64")) return push_doubles(L, d->schedule->alphas_cumprod, d->steps);
  return slL_push_method(L, DIFFUSION, 2);
}

/*** diffusion:describe() -> description, betas?
What sluice.diffusion was given, with every default, as a table fit for JSON; for a schedule of its own or a
respaced process also the betas.
@return table
@return sluice.Tensor? betas  f64 [steps]
@example print(diffusion:describe().schedule)  --> cosine */
static int l_describe(lua_State *L) {
  sl_diffusion *d = check(L, 1);
  char **text = slL_push_block(L);
  sl_tensor **betas = slL_push_tensor(L);
  slL_try(L, sl_diffusion_describe(d, text, betas));
  slL_push_json(L, *text);
  if (!*betas) return 1;
  lua_insert(L, -2);
  return 2;
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
  slL_class_with_fields(L, DIFFUSION, meta, methods, l_index);
  lua_pushcfunction(L, l_new);
  lua_setfield(L, -2, "diffusion");
  slL_core(L, "weight_table", l_weight_table);
}
