#include "program_path.h"

#include <lauxlib.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

void slL_search_beside_program(lua_State *L) {
  char folder[PATH_MAX];
  ssize_t n = readlink("/proc/self/exe", folder, sizeof folder - 1);
  if (n <= 0) return;
  folder[n] = 0;
  char *slash = strrchr(folder, '/');
  if (!slash || strchr(folder, ';') || strchr(folder, '?')) return; /* signs with a meaning in package.path */
  *slash = 0;
  lua_getglobal(L, "package");
  lua_getfield(L, -1, "path");
  lua_pushfstring(L, "%s;%s/?.lua", lua_tostring(L, -1), folder);
  lua_setfield(L, -3, "path");
  lua_pop(L, 2);
}
