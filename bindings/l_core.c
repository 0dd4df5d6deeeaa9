/* sluice.core: what the Lua part of the module needs from C and users do not. */
#include <stdio.h>
#include <string.h>

#include "base/random.h"
#include "l_model.h"
#include "lcore.h"
#include "lfields.h"
#include "ops/dnnl_cpu.h"
#include "sluice/version.h"

void slL_core(lua_State *L, const char *name, lua_CFunction f) {
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  luaL_getsubtable(L, -1, "sluice.core");
  lua_pushcfunction(L, f);
  lua_setfield(L, -2, name);
  lua_pop(L, 2);
}

static int l_next_seed(lua_State *L) {
  lua_pushinteger(L, slL_next_seed(L));
  return 1;
}

/* core.draw_label(seed, image, classes): the label of image number `image` (from 0) under labels = "uniform". */
static int l_draw_label(lua_State *L) {
  lua_Integer seed = luaL_checkinteger(L, 1), image = luaL_checkinteger(L, 2), classes = luaL_checkinteger(L, 3);
  luaL_argcheck(L, classes > 0, 3, "the model has no classes");
  sl_rng_key key = {(uint32_t)seed, SL_STREAM_SAMPLE_LABEL};
  lua_pushinteger(L, sl_random_below(key, (uint32_t)image, 0, 0, (uint32_t)classes));
  return 1;
}

/* 1234567 -> "1,234,567" */
static int l_thousands(lua_State *L) {
  char digits[32], out[48];
  int n = snprintf(digits, sizeof digits, "%lld", (long long)luaL_checkinteger(L, 1)), at = 0;
  for (int i = 0; i < n; i++) {
    out[at++] = digits[i];
    int left = n - 1 - i;
    if (left > 0 && left % 3 == 0 && digits[i] != '-') out[at++] = ',';
  }
  lua_pushlstring(L, out, (size_t)at);
  return 1;
}

/* core.join { tensors }: one after the other along the first dimension, any number of them. */
static int l_join(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_Integer n = (lua_Integer)lua_rawlen(L, 1);
  luaL_argcheck(L, n > 0, 1, "no tensors");
  lua_rawgeti(L, 1, 1);
  sl_tensor *first = slL_check_tensor(L, -1);
  sl_shape shape = *sl_tensor_shape(first);
  sl_dtype dtype = sl_tensor_dtype(first);
  shape.dim[0] = 0;
  for (lua_Integer i = 1; i <= n; i++) {
    lua_rawgeti(L, 1, i);
    shape.dim[0] += sl_tensor_shape(slL_check_tensor(L, -1))->dim[0];
    lua_pop(L, 1);
  }
  sl_tensor **out = slL_push_tensor(L);
  int at = lua_gettop(L);
  slL_try(L, sl_tensor_new(slL_context(L), NULL, dtype, &shape, out));
  int64_t row = 0;
  for (lua_Integer i = 1; i <= n; i++) {
    lua_rawgeti(L, 1, i);
    sl_tensor *t = slL_check_tensor(L, -1), **part = slL_push_tensor(L);
    slL_try(L, sl_tensor_narrow(*out, 0, row, sl_tensor_shape(t)->dim[0], part));
    slL_try(L, sl_tensor_copy(*part, t));
    row += sl_tensor_shape(t)->dim[0];
    lua_pop(L, 2);
  }
  lua_pushvalue(L, at);
  return 1;
}

static void add_line(lua_State *L, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  lua_pushvfstring(L, fmt, args);
  va_end(args);
  lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
}

static void add_text(void *user, const char *text) { add_line(user, "%s", text); }

/* The machine as the core sees it, line by line. */
static int l_doctor(lua_State *L) {
  sl_context *ctx = slL_context(L);
  lua_newtable(L);
  add_line(L, "sluice       %s, Lua %s.%s", SLUICE_VERSION, LUA_VERSION_MAJOR, LUA_VERSION_MINOR);
  add_line(L, "threads      %d", sl_context_threads(ctx));
  add_line(L, "own kernels  %s (the machine has %s; SLUICE_ISA=base|avx2|avx512 lowers it)",
           sl_isa_name(sl_context_isa(ctx)), sl_isa_name(sl_isa_machine()));
  add_line(L, "oneDNN       %s", sl_dnnl_version());
  add_line(L, "bfloat16     %s",
           sl_dnnl_has_bf16(ctx) ? "products run in bfloat16"
                                 : "stored only: this CPU has no bf16 products, they run in float32");
  if (sl_device_built(&sl_driver_cuda)) sl_driver_cuda.describe(add_text, L);
  else add_line(L, "CUDA         not in this build");
  char names[256] = "";
  for (int i = 0; sl_device_name(i); i++)
    snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", i ? ", " : "", sl_device_name(i));
  add_line(L, "devices      %s", names);
  return 1;
}

static const luaL_Reg functions[] = {{"draw_label", l_draw_label}, {"thousands", l_thousands}, {"join", l_join},
                                     {"doctor", l_doctor},         {"next_seed", l_next_seed}, {NULL, NULL}};

void slL_open_core(lua_State *L) {
  for (const luaL_Reg *f = functions; f->name; f++) slL_core(L, f->name, f->func);
}
