/* sluice.core: measured rates, programs' costs and the process's own figures, for lua/sluice/bench.lua. */
#include "eval/bench.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "l_diffusion.h"
#include "l_model.h"
#include "l_trainer.h"
#include "lcore.h"
#include "lfields.h"

#define PASS "sluice.bench_pass"

static const char *const what = "bench";

/* --- rates --- */

static void set_number(lua_State *L, const char *name, double v) {
  lua_pushnumber(L, v);
  lua_setfield(L, -2, name);
}

static void set_integer(lua_State *L, const char *name, int64_t v) {
  lua_pushinteger(L, v);
  lua_setfield(L, -2, name);
}

/* core.bench_rate{device=, kind="f32"|"tf32"|"bf16"|"copy", seconds=} -> {median, least, most, size, samples} */
static int l_rate(lua_State *L) {
  static const char *const fields[] = {"device", "kind", "seconds", NULL}, *const kinds[] = {"f32", "tf32", "bf16",
                                                                                             "copy", NULL};
  luaL_checktype(L, 1, LUA_TTABLE);
  slL_options(L, 1, what, fields);
  int kind = slL_field_choice(L, 1, what, "kind", kinds, 0);
  double seconds = slL_field_number(L, 1, what, "seconds", 0.2);
  sl_bench_rate r;
  slL_try(L, sl_bench_measure(slL_context(L), slL_field_device(L, 1, what), (sl_bench_kind)kind, seconds, &r));
  lua_createtable(L, 0, 5);
  set_number(L, "median", r.median);
  set_number(L, "least", r.least);
  set_number(L, "most", r.most);
  set_integer(L, "size", r.size);
  set_integer(L, "samples", r.samples);
  return 1;
}

/* core.bench_device(name) -> its own name, whether its f32 products are rounded to TF32, bytes taken there at most
 * (nil: the CPU) */
static int l_device(lua_State *L) {
  const sl_device *dev = NULL;
  sl_device_memory m;
  slL_try(L, sl_device_find(slL_context(L), luaL_checkstring(L, 1), &dev));
  lua_pushstring(L, dev->name);
  lua_pushboolean(L, dev->gpu && dev->gpu->tf32);
  if (!dev->memory) return 2;
  slL_try(L, dev->memory(dev, &m));
  lua_pushinteger(L, (lua_Integer)m.peak);
  return 3;
}

/* core.bench_wait(name): for all that was launched there. */
static int l_wait(lua_State *L) {
  const sl_device *dev = NULL;
  slL_try(L, sl_device_find(slL_context(L), luaL_checkstring(L, 1), &dev));
  slL_try(L, dev->sync(dev, NULL));
  return 0;
}

/* --- costs --- */

typedef struct rows {
  lua_State *L;
  int n;
} rows;

static void push_row(void *user, const sl_op_cost *c) {
  rows *r = user;
  lua_State *L = r->L;
  lua_createtable(L, 0, 7);
  lua_pushstring(L, c->op);
  lua_setfield(L, -2, "op");
  set_number(L, "seconds", c->seconds);
  set_number(L, "limit", c->limit);
  set_integer(L, "calls", c->calls);
  set_integer(L, "nodes", c->nodes);
  set_integer(L, "macs", c->macs);
  set_integer(L, "bytes", c->bytes);
  lua_rawseti(L, -2, ++r->n);
}

static sl_rates check_rates(lua_State *L, int idx) {
  static const char *const fields[] = {"f32", "bf16", "copy", NULL};
  luaL_checktype(L, idx, LUA_TTABLE);
  slL_options(L, idx, what, fields);
  return (sl_rates){slL_field_number(L, idx, what, "f32", 0), slL_field_number(L, idx, what, "bf16", 0),
                    slL_field_number(L, idx, what, "copy", 0)};
}

/* core.bench_train_costs({model=, diffusion=, batch=, recompute=}, {f32=, bf16=, copy=}) -> list of {op, limit, nodes,
 * macs, bytes}
 */
static int l_train_costs(lua_State *L) {
  static const char *const fields[] = {"model", "diffusion", "batch", "recompute", NULL};
  luaL_checktype(L, 1, LUA_TTABLE);
  slL_options(L, 1, what, fields);
  sl_rates rates = check_rates(L, 2);
  sl_train_options o = sl_train_defaults();
  o.model = slL_field_model(L, 1, what);
  o.diffusion = slL_field_diffusion(L, 1, what);
  o.batch = slL_field_integer(L, 1, what, "batch", 1);
  slL_read_recompute(L, what, &o);
  lua_newtable(L);
  rows r = {L, 0};
  slL_try(L, sl_bench_train_costs(slL_context(L), &o, &rates, push_row, &r));
  return 1;
}

/* core.bench_pass_costs(model, batch, guided, rates) -> the same of a forward pass */
static int l_pass_costs(lua_State *L) {
  sl_model *m = slL_check_model(L, 1);
  lua_Integer batch = luaL_checkinteger(L, 2);
  bool guided = lua_toboolean(L, 3);
  sl_rates rates = check_rates(L, 4);
  lua_newtable(L);
  rows r = {L, 0};
  slL_try(L, sl_bench_pass_costs(m, batch, guided, &rates, push_row, &r));
  return 1;
}

/* --- forward passes --- */

static sl_bench_pass *check_pass(lua_State *L) { return slL_check_held(L, 1, PASS, "pass"); }

static int l_pass_gc(lua_State *L) {
  sl_bench_pass **box = luaL_checkudata(L, 1, PASS);
  sl_bench_pass_free(*box);
  *box = NULL;
  return 0;
}

/* core.bench_pass(model, batch, guided) */
static int l_pass(lua_State *L) {
  sl_model *m = slL_check_model(L, 1);
  lua_Integer batch = luaL_checkinteger(L, 2);
  bool guided = lua_toboolean(L, 3);
  sl_bench_pass **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  luaL_setmetatable(L, PASS);
  slL_try(L, sl_bench_pass_new(m, batch, guided, box));
  return 1;
}

/* :run(n, profile) -> seconds of n passes in a row */
static int l_pass_run(lua_State *L) {
  double seconds;
  slL_try(L, sl_bench_pass_run(check_pass(L), (int)luaL_checkinteger(L, 2), lua_toboolean(L, 3), &seconds));
  lua_pushnumber(L, seconds);
  return 1;
}

/* :profile() -> list of {op, seconds, calls, nodes, macs, bytes} of the profiled runs */
static int l_pass_profile(lua_State *L) {
  const sl_program *p = sl_bench_pass_program(check_pass(L));
  sl_op_cost c;
  lua_newtable(L);
  rows r = {L, 0};
  for (int i = 0; sl_program_cost(p, i, &c); i++) push_row(&r, &c);
  return 1;
}

/* --- the process --- */

/* Bytes of the process in memory at most. */
static int l_peak_resident(lua_State *L) {
  struct rusage u;
  lua_pushinteger(L, getrusage(RUSAGE_SELF, &u) == 0 ? (lua_Integer)u.ru_maxrss * 1024 : 0);
  return 1;
}

/* Seconds since the process began, to the kernel's hundredth; nil where the system does not tell. Source: proc(5),
 * stat. */
static int l_age(lua_State *L) {
  char text[1024] = "";
  unsigned long long ticks = 0;
  struct timespec now;
  FILE *f = fopen("/proc/self/stat", "r");
  size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
  if (f) fclose(f);
  text[n] = 0;
  const char *at = strrchr(text, ')'); /* after the name, field 2, which may hold anything; starttime is field 22 */
  for (int field = 2; at && field < 22; field++) at = strchr(at + 1, ' ');
  if (!at || sscanf(at, " %llu", &ticks) != 1 || clock_gettime(CLOCK_BOOTTIME, &now) != 0) return 0;
  lua_pushnumber(L, (double)now.tv_sec + 1e-9 * (double)now.tv_nsec - (double)ticks / (double)sysconf(_SC_CLK_TCK));
  return 1;
}

void slL_open_bench(lua_State *L) {
  static const luaL_Reg functions[] = {{"bench_rate", l_rate},
                                       {"bench_device", l_device},
                                       {"bench_wait", l_wait},
                                       {"bench_train_costs", l_train_costs},
                                       {"bench_pass_costs", l_pass_costs},
                                       {"bench_pass", l_pass},
                                       {"peak_resident", l_peak_resident},
                                       {"age", l_age},
                                       {NULL, NULL}};
  static const luaL_Reg methods[] = {{"run", l_pass_run}, {"profile", l_pass_profile}, {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", l_pass_gc}, {"__close", l_pass_gc}, {NULL, NULL}};
  slL_class(L, PASS, meta, methods);
  for (const luaL_Reg *f = functions; f->name; f++) slL_core(L, f->name, f->func);
}
