/* Pooling on CUDA. One set of kernels for both orders, as on the CPU: pixels of `inner` neighbours, 1 in planes
 * [N*C][H][W], C in channels-last images [N][H][W]. Sums run in the CPU's order. */
#include "gpu/gpu.h"

#include "ops/kernels.h"
#include "ops/window.h"

namespace {

constexpr int THREADS = 256;
constexpr int OWNERS =
    THREADS / 32;        /* of a channel's pixels, in max_pool2d's backward pass over channels-last images */
constexpr int BATCH = 8; /* loads under way at once */

struct pool_args {
  sl_window w;
  const float *x, *dy;
  float *y, *dx;
  int32_t *at;
  int64_t outer, inner, H, W, OH, OW;
  bool count_pad;
};

/* Pixel (row, column) of an image or plane; c: its first neighbour. */
struct place {
  int64_t image, row, column, c;
};

struct span {
  int64_t first, last;
};

} // namespace

template <int V>
SL_DEVICE int64_t units(const pool_args &a, int64_t rows, int64_t columns) {
  return a.outer * rows * columns * (a.inner / V);
}

/* Where unit i lies, of V neighbours each. */
template <int V>
SL_DEVICE place place_of(const pool_args &a, int64_t i, int64_t rows, int64_t columns) {
  const int64_t packs = a.inner / V, pixel = i / packs, line = pixel / columns;
  return {line / rows, line % rows, pixel % columns, i % packs * V};
}

/* Rows (d = 0) or columns of the image under output position `out`. */
SL_DEVICE span span_of(const pool_args &a, int d, int64_t out) {
  const int64_t size = d ? a.W : a.H, first = out * a.w.stride[d] - a.w.pad[2 * d], last = first + a.w.kernel[d];
  return {first < 0 ? 0 : first, last > size ? size : last};
}

/* Rows or columns that count where a mean is taken: those inside the image, or inside the padded image. */
SL_DEVICE int64_t counted(const pool_args &a, int d, int64_t out) {
  if (!a.count_pad) {
    const span s = span_of(a, d, out);
    return s.last - s.first;
  }
  const int64_t first = out * a.w.stride[d] - a.w.pad[2 * d], end = (d ? a.W : a.H) + a.w.pad[2 * d + 1];
  return (first + a.w.kernel[d] < end ? first + a.w.kernel[d] : end) - first;
}

SL_DEVICE float share(int64_t rows, int64_t columns) {
  const int64_t count = rows * columns;
  return count > 0 ? 1 / (float)count : 0.0f;
}

/* --- maxima --- */

/* A thread has V neighbours of an output pixel. The last NaN of a window wins, else the first of equals. */
template <int V>
__global__ void max_kernel(const pool_args a) {
  const int64_t stride = (int64_t)gridDim.x * THREADS, end = units<V>(a, a.OH, a.OW);
  for (int64_t u = (int64_t)blockIdx.x * THREADS + threadIdx.x; u < end; u += stride) {
    const place to = place_of<V>(a, u, a.OH, a.OW);
    const span rows = span_of(a, 0, to.row), columns = span_of(a, 1, to.column);
    const float *x = a.x + to.image * a.H * a.W * a.inner + to.c;
    sl_pack<int32_t, V> at;
    sl_pack<float, V> best = sl_load<V>(x, false, (rows.first * a.W + columns.first) * a.inner);
    for (int k = 0; k < V; k++) at.v[k] = (int32_t)(rows.first * a.W + columns.first);
    for (int64_t i = rows.first; i < rows.last; i++)
      for (int64_t j = columns.first; j < columns.last; j++) {
        const sl_pack<float, V> v = sl_load<V>(x, false, (i * a.W + j) * a.inner);
        for (int k = 0; k < V; k++)
          if (v.v[k] > best.v[k] || v.v[k] != v.v[k]) best.v[k] = v.v[k], at.v[k] = (int32_t)(i * a.W + j);
      }
    if (a.y) sl_store<V>(a.y, false, u * V, best);
    if (a.at) *(sl_pack<int32_t, V> *)(a.at + u * V) = at;
  }
}

/* Channels-last images. Windows may share a pixel, so that every pixel has one owner, who adds what comes to it in the
 * outputs' order: thread (lane, w) has the pixels w, w + OWNERS, … of one channel. Block i: 32 channels of an image. */
__global__ void max_backward_last_kernel(const pool_args a) {
  const int64_t chunks = (a.inner + 31) / 32, image = blockIdx.x / chunks;
  const int64_t c = blockIdx.x % chunks * 32 + threadIdx.x % 32, pixels = a.H * a.W, outputs = a.OH * a.OW;
  const int owner = (int)(threadIdx.x / 32);
  if (c >= a.inner) return;
  float *dx = a.dx + image * pixels * a.inner + c;
  const float *dy = a.dy + image * outputs * a.inner + c;
  const int32_t *at = a.at + image * outputs * a.inner + c;
  for (int64_t i = owner; i < pixels; i += OWNERS) dx[i * a.inner] = 0.0f;
  for (int64_t o = 0; o < outputs; o += BATCH) {
    int32_t to[BATCH];
    float d[BATCH];
    for (int k = 0; k < BATCH; k++) {
      to[k] = o + k < outputs ? at[(o + k) * a.inner] : -1;
      if (to[k] % OWNERS != owner) to[k] = -1;
    }
    for (int k = 0; k < BATCH; k++) d[k] = to[k] >= 0 ? dy[(o + k) * a.inner] : 0.0f;
    for (int k = 0; k < BATCH; k++)
      if (to[k] >= 0) dx[to[k] * a.inner] += d[k];
  }
}

/* Planes. A warp has a plane; its lanes read 32 outputs at once and show them to each other in turn: the pixel `at`
 * belongs to lane at % 32. */
__global__ void max_backward_planes_kernel(const pool_args a) {
  const int64_t plane = (int64_t)blockIdx.x * (THREADS / 32) + threadIdx.x / 32, pixels = a.H * a.W;
  const int64_t outputs = plane < a.outer ? a.OH * a.OW : 0;
  const int lane = (int)(threadIdx.x % 32);
  float *dx = a.dx + plane * pixels;
  for (int64_t i = lane; i < pixels && plane < a.outer; i += 32) dx[i] = 0.0f;
  for (int64_t o = 0; o < outputs; o += 32) {
    const bool real = o + lane < outputs;
    const int32_t at = real ? a.at[plane * outputs + o + lane] : -1;
    const float dy = real ? a.dy[plane * outputs + o + lane] : 0.0f;
    for (int k = 0; k < 32; k++) {
      const int32_t to = __shfl_sync(0xffffffffu, at, k);
      const float d = __shfl_sync(0xffffffffu, dy, k);
      if (to % 32 == lane) dx[to] += d; /* -1 is nobody's */
    }
  }
}

/* --- means --- */

/* A thread has V neighbours of an output pixel. */
template <int V>
__global__ void mean_kernel(const pool_args a) {
  const int64_t stride = (int64_t)gridDim.x * THREADS, end = units<V>(a, a.OH, a.OW);
  for (int64_t u = (int64_t)blockIdx.x * THREADS + threadIdx.x; u < end; u += stride) {
    const place to = place_of<V>(a, u, a.OH, a.OW);
    const span rows = span_of(a, 0, to.row), columns = span_of(a, 1, to.column);
    const float part = share(counted(a, 0, to.row), counted(a, 1, to.column));
    const float *x = a.x + to.image * a.H * a.W * a.inner + to.c;
    sl_pack<float, V> sum = {};
    for (int64_t i = rows.first; i < rows.last; i++)
      for (int64_t j = columns.first; j < columns.last; j++) {
        const sl_pack<float, V> v = sl_load<V>(x, false, (i * a.W + j) * a.inner);
        for (int k = 0; k < V; k++) sum.v[k] += v.v[k];
      }
    for (int k = 0; k < V; k++) sum.v[k] *= part;
    sl_store<V>(a.y, false, u * V, sum);
  }
}

/* Output rows (d = 0) or columns whose windows hold position i of the image. */
SL_DEVICE span windows_over(const pool_args &a, int d, int64_t i) {
  const int64_t reach = i + a.w.pad[2 * d], s = a.w.stride[d], below = reach - a.w.kernel[d] + 1;
  const int64_t outputs = d ? a.OW : a.OH, last = reach / s + 1;
  return {below <= 0 ? 0 : (below + s - 1) / s, last < outputs ? last : outputs};
}

/* A thread has V neighbours of an image's pixel and gathers from the windows over it. */
template <int V>
__global__ void mean_backward_kernel(const pool_args a) {
  const int64_t stride = (int64_t)gridDim.x * THREADS, end = units<V>(a, a.H, a.W);
  for (int64_t u = (int64_t)blockIdx.x * THREADS + threadIdx.x; u < end; u += stride) {
    const place to = place_of<V>(a, u, a.H, a.W);
    const span rows = windows_over(a, 0, to.row), columns = windows_over(a, 1, to.column);
    const float *dy = a.dy + to.image * a.OH * a.OW * a.inner + to.c;
    sl_pack<float, V> sum = {};
    for (int64_t i = rows.first; i < rows.last; i++)
      for (int64_t j = columns.first; j < columns.last; j++) {
        const float part = share(counted(a, 0, i), counted(a, 1, j));
        const sl_pack<float, V> v = sl_load<V>(dy, false, (i * a.OW + j) * a.inner);
        for (int k = 0; k < V; k++) sum.v[k] += v.v[k] * part;
      }
    sl_store<V>(a.dx, false, u * V, sum);
  }
}

/* --- launchers --- */

static pool_args args_of(const sl_window *w, const sl_view *image, const sl_view *pooled, bool last) {
  const int64_t *i = image->shape.dim, *o = pooled->shape.dim;
  pool_args a = {};
  if (w) a.w = *w;
  a.outer = last ? i[0] : i[0] * i[1], a.inner = last ? i[3] : 1;
  a.H = i[last ? 1 : 2], a.W = i[last ? 2 : 3], a.OH = o[last ? 1 : 2], a.OW = o[last ? 2 : 3];
  return a;
}

static bool by_four(const pool_args &a) {
  const uintptr_t all = (uintptr_t)a.x | (uintptr_t)a.dy | (uintptr_t)a.y | (uintptr_t)a.dx | (uintptr_t)a.at;
  return a.inner % 4 == 0 && all % 16 == 0;
}

static dim3 grid_of(int64_t threads) {
  const int64_t blocks = (threads + THREADS - 1) / THREADS;
  return dim3((unsigned)(blocks < 1 << 20 ? blocks : 1 << 20));
}

extern "C" sl_status sl_cuda_max_pool2d(sl_exec *e, const sl_view *y, const sl_view *at, const sl_view *x,
                                        const sl_window *w, bool last) {
  pool_args a = args_of(w, x, y, last);
  a.x = (const float *)x->data, a.y = (float *)y->data, a.at = (int32_t *)at->data;
  const int64_t n = a.outer * a.OH * a.OW * a.inner;
  if (n == 0 || a.H * a.W == 0) return SL_STATUS_OK;
  if (by_four(a)) return SL_LAUNCH(max_kernel<4>, grid_of(n / 4), THREADS, 0, e->stream, a);
  return SL_LAUNCH(max_kernel<1>, grid_of(n), THREADS, 0, e->stream, a);
}

extern "C" sl_status sl_cuda_max_pool2d_backward(sl_exec *e, const sl_view *dx, const sl_view *dy, const sl_view *at,
                                                 bool last) {
  pool_args a = args_of(nullptr, dx, dy, last);
  a.dx = (float *)dx->data, a.dy = (const float *)dy->data, a.at = (int32_t *)at->data;
  if (a.outer * a.H * a.W * a.inner == 0) return SL_STATUS_OK;
  if (last && a.inner > 1)
    return SL_LAUNCH(max_backward_last_kernel, (unsigned)(a.outer * ((a.inner + 31) / 32)), THREADS, 0, e->stream, a);
  const unsigned blocks = (unsigned)((a.outer + THREADS / 32 - 1) / (THREADS / 32));
  return SL_LAUNCH(max_backward_planes_kernel, blocks, THREADS, 0, e->stream, a);
}

extern "C" sl_status sl_cuda_avg_pool2d(sl_exec *e, const sl_view *y, const sl_view *x, const sl_window *w, bool last,
                                        bool count_pad) {
  pool_args a = args_of(w, x, y, last);
  a.x = (const float *)x->data, a.y = (float *)y->data, a.count_pad = count_pad;
  const int64_t n = a.outer * a.OH * a.OW * a.inner;
  if (n == 0) return SL_STATUS_OK;
  if (by_four(a)) return SL_LAUNCH(mean_kernel<4>, grid_of(n / 4), THREADS, 0, e->stream, a);
  return SL_LAUNCH(mean_kernel<1>, grid_of(n), THREADS, 0, e->stream, a);
}

extern "C" sl_status sl_cuda_avg_pool2d_backward(sl_exec *e, const sl_view *dx, const sl_view *dy, const sl_window *w,
                                                 bool last, bool count_pad) {
  pool_args a = args_of(w, dx, dy, last);
  a.dx = (float *)dx->data, a.dy = (const float *)dy->data, a.count_pad = count_pad;
  const int64_t n = a.outer * a.H * a.W * a.inner;
  if (n == 0) return SL_STATUS_OK;
  if (by_four(a)) return SL_LAUNCH(mean_backward_kernel<4>, grid_of(n / 4), THREADS, 0, e->stream, a);
  return SL_LAUNCH(mean_backward_kernel<1>, grid_of(n), THREADS, 0, e->stream, a);
}
