/* sluice.core: files, memory and machine, for the Lua part of the module. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/file.h"
#include "lcore.h"
#include "ops/dnnl_cpu.h"
#include "sluice/version.h"

/* --- files --- */

static int l_exists(lua_State *L) {
  struct stat s;
  lua_pushboolean(L, stat(luaL_checkstring(L, 1), &s) == 0);
  return 1;
}

static int l_make_dirs(lua_State *L) {
  slL_try(L, sl_make_dirs(luaL_checkstring(L, 1)));
  return 0;
}

/* core.make_dir(path): true if it was not there before; makes no parents. */
static int l_make_dir(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  bool made = mkdir(path, 0777) == 0;
  if (!made && errno != EEXIST) slL_error(L, "%s: cannot make the folder: %s", path, strerror(errno));
  lua_pushboolean(L, made);
  return 1;
}

/* core.list(path): names in a folder, sorted; an empty list where there is none. */
static int l_list(lua_State *L) {
  struct dirent **names = NULL;
  int n = scandir(luaL_checkstring(L, 1), &names, NULL, alphasort);
  lua_newtable(L);
  for (int i = 0, k = 0; i < n; i++) {
    if (strcmp(names[i]->d_name, ".") != 0 && strcmp(names[i]->d_name, "..") != 0) {
      lua_pushstring(L, names[i]->d_name);
      lua_rawseti(L, -2, ++k);
    }
    free(names[i]);
  }
  free(names);
  return 1;
}

/* core.absolute(path): with links resolved; the path itself where there is no such file. */
static int l_absolute(lua_State *L) {
  char whole[PATH_MAX];
  const char *path = luaL_checkstring(L, 1);
  lua_pushstring(L, realpath(path, whole) ? whole : path);
  return 1;
}

/* core.write(path, text): whole or not at all. */
static int l_write(lua_State *L) {
  size_t n;
  const char *path = luaL_checkstring(L, 1), *text = luaL_checklstring(L, 2, &n);
  sl_file_writer *w;
  slL_try(L, sl_file_writer_open(slL_context(L), path, &w));
  sl_status s = sl_file_write(w, text, n);
  if (s == SL_STATUS_OK) s = sl_file_commit(w);
  else sl_file_abort(w);
  slL_try(L, s);
  return 0;
}

/* core.disk_room(path): bytes that may still be written where this file or folder lies. */
static int l_disk_room(lua_State *L) {
  struct statvfs s;
  const char *path = luaL_checkstring(L, 1);
  if (statvfs(path, &s) != 0) slL_error(L, "%s: %s", path, strerror(errno));
  lua_pushinteger(L, (lua_Integer)((uint64_t)s.f_bavail * s.f_frsize));
  return 1;
}

/* --- memory --- */

static uint64_t number_in(const char *path, const char *key) {
  char line[256];
  unsigned long long kib = 0;
  FILE *f = fopen(path, "r");
  if (!f) return 0;
  size_t n = strlen(key);
  while (fgets(line, sizeof line, f))
    if (!strncmp(line, key, n) && sscanf(line + n, ":%llu", &kib) == 1) break;
  fclose(f);
  return kib * 1024;
}

/* Bytes of the process in memory; 0 where the system does not tell. */
static int l_resident(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)number_in("/proc/self/status", "VmRSS"));
  return 1;
}

/* --- tensors --- */

/* core.assign(to, from): copies into the tensor's memory; shapes must agree. */
static int l_assign(lua_State *L) {
  sl_tensor *to = slL_check_tensor(L, 1), *from = slL_check_tensor(L, 2);
  if (!sl_shape_equal(sl_tensor_shape(to), sl_tensor_shape(from))) {
    const char *have = lua_pushstring(L, sl_shape_text(sl_tensor_shape(from)));
    slL_error(L, "is %s, expected %s", have, sl_shape_text(sl_tensor_shape(to)));
  }
  slL_try(L, sl_tensor_copy(to, from));
  sl_tensor_bump(to);
  return 0;
}

/* core.digest(tensor or string): XXH3 of its bytes, 16 hexadecimal digits */
static int l_digest(lua_State *L) {
  char text[24];
  uint64_t h;
  if (lua_type(L, 1) == LUA_TSTRING) {
    size_t n;
    const char *s = lua_tolstring(L, 1, &n);
    h = XXH3_64bits(s, n);
  } else {
    sl_tensor *t = slL_check_tensor(L, 1), **copy = slL_push_tensor(L);
    slL_try(L, sl_tensor_to(t, sl_tensor_dtype(t), &sl_device_cpu, copy));
    h = XXH3_64bits(sl_tensor_data(*copy), (size_t)sl_tensor_numel(*copy) * sl_dtype_size(sl_tensor_dtype(*copy)));
  }
  snprintf(text, sizeof text, "%016" PRIx64, h);
  lua_pushstring(L, text);
  return 1;
}

/* --- the machine --- */

static void push_cpu_name(lua_State *L) {
  char line[256];
  FILE *f = fopen("/proc/cpuinfo", "r");
  const char *name = "unknown";
  while (f && fgets(line, sizeof line, f)) {
    char *colon = strchr(line, ':');
    if (strncmp(line, "model name", 10) != 0 || !colon) continue;
    line[strcspn(line, "\n")] = 0;
    name = colon + 1 + strspn(colon + 1, " ");
    break;
  }
  lua_pushstring(L, name);
  if (f) fclose(f);
}

static void set_text(lua_State *L, const char *key, const char *text) {
  lua_pushstring(L, text);
  lua_setfield(L, -2, key);
}

/* core.machine(device): what a run's numbers may depend on. */
static int l_machine(lua_State *L) {
  lua_settop(L, 1);
  sl_context *ctx = slL_context(L);
  struct utsname u;
  lua_createtable(L, 0, 8);
  push_cpu_name(L);
  lua_setfield(L, -2, "cpu");
  if (uname(&u) == 0) {
    set_text(L, "host", u.nodename);
    lua_pushfstring(L, "%s %s", u.sysname, u.release);
    lua_setfield(L, -2, "system");
  }
  set_text(L, "sluice", SLUICE_VERSION);
  set_text(L, "onednn", sl_dnnl_version());
  set_text(L, "kernels", sl_isa_name(sl_context_isa(ctx)));
  set_text(L, "device", luaL_optstring(L, 1, "cpu"));
  lua_pushinteger(L, sl_context_threads(ctx)), lua_setfield(L, -2, "threads");
  return 1;
}

static int l_clock(lua_State *L) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  lua_pushnumber(L, (lua_Number)t.tv_sec + 1e-9 * (lua_Number)t.tv_nsec);
  return 1;
}

static int l_isatty(lua_State *L) {
  lua_pushboolean(L, isatty(STDERR_FILENO));
  return 1;
}

void slL_open_system(lua_State *L) {
  static const luaL_Reg functions[] = {{"clock", l_clock},         {"isatty", l_isatty},
                                       {"exists", l_exists},       {"make_dirs", l_make_dirs},
                                       {"make_dir", l_make_dir},   {"list", l_list},
                                       {"write", l_write},         {"absolute", l_absolute},
                                       {"disk_room", l_disk_room}, {"resident", l_resident},
                                       {"assign", l_assign},       {"digest", l_digest},
                                       {"machine", l_machine},     {NULL, NULL}};
  for (const luaL_Reg *f = functions; f->name; f++) slL_core(L, f->name, f->func);
}
