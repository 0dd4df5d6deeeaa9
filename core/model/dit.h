/* DiT (Peebles and Xie 2023; facebookresearch/DiT models.py) with task routing (Park et al. 2024; byeongjun-park/DTR).
 */
#ifndef SL_MODEL_DIT_H
#define SL_MODEL_DIT_H

#include "model/model.h"

typedef struct sl_dit_config {
  int64_t channels, height, width; /* of the input */
  int64_t patch, hidden, depth, heads;
  double mlp_ratio;
  int64_t classes;      /* 1: unconditional, one row and no dropout, as the reference */
  double class_dropout; /* 0 with more classes: no null row */
  bool learn_sigma;     /* twice the input's channels come out */
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
