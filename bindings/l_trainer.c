/* core.trainer (sluice.trainer): training a step at a time; sluice.train is built on it. */
#include "train/trainer.h"

#include <string.h>

#include "l_data.h"
#include "l_diffusion.h"
#include "l_model.h"
#include "lcore.h"
#include "lfields.h"

#define TRAINER "sluice.trainer"

typedef struct trainer_box {
  sl_trainer *trainer;
  sl_model *model; /* retained: arrays are named by its parameters */
} trainer_box;

static trainer_box *check(lua_State *L) {
  trainer_box *box = luaL_checkudata(L, 1, TRAINER);
  if (!box->trainer) slL_error(L, "the trainer was released");
  return box;
}

static int l_gc(lua_State *L) {
  trainer_box *box = luaL_checkudata(L, 1, TRAINER);
  sl_trainer_free(box->trainer);
  sl_model_release(box->model);
  *box = (trainer_box){NULL, NULL};
  return 0;
}

/* --- a loss written in Lua --- */

typedef struct lua_loss {
  lua_State *L;
  int fn, diffusion; /* stack positions */
  bool failed;
} lua_loss;

static void set_value(lua_State *L, const char *name, sl_value *v, slL_trace *trace) {
  if (!v) return;
  slL_push_value(L, v, trace);
  lua_setfield(L, -2, name);
}

/* Calls the function once with symbolic tensors; what it returns is the graph's loss. */
static sl_value *build_loss(void *user, sl_graph *g, const sl_loss_inputs *in) {
  lua_loss *l = user;
  lua_State *L = l->L;
  slL_trace *trace = slL_trace_begin(L, g);
  lua_pushvalue(L, l->fn);
  lua_createtable(L, 0, 7);
  set_value(L, "out", in->out, trace);
  set_value(L, "x0", in->x0, trace);
  set_value(L, "xt", in->xt, trace);
  set_value(L, "t", in->t, trace);
  set_value(L, "noise", in->noise, trace);
  if (in->weight)
    set_value(L, "weight", sl_apply(g, sl_op_find("gather"), 2, (sl_value *[]){in->weight, in->t}, NULL), trace);
  lua_pushvalue(L, l->diffusion);
  lua_setfield(L, -2, "diffusion");
  sl_value *loss = NULL;
  l->failed = lua_pcall(L, 1, 1, 0) != LUA_OK;
  if (!l->failed) {
    loss = slL_test_value(L, -1, trace);
    if (!loss)
      sl_graph_fail(g, sl_fail(SL_STATUS_ARG, "loss: the function returned %s, expected a tensor of per-sample losses",
                               luaL_typename(L, -1)));
    lua_pop(L, 1);
  } else {
    sl_graph_fail(g, sl_fail(SL_STATUS_ARG, "loss: the function raised an error"));
  }
  slL_trace_end(L, trace);
  return loss; /* a failure's error object stays on the stack */
}

/* --- options --- */

static void read_ema(lua_State *L, sl_train_options *o) {
  o->n_ema = 0;
  if (lua_getfield(L, 1, "ema") == LUA_TNIL) {
    lua_pop(L, 1);
    return;
  }
  luaL_checktype(L, -1, LUA_TTABLE);
  lua_Unsigned n = lua_rawlen(L, -1);
  if (n > SL_MAX_EMA) slL_error(L, "ema: %d decays, at most %d", (int)n, SL_MAX_EMA);
  for (lua_Unsigned i = 0; i < n; i++) {
    if (lua_rawgeti(L, -1, (lua_Integer)i + 1) != LUA_TNUMBER) slL_error(L, "ema: expected a list of decays");
    o->ema_decay[o->n_ema++] = lua_tonumber(L, -1);
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
}

/* false (or nothing), true, or a word. */
static void read_recompute(lua_State *L, const char *w, sl_train_options *o) {
  static const char *const words[] = {"auto", "none", "light", "blocks", NULL};
  int type = lua_getfield(L, 1, "recompute");
  int word = type == LUA_TBOOLEAN && lua_toboolean(L, -1) ? 3 : 0;
  lua_pop(L, 1);
  if (type != LUA_TBOOLEAN) word = slL_field_choice(L, 1, w, "recompute", words, 0);
  o->keep_all = word == 1;
  o->recompute = word == 3 ? SL_RECOMPUTE_SEGMENTS : word == 2 ? SL_RECOMPUTE_LIGHT : SL_RECOMPUTE_NONE;
}

static const char *const fields[] = {
    "model", "diffusion",    "data",      "weight",   "density", "loss",           "lr",    "beta1",       "beta2",
    "eps",   "weight_decay", "clip",      "schedule", "ema",     "ema_warmup",     "batch", "micro_batch", "seed",
    "flip",  "recompute",    "precision", "residual", "holdout", "loader_threads", NULL};

/* Leaves the tensors that the options borrow on the stack. */
static void read_options(lua_State *L, sl_train_options *o, lua_loss *loss) {
  const char *w = "sluice.trainer";
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  slL_options(L, 1, w, fields);
  *o = sl_train_defaults();
  o->model = slL_field_model(L, 1, w);
  o->diffusion = slL_field_diffusion(L, 1, w);
  o->data = slL_field_dataset(L, 1, w, "data");
  o->lr = slL_field_number(L, 1, w, "lr", o->lr);
  o->beta1 = slL_field_number(L, 1, w, "beta1", 0.9);
  o->beta2 = slL_field_number(L, 1, w, "beta2", 0.999);
  o->eps = slL_field_number(L, 1, w, "eps", 1e-8);
  o->weight_decay = slL_field_number(L, 1, w, "weight_decay", 0);
  o->clip = slL_field_number(L, 1, w, "clip", 0);
  o->ema_warmup = slL_field_boolean(L, 1, w, "ema_warmup", true);
  o->batch = slL_field_integer(L, 1, w, "batch", 1);
  o->micro_batch = slL_field_integer(L, 1, w, "micro_batch", 0);
  o->seed = slL_field_seed(L, 1, w, "seed", 0);
  o->flip = slL_field_boolean(L, 1, w, "flip", false);
  read_recompute(L, w, o);
  o->precision = slL_field_precision(L, 1, w);
  o->holdout = slL_field_dataset(L, 1, w, "holdout");
  o->loader_threads = (int)slL_field_integer(L, 1, w, "loader_threads", -1);
  read_ema(L, o);
  o->weight = slL_field_floats(L, 1, w, "weight");
  o->t_density = slL_field_floats(L, 1, w, "density");
  o->schedule = slL_field_floats(L, 1, w, "schedule");
  if (lua_getfield(L, 1, "loss") != LUA_TNIL) {
    luaL_checktype(L, -1, LUA_TFUNCTION);
    lua_getfield(L, 1, "diffusion");
    *loss = (lua_loss){L, lua_gettop(L) - 1, lua_gettop(L), false};
    o->loss = build_loss;
    o->loss_user = loss;
  }
}

static int raise(lua_State *L, sl_status s, const lua_loss *loss) {
  if (loss->failed) return lua_error(L);
  slL_try(L, s);
  return 0;
}

static int l_new(lua_State *L) {
  sl_train_options o;
  lua_loss loss = {0};
  read_options(L, &o, &loss);
  trainer_box *box = lua_newuserdatauv(L, sizeof *box, 1);
  int at = lua_gettop(L);
  *box = (trainer_box){NULL, NULL};
  luaL_setmetatable(L, TRAINER);
  sl_status s = sl_trainer_new(slL_context(L), &o, &box->trainer);
  if (s != SL_STATUS_OK) return raise(L, s, &loss);
  box->model = sl_model_retain(o.model);
  lua_settop(L, at);
  return 1;
}

static int l_forecast(lua_State *L) {
  sl_train_options o;
  lua_loss loss = {0};
  read_options(L, &o, &loss);
  uint64_t bytes = 0;
  sl_status s = sl_train_forecast(slL_context(L), &o, &bytes);
  if (s != SL_STATUS_OK) return raise(L, s, &loss);
  lua_pushinteger(L, (lua_Integer)bytes);
  return 1;
}

/* --- steps --- */

static int push_result(lua_State *L, const sl_step_result *r) {
  lua_createtable(L, 0, 6);
  lua_pushinteger(L, r->step), lua_setfield(L, -2, "step");
  lua_pushnumber(L, r->loss), lua_setfield(L, -2, "loss");
  lua_pushnumber(L, r->mse), lua_setfield(L, -2, "mse");
  lua_pushnumber(L, r->vb), lua_setfield(L, -2, "vb");
  lua_pushnumber(L, r->grad_norm), lua_setfield(L, -2, "grad_norm");
  lua_pushnumber(L, r->lr), lua_setfield(L, -2, "lr");
  return 1;
}

static int l_step(lua_State *L) {
  sl_step_result r;
  slL_try(L, sl_trainer_step(check(L)->trainer, &r));
  return push_result(L, &r);
}

static int l_step_on(lua_State *L) {
  trainer_box *box = check(L);
  const char *w = "step_on";
  static const char *const names[] = {"x0", "t", "y", "noise", NULL};
  luaL_checktype(L, 2, LUA_TTABLE);
  slL_options(L, 2, w, names);
  sl_batch b = {slL_field_tensor(L, 2, w, "x0"), slL_field_tensor(L, 2, w, "t"), slL_field_tensor(L, 2, w, "y"),
                slL_field_tensor(L, 2, w, "noise")};
  sl_step_result r;
  slL_try(L, sl_trainer_step_on(box->trainer, &b, &r));
  return push_result(L, &r);
}

/* --- reading --- */

static sl_tensor *array_of(lua_State *L, trainer_box *box) {
  const char *name = luaL_checkstring(L, 2);
  sl_tensor *t = sl_trainer_array(box->trainer, name);
  if (!t)
    slL_error(L,
              "trainer: there is no array \"%s\"; there are params, exp_avg, exp_avg_sq, grads (after keep_gradients), "
              "ema.0 …",
              name);
  return t;
}

/* {name = tensor}: views of the trainer's own memory. */
static int l_array(lua_State *L) {
  trainer_box *box = check(L);
  sl_tensor *flat = array_of(L, box);
  lua_newtable(L);
  for (int i = 0; i < sl_params_count(box->model->params); i++) {
    slL_try(L, sl_params_part(box->model->params, i, flat, slL_push_tensor(L)));
    lua_setfield(L, -2, sl_params_get(box->model->params, i)->name);
  }
  return 1;
}

static int l_flat(lua_State *L) {
  sl_tensor *flat = array_of(L, check(L));
  *slL_push_tensor(L) = sl_tensor_retain(flat);
  return 1;
}

static int l_per_sample(lua_State *L) {
  static const char *const names[] = {"loss", "mse", "vb", NULL};
  trainer_box *box = check(L);
  sl_tensor *t = sl_trainer_per_sample(box->trainer, luaL_checkoption(L, 2, "loss", names));
  slL_try(L, sl_tensor_to(t, SL_F32, NULL, slL_push_tensor(L)));
  return 1;
}

static int l_keep_gradients(lua_State *L) {
  slL_try(L, sl_trainer_keep_gradients(check(L)->trainer));
  return 0;
}

static int l_memory(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)sl_trainer_memory(check(L)->trainer));
  return 1;
}

/* Seconds and calls per op since :profile() was first called: a list of {op, seconds, calls}, the slowest first. */
static int l_profile(lua_State *L) {
  sl_trainer *tr = check(L)->trainer;
  lua_newtable(L);
  if (!sl_trainer_profiling(tr)) return 1;
  sl_op_cost c;
  for (int i = 0; sl_program_cost(sl_trainer_program(tr), i, &c); i++) {
    lua_createtable(L, 0, 6);
    lua_pushstring(L, c.op), lua_setfield(L, -2, "op");
    lua_pushnumber(L, c.seconds), lua_setfield(L, -2, "seconds");
    lua_pushinteger(L, c.calls), lua_setfield(L, -2, "calls");
    lua_pushinteger(L, c.nodes), lua_setfield(L, -2, "nodes");
    lua_pushinteger(L, c.macs), lua_setfield(L, -2, "macs");
    lua_pushinteger(L, c.bytes), lua_setfield(L, -2, "bytes");
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

/* :restore(steps), after the arrays were filled. */
static int l_restore(lua_State *L) {
  slL_try(L, sl_trainer_restore(check(L)->trainer, luaL_checkinteger(L, 2)));
  return 0;
}

/* {mean loss or false for each tenth of the steps} since the last call. */
static int l_bins(lua_State *L) {
  double sum[SL_T_BINS];
  int64_t count[SL_T_BINS];
  sl_trainer_take_bins(check(L)->trainer, sum, count);
  lua_createtable(L, SL_T_BINS, 0);
  for (int i = 0; i < SL_T_BINS; i++) {
    if (count[i]) lua_pushnumber(L, sum[i] / (double)count[i]);
    else lua_pushboolean(L, 0);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

/* :evaluate([flat weights]) -> mean loss over the held-out images */
static int l_evaluate(lua_State *L) {
  double loss;
  sl_tensor *weights = lua_isnoneornil(L, 2) ? NULL : slL_check_tensor(L, 2);
  slL_try(L, sl_trainer_evaluate(check(L)->trainer, weights, &loss));
  lua_pushnumber(L, loss);
  return 1;
}

static int l_steps_done(lua_State *L) {
  lua_pushinteger(L, sl_trainer_steps_done(check(L)->trainer));
  return 1;
}

static const luaL_Reg methods[] = {{"step", l_step},
                                   {"step_on", l_step_on},
                                   {"array", l_array},
                                   {"flat", l_flat},
                                   {"per_sample", l_per_sample},
                                   {"keep_gradients", l_keep_gradients},
                                   {"memory", l_memory},
                                   {"steps_done", l_steps_done},
                                   {"profile", l_profile},
                                   {"restore", l_restore},
                                   {"bins", l_bins},
                                   {"evaluate", l_evaluate},
                                   {NULL, NULL}};
static const luaL_Reg meta[] = {{"__gc", l_gc}, {"__close", l_gc}, {NULL, NULL}};

void slL_open_trainer(lua_State *L) {
  slL_class(L, TRAINER, meta, methods);
  lua_pushcfunction(L, l_new);
  lua_setfield(L, -2, "trainer");
  slL_core(L, "trainer", l_new);
  slL_core(L, "forecast", l_forecast);
}
