#ifndef SLUICE_L_JSON_H
#define SLUICE_L_JSON_H
#include "lbind.h"
/* Pushes what the JSON text holds; raises if it is none. */
void slL_push_json(lua_State *L, const char *text);
#endif
