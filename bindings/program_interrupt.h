/* Ctrl-C, and the protected call under which everything of a user's runs. */
#ifndef SLUICE_PROGRAM_INTERRUPT_H
#define SLUICE_PROGRAM_INTERRUPT_H

#include <stdbool.h>

#include "lbind.h"

/* Once, after the libraries are open: core.stop_on_interrupt and core.stop_asked, and coroutines that Ctrl-C reaches.
 */
void program_interrupt_open(lua_State *L);
void program_interrupt_close(void); /* before the state is closed */

/* At the prompt (true) a second Ctrl-C does not end the process, unless the first was not heard for some seconds. */
void program_interrupt_patient(bool patient);

/* lua_pcall; an error becomes the text that a user is to read (sluice.faults). Ctrl-C raises "interrupted" inside. */
int program_call(lua_State *L, int n_args, int n_results);

#endif
