/* The launch layer: what a kernel in a .cu file may use. With nvcc it is CUDA (gpu_device.h); with -DSL_GPU_HOST=1 and
 * a C++ compiler it is a stand-in that runs every kernel on the CPU (gpu_host.h), so that machines without a GPU test
 * them.
 *
 * Rules: blocks of a multiple of 32 threads; every lane takes part in a shuffle, every thread in a barrier; no early
 * return before either; 64-bit index arithmetic; shared memory by SL_SHARED and SL_SHARED_DYN alone; no float atomics.
 *
 *   SL_SHARED(float, parts, 32);                                   parts is a float * to 32 floats of the block
 *   SL_SHARED_DYN(float, row);                                     the bytes given at launch
 *   SL_TRY(SL_LAUNCH((kernel<4>), grid, block, bytes, stream, …)); DEVICE error: the launch was refused, or, in the
 * stand-in, threads waited at different barriers */
#ifndef SL_GPU_GPU_H
#define SL_GPU_GPU_H

#include "base/status.h"

#ifdef SL_GPU_HOST
#include "gpu/gpu_host.h"
#else
#include "gpu/gpu_device.h"
#endif

#define SL_DEVICE __device__ static inline

/* Sums over the 32 lanes; every lane gets the result. */
template <class T>
SL_DEVICE T sl_warp_sum(T v) {
  for (int m = 16; m > 0; m >>= 1) v += __shfl_xor_sync(0xffffffffu, v, m);
  return v;
}

/* Sum over a one-dimensional block of at most 1024 threads, in a fixed order; every thread gets the result. */
template <class T>
SL_DEVICE T sl_block_sum(T v) {
  SL_SHARED(T, parts, 32);
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  v = sl_warp_sum(v);
  __syncthreads(); /* parts may still be read from the sum before */
  if (lane == 0) parts[warp] = v;
  __syncthreads();
  return sl_warp_sum(lane < warps ? parts[lane] : T(0));
}

/* bfloat16 as bits, rounded to nearest even. */
SL_DEVICE float sl_gpu_from_bf16(uint16_t h) {
  const uint32_t u = (uint32_t)h << 16;
  float f;
  memcpy(&f, &u, sizeof f);
  return f;
}

SL_DEVICE uint16_t sl_gpu_to_bf16(float f) {
  uint32_t u;
  memcpy(&u, &f, sizeof u);
  if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 0x40u);
  return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

/* V neighbours, read and written as one where V is 4 and the address allows it. */
template <class T, int V>
struct alignas(sizeof(T) * V) sl_pack {
  T v[V];
};

template <int V>
SL_DEVICE sl_pack<float, V> sl_load(const void *p, bool bf16, int64_t at) {
  if (!bf16) return *(const sl_pack<float, V> *)((const float *)p + at);
  const sl_pack<uint16_t, V> h = *(const sl_pack<uint16_t, V> *)((const uint16_t *)p + at);
  sl_pack<float, V> r;
  for (int i = 0; i < V; i++) r.v[i] = sl_gpu_from_bf16(h.v[i]);
  return r;
}

template <int V>
SL_DEVICE void sl_store(void *p, bool bf16, int64_t at, const sl_pack<float, V> &x) {
  if (!bf16) {
    *(sl_pack<float, V> *)((float *)p + at) = x;
    return;
  }
  sl_pack<uint16_t, V> h;
  for (int i = 0; i < V; i++) h.v[i] = sl_gpu_to_bf16(x.v[i]);
  *(sl_pack<uint16_t, V> *)((uint16_t *)p + at) = h;
}

#endif
