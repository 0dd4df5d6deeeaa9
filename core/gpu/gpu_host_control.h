/* What tests and the stand-in's device (tensor/device_gpu_host.c) ask of gpu_host.cpp; plain C. */
#ifndef SL_GPU_GPU_HOST_CONTROL_H
#define SL_GPU_GPU_HOST_CONTROL_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The order in which threads that could run get their turn, lanes, warps and blocks alike, in all launches to come: 0
 * ascending, 1 descending, 2 shuffled: each turn is drawn anew, by the seed, which every launch starts from. */
void sl_gpu_host_order(int order, uint64_t seed);
/* Called before and after each launch's blocks run; NULL: nothing. */
void sl_gpu_host_hooks(void (*enter)(void), void (*leave)(void));
/* Around whatever else reads the device's memory on its behalf; may be nested. Device "gpu-host" defines them. */
void sl_gpu_host_enter(void);
void sl_gpu_host_leave(void);

/* Runs `work` on a copy of the job's bytes, or records it: as launches do. */
SL_MUST_USE sl_status sl_gpu_host_do(sl_status (*work)(void *job), const void *job, size_t bytes);
/* Recording, as CUDA's capture: launches are kept with their arguments' values and run when replayed. */
SL_MUST_USE sl_status sl_gpu_host_record_begin(void);
SL_MUST_USE sl_status sl_gpu_host_record_end(void **recording);
SL_MUST_USE sl_status sl_gpu_host_replay(void *recording);
void sl_gpu_host_record_free(void *recording);

#ifdef __cplusplus
}
#endif

#endif
