/* Names of reductions, as kernels take them. */
#ifndef SL_OPS_REDUCE_H
#define SL_OPS_REDUCE_H

typedef enum sl_reduction { SL_REDUCE_SUM, SL_REDUCE_MEAN, SL_REDUCE_MAX, SL_REDUCE_MIN } sl_reduction;

#endif
