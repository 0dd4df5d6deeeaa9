#ifndef SLUICE_L_IO_H
#define SLUICE_L_IO_H
#include "io/tensor_file.h"
#include "lbind.h"
/* Pushes a box with a new file of tensors in it. */
sl_tensor_file **slL_push_tensor_file(lua_State *L);
#endif
