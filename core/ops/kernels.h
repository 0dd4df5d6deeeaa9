/* Kernels: what a device computes with. kernels.def declares each signature once; this header makes of each row a
 * function type, the CPU's and the GPU's prototypes and a slot in the table that a device brings. */
#ifndef SL_OPS_KERNELS_H
#define SL_OPS_KERNELS_H

#ifdef __cplusplus
extern "C" {
#endif

#include "graph/program.h"

/* Constants of one optimizer step, in double: 1 - 0.9999f is wrong by two parts in ten thousand. */
typedef struct sl_adamw {
  double lr, beta1, beta2, eps, weight_decay;
  double correction1, correction2; /* 1 - beta^k, k = 1, 2, … */
  double grad_scale;               /* accumulation, or a caller's own clipping */
  double clip;                     /* largest norm of the scaled gradient; 0: none */
  double ema_decay[4];
  bool leave_gradients; /* they are not added to: the next step's overwrite them */
} sl_adamw;

struct sl_adamw_f32;     /* adamw_math.h */
struct sl_gemm;          /* gemm.h */
struct sl_attention_job; /* attention.h */
struct sl_conv;          /* conv.h */
struct sl_window;        /* window.h */

#define SL_KERNEL(name, args) typedef sl_status sl_##name##_kernel args;
#include "ops/kernels.def"
#undef SL_KERNEL
#define SL_KERNEL(name, args) sl_##name##_kernel sl_cpu_##name, sl_cuda_##name;
#include "ops/kernels.def"
#undef SL_KERNEL

typedef struct sl_kernels {
#define SL_KERNEL(name, args) sl_##name##_kernel *name;
#include "ops/kernels.def"
#undef SL_KERNEL
} sl_kernels;

extern const sl_kernels sl_kernels_cpu;
/* Defined by the GPU layer where it is built: GPU kernels, and the CPU's in the other slots where memory is the host's.
 */
extern const sl_kernels sl_kernels_cuda __attribute__((weak));

#ifdef __cplusplus
}
#endif

#endif
