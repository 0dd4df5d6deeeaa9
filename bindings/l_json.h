#ifndef SLUICE_L_JSON_H
#define SLUICE_L_JSON_H
#include "lbind.h"
/* Pushes what the JSON text holds; frees the text, which is from sl_alloc, whatever happens. */
void slL_push_json(lua_State *L, char *text);
#endif
