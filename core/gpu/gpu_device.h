/* The launch layer on CUDA; include gpu.h. */
#ifndef SL_GPU_GPU_DEVICE_H
#define SL_GPU_GPU_DEVICE_H

#include <cuda_runtime.h>
#include <stdint.h>
#include <string.h>

static inline sl_status sl_gpu_launched(const char *kernel) {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess
             ? SL_STATUS_OK
             : sl_fail(SL_STATUS_DEVICE, "%s: CUDA refused the launch: %s", kernel, cudaGetErrorString(error));
}

/* More shared memory than every GPU gives must be asked for, kernel by kernel. A refusal is CUDA's last error. */
template <class... P>
static inline void sl_gpu_ask_shared(void (*kernel)(P...), size_t bytes) {
  if (bytes > (48 << 10)) (void)cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
}

#define SL_LAUNCH(kernel, grid, block, bytes, stream, ...)                                                             \
  (sl_gpu_ask_shared(kernel, (bytes)), kernel<<<(grid), (block), (bytes), (cudaStream_t)(stream)>>>(__VA_ARGS__),      \
   sl_gpu_launched(#kernel))
#define SL_SHARED(T, name, count)                                                                                      \
  __shared__ __align__(16) T name##_room[count];                                                                       \
  T *const name = name##_room
#define SL_SHARED_DYN(T, name)                                                                                         \
  extern __shared__ __align__(16) unsigned char sl_shared_room[];                                                      \
  T *const name = (T *)sl_shared_room

#endif
