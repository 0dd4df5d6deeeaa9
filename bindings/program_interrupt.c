#include "program_interrupt.h"

#include <errno.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "lcore.h"

#define STUCK_SECONDS 3

/* What the signal handler sees: the one place with globals, since a handler takes no argument. */
static lua_State *volatile running; /* the thread that runs now: the main one or a coroutine */
static sl_context *volatile running_context;
/* graceful: a training finishes its step and saves, and the first Ctrl-C only asks (stop_asked). presses: those that
 * wanted an error in this call; heard: one was raised. */
static volatile sig_atomic_t graceful, stop_asked, patient, presses, heard;
static volatile time_t first_press;

static void on_interrupt_hook(lua_State *L, lua_Debug *ar) {
  (void)ar;
  heard = 1;
  if (presses < 2) lua_sethook(L, NULL, 0, 0); /* after a second press no pcall of the user's keeps it up */
  sl_context_cancel_clear(running_context);
  luaL_error(L, "interrupted");
}

static void hook(lua_State *L) {
  lua_sethook(L, on_interrupt_hook, LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT, 1);
}

static time_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec;
}

static void end_process(int signal_number) {
  signal(signal_number, SIG_DFL);
  raise(signal_number);
}

/* A press after one that was not heard yet. */
static void hurry(int signal_number) {
  static const char text[] = "\nstill stopping; in a few seconds another Ctrl-C would end the session\n";
  if (now() - first_press >= STUCK_SECONDS) end_process(signal_number); /* when the handler returns */
  else if (presses == 1 && write(STDERR_FILENO, text, sizeof text - 1) < 0) return;
}

static void press(int signal_number) {
  if (graceful && !stop_asked) {
    stop_asked = 1;
    return;
  }
  if (!patient && graceful) {
    end_process(signal_number);
    return;
  }
  if (!patient) signal(signal_number, SIG_DFL); /* a second Ctrl-C ends the process */
  if (patient && presses && !heard) hurry(signal_number);
  if (!presses) first_press = now();
  presses++;
  if (running_context) sl_context_cancel(running_context);
  if (running) hook(running);
}

static void on_interrupt(int signal_number) {
  int error = errno; /* of what was interrupted, which may be about to look at it */
  press(signal_number);
  errno = error;
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

/* --- coroutines: a hook stops only the thread that it is set on, so who runs is noted --- */

/* Calls the function below the n arguments on the top, while `thread` runs. */
static int call_as(lua_State *L, lua_State *thread, int n) {
  lua_State *before = running;
  if (before && thread) running = thread;
  int status = lua_pcall(L, n, LUA_MULTRET, 0);
  running = before;
  if (presses && thread) {
    lua_sethook(thread, NULL, 0, 0);
    if (before && (!heard || presses > 1)) hook(L);
  }
  return status;
}

static int l_resume(lua_State *L) {
  lua_State *thread = lua_tothread(L, 1);
  luaL_argexpected(L, thread, 1, "coroutine");
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  return call_as(L, thread, lua_gettop(L) - 1) == LUA_OK ? lua_gettop(L) : lua_error(L);
}

/* Upvalues: what coroutine.wrap made, and its thread. */
static int wrapped(lua_State *L) {
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  if (call_as(L, lua_tothread(L, lua_upvalueindex(2)), lua_gettop(L) - 1) == LUA_OK) return lua_gettop(L);
  if (lua_type(L, -1) == LUA_TSTRING) { /* as coroutine.wrap does, which sees only this function */
    luaL_where(L, 1);
    lua_insert(L, -2);
    lua_concat(L, 2);
  }
  return lua_error(L);
}

static int l_wrap(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, 1);
  lua_getupvalue(L, -1, 1);
  lua_pushcclosure(L, wrapped, 2);
  return 1;
}

static void replace(lua_State *L, const char *name, lua_CFunction f) {
  lua_getfield(L, -1, name);
  lua_pushcclosure(L, f, 1);
  lua_setfield(L, -2, name);
}

/* --- the call --- */

/* Hands the error at 1 to a function of sluice.faults, while the stack still shows where it was; leaves what that
 * gives, or the error. */
static int ask_faults(lua_State *L, const char *name) {
  lua_settop(L, 1);
  lua_getglobal(L, "require");
  lua_pushliteral(L, "sluice.faults");
  if (lua_pcall(L, 1, 1, 0) == LUA_OK) {
    lua_getfield(L, -1, name);
    lua_pushvalue(L, 1);
    if (lua_pcall(L, 1, 1, 0) == LUA_OK) return 1;
  }
  lua_settop(L, 1); /* no memory, or no stack, for more */
  return 1;
}

/* The message handler. */
static int told(lua_State *L) {
  lua_sethook(L, NULL, 0, 0);
  sl_context_cancel_clear(running_context);
  return ask_faults(L, "told");
}

/* Of an error in a function that the core called back, which comes to the handler above without its stack. */
static int noted(lua_State *L) { return ask_faults(L, "note"); }

int program_call(lua_State *L, int n_args, int n_results) {
  int base = lua_gettop(L) - n_args;
  lua_pushcfunction(L, told);
  lua_insert(L, base);
  struct sigaction old, act = {.sa_handler = on_interrupt};
  sigemptyset(&act.sa_mask);
  presses = heard = 0;
  running = L;
  sigaction(SIGINT, &act, &old);
  int status = lua_pcall(L, n_args, n_results, base);
  sigaction(SIGINT, &old, NULL);
  running = NULL;
  graceful = 0;
  lua_sethook(L, NULL, 0, 0); /* the core may have stopped the work before the hook came to */
  sl_context_cancel_clear(running_context);
  lua_remove(L, base);
  return status;
}

void program_interrupt_patient(bool on) { patient = on; }

void program_interrupt_open(lua_State *L) {
  slL_core(L, "stop_on_interrupt", l_stop_on_interrupt);
  slL_core(L, "stop_asked", l_stop_asked);
  slL_watch_errors(L, noted);
  lua_getglobal(L, "coroutine");
  replace(L, "resume", l_resume);
  replace(L, "wrap", l_wrap);
  lua_pop(L, 1);
  running_context = slL_context(L);
}

void program_interrupt_close(void) { running_context = NULL; }
