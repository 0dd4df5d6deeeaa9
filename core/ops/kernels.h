/* Kernels: what a device computes with. kernels.def declares each signature once; this header makes of each row a function
 * type, the CPU's and the GPU's prototypes and a slot in the table that a device brings. */
#ifndef SL_OPS_KERNELS_H
#define SL_OPS_KERNELS_H

#include "graph/program.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Constants of one optimizer step. */
typedef struct sl_adamw {
  float lr, beta1, beta2, eps, weight_decay;
  float correction1, correction2; /* 1 - beta^k, k = 1, 2, … */
  float grad_scale;               /* clipping and accumulation */
  float ema_decay[4];
} sl_adamw;

#define SL_KERNEL(name, args, gpu) typedef sl_status sl_##name##_fn args;
#include "ops/kernels.def"
#undef SL_KERNEL
#define SL_KERNEL(name, args, gpu) sl_##name##_fn sl_cpu_##name, sl_cuda_##name;
#include "ops/kernels.def"
#undef SL_KERNEL

typedef struct sl_kernels {
#define SL_KERNEL(name, args, gpu) sl_##name##_fn *name;
#include "ops/kernels.def"
#undef SL_KERNEL
} sl_kernels;

#ifdef __cplusplus
}
#endif

#endif
