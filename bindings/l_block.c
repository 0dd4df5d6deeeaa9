/* sluice.dit's field `block`: a transformer block written in Lua, called with symbolic tensors while graphs are built.
 */
#include "l_block.h"

#include <stdio.h>
#define XXH_INLINE_ALL /* the state of a digest lies on the stack */
#include <xxhash.h>

#include "l_builder.h"

typedef struct lua_block {
  sl_context *ctx;
  slL_function function;
  slL_block_sizes sizes;
} lua_block;

static void release(void *user) {
  lua_block *k = user;
  slL_release_function(k->function);
  sl_free(k->ctx, k);
}

typedef struct call {
  slL_builder builder;
  sl_value *z, *c;
} call;

/* Calls the function, at 1: z, c, builder -> tensor. */
static sl_value *call_function(lua_State *L, slL_trace *trace, void *user) {
  call *k = user;
  k->builder.trace = trace;
  slL_push_value(L, k->z, trace);
  slL_push_value(L, k->c, trace);
  slL_builder *given = slL_push_builder(L, k->builder);
  lua_pushvalue(L, -1);
  lua_insert(L, 1);
  int status = slL_pcall(L, 3, 1);
  *given = (slL_builder){0};
  if (status != LUA_OK) lua_error(L);
  if (!slL_is_symbolic(L, -1)) {
    const char *expected = slL_is_tensor(L, -1) ? "one made from z" : "a tensor shaped as z";
    slL_error(L, "block: the function returned %s, expected %s", slL_what(L, -1), expected);
  }
  return slL_to_value(L, -1, trace);
}

static sl_value *build(void *user, sl_builder *b, sl_value *z, sl_value *c, int index) {
  lua_block *k = user;
  lua_State *L = k->function.L;
  char what[32];
  snprintf(what, sizeof what, "block %d", index + 1);
  if (!lua_checkstack(L, 1)) return sl_graph_fail(b->g, sl_fail(SL_STATUS_OOM, "%s: Lua's stack is full", what));
  lua_rawgeti(L, LUA_REGISTRYINDEX, k->function.ref);
  call of = {.builder = {.b = b, .of = &k->sizes, .index = index}, .z = z, .c = c};
  return slL_build(L, b->g, what, 1, call_function, &of);
}

static int add_to_digest(lua_State *L, const void *code, size_t size, void *state) {
  (void)L;
  return XXH3_64bits_update(state, code, size) != XXH_OK;
}

/* Tells one function from another: a digest of its code, without names of files and lines. */
static void name_function(lua_State *L, int idx, char *name, size_t size) {
  XXH3_state_t state;
  XXH3_64bits_reset(&state);
  lua_pushvalue(L, idx);
  lua_dump(L, add_to_digest, &state, 1);
  lua_pop(L, 1);
  snprintf(name, size, "lua %016llx", (unsigned long long)XXH3_64bits_digest(&state));
}

bool slL_read_block(lua_State *L, int idx, const sl_dit_config *c, sl_dit_block *block) {
  idx = lua_absindex(L, idx);
  if (lua_isnil(L, idx)) return false;
  if (lua_type(L, idx) != LUA_TFUNCTION || lua_iscfunction(L, idx))
    slL_error(L, "sluice.dit: block is %s, expected a function(z, c, b)", slL_what(L, idx));
  *block = (sl_dit_block){.build = build, .release = release};
  name_function(L, idx, block->name, sizeof block->name);
  sl_context *ctx = slL_context(L);
  slL_function f = slL_hold_function(L, idx); /* first: it may raise */
  lua_block *k = sl_alloc(ctx, sizeof *k);
  if (!k) {
    slL_release_function(f);
    slL_try(L, SL_STATUS_OOM);
  }
  *k = (lua_block){ctx, f, {.hidden = c->hidden, .heads = c->heads, .depth = c->depth}};
  if (c->patch > 0) k->sizes.height = c->height / c->patch, k->sizes.width = c->width / c->patch;
  block->user = k;
  return true;
}
