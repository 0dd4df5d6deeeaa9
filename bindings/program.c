/* The program `sluice`: runs Lua files as lua5.4 does, with the module inside; its other commands are
 * lua/sluice/cli.lua. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <lualib.h>

#include "lbind.h"
#include "lcore.h"
#include "program_path.h"
#include "program_prompt.h"
#include "sluice/version.h"

/* What the signal handler sees: the one place with a global, since a handler takes no argument. */
static lua_State *volatile running;
static sl_context *volatile running_context;

static void on_interrupt_hook(lua_State *L, lua_Debug *ar) {
  (void)ar;
  lua_sethook(L, NULL, 0, 0);
  sl_context_cancel_clear(running_context);
  luaL_error(L, "interrupted");
}

/* While a training finishes its step and saves: the first Ctrl-C only asks, the second ends the process. */
static volatile sig_atomic_t graceful, stop_asked;

static void on_interrupt(int signal_number) {
  if (graceful && !stop_asked) {
    stop_asked = 1;
    return;
  }
  if (graceful) {
    signal(signal_number, SIG_DFL);
    raise(signal_number);
    return;
  }
  signal(signal_number, SIG_DFL); /* a second Ctrl-C ends the process */
  if (running_context) sl_context_cancel(running_context);
  if (running) lua_sethook(running, on_interrupt_hook, LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT, 1);
}

/* core.stop_on_interrupt(true): from now on Ctrl-C is to be asked for with core.stop_asked(). */
static int l_stop_on_interrupt(lua_State *L) {
  stop_asked = 0;
  graceful = lua_toboolean(L, 1);
  return 0;
}

static int l_stop_asked(lua_State *L) {
  lua_pushboolean(L, stop_asked);
  return 1;
}

static int with_traceback(lua_State *L) {
  const char *text = lua_tostring(L, 1);
  if (!text) {
    if (luaL_callmeta(L, 1, "__tostring") && lua_type(L, -1) == LUA_TSTRING) return 1;
    text = lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, 1));
  }
  luaL_traceback(L, L, text, 1);
  return 1;
}

int program_call(lua_State *L, int n_args, int n_results) {
  int base = lua_gettop(L) - n_args;
  lua_pushcfunction(L, with_traceback);
  lua_insert(L, base);
  struct sigaction old, act = {.sa_handler = on_interrupt};
  sigemptyset(&act.sa_mask);
  running = L;
  sigaction(SIGINT, &act, &old);
  int status = lua_pcall(L, n_args, n_results, base);
  graceful = 0;
  sigaction(SIGINT, &old, NULL);
  running = NULL;
  lua_sethook(L, NULL, 0, 0); /* the core may have stopped the work before the hook came to */
  sl_context_cancel_clear(running_context);
  lua_remove(L, base);
  return status;
}

void program_report(lua_State *L) {
  const char *text = lua_tostring(L, -1);
  fprintf(stderr, "sluice: %s\n", text ? text : "(error object is not a string)");
  fflush(stderr);
  lua_pop(L, 1);
}

/* Runs the chunk on the top with the values of arg[1 …]; true if it ended well. */
static bool run_chunk(lua_State *L, int loaded, bool with_args) {
  int n = 0;
  if (loaded == LUA_OK && with_args) {
    lua_getglobal(L, "arg");
    n = lua_type(L, -1) == LUA_TTABLE ? (int)luaL_len(L, -1) : 0;
    luaL_checkstack(L, n + 3, "too many arguments to the script");
    for (int i = 1; i <= n; i++) lua_rawgeti(L, -i, i);
    lua_remove(L, -n - 1);
  }
  if (loaded == LUA_OK) loaded = program_call(L, n, 0);
  if (loaded != LUA_OK) program_report(L);
  return loaded == LUA_OK;
}

/* arg[0] is the script, arg[1 …] what follows it, arg[-1 …] what stands before. */
static void set_arg(lua_State *L, int argc, char **argv, int script) {
  lua_createtable(L, argc - script, script + 1);
  for (int i = 0; i < argc; i++) {
    lua_pushstring(L, argv[i]);
    lua_rawseti(L, -2, i - script);
  }
  lua_setglobal(L, "arg");
}

/* What a script requires is also looked for beside it, last of all. */
static void search_beside(lua_State *L, const char *name) {
  const char *slash = strrchr(name, '/');
  lua_getglobal(L, "require");
  lua_pushliteral(L, "sluice.code");
  if (lua_pcall(L, 1, 1, 0) == LUA_OK) {
    lua_getfield(L, -1, "search");
    lua_pushlstring(L, slash ? name : ".", slash ? (size_t)(slash - name) : 1);
    if (lua_pcall(L, 1, 0, 0) == LUA_OK) {
      lua_pop(L, 1);
      return;
    }
  }
  program_report(L);
}

static bool run_file(lua_State *L, const char *name) {
  search_beside(L, name);
  return run_chunk(L, luaL_loadfile(L, strcmp(name, "-") ? name : NULL), true);
}

/* -l NAME, -l GLOBAL=NAME */
static bool run_library(lua_State *L, const char *text) {
  const char *equals = strchr(text, '='), *module = equals ? equals + 1 : text;
  lua_pushlstring(L, text, equals ? (size_t)(equals - text) : strcspn(text, "-"));
  lua_getglobal(L, "require");
  lua_pushstring(L, module);
  if (program_call(L, 1, 1) != LUA_OK) {
    program_report(L);
    return false;
  }
  lua_setglobal(L, lua_tostring(L, -2));
  lua_pop(L, 1);
  return true;
}

/* `sluice train …` and the like: sluice.cli.main(arguments from the command's name on). */
static bool run_command(lua_State *L, int argc, char **argv) {
  if (!strcmp(argv[1], "train")) signal(SIGPIPE, SIG_IGN); /* who reads the progress may leave; the run goes on */
  set_arg(L, argc, argv, 0);
  lua_getglobal(L, "require");
  lua_pushliteral(L, "sluice.cli");
  if (program_call(L, 1, 1) != LUA_OK) {
    program_report(L);
    return false;
  }
  lua_getfield(L, -1, "main");
  lua_createtable(L, argc, 0);
  for (int i = 1; i < argc; i++) {
    lua_pushstring(L, argv[i]);
    lua_rawseti(L, -2, i);
  }
  if (program_call(L, 1, 0) == LUA_OK) return true;
  program_report(L);
  return false;
}

typedef struct options {
  int script; /* position in argv of the first that is no option; argc if none */
  bool interactive, executed, version, command, bad;
} options;

static const char usage[] =
    "usage: sluice [-e CODE] [-i] [-l NAME] [-v] [FILE [ARGS]]   a prompt, or a Lua file as with lua5.4\n"
    "       sluice run FILE [ARGS]\n"
    "       sluice train | sample | export | pack | inspect | bench | doctor …   each takes --help\n";

static bool is_command(const char *word) {
  size_t n = strlen(word);
  return !strchr(word, '.') && !strchr(word, '/') && n && strcmp(word, "-") && access(word, F_OK) != 0;
}

static options read_options(int argc, char **argv) {
  options o = {.script = argc};
  for (int i = 1; i < argc; i++) {
    const char *a = argv[i];
    if (a[0] != '-' || !a[1]) return o.script = i, o;
    if (!strcmp(a, "--")) return o.script = i + 1, o;
    if (!strcmp(a, "-i")) o.interactive = true;
    else if (!strcmp(a, "-v") || !strcmp(a, "--version")) o.version = true;
    else if (!strcmp(a, "--help") || !strcmp(a, "-h")) return o.bad = true, o.version = true, o;
    else if ((a[1] == 'e' || a[1] == 'l') && (a[2] || i + 1 < argc)) i += !a[2], o.executed |= a[1] == 'e';
    else return o.bad = true, o;
  }
  return o;
}

/* -e and -l in the order given. */
static bool run_options(lua_State *L, int end, char **argv) {
  for (int i = 1; i < end; i++) {
    const char *a = argv[i];
    if (a[0] != '-' || (a[1] != 'e' && a[1] != 'l')) continue;
    const char *text = a[2] ? a + 2 : argv[++i];
    if (a[1] == 'l' && !run_library(L, text)) return false;
    if (a[1] == 'e' && !run_chunk(L, luaL_loadbuffer(L, text, strlen(text), "=(command line)"), false)) return false;
  }
  return true;
}

static bool run_all(lua_State *L, int argc, char **argv) {
  options o = read_options(argc, argv);
  if (o.bad) {
    fputs(usage, o.version ? stdout : stderr);
    return o.version;
  }
  if (o.version) printf("sluice %s, %s\n", SLUICE_VERSION, LUA_RELEASE);
  if (o.script == 1 && argc > 2 && !strcmp(argv[1], "run")) {
    set_arg(L, argc, argv, 2);
    return run_file(L, argv[2]);
  }
  if (o.script == 1 && argc > 1 && is_command(argv[1])) return run_command(L, argc, argv);
  bool file = o.script < argc;
  set_arg(L, argc, argv, file ? o.script : 0);
  if (!run_options(L, o.script, argv)) return false;
  if (file && !run_file(L, argv[o.script])) return false;
  if (!file && !o.executed && !o.version && !isatty(STDIN_FILENO) && !o.interactive) return run_file(L, "-");
  if (o.interactive || (!file && !o.executed && !o.version)) program_prompt(L);
  return true;
}

static int protected_main(lua_State *L) {
  int argc = (int)lua_tointeger(L, 1);
  char **argv = lua_touserdata(L, 2);
  luaL_openlibs(L);
  slL_search_beside_program(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_pushcfunction(L, luaopen_sluice);
  lua_setfield(L, -2, "sluice");
  luaL_requiref(L, "sluice", luaopen_sluice, 1);
  slL_core(L, "stop_on_interrupt", l_stop_on_interrupt);
  slL_core(L, "stop_asked", l_stop_asked);
  running_context = slL_context(L);
  lua_settop(L, 2);
  lua_pushboolean(L, run_all(L, argc, argv));
  return 1;
}

int main(int argc, char **argv) {
  lua_State *L = luaL_newstate();
  if (!L) {
    fputs("sluice: no memory for Lua\n", stderr);
    return 1;
  }
  lua_pushcfunction(L, protected_main);
  lua_pushinteger(L, argc);
  lua_pushlightuserdata(L, argv);
  bool ok = lua_pcall(L, 2, 1, 0) == LUA_OK;
  if (!ok) program_report(L);
  else ok = lua_toboolean(L, -1);
  lua_close(L);
  running_context = NULL;
  return ok ? 0 : 1;
}
