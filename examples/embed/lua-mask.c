/* A host with a Lua of its own, whose users write the mask:  lua-mask MASK.lua [OUT.png]
 * MASK.lua returns a function(t, T, C, block, blocks) -> first, last: the channels that are open at timestep t, from 1.
 * A DiT is made with it; its masks are printed, or drawn: a row for each timestep, open channels white. */
#include <lauxlib.h>
#include <lualib.h>
#include <sluice.h>
#include <stdio.h>

enum { TIMESTEPS = 20, HIDDEN = 48, DEPTH = 2 };

/* The user's function is on the top of the stack. Its errors become statuses: nothing jumps through the library. */
static sl_status call_mask(void *user, int64_t t, int64_t T, int64_t C, int block, int blocks, uint8_t *row) {
  lua_State *L = user;
  const int64_t arguments[] = {t, T, C, block + 1, blocks};
  lua_pushvalue(L, -1);
  for (int i = 0; i < 5; i++) lua_pushinteger(L, arguments[i]);
  if (lua_pcall(L, 5, 2, 0) != LUA_OK) {
    sl_status failed = sl_fail(SL_STATUS_ARG, "%s", luaL_tolstring(L, -1, NULL));
    lua_pop(L, 2);
    return failed;
  }
  int64_t first = lua_tointeger(L, -2), last = lua_tointeger(L, -1);
  lua_pop(L, 2);
  if (first < 1 || last > C)
    return sl_fail(SL_STATUS_ARG, "the mask opens channels %lld to %lld of %lld", (long long)first, (long long)last,
                   (long long)C);
  for (int64_t c = first; c <= last; c++) row[c - 1] = 1;
  return SL_STATUS_OK;
}

static sl_status make_model(sl_context *ctx, lua_State *L, sl_model **model) {
  sl_routing *routing = NULL;
  sl_status status = sl_routing_custom(ctx, call_mask, L, NULL, &routing);
  if (status != SL_STATUS_OK) return status;
  sl_dit_config c = sl_dit_defaults();
  c.channels = 1, c.height = c.width = 16, c.patch = 4;
  c.hidden = HIDDEN, c.depth = DEPTH, c.heads = 3, c.classes = 10;
  c.options.timesteps = TIMESTEPS;
  status = sl_dit_new(ctx, &c, routing, model); /* calls the function, for every block and timestep */
  sl_routing_release(routing);
  return status;
}

static void print_masks(const sl_model *model) {
  for (int t = 0; t < TIMESTEPS; t++) {
    for (int block = 0; block < DEPTH; block++) {
      const uint8_t *row = (const uint8_t *)sl_tensor_data(sl_model_mask_table(model, block)) + t * HIDDEN;
      for (int c = 0; c < HIDDEN; c++) putchar(row[c] ? '#' : '.');
      putchar(block + 1 < DEPTH ? ' ' : '\n');
    }
  }
}

static sl_status draw_masks(sl_context *ctx, const sl_model *model, const char *path) {
  uint8_t pixels[DEPTH][TIMESTEPS][HIDDEN];
  for (int block = 0; block < DEPTH; block++) {
    const uint8_t *table = sl_tensor_data(sl_model_mask_table(model, block));
    for (int i = 0; i < TIMESTEPS * HIDDEN; i++) pixels[block][i / HIDDEN][i % HIDDEN] = table[i] ? 255 : 0;
  }
  sl_tensor *images = NULL;
  const int64_t shape[] = {DEPTH, TIMESTEPS, HIDDEN, 1};
  sl_status status = sl_tensor_from(ctx, SL_U8, 4, shape, pixels, &images);
  const sl_png_options options = {.columns = 1, .scale = 8};
  if (status == SL_STATUS_OK) status = sl_png_write_as(path, images, &options);
  sl_tensor_release(images);
  return status;
}

int main(int argc, char **argv) {
  if (argc < 2 || argc > 3) return fprintf(stderr, "usage: lua-mask MASK.lua [OUT.png]\n"), 2;
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  if (luaL_dofile(L, argv[1]) != LUA_OK) return fprintf(stderr, "lua-mask: %s\n", lua_tostring(L, -1)), lua_close(L), 1;
  sl_context *ctx = NULL;
  sl_model *model = NULL;
  sl_status status = sl_context_new(NULL, &ctx);
  if (status == SL_STATUS_OK) status = make_model(ctx, L, &model);
  if (status == SL_STATUS_OK && argc == 3) status = draw_masks(ctx, model, argv[2]);
  else if (status == SL_STATUS_OK) print_masks(model);
  if (status != SL_STATUS_OK) fprintf(stderr, "lua-mask: %s\n", sl_error());
  sl_model_release(model);
  sl_context_free(ctx);
  lua_close(L);
  return status != SL_STATUS_OK;
}
