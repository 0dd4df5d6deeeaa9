/* The CPU's table of kernels, and the choice of a device's. */
#include "ops/kernels.h"

const sl_kernels sl_kernels_cpu = {
#define SL_KERNEL(name, args) .name = sl_cpu_##name,
#include "ops/kernels.def"
#undef SL_KERNEL
};

const sl_kernels *sl_kernels_of(const sl_device *dev) {
  /* Linked in with the GPU layer, or absent. */
  if (dev->kind != SL_DEVICE_CPU && &sl_kernels_cuda != NULL) return &sl_kernels_cuda;
  return &sl_kernels_cpu;
}
