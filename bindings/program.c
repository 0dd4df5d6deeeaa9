/* The program `sluice`: runs Lua files as lua5.4 does, with the module inside; its other commands are
 * lua/sluice/cli.lua. */
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <lualib.h>

#include "program_interrupt.h"
#include "program_path.h"
#include "program_prompt.h"
#include "sluice/version.h"

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
  /* who reads the progress may leave; the run goes on */
  if (!strcmp(argv[1], "train") || !strcmp(argv[1], "sweep")) signal(SIGPIPE, SIG_IGN);
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

/* --- options, as lua5.4 has them --- */

typedef struct options {
  int script; /* position in argv of the first that is no option; argc if none */
  bool interactive, executed, version, no_environment, help;
  const char *bad; /* an option that is none, or lacks its value */
} options;

static const char usage[] =
    "usage: sluice [OPTIONS] [FILE [ARGS]]   a prompt, or a Lua file; - is standard input\n"
    "  -e CODE   runs CODE           -i  a prompt after FILE or CODE   -v, --version\n"
    "  -l NAME   NAME = require NAME (-l GLOBAL=NAME)                  -W  warnings on\n"
    "  -E        heeds neither LUA_INIT nor LUA_PATH nor LUA_CPATH     --  ends the options\n"
    "       sluice run FILE [ARGS]\n"
    "       sluice COMMAND …   `sluice help` lists the commands: train, sample, runs, inspect …\n"
    "At the prompt: Tab completes, the arrow keys recall earlier lines, Ctrl-R searches them, Ctrl-C drops the line\n"
    "or stops what runs, Ctrl-D leaves; help() tells more.\n"
    "Environment: LUA_INIT_5_4, LUA_INIT as for lua5.4; SLUICE_INIT and SLUICE_HISTORY name the prompt's start-up\n"
    "file (~/.config/sluice/init.lua) and its history (~/.local/state/sluice/history), none if they are empty.\n";

/* Whether sluice.cli has a command of this name. */
static bool has_command(lua_State *L, const char *name) {
  const int top = lua_gettop(L);
  bool has = false;
  lua_getglobal(L, "require");
  lua_pushliteral(L, "sluice.cli");
  if (program_call(L, 1, 1) == LUA_OK) {
    lua_getfield(L, -1, "has");
    lua_pushstring(L, name);
    has = program_call(L, 1, 1) == LUA_OK && lua_toboolean(L, -1);
  }
  lua_settop(L, top);
  return has;
}

/* What is no file, neither by its name nor in fact; and a command though a file or folder has its name (./train is that
 * file). */
static bool is_command(lua_State *L, const char *word) {
  if (strchr(word, '.') || strchr(word, '/') || !*word || !strcmp(word, "-")) return false;
  return access(word, F_OK) != 0 || has_command(L, word);
}

/* One option without a value; false if there is none of that name. */
static bool read_flag(options *o, const char *a) {
  if (!strcmp(a, "-i")) o->interactive = true;
  else if (!strcmp(a, "-v") || !strcmp(a, "--version")) o->version = true;
  else if (!strcmp(a, "-E")) o->no_environment = true;
  else if (!strcmp(a, "--help") || !strcmp(a, "-h")) o->help = true;
  else return !strcmp(a, "-W");
  return true;
}

static options read_options(int argc, char **argv) {
  options o = {.script = argc};
  for (int i = 1; i < argc && !o.help; i++) {
    const char *a = argv[i];
    if (a[0] != '-' || !a[1]) return o.script = i, o;
    if (!strcmp(a, "--")) return o.script = i + 1, o;
    if (a[1] == 'e' || a[1] == 'l') {
      if (!a[2] && (i + 1 == argc || argv[i + 1][0] == '-')) return o.bad = a, o;
      i += !a[2];
      o.executed |= a[1] == 'e';
    } else if (!read_flag(&o, a)) {
      return o.bad = a, o;
    }
  }
  return o;
}

/* -e, -l and -W in the order given. */
static bool run_options(lua_State *L, int end, char **argv) {
  for (int i = 1; i < end; i++) {
    const char *a = argv[i];
    if (a[0] == '-' && a[1] == 'W') lua_warning(L, "@on", 0);
    if (a[0] != '-' || (a[1] != 'e' && a[1] != 'l')) continue;
    const char *text = a[2] ? a + 2 : argv[++i];
    if (a[1] == 'l' && !run_library(L, text)) return false;
    if (a[1] == 'e' && !run_chunk(L, luaL_loadbuffer(L, text, strlen(text), "=(command line)"), false)) return false;
  }
  return true;
}

/* LUA_INIT_5_4, else LUA_INIT: code, or @ and the name of a file. */
static bool run_lua_init(lua_State *L) {
  const char *name = "LUA_INIT_" LUA_VERSION_MAJOR "_" LUA_VERSION_MINOR, *text = getenv(name);
  if (!text) text = getenv(name = "LUA_INIT");
  if (!text) return true;
  if (text[0] == '@') return run_chunk(L, luaL_loadfile(L, text + 1), false);
  const char *chunk = lua_pushfstring(L, "=%s", name);
  bool ok = run_chunk(L, luaL_loadbuffer(L, text, strlen(text), chunk), false);
  lua_pop(L, 1);
  return ok;
}

static void print_version(void) {
  printf("Sluice %s, %s\n", SLUICE_VERSION, LUA_RELEASE);
  fflush(stdout);
}

/* What lua5.4 does with its arguments. */
static bool run_as_lua(lua_State *L, int argc, char **argv, const options *o) {
  bool file = o->script < argc, asked = o->executed || o->version;
  bool prompt = o->interactive || (!file && !asked && isatty(STDIN_FILENO));
  if (o->version || prompt) print_version();
  set_arg(L, argc, argv, file ? o->script : 0);
  if (!o->no_environment && !run_lua_init(L)) return false;
  if (!run_options(L, o->script, argv)) return false;
  if (file && !run_file(L, argv[o->script])) return false;
  if (prompt) program_prompt(L);
  else if (!file && !asked) return run_file(L, "-");
  return true;
}

static bool run_all(lua_State *L, int argc, char **argv, const options *o) {
  bool first = o->script == 1 && argc > 1;
  if (first && argc > 2 && !strcmp(argv[1], "run")) {
    set_arg(L, argc, argv, 2);
    return run_lua_init(L) && run_file(L, argv[2]);
  }
  if (first && is_command(L, argv[1])) return run_command(L, argc, argv);
  return run_as_lua(L, argc, argv, o);
}

static int protected_main(lua_State *L) {
  int argc = (int)lua_tointeger(L, 1);
  char **argv = lua_touserdata(L, 2);
  options o = read_options(argc, argv);
  if (o.help) fputs(usage, stdout);
  if (o.bad)
    fprintf(stderr, "sluice: %s: %s; sluice --help lists the options\n", o.bad,
            !strcmp(o.bad, "-e") || !strcmp(o.bad, "-l") ? "needs a value" : "there is no such option");
  if (o.bad || o.help) {
    lua_pushboolean(L, !o.bad);
    return 1;
  }
  if (o.no_environment) { /* package and the rest look for this */
    lua_pushboolean(L, true);
    lua_setfield(L, LUA_REGISTRYINDEX, "LUA_NOENV");
  }
  lua_gc(L, LUA_GCINC, 150, 0, 0); /* tensors' memory is several times what Lua sees of it: collect sooner */
  luaL_openlibs(L);
  slL_search_beside_program(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_pushcfunction(L, luaopen_sluice);
  lua_setfield(L, -2, "sluice");
  luaL_requiref(L, "sluice", luaopen_sluice, 1);
  program_interrupt_open(L);
  lua_settop(L, 2);
  lua_pushboolean(L, run_all(L, argc, argv, &o));
  return 1;
}

/* OpenMP's threads wait for each other by spinning, for milliseconds unless told otherwise; beside another busy process
 * that makes every parallel part last as long as that one's turn: two to ten times slower were measured. A thousand
 * turns of the loop are as fast on an idle machine. libgomp reads this before main: hence once more from the start. */
static void spin_briefly(char **argv) {
  char path[PATH_MAX];
  if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY") || setenv("GOMP_SPINCOUNT", "1000", 1) != 0) return;
  ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
  if (n <= 0) return;
  path[n] = 0;
  execv(path, argv); /* returns only if it cannot be: then it is as it was */
}

int main(int argc, char **argv) {
  spin_briefly(argv);
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
  program_interrupt_close();
  lua_close(L);
  return ok ? 0 : 1;
}
