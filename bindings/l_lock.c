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

/* Again for a moment: who only looks whether there is a lock takes one, too. */
static bool lock_now(int fd, int how) {
  for (int i = 0; i < 10; i++) {
    if (flock(fd, how | LOCK_NB) == 0) return true;
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) return true; /* a file system without locks: nobody has one */
    if (how == LOCK_SH) return false;
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
  }
  return false;
}

static int open_folder(lua_State *L) { return open(luaL_checkstring(L, 1), O_RDONLY | O_DIRECTORY | O_CLOEXEC); }

/* core.lock_folder(path) -> lock, or nil and the number of the process that has it (0: unknown). It ends with close
 * (`<close>`), with its collection or with the process, however that ends, and leaves nothing behind. A folder that
 * cannot be opened is nobody's. */
static int l_lock_folder(lua_State *L) {
  int *fd = lua_newuserdatauv(L, sizeof *fd, 0);
  *fd = -1;
  luaL_setmetatable(L, LOCK);
  *fd = open_folder(L);
  if (*fd < 0 || lock_now(*fd, LOCK_EX)) return 1;
  lua_pushnil(L);
  lua_pushinteger(L, holder_of(*fd));
  close(*fd);
  *fd = -1;
  return 2;
}

/* core.lock_holder(path): the process that has the folder's lock (0: unknown), or nil. */
static int l_lock_holder(lua_State *L) {
  int fd = open_folder(L);
  if (fd < 0 || lock_now(fd, LOCK_SH)) lua_pushnil(L);
  else lua_pushinteger(L, holder_of(fd));
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
