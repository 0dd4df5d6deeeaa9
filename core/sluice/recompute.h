/* What training trades of memory for time. */
#ifndef SLUICE_RECOMPUTE_H
#define SLUICE_RECOMPUTE_H

/* What backward computes again instead of keeping it. */
typedef enum sl_recompute {
  SL_RECOMPUTE_NONE,
  SL_RECOMPUTE_SEGMENTS, /* the inner values of segments (a model's blocks), products too */
  SL_RECOMPUTE_LIGHT     /* norms and activations: no product */
} sl_recompute;

#endif
