/* AdamW with averages, and the gradient's square norm, on CUDA. */
#include "gpu/gpu.h"

#include "ops/adamw_math.h"

namespace {

constexpr int THREADS = 256;

struct adamw_args {
  const sl_adamw_f32 *k;
  const double *gradients, *losses;
  int64_t n;
  float *p, *g, *m, *v, *ema[4];
  uint16_t *p16;
  int n_ema;
};

} // namespace

template <int V>
SL_DEVICE void adamw_at(const adamw_args &a, const sl_adamw_f32 &k, int64_t i) {
  sl_pack<float, V> p = sl_load<V>(a.p, false, i), g = sl_load<V>(a.g, false, i), m = sl_load<V>(a.m, false, i),
                    v = sl_load<V>(a.v, false, i);
  for (int j = 0; j < V; j++) sl_adamw_element(&k, &p.v[j], g.v[j], &m.v[j], &v.v[j]);
  sl_store<V>(a.p, false, i, p);
  if (!k.leave_gradients) sl_store<V>(a.g, false, i, sl_pack<float, V>{});
  sl_store<V>(a.m, false, i, m), sl_store<V>(a.v, false, i, v);
  if (a.p16) sl_store<V>(a.p16, true, i, p);
  SL_UNROLL
  for (int e = 0; e < 4; e++) { /* a fixed number: indices known to the compiler keep k in registers */
    if (e >= a.n_ema) break;
    sl_pack<float, V> ema = sl_load<V>(a.ema[e], false, i);
    for (int j = 0; j < V; j++) ema.v[j] = sl_ema_element(k.decay[e], k.rest[e], ema.v[j], p.v[j]);
    sl_store<V>(a.ema[e], false, i, ema);
  }
}

/* A thread has four neighbours of every grid's width; the last block takes what is left over, one by one. */
__global__ void adamw_kernel(const adamw_args a) {
  sl_adamw_f32 k = *a.k;
  if (!sl_adamw_scale(a.k, a.gradients, a.losses, &k.grad_scale)) return;
  const int64_t step = (int64_t)gridDim.x * blockDim.x, thread = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  for (int64_t i = thread; i < a.n / 4; i += step) adamw_at<4>(a, k, 4 * i);
  if (thread < a.n % 4) adamw_at<1>(a, k, a.n / 4 * 4 + thread);
}

/* Block b has the b-th of SL_SQUARES_BLOCKS parts, which begin at multiples of 64; the last part may end anywhere. */
__global__ void squares_kernel(const float *x, int64_t n, int64_t size, double *parts) {
  const int64_t begin = (int64_t)blockIdx.x * size, end = begin + size < n ? begin + size : n;
  const int64_t whole = begin + (end > begin ? (end - begin) / 4 * 4 : 0);
  double sum[4] = {0.0, 0.0, 0.0, 0.0};
  SL_UNROLL_BY(4)
  for (int64_t i = begin + 4 * threadIdx.x; i < whole; i += 4 * blockDim.x) {
    const sl_pack<float, 4> v = sl_load<4>(x, false, i);
    for (int j = 0; j < 4; j++) sum[j] += (double)v.v[j] * (double)v.v[j];
  }
  const int64_t rest = whole + threadIdx.x;
  if (rest < end) sum[0] += (double)x[rest] * (double)x[rest];
  const double all = sl_block_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
  if (threadIdx.x == 0) parts[blockIdx.x] = all;
}

__global__ void squares_sum_kernel(const double *parts, double *out) {
  const double sum = sl_block_sum(parts[threadIdx.x]);
  if (threadIdx.x == 0) *out = sum;
}

extern "C" sl_status sl_cuda_adamw_ema(sl_exec *e, const sl_adamw_f32 *k, int64_t n, float *p, float *g, float *m,
                                       float *v, int n_ema, float *const *ema, uint16_t *p16, const double *gradients,
                                       const double *losses) {
  SL_REQUIRE(n_ema >= 0 && n_ema <= 4, ARG, "adamw: %d averages, expected 0 to 4", n_ema);
  uintptr_t all = (uintptr_t)p | (uintptr_t)g | (uintptr_t)m | (uintptr_t)v | (uintptr_t)p16 * 2;
  for (int i = 0; i < n_ema; i++) all |= (uintptr_t)ema[i];
  SL_REQUIRE(all % 16 == 0, INTERNAL, "adamw: arrays that do not begin on 16 bytes");
  if (n == 0) return SL_STATUS_OK;
  adamw_args a = {k, gradients, losses, n, p, g, m, v, {}, p16, n_ema};
  for (int i = 0; i < n_ema; i++) a.ema[i] = ema[i];
  const int64_t blocks = (n / 4 + THREADS - 1) / THREADS;
  const dim3 grid((unsigned)(blocks < 1 ? 1 : blocks < 8192 ? blocks : 8192));
  return SL_LAUNCH(adamw_kernel, grid, THREADS, 0, e->stream, a);
}

extern "C" sl_status sl_cuda_sum_of_squares(sl_exec *e, int64_t n, const float *x, double *out) {
  SL_REQUIRE((uintptr_t)x % 16 == 0, INTERNAL, "sum_of_squares: an array that does not begin on 16 bytes");
  SL_TRY(SL_LAUNCH(squares_kernel, SL_SQUARES_BLOCKS, THREADS, 0, e->stream, x, n, sl_squares_part(n), out + 1));
  return SL_LAUNCH(squares_sum_kernel, 1, SL_SQUARES_BLOCKS, 0, e->stream, out + 1, out);
}
