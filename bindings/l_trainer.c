/* core.trainer (sluice.trainer): training a step at a time; sluice.train is built on it. */
#include "l_trainer.h"

#include <string.h>

#include "l_data.h"
#include "l_diffusion.h"
#include "l_model.h"
#include "lcore.h"
#include "lfields.h"

/*** sluice.Trainer
Training a step at a time, by hand; sluice.train is built on it. Draws, data position and bias corrections follow
from the seed and the number of the step alone. Flat arrays are "params", "exp_avg", "exp_avg_sq", "grads" (after
keep_gradients), "ema.0", "ema.1" …
@setup
local model = sluice.dit { input = { 1, 8, 8 }, classes = 3, patch = 4, hidden = 16, depth = 1, heads = 2 }
local data = sluice.data.tensors { images = sluice.rand({ 8, 1, 8, 8 }, { seed = 1 }) * 2 - 1,
  labels = sluice.randint(0, 2, { 8 }, { seed = 1 }) }
local trainer = sluice.trainer { model = model, diffusion = sluice.diffusion {}, data = data, holdout = data,
  batch = 4, ema = { 0.99 } }
@example
local r = trainer:step()
print(r.step, r.lr, r.loss > 0)  --> 1 0.0001 true */

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
} lua_loss;

static void set_value(lua_State *L, const char *name, sl_value *v, slL_trace *trace) {
  if (!v) return;
  slL_push_value(L, v, trace);
  lua_setfield(L, -2, name);
}

/* What a loss's s does not have is a mistake: nil would come to light only in an operation. */
static int no_such_field(lua_State *L) {
  static const char *const names[] = {"out", "x0", "xt", "t", "noise", "weight", "diffusion", NULL};
  return slL_unknown(L, "the loss's s", "field", luaL_tolstring(L, 2, NULL), names);
}

static void be_strict(lua_State *L) {
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, no_such_field);
  lua_setfield(L, -2, "__index");
  lua_setmetatable(L, -2);
}

/* Calls the function, at 1, with symbolic tensors; what it returns is the graph's loss. 2: the diffusion. */
static sl_value *call_loss(lua_State *L, slL_trace *trace, void *user) {
  const sl_loss_inputs *in = user;
  sl_graph *g = slL_trace_graph(trace);
  lua_pushvalue(L, 1);
  lua_createtable(L, 0, 7);
  set_value(L, "out", in->out, trace);
  set_value(L, "x0", in->x0, trace);
  set_value(L, "xt", in->xt, trace);
  set_value(L, "t", in->t, trace);
  set_value(L, "noise", in->noise, trace);
  sl_value *weight = in->weight ? sl_apply(g, sl_op_find("gather"), 2, (sl_value *[]){in->weight, in->t}, NULL)
                                : sl_scalar(g, 1.0, SL_F32);
  set_value(L, "weight", weight, trace);
  lua_pushvalue(L, 2);
  lua_setfield(L, -2, "diffusion");
  be_strict(L);
  lua_call(L, 1, 1);
  sl_value *loss = slL_test_value(L, -1, trace);
  if (!loss) {
    const char *expected = slL_is_tensor(L, -1) ? "one made from s.out" : "a tensor of per-sample losses";
    slL_error(L, "loss: the function returned %s, expected %s", slL_what(L, -1), expected);
  }
  return loss;
}

static sl_value *build_loss(void *user, sl_graph *g, const sl_loss_inputs *in) {
  const lua_loss *l = user;
  lua_State *L = l->L;
  if (!lua_checkstack(L, 2)) return sl_graph_fail(g, sl_fail(SL_STATUS_OOM, "loss: Lua's stack is full"));
  lua_pushvalue(L, l->fn);
  lua_pushvalue(L, l->diffusion);
  return slL_build(L, g, "loss", 2, call_loss, (void *)(uintptr_t)in);
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

void slL_read_recompute(lua_State *L, const char *w, sl_train_options *o) {
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
  slL_read_recompute(L, w, o);
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
    *loss = (lua_loss){L, lua_gettop(L) - 1, lua_gettop(L)};
    o->loss = build_loss;
    o->loss_user = loss;
  }
}

/*** sluice.trainer(options) -> trainer
Makes a trainer: its program is built and planned, the model's weights come into being, averages start from them.
What does not fit into memory raises.
@param options table
@field model sluice.Model
@field diffusion sluice.Diffusion  with as many original steps as the model has timesteps
@field data? sluice.Dataset  without it every step is given its batch: step_on
@field holdout? sluice.Dataset  for evaluate
@field loss? fun(s: {out: sluice.Tensor, x0: sluice.Tensor, xt: sluice.Tensor, t: sluice.Tensor,
  noise: sluice.Tensor, weight?: sluice.Tensor, diffusion: sluice.Diffusion}): sluice.Tensor
  per-sample losses [N] of symbolic tensors; without it diffusion:losses
@field weight? number[]  of the squared error, for each step of the diffusion
@field density? number[]  how often each step of the diffusion is drawn, relatively; all the same
@field lr? number  1e-4
@field beta1? number  0.9
@field beta2? number  0.999
@field eps? number  1e-8
@field weight_decay? number  0
@field clip? number  0: none; the largest global norm of a gradient
@field schedule? number[]  multiplies lr, one for each step of training
@field ema? number[]  decays of the averages, at most four
@field ema_warmup? boolean  true: min(decay, (1+n)/(10+n)) at step n
@field batch? integer  1
@field micro_batch? integer  0: the whole batch; a divisor of batch: gradients are summed over parts
@field seed? integer  0
@field flip? boolean  false; mirrors half of the images left to right
@field recompute? boolean|"auto"|"none"|"light"|"blocks"  "auto"; what backward computes again: true is "blocks"
@field precision? "f32"|"tf32"|"bf16"  the model's
@field residual? "f32"|"bf16"  the model's
@field loader_threads? integer  that read ahead; -1: one where images must be decoded
@return sluice.Trainer
@example
local model = sluice.dit { input = { 1, 8, 8 }, classes = 3, patch = 4, hidden = 16, depth = 1, heads = 2 }
print(sluice.trainer { model = model, diffusion = sluice.diffusion {}, batch = 2 }:steps_done())  --> 0 */
static int l_new(lua_State *L) {
  sl_train_options o;
  lua_loss loss = {0};
  read_options(L, &o, &loss);
  trainer_box *box = lua_newuserdatauv(L, sizeof *box, 1);
  int at = lua_gettop(L);
  *box = (trainer_box){NULL, NULL};
  luaL_setmetatable(L, TRAINER);
  slL_try(L, sl_trainer_new(slL_context(L), &o, &box->trainer));
  box->model = sl_model_retain(o.model);
  lua_settop(L, at);
  return 1;
}

static int l_forecast(lua_State *L) {
  sl_train_options o;
  lua_loss loss = {0};
  read_options(L, &o, &loss);
  uint64_t bytes = 0;
  slL_try(L, sl_train_forecast(slL_context(L), &o, &bytes));
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

/*** trainer:step() -> result
One step on the next batch of the data. A loss or gradient that is not finite raises, names the first such value, with
the line of a loss or block in Lua that computes it, and changes nothing.
@return table
@field step integer  number of this step, from 1
@field loss number  mean over the batch
@field mse number  the same of the squared error; 0 with a loss of its own
@field vb number  the same of the bound; 0 with a loss of its own
@field grad_norm number  before clipping
@field lr number
@example print(trainer:step().step)  --> 1 */
static int l_step(lua_State *L) {
  sl_step_result r;
  slL_try(L, sl_trainer_step(check(L)->trainer, &r));
  return push_result(L, &r);
}

/*** trainer:step_on(batch) -> result
One step on a batch that is given.
@param batch table
@field x0 sluice.Tensor  f32 [batch,C,H,W]
@field t sluice.Tensor  i64 [batch]
@field y? sluice.Tensor  i64 [batch]; without it the null class
@field noise sluice.Tensor  f32 [batch,C,H,W]
@return table
@field step integer  number of this step, from 1
@field loss number  mean over the batch
@field mse number  the same of the squared error; 0 with a loss of its own
@field vb number  the same of the bound; 0 with a loss of its own
@field grad_norm number  before clipping
@field lr number
@example
local x, y = sluice.randn { 4, 1, 8, 8 }, sluice.zeros({ 4 }, { dtype = "i64" })
print(trainer:step_on({ x0 = x, noise = x, t = sluice.arange(4), y = y }).step)  --> 1 */
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

/*** trainer:array(name) -> parameters
A flat array as tensors by parameter name, which see the trainer's own memory.
@param name string  "params", "exp_avg", "exp_avg_sq", "grads", "ema.0" …
@return table<string, sluice.Tensor>
@example print(trainer:array("ema.0")["x_embedder.proj.bias"]:shape()[1])  --> 16 */
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

/*** trainer:flat(name) -> array
A flat array as one tensor that sees the trainer's own memory.
@param name string  as in trainer:array
@return sluice.Tensor
@example print(trainer:flat("params"):rank())  --> 1 */
static int l_flat(lua_State *L) {
  sl_tensor *flat = array_of(L, check(L));
  *slL_push_tensor(L) = sl_tensor_retain(flat);
  return 1;
}

/*** trainer:per_sample(which?) -> values
Losses of the last step's images, f32 [batch].
@param which? "loss"|"mse"|"vb"  "loss"
@return sluice.Tensor
@example
trainer:step()
print(trainer:per_sample "mse":numel())  --> 4 */
static int l_per_sample(lua_State *L) {
  static const char *const names[] = {"loss", "mse", "vb", NULL};
  trainer_box *box = check(L);
  sl_tensor *t = sl_trainer_per_sample(box->trainer, luaL_checkoption(L, 2, "loss", names));
  slL_try(L, sl_tensor_to(t, SL_F32, NULL, slL_push_tensor(L)));
  return 1;
}

/*** trainer:keep_gradients()
From the next step on its gradients, before clipping, are kept as the array "grads".
@example
trainer:keep_gradients()
trainer:step()
print(trainer:flat "grads":abs():max():item() > 0)  --> true */
static int l_keep_gradients(lua_State *L) {
  slL_try(L, sl_trainer_keep_gradients(check(L)->trainer));
  return 0;
}

/*** trainer:memory() -> bytes
What training takes: parameters, gradients, moments, averages, batch, intermediates. Known before the first step.
@return integer
@example print(trainer:memory() > 0)  --> true */
static int l_memory(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)sl_trainer_memory(check(L)->trainer));
  return 1;
}

/*** trainer:profile() -> costs
Begins to measure at its first call, which gives an empty list; later ones give what each operation took since then,
the slowest first.
@return {op: string, seconds: number, calls: integer, nodes: integer, macs: integer, bytes: integer}[]
@example
trainer:profile()
trainer:step()
print(trainer:profile()[1].calls > 0)  --> true */
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

/*** trainer:restore(steps)
Goes on as a trainer that has done so many steps, once its arrays were filled with what that one's held.
@param steps integer
@example
trainer:restore(100)
print(trainer:step().step)  --> 101 */
static int l_restore(lua_State *L) {
  slL_try(L, sl_trainer_restore(check(L)->trainer, luaL_checkinteger(L, 2)));
  return 0;
}

/*** trainer:bins() -> means
Mean losses since the last call for each tenth of the timesteps; false where none was drawn.
@return (number|false)[]
@example print(#trainer:bins())  --> 10 */
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

/*** trainer:evaluate(weights?) -> loss
Mean loss over the held-out images, with timesteps spread evenly and noise that is the same at each call.
@param weights? sluice.Tensor  the trainer's own; flat, as an EMA's
@return number
@example print(trainer:evaluate(trainer:flat "ema.0") == trainer:evaluate())  --> true */
static int l_evaluate(lua_State *L) {
  double loss;
  sl_tensor *weights = lua_isnoneornil(L, 2) ? NULL : slL_check_tensor(L, 2);
  slL_try(L, sl_trainer_evaluate(check(L)->trainer, weights, &loss));
  lua_pushnumber(L, loss);
  return 1;
}

/*** trainer:steps_done() -> n
How many steps it has done.
@return integer
@example print(trainer:steps_done())  --> 0 */
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
