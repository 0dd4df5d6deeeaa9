/* Small kernels, some wrong on purpose, that show what the host launch layer notices; for test_gpu_host.c. */
#include "gpu/gpu.h"

__global__ void divergent_barrier_kernel(int n) {
  if (blockIdx.x == 0 || (int)threadIdx.x < n) __syncthreads();
}

__global__ void divergent_shuffle_kernel(float *out) {
  if (threadIdx.x < 7) out[threadIdx.x] = sl_warp_sum(1.0f);
}

__global__ void idle_kernel() {}

__global__ void greedy_kernel(float *out) {
  SL_SHARED(float, much, 8192);
  SL_SHARED(float, more, 8192);
  much[threadIdx.x] = more[threadIdx.x] = 1.0f;
  out[threadIdx.x] = much[threadIdx.x];
}

__global__ void unwritten_kernel(float *out) {
  SL_SHARED(float, fixed, 32);
  SL_SHARED_DYN(float, dynamic);
  if (threadIdx.x == 0) out[2 * blockIdx.x] = fixed[3], out[2 * blockIdx.x + 1] = dynamic[31];
  __syncthreads();
  fixed[threadIdx.x] = dynamic[threadIdx.x] = 1.0f;
}

__global__ void block_sum_kernel(double *out) {
  const double once = sl_block_sum((double)threadIdx.x);
  const double more = sl_block_sum((double)threadIdx.x * blockIdx.x);
  if (threadIdx.x == blockDim.x - 1) out[blockIdx.x] = once + more;
}

__global__ void lanes_kernel(float *out) { out[threadIdx.x] = __shfl_sync(0xffffffffu, (float)threadIdx.x, 5); }

extern "C" {
sl_status probe_divergent_barrier(void);
sl_status probe_divergent_shuffle(void);
sl_status probe_odd_block(void);
sl_status probe_too_much_shared(void);
sl_status probe_unwritten_shared(float *out);
sl_status probe_block_sum(int threads, double *out);
sl_status probe_lanes(float *out);

sl_status probe_divergent_barrier(void) { return SL_LAUNCH(divergent_barrier_kernel, 2, 64, 0, nullptr, 40); }
sl_status probe_divergent_shuffle(void) {
  float out[32];
  return SL_LAUNCH(divergent_shuffle_kernel, 1, 32, 0, nullptr, out);
}
sl_status probe_odd_block(void) { return SL_LAUNCH(idle_kernel, 1, 33, 0, nullptr); }
sl_status probe_too_much_shared(void) {
  float out[32];
  return SL_LAUNCH(greedy_kernel, 1, 32, 0, nullptr, out);
}
sl_status probe_unwritten_shared(float *out) { return SL_LAUNCH(unwritten_kernel, 2, 32, 128, nullptr, out); }
sl_status probe_block_sum(int threads, double *out) {
  return SL_LAUNCH(block_sum_kernel, 3, (unsigned)threads, 0, nullptr, out);
}
sl_status probe_lanes(float *out) { return SL_LAUNCH(lanes_kernel, 1, 64, 0, nullptr, out); }
}
