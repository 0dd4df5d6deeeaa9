/* sluice.routing: which channels work at which timestep. */
#include "l_routing.h"

#include <string.h>

#include "lfields.h"

#define ROUTING "sluice.routing"
#define MAX_TABLES 10000

static sl_routing **push_routing(lua_State *L) {
  sl_routing **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  luaL_setmetatable(L, ROUTING);
  return box;
}

static sl_routing *check(lua_State *L, int idx) { return *(sl_routing **)luaL_checkudata(L, idx, ROUTING); }

sl_routing *slL_opt_routing(lua_State *L, int idx, const char *what) {
  if (lua_isnoneornil(L, idx)) return NULL;
  sl_routing **box = luaL_testudata(L, idx, ROUTING);
  if (!box) slL_error(L, "%s: routing is %s, expected one of sluice.routing", what, luaL_typename(L, idx));
  return *box;
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
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  slL_options(L, 1, what, names);
}

static const char *const dtr_options[] = {"alpha", "beta", "variant", NULL}, *const random_options[] = {"beta", "seed",
                                                                                                        NULL};

static int l_dtr(lua_State *L) {
  static const char *const variants[] = {"reference", "eq4", NULL};
  const char *w = "sluice.routing.dtr";
  options(L, w, dtr_options);
  double alpha = slL_field_number(L, 1, w, "alpha", 4), beta = slL_field_number(L, 1, w, "beta", 0.8);
  int variant = slL_field_choice(L, 1, w, "variant", variants, 0);
  slL_try(L, sl_routing_dtr(slL_context(L), alpha, beta, (sl_routing_variant)variant, push_routing(L)));
  return 1;
}

static int l_random(lua_State *L) {
  const char *w = "sluice.routing.random";
  options(L, w, random_options);
  double beta = slL_field_number(L, 1, w, "beta", 0.8);
  uint32_t seed = slL_field_seed(L, 1, w, "seed", 0);
  slL_try(L, sl_routing_random(slL_context(L), beta, seed, push_routing(L)));
  return 1;
}

static int l_none(lua_State *L) {
  slL_try(L, sl_routing_none(slL_context(L), push_routing(L)));
  return 1;
}

/* sluice.routing.table(u8 [blocks,T,C]), or of a list of u8 [T,C], one per routed block. */
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
  lua_State *L; /* the main thread: the function may outlive the coroutine that made it */
  int ref;
} lua_mask;

static void release_mask(void *user) {
  lua_mask *m = user;
  luaL_unref(m->L, LUA_REGISTRYINDEX, m->ref);
  sl_free(slL_context(m->L), m);
}

static sl_status read_window(lua_State *L, int64_t t, int64_t C, uint8_t *row) {
  int ok1, ok2;
  lua_Integer first = lua_tointegerx(L, -2, &ok1), last = lua_tointegerx(L, -1, &ok2);
  const char *first_text = slL_what(L, -2), *last_text = slL_what(L, -2); /* each pushes itself */
  SL_REQUIRE(ok1 && ok2 && first >= 1 && last <= C && first <= last + 1, ARG,
             "routing.custom: at t = %lld the function returned the window %s, %s; expected 1 <= first <= last <= %lld",
             (long long)t, first_text, last_text, (long long)C);
  for (int64_t c = 0; c < C; c++) row[c] = c >= first - 1 && c < last;
  return SL_STATUS_OK;
}

static sl_status read_list(lua_State *L, int64_t t, int64_t C, uint8_t *row) {
  SL_REQUIRE((int64_t)lua_rawlen(L, -2) == C, ARG,
             "routing.custom: at t = %lld the function returned %lld values, expected %lld zeros and ones",
             (long long)t, (long long)lua_rawlen(L, -2), (long long)C);
  for (int64_t c = 0; c < C; c++) {
    lua_rawgeti(L, -2, c + 1);
    int v = lua_isboolean(L, -1) ? lua_toboolean(L, -1) : (int)lua_tointeger(L, -1);
    lua_pop(L, 1);
    SL_REQUIRE(v == 0 || v == 1, ARG, "routing.custom: channel %lld at t = %lld is not 0 or 1", (long long)c + 1,
               (long long)t);
    row[c] = (uint8_t)v;
  }
  return SL_STATUS_OK;
}

/* f(t, T, C, block, blocks) -> first, last; or a list of C zeros and ones. */
static sl_status call_mask(void *user, int64_t t, int64_t T, int64_t C, int block, int blocks, uint8_t *row) {
  lua_mask *m = user;
  lua_State *L = m->L;
  int top = lua_gettop(L);
  if (!lua_checkstack(L, 16)) return sl_fail(SL_STATUS_OOM, "routing.custom: Lua's stack is full");
  lua_rawgeti(L, LUA_REGISTRYINDEX, m->ref);
  lua_pushinteger(L, t);
  lua_pushinteger(L, T);
  lua_pushinteger(L, C);
  lua_pushinteger(L, block + 1);
  lua_pushinteger(L, blocks);
  sl_status s;
  if (lua_pcall(L, 5, 2, 0) != LUA_OK) {
    const char *text = lua_tostring(L, -1);
    s = sl_fail(SL_STATUS_ARG, "routing.custom: %s", text ? text : "the function raised an error");
  } else {
    s = lua_istable(L, -2) ? read_list(L, t, C, row) : read_window(L, t, C, row);
  }
  lua_settop(L, top);
  return s;
}

static int l_custom(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_settop(L, 1);
  sl_routing **box = push_routing(L);
  lua_mask *m = sl_alloc(slL_context(L), sizeof *m);
  if (!m) slL_try(L, SL_STATUS_OOM);
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
  m->L = lua_tothread(L, -1);
  lua_pushvalue(L, 1);
  m->ref = luaL_ref(L, LUA_REGISTRYINDEX);
  sl_status s = sl_routing_custom(slL_context(L), call_mask, m, release_mask, box);
  if (s != SL_STATUS_OK) release_mask(m);
  slL_try(L, s);
  lua_settop(L, 2);
  return 1;
}

/* --- methods --- */

/* routing:table(T, C[, block[, blocks]]) -> u8 [T,C] */
static int l_mask(lua_State *L) {
  sl_routing *r = check(L, 1);
  lua_Integer T = luaL_checkinteger(L, 2), C = luaL_checkinteger(L, 3), block = luaL_optinteger(L, 4, 1),
              blocks = luaL_optinteger(L, 5, block);
  if (blocks > 100000 || block > 100000)
    slL_error(L, "routing:table: block %I of %I", (LUAI_UACINT)block, (LUAI_UACINT)blocks);
  slL_try(L, sl_routing_table(r, slL_context(L), T, C, (int)block - 1, (int)blocks, slL_push_tensor(L)));
  return 1;
}

void slL_push_routing_description(lua_State *L, sl_routing *r) {
  lua_createtable(L, 0, 4);
  lua_pushstring(L, sl_routing_kind_name(r ? sl_routing_kind_of(r) : SL_ROUTING_NONE));
  lua_setfield(L, -2, "kind");
  if (!r) return;
  if (sl_routing_kind_of(r) == SL_ROUTING_DTR) {
    lua_pushnumber(L, sl_routing_alpha(r)), lua_setfield(L, -2, "alpha");
    lua_pushstring(L, sl_routing_variant_name(sl_routing_variant_of(r))), lua_setfield(L, -2, "variant");
  }
  if (sl_routing_kind_of(r) == SL_ROUTING_DTR || sl_routing_kind_of(r) == SL_ROUTING_RANDOM)
    lua_pushnumber(L, sl_routing_beta(r)), lua_setfield(L, -2, "beta");
  if (sl_routing_kind_of(r) == SL_ROUTING_RANDOM) lua_pushinteger(L, sl_routing_seed(r)), lua_setfield(L, -2, "seed");
}

static int l_describe(lua_State *L) {
  slL_push_routing_description(L, check(L, 1));
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

void slL_open_routing(lua_State *L) {
  slL_class(L, ROUTING, meta, methods);
  luaL_newlib(L, makers);
  lua_setfield(L, -2, "routing");
  slL_share_options(L, "sluice.routing.dtr", dtr_options);
  slL_share_options(L, "sluice.routing.random", random_options);
}
