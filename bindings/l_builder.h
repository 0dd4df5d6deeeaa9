/* The third argument of a block in Lua: layers that declare parameters, and the block's place. */
#ifndef SLUICE_L_BUILDER_H
#define SLUICE_L_BUILDER_H
#include "lbind.h"
#include "nn/layers.h"

/* Of the model whose blocks are built. */
typedef struct slL_block_sizes {
  int64_t hidden, heads, depth, height, width; /* height, width: of the grid of tokens */
} slL_block_sizes;

typedef struct slL_builder {
  sl_builder *b; /* NULL once the function has returned */
  slL_trace *trace;
  const slL_block_sizes *of;
  int index, sites; /* the block's, from 0; uses of dropout so far */
} slL_builder;

/* Pushes one that is to be closed when the function has returned. */
slL_builder *slL_push_builder(lua_State *L, slL_builder value);
#endif
