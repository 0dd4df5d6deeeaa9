/* The launch layer: what a kernel in a .cu file may use. With nvcc it is CUDA (gpu_device.h); with -DSL_GPU_HOST=1 and
 * a C++ compiler it is a stand-in that runs every kernel on the CPU (gpu_host.h), so that machines without a GPU test
 * them.
 *
 * Rules: blocks of a multiple of 32 threads; every lane takes part in a shuffle, every thread in a barrier; no early
 * return before either; 64-bit index arithmetic; shared memory by SL_SHARED and SL_SHARED_DYN alone, all of it in 48 KB
 * or, where SL_SHARED_DYN alone has more, in what the GPU has (H100: 227 KB, A100: 163 KB); no float atomics. Of CUDA's
 * own functions those in gpu_host.h.
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

/* Before a loop. */
#ifdef __CUDACC__
#define SL_UNROLL _Pragma("unroll")
#define SL_UNROLL_BY(n) SL_PRAGMA(unroll n)
#define SL_PRAGMA(text) _Pragma(#text)
#else
#define SL_UNROLL
#define SL_UNROLL_BY(n)
#endif

/* --- Sums and maxima; every thread gets the result --- */

/* Over the 32 lanes. */
template <class T>
SL_DEVICE T sl_warp_sum(T v) {
  for (int m = 16; m > 0; m >>= 1) v += __shfl_xor_sync(0xffffffffu, v, m);
  return v;
}

/* NaN is larger than any number. */
template <class T>
SL_DEVICE T sl_larger(T a, T b) {
  return a > b || a != a ? a : b;
}

template <class T>
SL_DEVICE T sl_warp_max(T v) {
  for (int m = 16; m > 0; m >>= 1) v = sl_larger(v, __shfl_xor_sync(0xffffffffu, v, m));
  return v;
}

/* Over a one-dimensional block of at most 1024 threads, in a fixed order; K sums for the barriers of one. */
template <class T, int K>
SL_DEVICE void sl_block_sums(T (&v)[K]) {
  SL_SHARED(T, parts, 32 * K);
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  for (int k = 0; k < K; k++) v[k] = sl_warp_sum(v[k]);
  __syncthreads(); /* parts may still be read from the sums before */
  for (int k = 0; k < K && lane == 0; k++) parts[32 * k + warp] = v[k];
  __syncthreads();
  for (int k = 0; k < K; k++) v[k] = sl_warp_sum(lane < warps ? parts[32 * k + lane] : T(0));
}

template <class T>
SL_DEVICE T sl_block_sum(T v) {
  T sum[1] = {v};
  sl_block_sums(sum);
  return sum[0];
}

template <class T>
SL_DEVICE T sl_block_max(T v) {
  SL_SHARED(T, parts, 32);
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  v = sl_warp_max(v);
  __syncthreads(); /* parts may still be read from the maximum before */
  if (lane == 0) parts[warp] = v;
  __syncthreads();
  return sl_warp_max(parts[lane < warps ? lane : 0]);
}

/* --- bfloat16 as bits, rounded to nearest even; a NaN becomes some NaN, on a GPU 7fff --- */

SL_DEVICE float sl_gpu_from_bf16(uint16_t h) {
  const uint32_t u = (uint32_t)h << 16;
  float f;
  memcpy(&f, &u, sizeof f);
  return f;
}

SL_DEVICE uint16_t sl_gpu_to_bf16(float f) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  uint16_t h;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(h) : "f"(f));
  return h;
#else
  uint32_t u;
  memcpy(&u, &f, sizeof u);
  if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 0x40u);
  return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
#endif
}

/* Two neighbours; `low` comes first in memory. */
SL_DEVICE uint32_t sl_gpu_to_bf16_pair(float low, float high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  uint32_t u;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(u) : "f"(high), "f"(low));
  return u;
#else
  return sl_gpu_to_bf16(low) | (uint32_t)sl_gpu_to_bf16(high) << 16;
#endif
}

/* --- V neighbours, read and written as one where they have up to 16 bytes, else 16 bytes at a time. The address must
 * be a multiple of as many. V = 8: bf16 in one access, f32 in two. --- */

template <class T, int V>
struct alignas(sizeof(T) * V < 16 ? sizeof(T) * V : 16) sl_pack {
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

/* A pack's bytes in as few stores as there are 16 of them; of a struct's assignment nvcc often makes one per element.
 */
template <class T, int V>
SL_DEVICE void sl_put(void *to, const sl_pack<T, V> &x) {
#ifdef __CUDA_ARCH__
  if constexpr (sizeof(x) % 8 == 0) {
    uint32_t u[sizeof(x) / 4];
    memcpy(u, &x, sizeof x);
    const size_t at = __cvta_generic_to_global(to);
    if constexpr (sizeof(x) == 8)
      asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(at), "r"(u[0]), "r"(u[1]) : "memory");
    else
      for (int i = 0; i < (int)sizeof(x) / 4; i += 4)
        asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(at + 4 * i), "r"(u[i]), "r"(u[i + 1]),
                     "r"(u[i + 2]), "r"(u[i + 3])
                     : "memory");
    return;
  }
#endif
  *(sl_pack<T, V> *)to = x;
}

template <int V>
SL_DEVICE void sl_store(void *p, bool bf16, int64_t at, const sl_pack<float, V> &x) {
  if (!bf16) {
    sl_put((float *)p + at, x);
    return;
  }
  sl_pack<uint16_t, V> h;
  if constexpr (V % 2 == 0) {
    for (int i = 0; i < V; i += 2) {
      const uint32_t pair = sl_gpu_to_bf16_pair(x.v[i], x.v[i + 1]);
      memcpy(&h.v[i], &pair, sizeof pair);
    }
  } else {
    for (int i = 0; i < V; i++) h.v[i] = sl_gpu_to_bf16(x.v[i]);
  }
  sl_put((uint16_t *)p + at, h);
}

#endif
