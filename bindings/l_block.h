#ifndef SLUICE_L_BLOCK_H
#define SLUICE_L_BLOCK_H
#include "lbind.h"
#include "model/dit.h"
/* The function at idx as the block of the DiT that c describes, which sl_dit_new_with_block must then take; false for
 * nil. Raises for anything else. */
bool slL_read_block(lua_State *L, int idx, const sl_dit_config *c, sl_dit_block *block);
#endif
