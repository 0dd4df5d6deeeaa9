#ifndef SLUICE_L_BLOCK_H
#define SLUICE_L_BLOCK_H
#include "lbind.h"
#include "model/dit.h"
/* The function at idx as the block of the DiT that c describes; nothing for nil. Raises for anything else. */
void slL_read_block(lua_State *L, int idx, sl_dit_config *c);
#endif
