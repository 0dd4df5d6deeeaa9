/* Reading option tables: a field of one type, or its default, or an error that names it. */
#ifndef SLUICE_LFIELDS_H
#define SLUICE_LFIELDS_H

#include "lbind.h"

/* Each looks up t[name] in the table at idx; nil gives the default. what: "sluice.dit" for messages. */
double slL_field_number(lua_State *L, int idx, const char *what, const char *name, double def);
int64_t slL_field_integer(lua_State *L, int idx, const char *what, const char *name, int64_t def);
bool slL_field_boolean(lua_State *L, int idx, const char *what, const char *name, bool def);
const char *slL_field_string(lua_State *L, int idx, const char *what, const char *name,
                             const char *def); /* lives in the table */
/* A field that is a number 0 … 2^32-1. */
uint32_t slL_field_seed(lua_State *L, int idx, const char *what, const char *name, uint32_t def);
/* A new f32 tensor of a list of numbers, left on the stack (nil pushed and NULL for nil). */
sl_tensor *slL_field_floats(lua_State *L, int idx, const char *what, const char *name);
/* A tensor field, borrowed from the table; NULL for nil. */
sl_tensor *slL_field_tensor(lua_State *L, int idx, const char *what, const char *name);
/* An enum field by name: its position in names (NULL-terminated). */
int slL_field_choice(lua_State *L, int idx, const char *what, const char *name, const char *const *names, int def);
/* The device named by `device`; "auto" if it is not there. */
const sl_device *slL_field_device(lua_State *L, int idx, const char *what);

#endif
