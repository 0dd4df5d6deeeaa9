/* What others read as trainers do. */
#ifndef SL_BINDINGS_L_TRAINER_H
#define SL_BINDINGS_L_TRAINER_H

#include <lua.h>

#include "train/trainer.h"

/* The field recompute of the table at 1: false (or nothing), true, or a word. w: who reads it, for errors. */
void slL_read_recompute(lua_State *L, const char *w, sl_train_options *o);

#endif
