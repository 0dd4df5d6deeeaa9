/* Device "gpu-host": host memory, and the CUDA kernels run by gpu/gpu_host.h. For tests linked with sluice_gpu_host
 * only. */
#ifndef SL_TESTS_GPU_HOST_DEVICE_H
#define SL_TESTS_GPU_HOST_DEVICE_H

#include <string.h>

#include "ops/kernels.h"

static void *gpu_host_alloc(const sl_device *dev, sl_context *ctx, size_t bytes) {
  (void)dev;
  return sl_alloc(ctx, bytes);
}

static void gpu_host_free(const sl_device *dev, sl_context *ctx, void *p) {
  (void)dev;
  sl_free(ctx, p);
}

static sl_status gpu_host_copy(const sl_device *dev, void *dst, const void *src, size_t bytes, void *stream) {
  (void)dev, (void)stream;
  if (bytes) memmove(dst, src, bytes);
  return SL_STATUS_OK;
}

static sl_status gpu_host_fill(const sl_device *dev, void *dst, int byte, size_t bytes, void *stream) {
  (void)dev, (void)stream;
  if (bytes) memset(dst, byte, bytes);
  return SL_STATUS_OK;
}

static sl_status gpu_host_sync(const sl_device *dev, void *stream) {
  (void)dev, (void)stream;
  return SL_STATUS_OK;
}

static const sl_device gpu_host_device = {
    .kind = SL_DEVICE_GPU_HOST,
    .name = "gpu-host",
    .alloc = gpu_host_alloc,
    .free = gpu_host_free,
    .copy_in = gpu_host_copy,
    .copy_out = gpu_host_copy,
    .copy = gpu_host_copy,
    .fill = gpu_host_fill,
    .sync = gpu_host_sync,
};

#define GPU_HOST_SLOT_SL_GPU(name) sl_cuda_##name
#define GPU_HOST_SLOT_SL_NO_GPU(name) NULL
#define SL_KERNEL(name, args, gpu) .name = GPU_HOST_SLOT_##gpu(name),
/* The name under which sl_kernels_of looks for a GPU's table. */
const sl_kernels sl_kernels_cuda = {
#include "ops/kernels.def"
};
#undef SL_KERNEL

#endif
