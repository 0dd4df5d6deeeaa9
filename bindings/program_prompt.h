/* The program's prompt, and the protected call that it shares with scripts. */
#ifndef SLUICE_PROGRAM_PROMPT_H
#define SLUICE_PROGRAM_PROMPT_H

#include <lua.h>

void program_prompt(lua_State *L); /* reads lines and runs them until the end of the input */
/* lua_pcall with a traceback; Ctrl-C raises "interrupted" inside. */
int program_call(lua_State *L, int n_args, int n_results);
void program_report(lua_State *L); /* the error on the top to stderr; pops it */

#endif
