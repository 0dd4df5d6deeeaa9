/* DiT (Peebles and Xie 2023; facebookresearch/DiT models.py) with task routing (Park et al. 2024; byeongjun-park/DTR).
 */
#ifndef SL_MODEL_DIT_H
#define SL_MODEL_DIT_H

#include "model/model.h"

/* A block of the host's own in the place of DiT's: builds block `index` (from 0) out of z [N, tokens, hidden], already
 * masked by the routing, and the condition c [N, hidden]; what it returns, shaped as z, becomes (1-m) z + block(m z).
 * Parameters that it declares through b are named below "blocks.<index>". It is called once while parameters are
 * declared and again for every graph, and must build the same each time. NULL: b->g holds the error. */
typedef sl_value *(*sl_dit_block_fn)(void *user, sl_builder *b, sl_value *z, sl_value *c, int index);

typedef struct sl_dit_block {
  sl_dit_block_fn build; /* NULL: DiT's own block */
  void *user;
  void (*release)(void *user); /* when the model goes, or was not made; NULL: nothing to do */
  char name[48];               /* told by descriptions, so that one block is known from another */
} sl_dit_block;

typedef struct sl_dit_config {
  int64_t channels, height, width; /* of the input */
  int64_t patch, hidden, depth, heads;
  double mlp_ratio;
  int64_t classes;      /* 1: unconditional, one row and no dropout, as the reference */
  double class_dropout; /* 0 with more classes: no null row */
  bool learn_sigma;     /* twice the input's channels come out */
  sl_dit_block block;   /* sl_dit_new takes it over */
  sl_model_options options;
} sl_dit_config;

/* mlp_ratio 4, learn_sigma, class_dropout 0.1, classes 1000, 1000 timesteps; the rest 0. */
sl_dit_config sl_dit_defaults(void);
/* Fills patch, hidden, depth and heads from "DiT-B/2" and the like (S, B, L, XL; 2, 4, 8); ARG lists the names. */
SL_MUST_USE sl_status sl_dit_preset(const char *name, sl_dit_config *config);
/* routing NULL: none. ARG and SHAPE name the field. */
SL_MUST_USE sl_status sl_dit_new(sl_context *ctx, const sl_dit_config *config, sl_routing *routing, sl_model **out);
const sl_dit_config *sl_dit_config_of(const sl_model *m); /* NULL if it is no DiT */

#endif
