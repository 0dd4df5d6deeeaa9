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

#define SL_LAUNCH(kernel, grid, block, bytes, stream, ...)                                                             \
  (kernel<<<(grid), (block), (bytes), (cudaStream_t)(stream)>>>(__VA_ARGS__), sl_gpu_launched(#kernel))
#define SL_SHARED(T, name, count)                                                                                      \
  __shared__ T name##_room[count];                                                                                     \
  T *const name = name##_room
#define SL_SHARED_DYN(T, name)                                                                                         \
  extern __shared__ __align__(16) unsigned char sl_shared_room[];                                                      \
  T *const name = (T *)sl_shared_room

#endif
