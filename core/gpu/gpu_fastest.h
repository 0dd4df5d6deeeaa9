/* The fastest of the algorithms that a library offers. */
#ifndef SL_GPU_GPU_FASTEST_H
#define SL_GPU_GPU_FASTEST_H

#include "base/status.h"

enum { SL_GPU_FASTEST_MOST = 17 }; /* candidates */

/* Puts candidate i's work on the stream. */
typedef sl_status (*sl_gpu_candidate)(void *user, int i);

/* *best: the number of the fastest of n candidates, by the GPU's own clock. The first one stays unless another is 2 %
 * faster: noise changes no bits. What fails loses. stream: a cudaStream_t, nothing of it being recorded. */
sl_status sl_gpu_fastest(void *stream, int n, sl_gpu_candidate run, void *user, int *best);

#endif
