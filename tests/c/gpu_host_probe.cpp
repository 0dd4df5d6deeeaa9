/* Small kernels, some wrong on purpose, that show what the host launch layer notices and what it can do; for
 * test_gpu_host.c. */
#include "gpu/gpu.h"

/* --- Wrong ones --- */

__global__ void divergent_barrier_kernel(int n) {
  if (blockIdx.x == 0 || (int)threadIdx.x < n) __syncthreads();
}

__global__ void divergent_shuffle_kernel(float *out) {
  if (threadIdx.x < 7) out[threadIdx.x] = sl_warp_sum(1.0f);
}

__global__ void two_barriers_kernel() {
  if (threadIdx.x < 32) __syncthreads();
  else __syncthreads();
}

__global__ void two_shuffles_kernel(float *out) {
  const unsigned all = 0xffffffffu;
  const float v = (float)threadIdx.x;
  out[threadIdx.x] = threadIdx.x % 2 ? __shfl_xor_sync(all, v, 1) : __shfl_down_sync(all, v, 1);
}

__global__ void some_lanes_kernel(float *out) { out[threadIdx.x] = __shfl_xor_sync(0xffffu, 1.0f, 1); }

__global__ void idle_kernel() {}

__global__ void greedy_kernel(float *out) {
  SL_SHARED(float, much, 8192);
  SL_SHARED(float, more, 8192);
  much[threadIdx.x] = more[threadIdx.x] = 1.0f;
  out[threadIdx.x] = much[threadIdx.x];
}

__global__ void overrun_kernel(int at) {
  SL_SHARED(int, few, 40);
  SL_SHARED_DYN(int, dynamic);
  if (threadIdx.x == 0) few[at] = dynamic[at] = 0;
}

__global__ void unwritten_kernel(float *out) {
  SL_SHARED(float, fixed, 32);
  SL_SHARED_DYN(float, dynamic);
  if (threadIdx.x == 0) out[2 * blockIdx.x] = fixed[3], out[2 * blockIdx.x + 1] = dynamic[31];
  __syncthreads();
  fixed[threadIdx.x] = dynamic[threadIdx.x] = 1.0f;
}

/* Races: between warps, lanes and blocks, and one that overwrites what others still read. Right where `wait`. */

__global__ void warps_race_kernel(bool wait, float *out) {
  SL_SHARED(float, s, 128);
  s[threadIdx.x] = (float)threadIdx.x;
  if (wait) __syncthreads();
  out[threadIdx.x] = s[(threadIdx.x + 32) % 128];
}

__global__ void lanes_race_kernel(bool wait, float *out) {
  SL_SHARED(float, s, 128);
  s[threadIdx.x] = (float)threadIdx.x;
  if (wait) __syncwarp();
  out[threadIdx.x] = s[threadIdx.x ^ 1];
}

__global__ void overwriting_kernel(bool wait, float *out) {
  SL_SHARED(float, s, 4);
  float sum = 0.0f;
  for (int k = 0; k < 3; k++) {
    if (threadIdx.x % 32 == 0) s[threadIdx.x / 32] = (float)(k * 10 + (int)threadIdx.x);
    __syncthreads();
    sum += sl_warp_sum(s[threadIdx.x % 4]);
    if (wait) __syncthreads();
  }
  out[threadIdx.x] = sum;
}

__global__ void blocks_race_kernel(bool wait, float *out) {
  if (threadIdx.x == 0) out[blockIdx.x] = wait || blockIdx.x == 0 ? 1.0f : out[blockIdx.x - 1];
}

/* --- Right ones --- */

__global__ void block_sum_kernel(double *out) {
  const double once = sl_block_sum((double)threadIdx.x);
  const double more = sl_block_sum((double)threadIdx.x * blockIdx.x);
  if (threadIdx.x == blockDim.x - 1) out[blockIdx.x] = once + more;
}

__global__ void lanes_kernel(float *out) { out[threadIdx.x] = __shfl_sync(0xffffffffu, (float)threadIdx.x, 5); }

/* Eight results of every thread. */
__global__ void shuffles_kernel(int64_t *out) {
  const unsigned all = 0xffffffffu;
  const int me = (int)threadIdx.x;
  int64_t *mine = out + 8 * me;
  mine[0] = __shfl_up_sync(all, (int64_t)me << 40, 3);
  mine[1] = (int64_t)__shfl_down_sync(all, (double)me, 4);
  mine[2] = __shfl_xor_sync(all, me, 9);
  mine[3] = __shfl_sync(all, me, 2, 8);
  mine[4] = __shfl_up_sync(all, (unsigned)me, 1, 16);
  mine[5] = __shfl_down_sync(all, (int64_t)me, 1, 4);
  mine[6] = __ballot_sync(all, me % 3 == 0);
  mine[7] = __any_sync(all, me == 40) + 2 * __all_sync(all, me >= 32);
}

__global__ void votes_kernel(int *out) {
  const int me = (int)threadIdx.x;
  const int count = __syncthreads_count(me % 5 == 0), none = __syncthreads_or(me > 1000),
            one = __syncthreads_or(me == 70), all = __syncthreads_and(me >= 0), most = __syncthreads_and(me != 70);
  out[me] = count * 16 + none * 8 + one * 4 + all * 2 + most;
}

__global__ void maxima_kernel(float *out) {
  const float at = (float)((threadIdx.x * 37) % blockDim.x);
  float v[2] = {sl_block_max(at), sl_block_max(threadIdx.x == 45 ? nanf("") : at)};
  out[2 * threadIdx.x] = v[0], out[2 * threadIdx.x + 1] = v[1];
  int k[2] = {1, (int)threadIdx.x};
  sl_block_sums(k);
  if (k[0] != (int)blockDim.x || k[1] != (int)(blockDim.x * (blockDim.x - 1) / 2)) out[0] = -1.0f;
}

__global__ void atomics_kernel(int *i, unsigned *u, unsigned long long *w) {
  const int me = (int)(blockIdx.x * blockDim.x + threadIdx.x);
  atomicAdd(&i[0], me);
  atomicMax(&i[1], me), atomicMin(&i[2], -me);
  atomicMax(&u[0], 0x80000000u + (unsigned)me);
  if (atomicExch(&u[1], 7u) != 7u) atomicAdd(&u[2], 1u);
  if (atomicCAS(&u[3], 0u, 9u) == 0u) atomicAdd(&u[4], 1u);
  atomicAdd(&w[0], 1ull << 33);
  atomicOr(&w[1], 1ull << (me % 64));
}

/* Counts what is wrong. */
__global__ void numbers_kernel(int *wrong, const float *three) {
  const float x = *three;
  const float4 f = make_float4(1.0f, 2.0f, x, 4.0f);
  const uint4 u = make_uint4(1u, 2u, 3u, 4u);
  int n = 0;
  n += __ldg(three) != 3.0f || f.z + f.w != 7.0f || u.x + u.w != 5u || sizeof(float4) != 16 || alignof(int2) != 8;
  n += __float_as_uint(x) != 0x40400000u || __uint_as_float(0x40400000u) != x;
  n += __float_as_int(-x) >= 0 || __int_as_float(0x40400000) != x;
  n += min(1, 2) != 1 || max(-1, 1) != 1 || max(-1, 1u) != 0xffffffffu || min((int64_t)5, (int64_t)4) != 4;
  n += min(x, 4.0f) != 3.0f || max(x, nanf("")) != 3.0f || max((double)x, 3.5) != 3.5;
  n += __fmaf_rn(x, x, 1.0f) != 10.0f || __fmul_rn(x, x) != 9.0f || __fadd_rn(x, x) != 6.0f;
  n += __fsqrt_rn(x * x) != 3.0f || __frcp_rn(4.0f) != 0.25f || __fdiv_rn(x, 2.0f) != 1.5f;
  n += fabsf(__expf(x) - expf(x)) > 1e-4f || fabsf(rsqrtf(4.0f) - 0.5f) > 1e-6f;
  n += __popc(0xf0u) != 4 || __clz(1) != 31 || __ffs(8) != 4 || __umulhi(0x80000000u, 6u) != 3u || warpSize != 32;
  atomicAdd(wrong, n);
}

struct many {
  float *out;
  float v[90];
};

/* Each thread changes its own copy. */
__global__ void values_kernel(many m, int64_t wide) {
  for (int i = 0; i < 90; i++) m.v[i] += (float)threadIdx.x;
  m.out[threadIdx.x] = m.v[89] + (float)wide;
}

template <int V>
__global__ void copy_kernel(void *out, bool out_bf16, const void *in, bool in_bf16) {
  const int64_t at = (int64_t)threadIdx.x * V;
  sl_store<V>(out, out_bf16, at, sl_load<V>(in, in_bf16, at));
}

/* Uses all of its dynamic memory. */
__global__ void room_kernel(int n, int *out) {
  SL_SHARED(int, fixed, 32);
  SL_SHARED_DYN(int, dynamic);
  for (int i = (int)threadIdx.x; i < n; i += 32) dynamic[i] = i;
  __syncthreads();
  fixed[threadIdx.x] = dynamic[n - 1 - (int)threadIdx.x];
  __syncthreads();
  if (threadIdx.x == 0) *out = fixed[0];
}

__global__ void scale_kernel(float *x, float by, float plus) { x[threadIdx.x] = x[threadIdx.x] * by + plus; }

#ifdef SL_GPU_HOST
static sl_status nested;
__global__ void nested_kernel() { nested = SL_LAUNCH(idle_kernel, 1, 32, 0, nullptr); }
#endif

extern "C" {
sl_status probe_divergent_barrier(void);
sl_status probe_divergent_shuffle(void);
sl_status probe_two_barriers(void);
sl_status probe_two_shuffles(void);
sl_status probe_some_lanes(void);
sl_status probe_odd_block(void);
sl_status probe_idle(void);
sl_status probe_nested(void);
sl_status probe_too_much_shared(void);
sl_status probe_overrun(int at);
sl_status probe_unwritten_shared(float *out);
sl_status probe_race(int which, bool wait, float *out);
sl_status probe_block_sum(int threads, double *out);
sl_status probe_lanes(float *out);
sl_status probe_shuffles(int64_t *out);
sl_status probe_votes(int *out);
sl_status probe_maxima(float *out);
sl_status probe_atomics(int *i, unsigned *u, unsigned long long *w);
sl_status probe_numbers(int *wrong, const float *three);
sl_status probe_values(float *out);
sl_status probe_copy(int v, void *out, bool out_bf16, const void *in, bool in_bf16);
sl_status probe_room(size_t bytes, int *out);
sl_status probe_scale(float *x, float by, float plus);

sl_status probe_divergent_barrier(void) { return SL_LAUNCH(divergent_barrier_kernel, 2, 64, 0, nullptr, 40); }
sl_status probe_divergent_shuffle(void) {
  float out[32];
  return SL_LAUNCH(divergent_shuffle_kernel, 1, 32, 0, nullptr, out);
}
sl_status probe_two_barriers(void) { return SL_LAUNCH(two_barriers_kernel, 1, 64, 0, nullptr); }
sl_status probe_two_shuffles(void) {
  float out[32];
  return SL_LAUNCH(two_shuffles_kernel, 1, 32, 0, nullptr, out);
}
sl_status probe_some_lanes(void) {
  float out[32];
  return SL_LAUNCH(some_lanes_kernel, 1, 32, 0, nullptr, out);
}
sl_status probe_odd_block(void) { return SL_LAUNCH(idle_kernel, 1, 33, 0, nullptr); }
sl_status probe_idle(void) { return SL_LAUNCH(idle_kernel, dim3(2, 2), dim3(8, 8), 0, nullptr); }
#ifdef SL_GPU_HOST
sl_status probe_nested(void) {
  SL_TRY(SL_LAUNCH(nested_kernel, 1, 32, 0, nullptr));
  return nested;
}
#endif
sl_status probe_too_much_shared(void) {
  float out[32];
  return SL_LAUNCH(greedy_kernel, 1, 32, 0, nullptr, out);
}
sl_status probe_overrun(int at) { return SL_LAUNCH(overrun_kernel, 1, 32, 160, nullptr, at); }
sl_status probe_unwritten_shared(float *out) { return SL_LAUNCH(unwritten_kernel, 2, 32, 128, nullptr, out); }
sl_status probe_race(int which, bool wait, float *out) {
  void (*const kernels[])(bool, float *) = {warps_race_kernel, lanes_race_kernel, overwriting_kernel,
                                            blocks_race_kernel};
  return SL_LAUNCH(kernels[which], which == 3 ? 128 : 1, 128, 0, nullptr, wait, out);
}
sl_status probe_block_sum(int threads, double *out) {
  return SL_LAUNCH(block_sum_kernel, 3, (unsigned)threads, 0, nullptr, out);
}
sl_status probe_lanes(float *out) { return SL_LAUNCH(lanes_kernel, 1, 64, 0, nullptr, out); }
sl_status probe_shuffles(int64_t *out) { return SL_LAUNCH(shuffles_kernel, 1, 64, 0, nullptr, out); }
sl_status probe_votes(int *out) { return SL_LAUNCH(votes_kernel, 1, 96, 0, nullptr, out); }
sl_status probe_maxima(float *out) { return SL_LAUNCH(maxima_kernel, 1, 96, 0, nullptr, out); }
sl_status probe_atomics(int *i, unsigned *u, unsigned long long *w) {
  return SL_LAUNCH(atomics_kernel, 3, 64, 0, nullptr, i, u, w);
}
sl_status probe_numbers(int *wrong, const float *three) {
  return SL_LAUNCH(numbers_kernel, 1, 32, 0, nullptr, wrong, three);
}
sl_status probe_values(float *out) {
  many m = {};
  int calls = 0;
  m.out = out, m.v[89] = 1000.0f;
  SL_TRY(SL_LAUNCH(values_kernel, 1, 64, 0, nullptr, m, ++calls));
  return SL_LAUNCH(values_kernel, 1, 32, 0, nullptr, m, ++calls * 100);
}
sl_status probe_copy(int v, void *out, bool out_bf16, const void *in, bool in_bf16) {
  if (v == 8) return SL_LAUNCH(copy_kernel<8>, 1, 32, 0, nullptr, out, out_bf16, in, in_bf16);
  if (v == 4) return SL_LAUNCH(copy_kernel<4>, 1, 64, 0, nullptr, out, out_bf16, in, in_bf16);
  return SL_LAUNCH(copy_kernel<1>, 1, 256, 0, nullptr, out, out_bf16, in, in_bf16);
}
sl_status probe_room(size_t bytes, int *out) {
  return SL_LAUNCH(room_kernel, 2, 32, bytes, nullptr, (int)(bytes / sizeof(int)), out);
}
sl_status probe_scale(float *x, float by, float plus) {
  return SL_LAUNCH(scale_kernel, 1, 32, 0, nullptr, x, by, plus);
}
}
