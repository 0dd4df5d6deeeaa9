/* Up- and down-sampling on CUDA: pixels of `inner` neighbours, 1 in planes, C in channels-last images. Sums run in the
 * CPU's order. */
#include "gpu/gpu.h"

#include "ops/kernels.h"

namespace {

constexpr int THREADS = 256;

/* rows, W: of the smaller image, its rows over all images. */
struct resample_args {
  const float *x;
  float *y;
  int64_t rows, W, s, inner;
};

} // namespace

/* A thread has V neighbours of a small pixel and writes them s x s times. */
template <int V>
__global__ void enlarge_pixels_kernel(const resample_args a) {
  const int64_t packs = a.inner / V, end = a.rows * a.W * packs, stride = (int64_t)gridDim.x * THREADS;
  for (int64_t u = (int64_t)blockIdx.x * THREADS + threadIdx.x; u < end; u += stride) {
    const int64_t pixel = u / packs, row = pixel / a.W, column = pixel % a.W;
    const sl_pack<float, V> v = sl_load<V>(a.x, false, u * V);
    float *y = a.y + (row * a.s * a.W + column) * a.s * a.inner + u % packs * V;
    for (int64_t i = 0; i < a.s; i++)
      for (int64_t j = 0; j < a.s; j++) sl_store<V>(y, false, (i * a.W * a.s + j) * a.inner, v);
  }
}

/* Planes: a thread has V neighbours in a row of the large image. */
template <int V>
__global__ void enlarge_planes_kernel(const resample_args a) {
  const int64_t packs = a.W * a.s / V, end = a.rows * a.s * packs, stride = (int64_t)gridDim.x * THREADS;
  for (int64_t u = (int64_t)blockIdx.x * THREADS + threadIdx.x; u < end; u += stride) {
    const int64_t row = u / packs / a.s, first = u % packs * V;
    int64_t from = first / a.s, k = first % a.s;
    sl_pack<float, V> v;
    for (int i = 0; i < V; i++) {
      v.v[i] = a.x[row * a.W + from];
      if (++k == a.s) k = 0, from++;
    }
    sl_store<V>(a.y, false, u * V, v);
  }
}

/* A thread has V neighbours of a small pixel. S: the scale, or 0 for any, as loads follow one another at once only
 * where their number is known. */
template <int V, int S>
__global__ void shrink_pixels_kernel(const resample_args a) {
  const int64_t packs = a.inner / V, end = a.rows * a.W * packs, stride = (int64_t)gridDim.x * THREADS, s = S ? S : a.s;
  const float part = 1 / (float)(s * s);
  for (int64_t u = (int64_t)blockIdx.x * THREADS + threadIdx.x; u < end; u += stride) {
    const int64_t pixel = u / packs, row = pixel / a.W, column = pixel % a.W;
    const float *x = a.x + (row * s * a.W + column) * s * a.inner + u % packs * V;
    sl_pack<float, V> sum = {};
    for (int64_t i = 0; i < s; i++)
      for (int64_t j = 0; j < s; j++) {
        const sl_pack<float, V> v = sl_load<V>(x, false, (i * a.W * s + j) * a.inner);
        for (int k = 0; k < V; k++) sum.v[k] += v.v[k];
      }
    for (int k = 0; k < V; k++) sum.v[k] *= part;
    sl_store<V>(a.y, false, u * V, sum);
  }
}

/* Planes halved: a thread has V neighbours in a row of the small image. */
template <int V>
__global__ void halve_planes_kernel(const resample_args a) {
  const int64_t packs = a.W / V, end = a.rows * packs, stride = (int64_t)gridDim.x * THREADS;
  for (int64_t u = (int64_t)blockIdx.x * THREADS + threadIdx.x; u < end; u += stride) {
    const float *x = a.x + u / packs * 4 * a.W + u % packs * 2 * V;
    float in[2][2 * V];
    for (int i = 0; i < 2; i++)
      for (int j = 0; j < 2; j++) {
        const sl_pack<float, V> v = sl_load<V>(x, false, i * 2 * a.W + j * V);
        for (int k = 0; k < V; k++) in[i][j * V + k] = v.v[k];
      }
    sl_pack<float, V> y;
    for (int k = 0; k < V; k++) y.v[k] = 0.25f * (in[0][2 * k] + in[0][2 * k + 1] + (in[1][2 * k] + in[1][2 * k + 1]));
    sl_store<V>(a.y, false, u * V, y);
  }
}

static dim3 grid_of(int64_t threads) {
  const int64_t blocks = (threads + THREADS - 1) / THREADS;
  return dim3((unsigned)(blocks < 1 << 20 ? blocks : 1 << 20));
}

static resample_args args_of(const sl_view *y, const sl_view *x, const sl_view *small, int64_t scale, bool last) {
  const int64_t *d = small->shape.dim;
  return {(const float *)x->data, (float *)y->data, last ? d[0] * d[1] : d[0] * d[1] * d[2], d[last ? 2 : 3], scale,
          last ? d[3] : 1};
}

/* Whether rows of n floats are whole packs of four wherever they lie. */
static bool by_four(const resample_args &a, int64_t n) {
  return n % 4 == 0 && ((uintptr_t)a.x | (uintptr_t)a.y) % 16 == 0;
}

extern "C" sl_status sl_cuda_upsample(sl_exec *e, const sl_view *y, const sl_view *x, int64_t scale, bool last) {
  const resample_args a = args_of(y, x, x, scale, last);
  const int64_t n = a.rows * a.W * a.inner;
  if (n == 0) return SL_STATUS_OK;
  if (a.inner > 1 && by_four(a, a.inner))
    return SL_LAUNCH(enlarge_pixels_kernel<4>, grid_of(n / 4), THREADS, 0, e->stream, a);
  if (a.inner > 1) return SL_LAUNCH(enlarge_pixels_kernel<1>, grid_of(n), THREADS, 0, e->stream, a);
  if (by_four(a, a.W * scale))
    return SL_LAUNCH(enlarge_planes_kernel<4>, grid_of(n * scale * scale / 4), THREADS, 0, e->stream, a);
  return SL_LAUNCH(enlarge_planes_kernel<1>, grid_of(n * scale * scale), THREADS, 0, e->stream, a);
}

extern "C" sl_status sl_cuda_downsample(sl_exec *e, const sl_view *y, const sl_view *x, int64_t scale, bool last) {
  const resample_args a = args_of(y, x, y, scale, last);
  const int64_t n = a.rows * a.W * a.inner;
  if (n == 0) return SL_STATUS_OK;
  if (a.inner == 1 && scale == 2 && by_four(a, a.W))
    return SL_LAUNCH(halve_planes_kernel<4>, grid_of(n / 4), THREADS, 0, e->stream, a);
  if (a.inner == 1 && scale == 2) return SL_LAUNCH(halve_planes_kernel<1>, grid_of(n), THREADS, 0, e->stream, a);
  const bool four = a.inner > 1 && by_four(a, a.inner);
  if (four && scale == 2) return SL_LAUNCH((shrink_pixels_kernel<4, 2>), grid_of(n / 4), THREADS, 0, e->stream, a);
  if (four) return SL_LAUNCH((shrink_pixels_kernel<4, 0>), grid_of(n / 4), THREADS, 0, e->stream, a);
  return SL_LAUNCH((shrink_pixels_kernel<1, 0>), grid_of(n), THREADS, 0, e->stream, a);
}
