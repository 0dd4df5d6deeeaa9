#ifndef SLUICE_L_DIFFUSION_H
#define SLUICE_L_DIFFUSION_H
#include "diffusion/process.h"
#include "lbind.h"
sl_diffusion *slL_field_diffusion(lua_State *L, int idx, const char *what); /* t.diffusion, required */
sl_diffusion *slL_field_diffusion_or_null(lua_State *L, int idx, const char *what, const char *name);
void slL_push_diffusion(lua_State *L, sl_diffusion *d); /* a new reference */
#endif
