/* The state behind a lua_State, and how the bindings raise errors. */
#include "lbind.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STATE "sluice.state"
#define EAGER_PROGRAMS 256
#define ACCOUNT_BYTES (128 << 10)

/* Its user value is the error that slL_keep_error was given last. */
typedef struct state {
  lua_State *main;
  sl_context *ctx;
  sl_eager *eager;
  uint32_t seed;
  uint64_t known_bytes; /* of the context, as the collector was told */
  void *programs;
  void (*release_programs)(void *);
  sl_status kept_status; /* of the failure that it stands for, and the text */
  char kept_text[1024];
} state;

static const char state_key, watcher_key;

/* --- state --- */

static void on_log(void *user, const char *text) {
  (void)user;
  fprintf(stderr, "sluice: %s\n", text);
}

/* Runs on the thread that owns the lua_State, from inside sl_alloc. In a finalizer lua_gc does nothing. */
static void on_pressure(void *user) { lua_gc(((state *)user)->main, LUA_GCCOLLECT); }

static int state_gc(lua_State *L) {
  state *s = luaL_checkudata(L, 1, STATE);
  if (s->programs) s->release_programs(s->programs);
  sl_eager_free(s->eager);
  sl_context_free(s->ctx);
  *s = (state){0};
  lua_pushnil(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &state_key);
  return 0;
}

uint64_t slL_parse_bytes(lua_State *L, const char *what, const char *text) {
  const char *units = "kMGT", *unit = NULL;
  char *end = NULL;
  double n = strtod(text, &end);
  if (end != text && *end) unit = strchr(units, *end == 'K' ? 'k' : *end);
  if (unit) end += 1 + (end[1] == 'B');
  for (int i = unit ? (int)(unit - units) : -1; i >= 0; i--) n *= 1024;
  if (end == text || *end || !(n >= 1) || n > 0x1p62)
    slL_error(L, "%s is \"%s\", expected bytes, as 500M or 24G", what, text);
  return (uint64_t)n;
}

/* SLUICE_MEMORY, or what the machine has. */
static uint64_t memory_limit(lua_State *L) {
  const char *text = getenv("SLUICE_MEMORY");
  if (text && *text) return slL_parse_bytes(L, "SLUICE_MEMORY", text);
  long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
  return pages > 0 && size > 0 ? (uint64_t)pages * (uint64_t)size : 0;
}

void slL_open_state(lua_State *L) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &state_key) != LUA_TNIL) {
    lua_pop(L, 1);
    return;
  }
  lua_pop(L, 1);
  state *s = lua_newuserdatauv(L, sizeof *s, 1);
  *s = (state){0};
  luaL_newmetatable(L, STATE);
  lua_pushcfunction(L, state_gc);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
  s->main = lua_tothread(L, -1);
  lua_pop(L, 1);
  sl_context_options o = {.log = on_log, .pressure = on_pressure, .user = s, .memory_limit = memory_limit(L)};
  slL_try(L, sl_context_new(&o, &s->ctx));
  slL_try(L, sl_eager_new(s->ctx, EAGER_PROGRAMS, &s->eager));
  lua_rawsetp(L, LUA_REGISTRYINDEX, &state_key);
}

static state *state_of(lua_State *L) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &state_key);
  state *s = lua_touserdata(L, -1);
  lua_pop(L, 1);
  if (!s) luaL_error(L, "sluice is being closed"); /* a finalizer that runs after ours */
  return s;
}

sl_context *slL_context(lua_State *L) { return state_of(L)->ctx; }
sl_eager *slL_eager(lua_State *L) { return state_of(L)->eager; }
uint32_t slL_next_seed(lua_State *L) { return state_of(L)->seed++; }
void slL_set_seed(lua_State *L, uint32_t seed) { state_of(L)->seed = seed; }

void **slL_program_cache(lua_State *L, void (*release)(void *)) {
  state *s = state_of(L);
  s->release_programs = release;
  return &s->programs;
}

static uint64_t bytes_now(const state *s) {
  sl_memory m = sl_context_memory(s->ctx);
  return m.bytes + m.device_bytes;
}

void slL_account(lua_State *L) {
  state *s = state_of(L);
  uint64_t now = bytes_now(s);
  if (now < s->known_bytes) s->known_bytes = now;
  if (now - s->known_bytes < ACCOUNT_BYTES) return;
  uint64_t kib = (now - s->known_bytes) / 1024;
  s->known_bytes = now; /* first: finalizers come back here */
#if LUA_VERSION_NUM >= 505
  lua_gc(L, LUA_GCSTEP, (size_t)kib * 1024);
#else
  lua_gc(L, LUA_GCSTEP, kib > 1 << 20 ? 1 << 20 : (int)kib);
#endif
  now = bytes_now(s);
  if (now < s->known_bytes) s->known_bytes = now;
}

/* --- errors --- */

bool slL_push_place(lua_State *L, const char *end) {
  lua_Debug ar;
  for (int level = 0; lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "Sl", &ar);
    if (ar.currentline <= 0 || !strncmp(ar.short_src, "[sluice.", 8)) continue;
    lua_pushfstring(L, "%s:%d%s", ar.short_src, ar.currentline, end);
    return true;
  }
  lua_pushliteral(L, "");
  return false;
}

int slL_error(lua_State *L, const char *fmt, ...) {
  (void)slL_push_place(L, ": ");
  va_list args;
  va_start(args, fmt);
  lua_pushvfstring(L, fmt, args);
  va_end(args);
  lua_concat(L, 2);
  return lua_error(L);
}

/* Not by lua_rawsetp into the registry: that may need memory, and so raise. */
void slL_keep_error(lua_State *L, sl_status status) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &state_key);
  state *s = lua_touserdata(L, -1);
  if (s) {
    s->kept_status = status;
    snprintf(s->kept_text, sizeof s->kept_text, "%s", sl_error());
    lua_pushvalue(L, -2);
    lua_setiuservalue(L, -2, 1);
  }
  lua_pop(L, 2);
}

sl_status slL_fail(lua_State *L, sl_status status, const char *what) {
  const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "the function raised an error";
  (void)sl_fail(status, "%s: %s", what, text);
  slL_keep_error(L, status);
  return status;
}

/* A message handler: the error stays what it is. */
static int show_watcher(lua_State *L) {
  lua_settop(L, 1);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &watcher_key) == LUA_TFUNCTION) {
    lua_pushvalue(L, 1);
    (void)lua_pcall(L, 1, 0, 0);
  }
  lua_settop(L, 1);
  return 1;
}

int slL_pcall(lua_State *L, int n_args, int n_results) {
  int base = lua_gettop(L) - n_args;
  lua_pushcfunction(L, show_watcher);
  lua_insert(L, base);
  int status = lua_pcall(L, n_args, n_results, base);
  lua_remove(L, base);
  return status;
}

void slL_watch_errors(lua_State *L, lua_CFunction watcher) {
  lua_pushcfunction(L, watcher);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &watcher_key);
}

static bool ends_with(const char *text, const char *end) {
  size_t n = strlen(text), k = strlen(end);
  return n >= k && !strcmp(text + n - k, end);
}

/* Pushes the error that was kept, if this failure is the one that it was kept for; contexts may have been put before
 * the text. */
static bool push_kept(lua_State *L, sl_status status) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &state_key);
  state *s = lua_touserdata(L, -1);
  bool same = s && s->kept_text[0] && s->kept_status == status && ends_with(sl_error(), s->kept_text);
  if (same) {
    lua_getiuservalue(L, -1, 1);
    lua_pushnil(L);
    lua_setiuservalue(L, -3, 1);
    s->kept_text[0] = 0;
    lua_remove(L, -2);
  } else {
    lua_pop(L, 1);
  }
  return same;
}

int slL_try(lua_State *L, sl_status s) {
  if (s == SL_STATUS_OK) return 1;
  if (push_kept(L, s)) return lua_error(L);
  return slL_error(L, "%s", s == SL_STATUS_CANCELLED ? "interrupted" : sl_error());
}

static const char *what_tensor(lua_State *L, const sl_tensor *t) {
  if (!t) return lua_pushliteral(L, "a released tensor");
  return lua_pushfstring(L, "a tensor of numbers (%s %s)", sl_dtype_name(sl_tensor_dtype(t)),
                         sl_shape_text(sl_tensor_shape(t)));
}

const char *slL_what(lua_State *L, int idx) {
  switch (lua_type(L, idx)) {
    case LUA_TNONE: return lua_pushliteral(L, "missing");
    case LUA_TNIL:
    case LUA_TBOOLEAN:
    case LUA_TNUMBER: return luaL_tolstring(L, idx, NULL);
    case LUA_TSTRING: {
      size_t n;
      const char *text = lua_tolstring(L, idx, &n);
      return n > 60 ? lua_pushliteral(L, "a long string") : lua_pushfstring(L, "\"%s\"", text);
    }
    default:
      if (slL_is_symbolic(L, idx)) return lua_pushliteral(L, "a symbolic tensor");
      if (slL_is_tensor(L, idx)) return what_tensor(L, slL_test_tensor(L, idx));
      idx = lua_absindex(L, idx);
      if (luaL_getmetafield(L, idx, "__name") == LUA_TNIL) return lua_pushfstring(L, "a %s", luaL_typename(L, idx));
      lua_pushfstring(L, "a %s", lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : luaL_typename(L, idx));
      lua_remove(L, -2);
      return lua_tostring(L, -1);
  }
}

/* --- names --- */

/* Levenshtein's distance, for names of up to 63 letters. */
static int distance(const char *a, const char *b) {
  int row[64], n = (int)strlen(b);
  if (n > 63) return 1000;
  for (int j = 0; j <= n; j++) row[j] = j;
  for (int i = 1; *a; a++, i++) {
    int corner = row[0];
    row[0] = i;
    for (int j = 1; j <= n; j++) {
      int change = corner + (*a != b[j - 1]), less = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
      corner = row[j];
      row[j] = change < less ? change : less;
    }
  }
  return row[n];
}

const char *slL_nearest(const char *name, const char *const *names) {
  const char *best = NULL;
  size_t length = strlen(name);
  int least = (int)(length > 60 ? 60 : length) / 2 + 2; /* further off, it is another word */
  for (int i = 0; length <= 60 && names[i]; i++) {
    int d = distance(name, names[i]);
    if (d >= least) continue;
    least = d;
    best = names[i];
  }
  return best;
}

int slL_unknown(lua_State *L, const char *what, const char *kind, const char *name, const char *const *names) {
  const char *near = slL_nearest(name, names);
  if (near) return slL_error(L, "%s: unknown %s \"%s\"; did you mean \"%s\"?", what, kind, name, near);
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  for (int i = 0; names[i]; i++) {
    if (i) luaL_addstring(&b, ", ");
    luaL_addstring(&b, names[i]);
  }
  luaL_pushresult(&b);
  return slL_error(L, "%s: unknown %s \"%s\"; there are: %s", what, kind, name, lua_tostring(L, -1));
}

void slL_options(lua_State *L, int idx, const char *what, const char *const *names) {
  idx = lua_absindex(L, idx);
  luaL_checkstack(L, 8, what);
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
    if (lua_isinteger(L, -2) && lua_tointeger(L, -2) == 1) continue;
    if (lua_type(L, -2) != LUA_TSTRING) slL_error(L, "%s: unknown field %s", what, slL_what(L, -2));
    const char *key = lua_tostring(L, -2);
    bool known = false;
    for (int i = 0; names[i] && !known; i++) known = !strcmp(names[i], key);
    if (!known) slL_unknown(L, what, "field", key, names);
  }
}
