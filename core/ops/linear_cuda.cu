/* Sums of columns on CUDA. A block owns a strip of columns and goes down all rows, so that no sums between blocks and
 * no workspace are needed; the order of addition depends on the shape alone. Strips are 32 bytes of a row, the least
 * that memory gives, where there would be fewer than WIDE blocks, else 64. */
#include "gpu/gpu.h"

#include "ops/kernels.h"

namespace {

constexpr int THREADS = 1024, WARPS = THREADS / 32;
constexpr int64_t WIDE = 128;

struct sum_args {
  const void *x;
  float *y;
  int64_t rows, cols, row_stride;
  bool add;
};

} // namespace

/* Adds R rows, `step` apart, that are loaded before any is used; they join the total together, which keeps rounding
 * small. */
template <bool H, int V, int R>
SL_DEVICE void add_rows(const sum_args &a, int64_t c, int64_t row, int64_t step, sl_pack<float, V> &total) {
  sl_pack<float, V> x[R];
  for (int k = 0; k < R; k++) x[k] = sl_load<V>(a.x, H, (row + k * step) * a.row_stride + c);
  for (int half = 1; half < R; half *= 2)
    for (int k = 0; k < R; k += 2 * half)
      for (int i = 0; i < V; i++) x[k].v[i] += x[k + half].v[i];
  for (int i = 0; i < V; i++) total.v[i] += x[0].v[i];
}

/* Rows first, first + step … of V columns from c. */
template <bool H, int V>
SL_DEVICE sl_pack<float, V> sum_rows(const sum_args &a, int64_t c, int64_t first, int64_t step) {
  constexpr int R = 8;
  sl_pack<float, V> total;
  for (int i = 0; i < V; i++) total.v[i] = 0.0f;
  int64_t row = first;
  for (; row + (R - 1) * step < a.rows; row += R * step) add_rows<H, V, R>(a, c, row, step, total);
  for (; row < a.rows; row += step) add_rows<H, V, 1>(a, c, row, step, total);
  return total;
}

/* A block has P V columns from blockIdx.x P V; thread t has V of them, in every (THREADS / P)-th row from t / P. */
template <bool H, int V, int P>
__global__ void __launch_bounds__(THREADS) column_sum_kernel(const sum_args a) {
  SL_SHARED(float, parts, WARPS *P *V);
  const unsigned t = threadIdx.x, lane = t % 32, warp = t / 32;
  const int64_t strip = (int64_t)blockIdx.x * P * V, c = strip + t % P * V;
  sl_pack<float, V> s;
  for (int i = 0; i < V; i++) s.v[i] = 0.0f;
  if (c < a.cols) s = sum_rows<H, V>(a, c, t / P, THREADS / P);
  for (int i = 0; i < V; i++)
    for (int m = 16; m >= P; m >>= 1) s.v[i] += __shfl_xor_sync(0xffffffffu, s.v[i], m);
  for (int i = 0; i < V && lane < P; i++) parts[warp * P * V + lane * V + i] = s.v[i];
  __syncthreads();
  if (t >= P * V || strip + t >= a.cols) return;
  float sum = 0.0f;
  for (int k = 0; k < WARPS; k++) sum += parts[k * P * V + t];
  a.y[strip + t] = a.add ? a.y[strip + t] + sum : sum;
}

template <bool H, int V, int P>
static sl_status launch_strips(sl_exec *e, const sum_args &a) {
  const dim3 grid((unsigned)((a.cols + P * V - 1) / (P * V)));
  return SL_LAUNCH((column_sum_kernel<H, V, P>), grid, THREADS, 0, e->stream, a);
}

template <bool H>
static sl_status launch(sl_exec *e, const sum_args &a) {
  constexpr int V = H ? 8 : 4;
  if (a.cols % V || a.row_stride % V || (uintptr_t)a.x % 16) return launch_strips<H, 1, 32>(e, a);
  return a.cols >= WIDE * 4 * V ? launch_strips<H, V, 4>(e, a) : launch_strips<H, V, 2>(e, a);
}

extern "C" sl_status sl_cuda_column_sum(sl_exec *e, const sl_view *y, const sl_view *x, int64_t rows, int64_t cols,
                                        int64_t row_stride) {
  if (cols == 0) return SL_STATUS_OK;
  const sum_args a = {x->data, (float *)y->data, rows, cols, row_stride, y->accumulate};
  return x->dtype == SL_BF16 ? launch<true>(e, a) : launch<false>(e, a);
}
