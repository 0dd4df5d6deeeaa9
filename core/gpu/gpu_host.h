/* The launch layer without a GPU, for tests; include gpu.h. Every CUDA thread is a fiber; blocks run one after another
 * on the calling thread. Shared memory is filled with NaN before each block. It proves indices, bounds, barriers and
 * shared memory that nobody wrote; not races between blocks, memory order or speed. */
#ifndef SL_GPU_GPU_HOST_H
#define SL_GPU_GPU_HOST_H

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
extern __thread dim3 threadIdx, blockIdx, blockDim,
    gridDim; /* thread_local would be read through a function, at each use */

#define __global__ static
#define __device__
#define __host__
#define __launch_bounds__(...)

namespace sl_gpu_host {
constexpr unsigned max_threads = 1024;
constexpr size_t max_shared = 48 << 10; /* what every GPU gives without asking */

sl_status launch(const char *name, dim3 grid, dim3 block, size_t bytes, const std::function<void()> &body);
/* The block's memory of one SL_SHARED, known by the address of its mark. */
void *shared(const void *mark, size_t bytes);
void *shared_dynamic();
void wait_block();
void wait_warp();
unsigned lane();
uint64_t *slot(unsigned lane); /* of the calling fiber's warp */

template <class T>
T shuffle(T v, unsigned from) {
  static_assert(sizeof(T) <= sizeof(uint64_t), "a shuffle moves at most 8 bytes");
  memcpy(slot(lane()), &v, sizeof v);
  wait_warp();
  memcpy(&v, slot(from % 32), sizeof v);
  wait_warp();
  return v;
}
} // namespace sl_gpu_host

static inline void __syncthreads() { sl_gpu_host::wait_block(); }
static inline void __syncwarp(unsigned = ~0u) { sl_gpu_host::wait_warp(); }
template <class T>
T __shfl_xor_sync(unsigned, T v, int m) {
  return sl_gpu_host::shuffle(v, sl_gpu_host::lane() ^ (unsigned)m);
}
template <class T>
T __shfl_sync(unsigned, T v, int from) {
  return sl_gpu_host::shuffle(v, (unsigned)from);
}
template <class T>
T __shfl_down_sync(unsigned, T v, unsigned by) {
  const unsigned me = sl_gpu_host::lane();
  return sl_gpu_host::shuffle(v, me + by < 32 ? me + by : me);
}
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }

#define SL_LAUNCH(kernel, grid, block, bytes, stream, ...)                                                             \
  ((void)(stream), sl_gpu_host::launch(#kernel, (grid), (block), (bytes), [&] { kernel(__VA_ARGS__); }))
#define SL_SHARED(T, name, count)                                                                                      \
  static const char name##_mark = 0;                                                                                   \
  T *const name = (T *)sl_gpu_host::shared(&name##_mark, sizeof(T) * (count))
#define SL_SHARED_DYN(T, name) T *const name = (T *)sl_gpu_host::shared_dynamic()

#endif
