#ifndef SLUICE_L_ROUTING_H
#define SLUICE_L_ROUTING_H
#include "lbind.h"
#include "routing/routing.h"
/* The routing at idx; NULL for nil. Raises for anything else. */
sl_routing *slL_opt_routing(lua_State *L, int idx, const char *what);
#endif
