/* The Lua module inside a host: two threads, each with a lua_State of its own, draw at the same time:
 *   lua-states CHECKPOINT
 * Lua must find sluice.so: LUA_CPATH names its folder where the prefix is not the system's. */
#include <lauxlib.h>
#include <lualib.h>
#include <pthread.h>
#include <stdio.h>

static const char script[] =
    "local path, seed = ...\n"
    "local sluice = require 'sluice'\n"
    "local images = sluice.load(path):sample { n = 2, labels = { 3, 7 }, steps = 4, seed = seed }\n"
    "return images:mean():item()";

typedef struct job {
  const char *path;
  int seed;
  double mean;
  char error[512]; /* "": none */
} job;

static void *draw(void *user) {
  job *j = user;
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  if (luaL_loadstring(L, script) == LUA_OK) {
    lua_pushstring(L, j->path);
    lua_pushinteger(L, j->seed);
    if (lua_pcall(L, 2, 1, 0) == LUA_OK) j->mean = lua_tonumber(L, -1);
  }
  if (lua_type(L, -1) != LUA_TNUMBER) snprintf(j->error, sizeof j->error, "%s", lua_tostring(L, -1));
  lua_close(L);
  return NULL;
}

int main(int argc, char **argv) {
  if (argc != 2) return fprintf(stderr, "usage: lua-states CHECKPOINT\n"), 2;
  job jobs[2] = {{argv[1], 1, 0, ""}, {argv[1], 2, 0, ""}};
  pthread_t threads[2];
  for (int i = 0; i < 2; i++)
    if (pthread_create(&threads[i], NULL, draw, &jobs[i])) return perror("lua-states"), 1;
  int failed = 0;
  for (int i = 0; i < 2; i++) {
    pthread_join(threads[i], NULL);
    if (jobs[i].error[0]) failed = fprintf(stderr, "lua-states: %s\n", jobs[i].error);
    else printf("seed %d: mean %.6f\n", jobs[i].seed, jobs[i].mean);
  }
  return failed != 0;
}
