/* AdamW with averages, and the gradient's square norm, on CUDA. */
#include "gpu/gpu.h"

#include "ops/adamw_math.h"

namespace {

constexpr int THREADS = 256;

struct adamw_args {
  sl_adamw_f32 k;
  int64_t n;
  float *p, *g, *m, *v, *ema[4];
  int n_ema;
};

} // namespace

__global__ void adamw_kernel(const adamw_args a) {
  const int64_t step = (int64_t)gridDim.x * blockDim.x;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < a.n; i += step) {
    float p = a.p[i], g = a.g[i], m = a.m[i], v = a.v[i];
    sl_adamw_element(&a.k, &p, &g, &m, &v);
    a.p[i] = p, a.g[i] = g, a.m[i] = m, a.v[i] = v;
    for (int e = 0; e < a.n_ema; e++) a.ema[e][i] = sl_ema_element(a.k.decay[e], a.k.rest[e], a.ema[e][i], p);
  }
}

/* Block b has the b-th of SL_SQUARES_BLOCKS parts. */
__global__ void squares_kernel(const float *x, int64_t n, int64_t size, double *parts) {
  const int64_t begin = (int64_t)blockIdx.x * size, end = begin + size < n ? begin + size : n;
  double sum = 0.0;
  for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) sum += (double)x[i] * (double)x[i];
  sum = sl_block_sum(sum);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

__global__ void squares_sum_kernel(const double *parts, double *out) {
  const double sum = sl_block_sum(parts[threadIdx.x]);
  if (threadIdx.x == 0) *out = sum;
}

extern "C" sl_status sl_cuda_adamw_ema(sl_exec *e, const sl_adamw *step, int64_t n, float *p, float *g, float *m,
                                       float *v, int n_ema, float *const *ema) {
  SL_REQUIRE(n_ema >= 0 && n_ema <= 4, ARG, "adamw: %d averages, expected 0 to 4", n_ema);
  if (n == 0) return SL_STATUS_OK;
  adamw_args a = {sl_adamw_round(step), n, p, g, m, v, {}, n_ema};
  for (int i = 0; i < n_ema; i++) a.ema[i] = ema[i];
  const int64_t blocks = (n + THREADS - 1) / THREADS;
  const dim3 grid((unsigned)(blocks < 4096 ? blocks : 4096));
  return SL_LAUNCH(adamw_kernel, grid, THREADS, 0, e->stream, a);
}

extern "C" sl_status sl_cuda_sum_of_squares(sl_exec *e, int64_t n, const float *x, double *out) {
  SL_TRY(SL_LAUNCH(squares_kernel, SL_SQUARES_BLOCKS, THREADS, 0, e->stream, x, n, sl_squares_part(n), out + 1));
  return SL_LAUNCH(squares_sum_kernel, 1, SL_SQUARES_BLOCKS, 0, e->stream, out + 1, out);
}
