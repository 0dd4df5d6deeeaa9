#ifndef SLUICE_L_MODEL_H
#define SLUICE_L_MODEL_H
#include "lbind.h"
#include "model/model.h"
sl_model **slL_push_model(lua_State *L); /* an empty box with a model's metatable */
sl_model *slL_check_model(lua_State *L, int idx);
sl_model *slL_field_model(lua_State *L, int idx, const char *what);        /* t.model, required */
sl_precision slL_field_precision(lua_State *L, int idx, const char *what); /* t.precision and t.residual */
/* The options that every architecture has: t.timesteps (1000), seed (0), precision and residual; device is checked. */
sl_model_options slL_field_model_options(lua_State *L, int idx, const char *what);
/* The name at t[1]; NULL for none. */
const char *slL_preset_name(lua_State *L, int idx, const char *what, const char *example);
/* Adds an architecture to the module, whose table is on the top: sluice.<name> = make. make takes a table of options.
 */
void slL_model_kind(lua_State *L, const char *name, lua_CFunction make);
#endif
