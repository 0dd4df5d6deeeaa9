/* The Lua module inside a host: it gives the numbers that the C API gives, in states that do not know of each other,
 * one after the other and in two threads at once. The host's own copy of the library and the module's share nothing.
 * Memory that Lua does not get is an error of Lua's, wherever it is wanted. */
#include <lauxlib.h>
#include <lualib.h>
#include <pthread.h>

#include "on_context.h"
#include "sluice.h"

#define DIGITS "models/digits.safetensors"
enum { IMAGES = 3, PIXELS = IMAGES * 28 * 28, STEPS = 3 };

static const char script[] = "package.cpath = '" SLUICE_TEST_MODULE_FOLDER
                             "/?.so;' .. package.cpath\n"
                             "local sluice = require 'sluice'\n"
                             "local loaded = sluice.load '" DIGITS
                             "'\n"
                             "return function(seed)\n"
                             "  local images = loaded:sample { n = 3, steps = 3, seed = seed, batch = 2 }\n"
                             "  return images:reshape { #images * 28 * 28 }:totable()\n"
                             "end";

static float wanted[2][PIXELS]; /* by seed: what sl_sample gives */

static int setup_wanted(void **state) {
  if (setup(state)) return -1;
  sl_model *m;
  OK(sl_model_load(ctx, DIGITS, &m));
  for (uint32_t seed = 0; seed < 2; seed++) {
    sl_tensor *images;
    sl_sample_options o = sl_sample_defaults(m);
    o.n = IMAGES;
    o.steps = STEPS;
    o.seed = seed;
    o.batch = 2; /* as there: a library may add up in another order for another number of rows */
    OK(sl_sample(m, &o, &images));
    memcpy(wanted[seed], sl_tensor_data(images), sizeof wanted[seed]);
    sl_tensor_release(images);
  }
  sl_model_release(m);
  return 0;
}

/* A state whose stack holds the script's function. */
static lua_State *open_state(void) {
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  if (luaL_dostring(L, script) == LUA_OK) return L;
  fprintf(stderr, "%s\n", lua_tostring(L, -1));
  lua_close(L);
  return NULL;
}

/* Whether the state draws what sl_sample draws, to the bit. Called in threads: no assertions here. */
static bool agrees(lua_State *L, int seed) {
  lua_pushvalue(L, 1);
  lua_pushinteger(L, seed);
  bool same = lua_pcall(L, 1, 1, 0) == LUA_OK && lua_istable(L, -1) && lua_rawlen(L, -1) == PIXELS;
  if (!same) fprintf(stderr, "%s\n", luaL_tolstring(L, -1, NULL));
  for (int i = 0; same && i < PIXELS; i++) {
    lua_rawgeti(L, -1, i + 1);
    same = (float)lua_tonumber(L, -1) == wanted[seed][i];
    lua_pop(L, 1);
  }
  lua_settop(L, 1);
  return same;
}

static void test_lua_draws_what_c_draws(void **state) {
  (void)state;
  lua_State *L = open_state();
  assert_non_null(L);
  assert_true(agrees(L, 0) && agrees(L, 1));
  lua_close(L);
}

static void test_states_do_not_know_of_each_other(void **state) {
  (void)state;
  lua_State *a = open_state(), *b = open_state();
  assert_true(a && b);
  assert_true(agrees(a, 0) && agrees(b, 1));
  luaL_dostring(a, "require 'sluice'.seed(77) collectgarbage()");
  assert_true(agrees(b, 0));
  lua_close(b);
  assert_true(agrees(a, 1));
  lua_close(a);
}

static void *draw(void *user) {
  lua_State *L = open_state();
  bool fine = L != NULL;
  for (int i = 0; fine && i < 3; i++) fine = agrees(L, *(int *)user);
  if (L) lua_close(L);
  return fine ? user : NULL;
}

static void test_two_threads_draw_at_once(void **state) {
  (void)state;
  pthread_t threads[2];
  int seeds[2] = {0, 1};
  for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&threads[i], NULL, draw, &seeds[i]), 0);
  for (int i = 0; i < 2; i++) {
    void *fine;
    pthread_join(threads[i], &fine);
    assert_non_null(fine);
  }
}

/* --- memory of Lua's that ends --- */

static const char load_module[] =
    "package.cpath = '" SLUICE_TEST_MODULE_FOLDER
    "/?.so;' .. package.cpath\n"
    "S = require 'sluice'\n"
    "for _, part in ipairs { 'dit', 'json', 'trainer', 'diffusion', 'routing' } do part = S[part] end";

/* Everything that calls from the core into Lua, and what the core hands to Lua for it to free. */
static const char called_back[] =
    "local o = { input = { 1, 8, 8 }, classes = 3, patch = 4, hidden = 16, depth = 1, heads = 2, timesteps = 4 }\n"
    "o.learn_sigma = false\n"
    "o.routing = S.routing.custom(function(t, T, C) return 1, C // 2 end)\n"
    "o.block = function(z, c, b) return z + b:linear('l', z, b.hidden) end\n"
    "local m, d = S.dit(o):init(0), S.diffusion { steps = 4, variance = 'fixed_small' }\n"
    "local out = m:forward(S.zeros { 1, 1, 8, 8 }, 1, 0)\n"
    "local facts = { m:describe(), m:dot(), m:tables(), d:describe(), o.routing:describe() }\n"
    "local function loss(s) return (s.noise - s.out):square():mean { 2, 3, 4 } end\n"
    "S.trainer { model = m, diffusion = d, batch = 1, loss = loss }\n"
    "o.block = function() error { mine = true } end\n"
    "local ok, raised = pcall(S.dit, o)\n"
    "assert(not ok and (type(raised) == 'string' or raised.mine), raised)";

typedef struct limited {
  long left; /* blocks that are still given; negative: no end */
  bool once; /* only one is refused */
} limited;

static void *limited_alloc(void *user, void *p, size_t old, size_t bytes) {
  limited *l = user;
  if (!bytes) {
    free(p);
    return NULL;
  }
  if (!p || bytes > old) {
    if (l->left == 0) {
      if (l->once) l->left = -1;
      return NULL;
    }
    if (l->left > 0) l->left--;
  }
  return realloc(p, bytes);
}

/* Whether the script got all that it wanted with n blocks. */
static bool runs_with(long n, bool once) {
  limited l = {.left = -1, .once = once};
  lua_State *L = lua_newstate(limited_alloc, &l);
  luaL_openlibs(L);
  if (luaL_dostring(L, load_module) != LUA_OK || luaL_loadstring(L, called_back) != LUA_OK)
    fail_msg("%s", lua_tostring(L, -1));
  l.left = n;
  int status = lua_pcall(L, 0, 0, 0);
  bool whole = status == LUA_OK && l.left > 0;
  l.left = -1;
  const char *text = status == LUA_OK ? "not enough memory" : luaL_tolstring(L, -1, NULL);
  if (!strstr(text, "not enough memory")) fail_msg("after %ld blocks: %s", n, text);
  lua_close(L);
  return whole;
}

static void test_memory_of_lua_may_end_anywhere(void **state) {
  (void)state;
  for (int once = 0; once < 2; once++)
    for (long n = 0; !runs_with(n, once); n++) assert_true(n < 100000);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_lua_draws_what_c_draws), cmocka_unit_test(test_states_do_not_know_of_each_other),
      cmocka_unit_test(test_memory_of_lua_may_end_anywhere), cmocka_unit_test(test_two_threads_draw_at_once)};
  return cmocka_run_group_tests(tests, setup_wanted, teardown);
}
