#include "program_prompt.h"
#include "sluice/version.h"

#include <signal.h>
#include <stdio.h>

#include "program_interrupt.h"

/* console.line(prompt) -> the line; nil, "end" or "interrupted" */
static int l_line(lua_State *L) {
  line_status s = line_read(L, luaL_checkstring(L, 1));
  if (s == LINE_READ) return 1;
  lua_pushnil(L);
  lua_pushstring(L, s == LINE_END ? "end" : "interrupted");
  return 2;
}

static int l_remember(lua_State *L) {
  line_remember(luaL_checkstring(L, 1));
  return 0;
}

/* console.call(f, …) -> true and its results, or false and the text of its error. Ctrl-C stops f. */
static int l_call(lua_State *L) {
  int status = program_call(L, lua_gettop(L) - 1, LUA_MULTRET);
  lua_pushboolean(L, status == LUA_OK);
  lua_insert(L, 1);
  return lua_gettop(L);
}

/* Between lines Ctrl-C does nothing. */
static void ignore(int signal_number) { (void)signal_number; }

/* console.open(complete): prepares for console.line. complete(text before the cursor, columns) -> insert, show */
static int l_open(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  line_open(L, 1);
  return 0;
}

static const luaL_Reg console[] = {{"open", l_open},
                                   {"line", l_line},
                                   {"remember", l_remember},
                                   {"call", l_call},
                                   {"history_append", history_append},
                                   {"history_replace", history_replace},
                                   {NULL, NULL}};

void program_prompt(lua_State *L) {
  struct sigaction old, act = {.sa_handler = ignore};
  sigemptyset(&act.sa_mask);
  sigaction(SIGINT, &act, &old);
  program_interrupt_patient(true);
  lua_getglobal(L, "require");
  lua_pushliteral(L, "sluice.repl");
  int status = lua_pcall(L, 1, 1, 0);
  if (status == LUA_OK) {
    lua_getfield(L, -1, "run");
    luaL_newlib(L, console);
    lua_pushboolean(L, line_edited());
    lua_setfield(L, -2, "edited");
    status = lua_pcall(L, 1, 0, 0);
  }
  line_close();
  program_interrupt_patient(false);
  sigaction(SIGINT, &old, NULL);
  if (status != LUA_OK) program_report(L);
}
