/* The plain prompt: a line is an expression to show or a statement to run; incomplete statements go on. */
#include "program_prompt.h"
#include "sluice/version.h"

#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Pushes the next line without its newline; false at the end of the input. */
static int push_line(lua_State *L, int first) {
  static const char *const prompts[] = {">> ", "> "};
  char *line = NULL;
  size_t size = 0;
  fputs(prompts[first], stdout);
  fflush(stdout);
  ssize_t n = getline(&line, &size, stdin);
  if (n < 0) {
    free(line);
    return 0;
  }
  if (n && line[n - 1] == '\n') n--;
  lua_pushlstring(L, line, (size_t)n);
  free(line);
  return 1;
}

static int is_incomplete(lua_State *L, int status) {
  size_t n;
  const char *text = status == LUA_ERRSYNTAX ? lua_tolstring(L, -1, &n) : NULL;
  return text && n >= 5 && !strcmp(text + n - 5, "<eof>");
}

/* Turns the line on the top into a chunk, reading on while it is incomplete. Leaves the chunk or a message alone on the
 * stack. */
static int load_statement(lua_State *L) {
  size_t n;
  const char *line = lua_tolstring(L, 1, &n);
  const char *as_value = lua_pushfstring(L, "return %s", line);
  if (luaL_loadbuffer(L, as_value, strlen(as_value), "=stdin") == LUA_OK) return LUA_OK;
  lua_settop(L, 1);
  for (;;) {
    line = lua_tolstring(L, 1, &n);
    int status = luaL_loadbuffer(L, line, n, "=stdin");
    if (!is_incomplete(L, status) || !push_line(L, 0)) return status;
    lua_remove(L, -2); /* the message */
    lua_pushliteral(L, "\n");
    lua_insert(L, -2);
    lua_concat(L, 3);
  }
}

static void show(lua_State *L) {
  int n = lua_gettop(L);
  if (!n) return;
  luaL_checkstack(L, 2, "too many results to show");
  lua_getglobal(L, "print");
  lua_insert(L, 1);
  if (program_call(L, n, 0) != LUA_OK) program_report(L);
}

void program_prompt(lua_State *L) {
  printf("Sluice %s, %s\n", SLUICE_VERSION, LUA_RELEASE);
  lua_settop(L, 0);
  while (push_line(L, 1)) {
    int status = load_statement(L);
    if (status == LUA_OK) {
      lua_replace(L, 1);
      lua_settop(L, 1);
      status = program_call(L, 0, LUA_MULTRET);
    }
    if (status == LUA_OK) show(L);
    else program_report(L);
    lua_settop(L, 0);
  }
  putchar('\n');
}
