/* Task routing, the part that only the library uses; see sluice/routings.h. */
#ifndef SL_ROUTING_ROUTING_H
#define SL_ROUTING_ROUTING_H

#include "sluice/routings.h"
#include "tensor/tensor.h"

/* mask [T, C]: in each row of uniforms [T, C] the W smallest become 1, the first of equals before the others.
 * Source: the DTR repo's random masks. ARG (also for NaN), OOM. */
SL_MUST_USE sl_status sl_routing_random_from_uniforms(sl_context *ctx, const float *uniforms, int64_t T, int64_t C,
                                                      double beta, uint8_t *mask);
/* Whether every row of mask [T, C] is one run of active channels (or none: start and width 0). start and width [T] are
 * filled if so; they may be NULL. */
bool sl_routing_windows(const uint8_t *mask, int64_t T, int64_t C, int64_t *start, int64_t *width);

#endif
