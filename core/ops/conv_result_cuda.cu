/* A bf16 convolution's result in f32, its bias added on the way. */
#include "gpu/gpu.h"

#include "ops/conv_result_cuda.h"

namespace {

constexpr int THREADS = 256;

struct result_args {
  float *y;
  const uint16_t *x;
  const float *bias;
  int64_t units, K; /* units of V neighbours, which are of one row */
};

} // namespace

/* A thread has V neighbours of every grid's width. */
template <int V>
__global__ void __launch_bounds__(THREADS) conv_result_kernel(const result_args a) {
  const int64_t step = (int64_t)gridDim.x * THREADS;
  for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < a.units; i += step) {
    sl_pack<float, V> r = sl_load<V>(a.x, true, i * V);
    if (a.bias) {
      const sl_pack<float, V> b = sl_load<V>(a.bias, false, i * V % a.K);
      for (int k = 0; k < V; k++) r.v[k] += b.v[k];
    }
    sl_store<V>(a.y, false, i * V, r);
  }
}

extern "C" sl_status sl_gpu_conv_result(void *stream, float *y, const uint16_t *x, const float *bias, int64_t rows,
                                        int64_t K) {
  const bool wide = K % 8 == 0 && (((uintptr_t)y | (uintptr_t)x | (uintptr_t)bias) & 15) == 0;
  const int64_t units = rows * K / (wide ? 8 : 1), blocks = (units + THREADS - 1) / THREADS;
  const result_args a = {y, x, bias, units, K};
  const dim3 grid((unsigned)(blocks < 16384 ? blocks : 16384));
  if (units == 0) return SL_STATUS_OK;
  return wide ? SL_LAUNCH(conv_result_kernel<8>, grid, THREADS, 0, stream, a)
              : SL_LAUNCH(conv_result_kernel<1>, grid, THREADS, 0, stream, a);
}
