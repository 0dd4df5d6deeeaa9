/* The file of lines typed in earlier sessions. Every change is made under a lock on the file, so that sessions beside
 * each other keep what the others write; a line is there whole or not at all. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "program_prompt.h"

static int failed(lua_State *L, const char *path) {
  lua_pushnil(L);
  lua_pushfstring(L, "%s: %s", path, strerror(errno));
  return 2;
}

/* The file, locked; another process may have put a new one in its place while this one waited. -1 and errno. */
static int open_locked(const char *path) {
  for (;;) {
    struct stat mine, now;
    int fd = open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0600);
    if (fd < 0) return -1;
    if (flock(fd, LOCK_EX) == 0 && fstat(fd, &mine) == 0 && stat(path, &now) == 0 && mine.st_ino == now.st_ino &&
        mine.st_dev == now.st_dev)
      return fd;
    int error = errno;
    close(fd);
    if (error != ENOENT && error != EINTR && error != 0) {
      errno = error;
      return -1;
    }
  }
}

static bool write_all(int fd, const char *text, size_t n) {
  while (n) {
    ssize_t k = write(fd, text, n);
    if (k < 0 && errno == EINTR) continue;
    if (k <= 0) return false;
    text += k;
    n -= (size_t)k;
  }
  return true;
}

int history_append(lua_State *L) {
  size_t n;
  const char *path = luaL_checkstring(L, 1), *text = luaL_checklstring(L, 2, &n);
  int fd = open_locked(path);
  if (fd < 0) return failed(L, path);
  struct stat s;
  bool ok = fstat(fd, &s) == 0 && write_all(fd, text, n);
  int error = errno;
  if (!ok && S_ISREG(s.st_mode) && ftruncate(fd, s.st_size) != 0) error = errno; /* nothing of a line is left */
  close(fd);
  errno = error;
  if (!ok) return failed(L, path);
  lua_pushboolean(L, true);
  return 1;
}

/* Writes a file beside it and moves it there. */
static bool replace_file(const char *path, const char *beside, const char *text, size_t n) {
  int fd = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  bool ok = fd >= 0 && write_all(fd, text, n);
  if (fd >= 0 && close(fd) != 0) ok = false;
  if (ok && rename(beside, path) == 0) return true;
  int error = errno;
  if (fd >= 0) unlink(beside);
  errno = error;
  return false;
}

/* Pushes all that is in the file. */
static bool push_content(lua_State *L, int fd) {
  char part[8192];
  struct stat s;
  luaL_Buffer b;
  if (fstat(fd, &s) != 0) return false;
  if (!S_ISREG(s.st_mode)) { /* a device may have no end */
    lua_pushliteral(L, "");
    return true;
  }
  luaL_buffinit(L, &b);
  ssize_t n;
  off_t at = 0;
  while ((n = pread(fd, part, sizeof part, at)) > 0) {
    luaL_addlstring(&b, part, (size_t)n);
    at += n;
  }
  luaL_pushresult(&b);
  return n == 0;
}

/* path, function, the file's descriptor: what history_replace returns. */
static int replace_locked(lua_State *L) {
  const char *path = lua_tostring(L, 1), *beside = lua_pushfstring(L, "%s.%d", path, (int)getpid());
  lua_pushvalue(L, 2);
  if (!push_content(L, (int)lua_tointeger(L, 3))) return failed(L, path);
  if (lua_pcall(L, 1, 1, 0) == LUA_OK && lua_type(L, -1) == LUA_TSTRING) {
    size_t n;
    const char *text = lua_tolstring(L, -1, &n);
    if (!replace_file(path, beside, text, n)) return failed(L, path);
  }
  lua_pushboolean(L, true);
  return 1;
}

/* Protected while the file is locked: one that stays open would lock out this session's own next line. */
int history_replace(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_settop(L, 2);
  int fd = open_locked(path);
  if (fd < 0) return failed(L, path);
  lua_pushcfunction(L, replace_locked);
  lua_insert(L, 1);
  lua_pushinteger(L, fd);
  int status = lua_pcall(L, 3, LUA_MULTRET, 0);
  close(fd);
  return status == LUA_OK ? lua_gettop(L) : lua_error(L);
}
