#ifndef SLUICE_PROGRAM_PATH_H
#define SLUICE_PROGRAM_PATH_H
#include <lua.h>
/* Adds the program's own folder to the end of package.path: the portable archive has argparse.lua there. */
void slL_search_beside_program(lua_State *L);
#endif
