#ifndef SLUICE_LCORE_H
#define SLUICE_LCORE_H
#include "lbind.h"
/* Adds f to the table that require "sluice.core" gives to the Lua part of the module. */
void slL_core(lua_State *L, const char *name, lua_CFunction f);
#endif
