/* Softmax and its logarithm on CUDA. Rows of up to 1024 elements lie in the registers of a warp and are read once;
 * longer ones are read three times by a block, from a cache after the first; with elements between neighbours (inner >
 * 1), threads next to each other have columns next to each other. */
#include "gpu/gpu.h"

#include "ops/kernels.h"

namespace {

constexpr int THREADS = 256, WARPS = THREADS / 32;

struct softmax_args {
  const void *x, *dy; /* backward: x is the softmax */
  void *y;            /* backward: dx */
  bool x_bf16, dy_bf16, y_bf16, log;
  int64_t rows, n, inner;
  int64_t lanes; /* columns of a block, a power of two; the other threads share their elements */
};

/* A row in registers: V neighbours K times, 32 V apart. */
template <int V, int K>
struct row_part {
  sl_pack<float, V> v[K];
};

} // namespace

/* --- rows in registers --- */

template <bool H, int V, int K>
SL_DEVICE row_part<V, K> load_row(const void *p, int64_t row, int64_t n, float none) {
  row_part<V, K> r;
  for (int k = 0; k < K; k++) {
    const int64_t i = (int64_t)(threadIdx.x % 32 + 32 * k) * V;
    for (int j = 0; j < V; j++) r.v[k].v[j] = none;
    if (i < n) r.v[k] = sl_load<V>(p, H, row * n + i);
  }
  return r;
}

template <bool H, int V, int K>
SL_DEVICE void store_row(void *p, int64_t row, int64_t n, const row_part<V, K> &r) {
  for (int k = 0; k < K; k++) {
    const int64_t i = (int64_t)(threadIdx.x % 32 + 32 * k) * V;
    if (i < n) sl_store<V>(p, H, row * n + i, r.v[k]);
  }
}

/* A warp has a row of at most 32 V K elements. */
template <bool H, int V, int K>
__global__ void softmax_rows_kernel(const softmax_args a) {
  const int64_t step = (int64_t)gridDim.x * WARPS;
  for (int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32; row < a.rows; row += step) {
    row_part<V, K> r = load_row<H, V, K>(a.x, row, a.n, -INFINITY);
    float most = -INFINITY, sum = 0.0f;
    for (int k = 0; k < K; k++)
      for (int j = 0; j < V; j++) most = sl_larger(most, r.v[k].v[j]);
    most = sl_warp_max(most);
    for (int k = 0; k < K; k++)
      for (int j = 0; j < V; j++) {
        const float v = r.v[k].v[j] - most, power = expf(v);
        sum += power;
        r.v[k].v[j] = a.log ? v : power;
      }
    sum = sl_warp_sum(sum);
    const float inverse = 1.0f / sum, log_sum = logf(sum);
    for (int k = 0; k < K; k++)
      for (int j = 0; j < V; j++) r.v[k].v[j] = a.log ? r.v[k].v[j] - log_sum : r.v[k].v[j] * inverse;
    store_row<H, V, K>(a.y, row, a.n, r);
  }
}

/* softmax: dx = y (dy - sum dy y); log_softmax: dx = dy - exp(y) sum dy. */
SL_DEVICE float addend(bool log, float y, float dy) { return log ? dy : dy * y; }
SL_DEVICE float slope(bool log, float y, float dy, float sum) { return log ? dy - expf(y) * sum : y * (dy - sum); }

/* A warp has a row of at most 32 V K elements. */
template <bool H, int V, int K>
__global__ void __launch_bounds__(THREADS, V == 1 ? 2 : 3) softmax_backward_rows_kernel(const softmax_args a) {
  const int64_t step = (int64_t)gridDim.x * WARPS;
  for (int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32; row < a.rows; row += step) {
    const row_part<V, K> y = load_row<H, V, K>(a.x, row, a.n, 0.0f);
    row_part<V, K> dy = load_row<H, V, K>(a.dy, row, a.n, 0.0f);
    float sum = 0.0f;
    for (int k = 0; k < K; k++)
      for (int j = 0; j < V; j++) sum += addend(a.log, y.v[k].v[j], dy.v[k].v[j]);
    sum = sl_warp_sum(sum);
    for (int k = 0; k < K; k++)
      for (int j = 0; j < V; j++) dy.v[k].v[j] = slope(a.log, y.v[k].v[j], dy.v[k].v[j], sum);
    store_row<H, V, K>(a.y, row, a.n, dy);
  }
}

/* --- long rows --- */

/* A block has a row. */
template <bool H, int V>
__global__ void softmax_long_kernel(const softmax_args a) {
  const int64_t first = (int64_t)threadIdx.x * V, step = (int64_t)THREADS * V;
  for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
    float most = -INFINITY, sum = 0.0f;
    for (int64_t i = first; i < a.n; i += step) {
      const sl_pack<float, V> x = sl_load<V>(a.x, H, row * a.n + i);
      for (int j = 0; j < V; j++) most = sl_larger(most, x.v[j]);
    }
    most = sl_block_max(most);
    for (int64_t i = first; i < a.n; i += step) {
      const sl_pack<float, V> x = sl_load<V>(a.x, H, row * a.n + i);
      for (int j = 0; j < V; j++) sum += expf(x.v[j] - most);
    }
    sum = sl_block_sum(sum);
    const float inverse = 1.0f / sum, log_sum = logf(sum);
    for (int64_t i = first; i < a.n; i += step) {
      sl_pack<float, V> x = sl_load<V>(a.x, H, row * a.n + i);
      for (int j = 0; j < V; j++) x.v[j] = a.log ? x.v[j] - most - log_sum : expf(x.v[j] - most) * inverse;
      sl_store<V>(a.y, H, row * a.n + i, x);
    }
  }
}

/* A block has a row. */
template <bool H, int V>
__global__ void softmax_backward_long_kernel(const softmax_args a) {
  const int64_t first = (int64_t)threadIdx.x * V, step = (int64_t)THREADS * V;
  for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
    float sum = 0.0f;
    for (int64_t i = first; i < a.n; i += step) {
      const sl_pack<float, V> y = sl_load<V>(a.x, H, row * a.n + i), dy = sl_load<V>(a.dy, H, row * a.n + i);
      for (int j = 0; j < V; j++) sum += addend(a.log, y.v[j], dy.v[j]);
    }
    sum = sl_block_sum(sum);
    for (int64_t i = first; i < a.n; i += step) {
      const sl_pack<float, V> y = sl_load<V>(a.x, H, row * a.n + i);
      sl_pack<float, V> dy = sl_load<V>(a.dy, H, row * a.n + i);
      for (int j = 0; j < V; j++) dy.v[j] = slope(a.log, y.v[j], dy.v[j], sum);
      sl_store<V>(a.y, H, row * a.n + i, dy);
    }
  }
}

/* --- columns, any dtypes --- */

SL_DEVICE float one_of(const void *p, bool bf16, int64_t at) { return sl_load<1>(p, bf16, at).v[0]; }

SL_DEVICE void put_one(void *p, bool bf16, int64_t at, float v) {
  const sl_pack<float, 1> x = {{v}};
  sl_store<1>(p, bf16, at, x);
}

/* The sum, or the largest, of the block's threads that have one column; each of them gets it. */
template <bool MOST>
SL_DEVICE float column_total(float v, unsigned lanes) {
  SL_SHARED(float, parts, THREADS);
  const unsigned t = threadIdx.x;
  __syncthreads(); /* parts may still be read from the total before */
  parts[t] = v;
  for (unsigned half = THREADS / 2; half >= lanes; half /= 2) {
    __syncthreads();
    if (t < half) parts[t] = MOST ? sl_larger(parts[t], parts[t + half]) : parts[t] + parts[t + half];
  }
  __syncthreads();
  return parts[t % lanes];
}

/* A block has `lanes` columns; thread t has every (THREADS / lanes)-th element of column t % lanes. */
__global__ void softmax_columns_kernel(const softmax_args a) {
  const int64_t part = threadIdx.x / a.lanes, parts = THREADS / a.lanes, count = a.rows * a.inner;
  for (int64_t base = blockIdx.x * a.lanes; base < count; base += gridDim.x * a.lanes) {
    const int64_t column = base + threadIdx.x % a.lanes, end = column < count ? a.n : 0;
    const int64_t at = column / a.inner * a.n * a.inner + column % a.inner;
    float most = -INFINITY, sum = 0.0f;
    for (int64_t i = part; i < end; i += parts) most = sl_larger(most, one_of(a.x, a.x_bf16, at + i * a.inner));
    most = column_total<true>(most, (unsigned)a.lanes);
    for (int64_t i = part; i < end; i += parts) sum += expf(one_of(a.x, a.x_bf16, at + i * a.inner) - most);
    sum = column_total<false>(sum, (unsigned)a.lanes);
    const float inverse = 1.0f / sum, log_sum = logf(sum);
    for (int64_t i = part; i < end; i += parts) {
      const float v = one_of(a.x, a.x_bf16, at + i * a.inner) - most;
      put_one(a.y, a.y_bf16, at + i * a.inner, a.log ? v - log_sum : expf(v) * inverse);
    }
  }
}

/* As above. */
__global__ void softmax_backward_columns_kernel(const softmax_args a) {
  const int64_t part = threadIdx.x / a.lanes, parts = THREADS / a.lanes, count = a.rows * a.inner;
  for (int64_t base = blockIdx.x * a.lanes; base < count; base += gridDim.x * a.lanes) {
    const int64_t column = base + threadIdx.x % a.lanes, end = column < count ? a.n : 0;
    const int64_t at = column / a.inner * a.n * a.inner + column % a.inner;
    float sum = 0.0f;
    for (int64_t i = part; i < end; i += parts) {
      const int64_t k = at + i * a.inner;
      sum += addend(a.log, one_of(a.x, a.x_bf16, k), one_of(a.dy, a.dy_bf16, k));
    }
    sum = column_total<false>(sum, (unsigned)a.lanes);
    for (int64_t i = part; i < end; i += parts) {
      const int64_t k = at + i * a.inner;
      put_one(a.y, a.y_bf16, k, slope(a.log, one_of(a.x, a.x_bf16, k), one_of(a.dy, a.dy_bf16, k), sum));
    }
  }
}

/* --- launches --- */

static dim3 grid_of(int64_t items, int64_t per_block) {
  const int64_t blocks = (items + per_block - 1) / per_block;
  return dim3((unsigned)(blocks < (1 << 30) ? blocks : 1 << 30));
}

template <bool H, int V, int K>
static sl_status launch_rows(sl_exec *e, const softmax_args &a) {
  const dim3 grid = grid_of(a.rows, WARPS);
  if (a.dy) return SL_LAUNCH((softmax_backward_rows_kernel<H, V, K>), grid, THREADS, 0, e->stream, a);
  return SL_LAUNCH((softmax_rows_kernel<H, V, K>), grid, THREADS, 0, e->stream, a);
}

template <bool H, int V>
static sl_status launch_long(sl_exec *e, const softmax_args &a) {
  const dim3 grid = grid_of(a.rows, 1);
  if (a.dy) return SL_LAUNCH((softmax_backward_long_kernel<H, V>), grid, THREADS, 0, e->stream, a);
  return SL_LAUNCH((softmax_long_kernel<H, V>), grid, THREADS, 0, e->stream, a);
}

/* Rows of one dtype, 16 bytes at a time where all of them begin at a multiple of 16 bytes. */
template <bool H>
static sl_status launch_dense(sl_exec *e, const softmax_args &a) {
  constexpr int V = H ? 8 : 4;
  const uintptr_t any = (uintptr_t)a.x | (uintptr_t)a.y | (uintptr_t)a.dy;
  if (a.n % V || any % 16)
    return a.n <= 256    ? launch_rows<H, 1, 8>(e, a)
           : a.n <= 1024 ? launch_rows<H, 1, 32>(e, a)
                         : launch_long<H, 1>(e, a);
  return a.n <= 256    ? launch_rows<H, V, 8 / V>(e, a)
         : a.n <= 1024 ? launch_rows<H, V, 32 / V>(e, a)
                       : launch_long<H, V>(e, a);
}

/* As many columns to a block as lie side by side, and more where they are short. */
static sl_status launch_columns(sl_exec *e, softmax_args *a) {
  a->lanes = 1;
  while (a->lanes < 32 && a->lanes < a->inner) a->lanes *= 2;
  while (a->lanes < THREADS && THREADS / a->lanes > a->n) a->lanes *= 2;
  const dim3 grid = grid_of(a->rows * a->inner, a->lanes);
  if (a->dy) return SL_LAUNCH(softmax_backward_columns_kernel, grid, THREADS, 0, e->stream, *a);
  return SL_LAUNCH(softmax_columns_kernel, grid, THREADS, 0, e->stream, *a);
}

static sl_status launch(sl_exec *e, softmax_args *a) {
  if (a->rows * a->n * a->inner == 0) return SL_STATUS_OK;
  const bool same = a->x_bf16 == a->y_bf16 && (!a->dy || a->dy_bf16 == a->x_bf16);
  if (a->inner > 1 || !same) return launch_columns(e, a);
  return a->x_bf16 ? launch_dense<true>(e, *a) : launch_dense<false>(e, *a);
}

extern "C" sl_status sl_cuda_softmax(sl_exec *e, bool log, const sl_view *y, const sl_view *x, int64_t rows, int64_t n,
                                     int64_t inner) {
  softmax_args a = {};
  a.x = x->data, a.y = y->data, a.x_bf16 = x->dtype == SL_BF16, a.y_bf16 = y->dtype == SL_BF16, a.log = log;
  a.rows = rows, a.n = n, a.inner = inner;
  return launch(e, &a);
}

extern "C" sl_status sl_cuda_softmax_backward(sl_exec *e, bool log, const sl_view *dx, const sl_view *dy,
                                              const sl_view *y, int64_t rows, int64_t n, int64_t inner) {
  softmax_args a = {};
  a.x = y->data, a.dy = dy->data, a.y = dx->data, a.log = log;
  a.x_bf16 = y->dtype == SL_BF16, a.dy_bf16 = dy->dtype == SL_BF16, a.y_bf16 = dx->dtype == SL_BF16;
  a.rows = rows, a.n = n, a.inner = inner;
  return launch(e, &a);
}
