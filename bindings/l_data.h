#ifndef SLUICE_L_DATA_H
#define SLUICE_L_DATA_H
#include "data/dataset.h"
#include "lbind.h"
/* t[name]; NULL for nil. */
sl_dataset *slL_field_dataset(lua_State *L, int idx, const char *what, const char *name);
#endif
