/* What the files about tensors share among themselves. */
#ifndef SLUICE_L_TENSOR_H
#define SLUICE_L_TENSOR_H

#include "lbind.h"

#define SLL_TENSOR "sluice.tensor"

int slL_tensor_index(lua_State *L);    /* __index (l_index.c); upvalues: the methods, whether Lua's are among them */
int slL_tensor_newindex(lua_State *L); /* __newindex */
int slL_tensor_totable(lua_State *L);
int slL_tensor_tostring(lua_State *L); /* __tostring (l_print.c) */

#endif
