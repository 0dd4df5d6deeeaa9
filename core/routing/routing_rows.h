/* Rows of mask tables, for routing.c. */
#ifndef SL_ROUTING_ROUTING_ROWS_H
#define SL_ROUTING_ROUTING_ROWS_H

#include "routing/routing.h"

void sl_routing_dtr_rows(double alpha, double beta, sl_routing_variant variant, int64_t T, int64_t C, uint8_t *mask);
/* One row: the `width` smallest uniforms. order: scratch [C]. */
void sl_routing_random_row(const float *uniforms, int64_t C, int64_t width, uint64_t *order, uint8_t *row);
/* ARG, naming the place, unless mask [blocks, T, C] is zeros and ones; the first block is `block`, from 0. */
SL_MUST_USE sl_status sl_routing_check_rows(const uint8_t *mask, int64_t blocks, int64_t T, int64_t C, int block,
                                            const char *what);

#endif
