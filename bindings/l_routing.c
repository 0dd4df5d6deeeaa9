/* sluice.routing: which channels work at which timestep. */
#include "l_routing.h"

#include <cjson/cJSON.h>
#include <string.h>

#include "l_json.h"
#include "lfields.h"
#include "routing/routing_description.h"

/*** sluice.routing
Constructors of routings. */

#define ROUTING "sluice.routing"
#define MAX_TABLES 10000

/*** sluice.Routing
Which channels of each routed block are active at which timestep; for a model's field `routing`. Never changed after
it is made. tostring names its kind.
@setup local routing = sluice.routing.dtr { alpha = 4, beta = 0.8 } */
static sl_routing **push_routing(lua_State *L) {
  sl_routing **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  luaL_setmetatable(L, ROUTING);
  return box;
}

static sl_routing *check(lua_State *L, int idx) { return slL_check_held(L, idx, ROUTING, "routing"); }

sl_routing *slL_opt_routing(lua_State *L, int idx, const char *what) {
  if (lua_isnoneornil(L, idx)) return NULL;
  if (!luaL_testudata(L, idx, ROUTING)) {
    const char *advice = lua_isfunction(L, idx) ? ": call it" : ""; /* before slL_what pushes its word */
    slL_error(L, "%s: routing is %s, expected one of sluice.routing, as sluice.routing.dtr {}%s", what,
              slL_what(L, idx), advice);
  }
  return check(L, idx);
}

static int l_gc(lua_State *L) {
  sl_routing **box = luaL_checkudata(L, 1, ROUTING);
  sl_routing_release(*box);
  *box = NULL;
  return 0;
}

static void options(lua_State *L, const char *what, const char *const *names) {
  if (lua_isnoneornil(L, 1)) {
    lua_settop(L, 0);
    lua_newtable(L);
  }
  if (lua_type(L, 1) != LUA_TTABLE) slL_error(L, "%s: the options are %s, expected a table", what, slL_what(L, 1));
  lua_settop(L, 1);
  slL_options(L, 1, what, names);
}

/*** sluice.routing.dtr(options?) -> routing
The sliding window of Denoising Task Routing: of C channels a window of floor(beta C) is active, which moves from
the first channels at t = 0 to the last ones at the last timestep, the faster the later for alpha above 1.
@param options? table
@field alpha? number  4; above 0
@field beta? number  0.8; above 0, at most 1
@field variant? "reference"|"eq4"  "reference": the released code; "eq4": the paper's equation 4
@return sluice.Routing
@example print(sluice.routing.dtr { beta = 0.5 }:table(10, 8):sum(2):max():item()) */
static int l_dtr(lua_State *L) {
  static const char *const names[] = {"alpha", "beta", "variant", NULL}, *const variants[] = {"reference", "eq4", NULL};
  const char *w = "sluice.routing.dtr";
  options(L, w, names);
  double alpha = slL_field_number(L, 1, w, "alpha", 4), beta = slL_field_number(L, 1, w, "beta", 0.8);
  int variant = slL_field_choice(L, 1, w, "variant", variants, 0);
  slL_try(L, sl_routing_dtr(slL_context(L), alpha, beta, (sl_routing_variant)variant, push_routing(L)));
  return 1;
}

/*** sluice.routing.random(options?) -> routing
R-TR: floor(beta C) random channels, drawn for every timestep and block by itself.
@param options? table
@field beta? number  0.8; above 0, at most 1
@field seed? integer  0
@return sluice.Routing
@example print(sluice.routing.random { beta = 0.5, seed = 1 })  --> sluice.routing.random */
static int l_random(lua_State *L) {
  static const char *const names[] = {"beta", "seed", NULL};
  const char *w = "sluice.routing.random";
  options(L, w, names);
  double beta = slL_field_number(L, 1, w, "beta", 0.8);
  uint32_t seed = slL_field_seed(L, 1, w, "seed", 0);
  slL_try(L, sl_routing_random(slL_context(L), beta, seed, push_routing(L)));
  return 1;
}

/*** sluice.routing.none() -> routing
All channels at all timesteps; the same as no routing.
@return sluice.Routing
@example print(sluice.routing.none())  --> sluice.routing.none */
static int l_none(lua_State *L) {
  slL_try(L, sl_routing_none(slL_context(L), push_routing(L)));
  return 1;
}

/*** sluice.routing.table(masks) -> routing
Masks as they are: zeros and ones for each block, timestep and channel.
@param masks sluice.Tensor|sluice.Tensor[]  u8 [blocks, T, C], or a list of [T, C] where blocks differ in channels
@return sluice.Routing
@example
local masks = sluice.ones({ 2, 1000, 16 }, { dtype = "u8" })
local model = sluice.dit { input = { 1, 8, 8 }, patch = 4, hidden = 16, depth = 2, heads = 2,
  routing = sluice.routing.table(masks) } */
static int l_table(lua_State *L) {
  bool list = lua_type(L, 1) == LUA_TTABLE;
  sl_tensor *all = list ? NULL : slL_check_tensor(L, 1);
  if (all && sl_tensor_shape(all)->rank != 3)
    slL_error(L, "routing.table: the table is %s, expected [blocks,T,C], or a list of [T,C]",
              sl_shape_text(sl_tensor_shape(all)));
  int64_t n = list ? (int64_t)lua_rawlen(L, 1) : sl_tensor_shape(all)->dim[0];
  if (n > MAX_TABLES) slL_error(L, "routing.table: %I blocks, at most %d", (LUAI_UACINT)n, MAX_TABLES);
  luaL_checkstack(L, (int)n + 2, "routing.table");
  sl_tensor **tables = lua_newuserdatauv(L, (size_t)(n + 1) * sizeof(sl_tensor *), 0);
  for (int i = 0; i < (int)n; i++) { /* each stays on the stack while it is used */
    if (list) {
      lua_rawgeti(L, 1, i + 1);
    } else {
      slL_try(L, sl_tensor_select(all, 0, i, slL_push_tensor(L)));
    }
    tables[i] = slL_check_tensor(L, -1);
  }
  slL_try(L, sl_routing_from_tables(slL_context(L), (int)n, tables, push_routing(L)));
  return 1;
}

/* --- masks written in Lua --- */

typedef struct lua_mask {
  sl_context *ctx;
  slL_function function;
} lua_mask;

static void release_mask(void *user) {
  lua_mask *m = user;
  slL_release_function(m->function);
  sl_free(m->ctx, m);
}

typedef struct mask_call {
  int64_t t, T, C;
  int block, blocks;
  uint8_t *row;
} mask_call;

static void read_window(lua_State *L, const mask_call *m) {
  int ok1, ok2;
  lua_Integer first = lua_tointegerx(L, -2, &ok1), last = lua_tointegerx(L, -1, &ok2);
  if (!ok1 || !ok2 || first < 1 || last > m->C || first > last + 1) {
    const char *first_text = slL_what(L, -2), *last_text = slL_what(L, -2); /* each pushes itself */
    slL_error(
        L,
        "routing.custom: at t = %I the function returned %s, %s; expected a window, 1 <= first <= last <= %I, or a "
        "list of zeros and ones",
        (LUAI_UACINT)m->t, first_text, last_text, (LUAI_UACINT)m->C);
  }
  for (int64_t c = first; c <= last; c++) m->row[c - 1] = 1; /* the row came zeroed */
}

static void read_list(lua_State *L, const mask_call *m) {
  if ((int64_t)lua_rawlen(L, -2) != m->C)
    slL_error(L, "routing.custom: at t = %I the function returned %I values, expected %I zeros and ones",
              (LUAI_UACINT)m->t, (LUAI_UACINT)lua_rawlen(L, -2), (LUAI_UACINT)m->C);
  for (int64_t c = 0; c < m->C; c++) {
    lua_rawgeti(L, -2, c + 1);
    lua_Number v = lua_isboolean(L, -1) ? lua_toboolean(L, -1) : lua_isnumber(L, -1) ? lua_tonumber(L, -1) : -1;
    if (v != 0 && v != 1)
      slL_error(L, "routing.custom: channel %I at t = %I is %s, expected 0 or 1", (LUAI_UACINT)c + 1, (LUAI_UACINT)m->t,
                slL_what(L, -1));
    lua_pop(L, 1);
    m->row[c] = (uint8_t)v;
  }
}

/* f(t, T, C, block, blocks) -> first, last; or a list of C zeros and ones. */
static int run_mask(lua_State *L) {
  const mask_call *m = lua_touserdata(L, 2);
  lua_pushvalue(L, 1);
  lua_pushinteger(L, m->t);
  lua_pushinteger(L, m->T);
  lua_pushinteger(L, m->C);
  lua_pushinteger(L, m->block + 1);
  lua_pushinteger(L, m->blocks);
  lua_call(L, 5, 2);
  if (lua_istable(L, -2)) read_list(L, m);
  else read_window(L, m);
  return 0;
}

static sl_status call_mask(void *user, int64_t t, int64_t T, int64_t C, int block, int blocks, uint8_t *row) {
  const lua_mask *m = user;
  lua_State *L = m->function.L;
  mask_call call = {t, T, C, block, blocks, row};
  if (!lua_checkstack(L, 8)) return sl_fail(SL_STATUS_OOM, "routing.custom: Lua's stack is full");
  lua_pushcfunction(L, run_mask);
  lua_rawgeti(L, LUA_REGISTRYINDEX, m->function.ref);
  lua_pushlightuserdata(L, &call);
  return slL_pcall(L, 2, 0) == LUA_OK ? SL_STATUS_OK : slL_fail(L, SL_STATUS_ARG, "routing.custom");
}

/*** sluice.routing.custom(f) -> routing
Masks of a Lua function, called for every timestep and block when the model is made, never while it computes. It
returns the first and the last active channel (from 1, both included; last = first - 1: none), or a list of C zeros
and ones.
@param f fun(t: integer, T: integer, C: integer, block: integer, blocks: integer): integer|table, integer?
@return sluice.Routing
@example
local halves = sluice.routing.custom(function(t, T, C) if t < T // 2 then return 1, C // 2 else return 1, C end end)
print(halves:table(4, 8):sum(2))  --> i64 [4] cpu [4, 4, 8, 8] */
static int l_custom(lua_State *L) {
  lua_settop(L, 1);
  if (!lua_isfunction(L, 1))
    slL_error(L, "sluice.routing.custom: expected a function(t, T, C, block, blocks), got %s", slL_what(L, 1));
  sl_routing **box = push_routing(L);
  sl_context *ctx = slL_context(L);
  slL_function f = slL_hold_function(L, 1); /* first: it may raise */
  lua_mask *m = sl_alloc(ctx, sizeof *m);
  if (!m) {
    slL_release_function(f);
    slL_try(L, SL_STATUS_OOM);
  }
  *m = (lua_mask){ctx, f};
  sl_status s = sl_routing_custom(ctx, call_mask, m, release_mask, box);
  if (s != SL_STATUS_OK) release_mask(m);
  slL_try(L, s);
  lua_settop(L, 2);
  return 1;
}

/* --- methods --- */

/*** routing:table(T, C, block?, blocks?) -> mask
The mask of one block, u8 [T, C]; row t + 1 is that of timestep t.
@param T integer  timesteps
@param C integer  channels
@param block? integer  1
@param blocks? integer  block; how many blocks there are
@return sluice.Tensor
@example print(routing:table(1000, 10)[1])  --> u8 [10] cpu [1, 1, 1, 1, 1, 1, 1, 1, 0, 0] */
static int l_mask(lua_State *L) {
  sl_routing *r = check(L, 1);
  lua_Integer T = luaL_checkinteger(L, 2), C = luaL_checkinteger(L, 3), block = luaL_optinteger(L, 4, 1),
              blocks = luaL_optinteger(L, 5, block);
  if (blocks > 100000 || block > 100000)
    slL_error(L, "routing:table: block %I of %I", (LUAI_UACINT)block, (LUAI_UACINT)blocks);
  slL_try(L, sl_routing_table(r, slL_context(L), T, C, (int)block - 1, (int)blocks, slL_push_tensor(L)));
  return 1;
}

static sl_status description(lua_State *L, const sl_routing *r, char **text) {
  cJSON *object = cJSON_CreateObject();
  sl_status s = object ? sl_routing_describe(r, object) : sl_fail(SL_STATUS_OOM, "no memory for a description");
  if (s == SL_STATUS_OK) s = sl_object_print(slL_context(L), object, text);
  cJSON_Delete(object);
  return s;
}

/*** routing:describe() -> description
Its kind ("dtr", "random", "none", "table", "custom") and numbers, as a table fit for JSON.
@return table
@example print(routing:describe().kind, routing:describe().alpha)  --> dtr 4 */
static int l_describe(lua_State *L) {
  char **text = slL_push_block(L);
  slL_try(L, description(L, check(L, 1), text));
  slL_push_json(L, *text);
  return 1;
}

static int l_tostring(lua_State *L) {
  lua_pushfstring(L, "sluice.routing.%s", sl_routing_kind_name(sl_routing_kind_of(check(L, 1))));
  return 1;
}

static const luaL_Reg methods[] = {{"table", l_mask}, {"describe", l_describe}, {NULL, NULL}};
static const luaL_Reg meta[] = {{"__gc", l_gc}, {"__close", l_gc}, {"__tostring", l_tostring}, {NULL, NULL}};
static const luaL_Reg makers[] = {{"dtr", l_dtr},     {"random", l_random}, {"none", l_none},
                                  {"table", l_table}, {"custom", l_custom}, {NULL, NULL}};

/* __index of methods and makers: what lua/sluice/routing.lua adds to both, loaded at its first use. */
static int l_workshop(lua_State *L) {
  lua_getglobal(L, "require");
  lua_pushliteral(L, "sluice.routing");
  lua_call(L, 1, 1);
  lua_pushvalue(L, 2);
  lua_gettable(L, -2);
  return 1;
}

void slL_open_routing(lua_State *L) {
  slL_class(L, ROUTING, meta, methods);
  luaL_newlib(L, makers);
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, l_workshop);
  lua_setfield(L, -2, "__index");
  luaL_getmetatable(L, ROUTING);
  lua_getfield(L, -1, "__index");
  lua_pushvalue(L, -3);
  lua_setmetatable(L, -2); /* the methods' */
  lua_pop(L, 2);
  lua_setmetatable(L, -2); /* the makers' */
  lua_setfield(L, -2, "routing");
}
