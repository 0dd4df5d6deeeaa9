/* The program's prompt: sluice.repl is its logic; here are what it needs of the terminal. */
#ifndef SLUICE_PROGRAM_PROMPT_H
#define SLUICE_PROGRAM_PROMPT_H

#include "lbind.h"

/* Reads lines and runs them until the end of the input. */
void program_prompt(lua_State *L);
void program_report(lua_State *L); /* the error on the top to stderr; pops it */

/* --- program_line.c: lines edited with libedit --- */

typedef enum line_status { LINE_READ, LINE_END, LINE_INTERRUPTED } line_status;

/* Whether lines are edited: stdin and stdout are a terminal that can move its cursor. */
bool line_edited(void);
/* Prepares for line_read and line_remember; complete: position of the function(text before the cursor, columns) ->
 * text to insert, text to show. Both functions do nothing where lines are not edited. */
void line_open(lua_State *L, int complete);
void line_close(void);
/* Pushes the next line without its newline, if one was read. */
line_status line_read(lua_State *L, const char *prompt);
void line_remember(const char *text); /* for the arrow keys */

/* --- program_history.c --- */

/* console.history_append(path, line): true, or nil and why not. Several processes may do so at a time. */
int history_append(lua_State *L);
/* console.history_replace(path, function(text) -> text or nil): true, or nil and why not. Others wait. */
int history_replace(lua_State *L);

#endif
