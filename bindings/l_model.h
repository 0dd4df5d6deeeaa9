#ifndef SLUICE_L_MODEL_H
#define SLUICE_L_MODEL_H
#include "lbind.h"
#include "model/model.h"
sl_model *slL_check_model(lua_State *L, int idx);
sl_model *slL_field_model(lua_State *L, int idx, const char *what);        /* t.model, required */
sl_precision slL_field_precision(lua_State *L, int idx, const char *what); /* t.precision and t.residual */
#endif
