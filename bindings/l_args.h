/* Lua's arguments as an operation's inputs and attributes. */
#ifndef SLUICE_L_ARGS_H
#define SLUICE_L_ARGS_H

#include "lbind.h"

typedef struct slL_args {
  int n;                  /* inputs */
  int idx[SL_MAX_INPUTS]; /* where they lie on the stack; 0: absent */
  sl_attrs attrs;
} slL_args;

/* Reads the whole stack as arguments of op; may push what a table holds. Raises for what does not fit. */
void slL_read_args(lua_State *L, const sl_op *op, const sl_op_signature *sig, slL_args *out);

#endif
