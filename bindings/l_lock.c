/* sluice.core: locks of folders, so that two processes do not write one run. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "lcore.h"

#define LOCK "sluice.lock"

/* The process that holds a lock of the open file, as the kernel lists them; 0: unknown. */
static long holder_of(int fd) {
  struct stat s;
  char line[256];
  long holder = 0;
  FILE *f = fstat(fd, &s) == 0 ? fopen("/proc/locks", "r") : NULL;
  while (f && !holder && fgets(line, sizeof line, f)) {
    long pid;
    unsigned long long inode;
    if (sscanf(line, "%*d: FLOCK %*s %*s %ld %*x:%*x:%llu", &pid, &inode) == 2 && inode == s.st_ino) holder = pid;
  }
  if (f) fclose(f);
  return holder;
}

typedef enum answer { HAD, HELD, UNKNOWN } answer; /* UNKNOWN: the file system has no locks */

/* Again for a moment: who only looks whether there is a lock takes one, too. */
static answer lock_now(int fd, int how) {
  for (int i = 0; i < 10; i++) {
    if (flock(fd, how | LOCK_NB) == 0) return HAD;
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) return UNKNOWN;
    if (how == LOCK_SH) return HELD;
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
  }
  return HELD;
}

/* Pushes the name of the folder's file that is locked: one that can be written, as NFS wants, and stays, as a new file
 * of its name would be another. */
static const char *push_name(lua_State *L) { return lua_pushfstring(L, "%s/.lock", luaL_checkstring(L, 1)); }

/* core.lock_folder(path) -> lock, or nil and the number of the process that has it (0: unknown). It ends with close
 * (`<close>`), with its collection or with the process, however that ends. A folder that cannot be written to is
 * nobody's. */
static int l_lock_folder(lua_State *L) {
  int *fd = lua_newuserdatauv(L, sizeof *fd, 0);
  *fd = -1;
  luaL_setmetatable(L, LOCK);
  *fd = open(push_name(L), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  lua_pop(L, 1);
  if (*fd < 0 || lock_now(*fd, LOCK_EX) != HELD) return 1;
  lua_pushnil(L);
  lua_pushinteger(L, holder_of(*fd));
  close(*fd);
  *fd = -1;
  return 2;
}

/* core.lock_holder(path): the process that has the folder's lock (0: unknown), nil if it can be had, false where that
 * cannot be told. */
static int l_lock_holder(lua_State *L) {
  int fd = open(push_name(L), O_RDONLY | O_CLOEXEC);
  answer a = fd < 0 ? HAD : lock_now(fd, LOCK_SH);
  if (a == HELD) lua_pushinteger(L, holder_of(fd));
  else if (a == UNKNOWN) lua_pushboolean(L, false);
  else lua_pushnil(L);
  if (fd >= 0) close(fd);
  return 1;
}

static int l_close(lua_State *L) {
  int *fd = luaL_checkudata(L, 1, LOCK);
  if (*fd >= 0) close(*fd);
  *fd = -1;
  return 0;
}

void slL_open_lock(lua_State *L) {
  static const luaL_Reg meta[] = {{"__gc", l_close}, {"__close", l_close}, {NULL, NULL}};
  slL_class(L, LOCK, meta, NULL);
  slL_core(L, "lock_folder", l_lock_folder);
  slL_core(L, "lock_holder", l_lock_holder);
}
