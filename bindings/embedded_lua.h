/* The Lua files of lua/sluice, carried inside the module and the program. The table is made by the build
 * (cmake/EmbedLua.cmake). */
#ifndef SL_BINDINGS_EMBEDDED_LUA_H
#define SL_BINDINGS_EMBEDDED_LUA_H

#include <stddef.h>

struct sl_embedded_lua {
  const char *name; /* what require takes: lua/sluice/foo.lua is "sluice.foo" */
  const unsigned char *data;
  size_t size; /* bytes of the file */
};

extern const struct sl_embedded_lua sl_embedded_lua[]; /* ends with a row whose name is NULL */

#endif
