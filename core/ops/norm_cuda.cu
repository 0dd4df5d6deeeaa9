/* LayerNorm on CUDA: a warp has a row, or a block if it is long. The gradients of weight and bias are sums over all
 * rows, taken by blocks that each own a strip of columns, in an order that the shape fixes. */
#include "gpu/gpu.h"

#include "ops/adaln_math.h"
#include "ops/kernels.h"

namespace {

constexpr int THREADS = 256;
constexpr int64_t LONG_ROW = 4096; /* from here on a block has a row */

struct norm_args {
  int64_t rows, C;
  const void *x, *dy;
  void *y; /* backward: dx */
  bool x_bf16, y_bf16, dy_bf16;
  const float *w, *b;
  float *mean, *rstd, *dw, *db;
  float eps;
};

} // namespace

/* Of tensors of rows: 8 neighbours are bf16, 4 are f32, one is either. */
template <int V>
SL_DEVICE sl_pack<float, V> load(const void *p, bool bf16, int64_t at) {
  return sl_load<V>(p, V == 8 || (V == 1 && bf16), at);
}

template <int V>
SL_DEVICE void store(void *p, bool bf16, int64_t at, const sl_pack<float, V> &v) {
  sl_store<V>(p, V == 8 || (V == 1 && bf16), at, v);
}

/* V weights; `none` where there are no weights. */
template <int V>
SL_DEVICE sl_pack<float, V> weights(const float *w, int64_t c, float none) {
  if (w) return sl_load<V>(w, false, c);
  sl_pack<float, V> r;
  for (int i = 0; i < V; i++) r.v[i] = none;
  return r;
}

/* --- rows, by T threads: a warp or a block --- */

template <int T>
SL_DEVICE float row_sum(float v) {
  if constexpr (T == 32) return sl_warp_sum(v);
  else return sl_block_sum(v);
}

/* T threads have a row. It is read three times, from L1 after the first. */
template <int V, int T>
__global__ void layer_norm_kernel(const norm_args a) {
  const int64_t C = a.C, first = (int64_t)(threadIdx.x % T) * V, step = (int64_t)gridDim.x * (THREADS / T);
  for (int64_t row = (int64_t)blockIdx.x * (THREADS / T) + threadIdx.x / T; row < a.rows; row += step) {
    float sum = 0.0f, squares = 0.0f;
    for (int64_t c = first; c < C; c += T * V) {
      const sl_pack<float, V> x = load<V>(a.x, a.x_bf16, row * C + c);
      for (int i = 0; i < V; i++) sum += x.v[i];
    }
    const float mean = row_sum<T>(sum) / (float)C;
    for (int64_t c = first; c < C; c += T * V) {
      const sl_pack<float, V> x = load<V>(a.x, a.x_bf16, row * C + c);
      for (int i = 0; i < V; i++) squares += (x.v[i] - mean) * (x.v[i] - mean);
    }
    const float rstd = 1.0f / sqrtf(row_sum<T>(squares) / (float)C + a.eps);
    for (int64_t c = first; c < C && a.y; c += T * V) {
      sl_pack<float, V> x = load<V>(a.x, a.x_bf16, row * C + c);
      const sl_pack<float, V> w = weights<V>(a.w, c, 1.0f), b = weights<V>(a.b, c, 0.0f);
      for (int i = 0; i < V; i++) x.v[i] = (x.v[i] - mean) * rstd * w.v[i] + b.v[i];
      store<V>(a.y, a.y_bf16, row * C + c, x);
    }
    if (threadIdx.x % T == 0 && a.mean) a.mean[row] = mean;
    if (threadIdx.x % T == 0 && a.rstd) a.rstd[row] = rstd;
  }
}

/* T threads have a row: with g = dy w and xhat = (x - mean) rstd, dx = rstd (g - mean(g) - xhat mean(g xhat)). */
template <int V, int T>
__global__ void layer_norm_backward_kernel(const norm_args a) {
  const int64_t C = a.C, first = (int64_t)(threadIdx.x % T) * V, step = (int64_t)gridDim.x * (THREADS / T);
  for (int64_t row = (int64_t)blockIdx.x * (THREADS / T) + threadIdx.x / T; row < a.rows; row += step) {
    const float mean = a.mean[row], rstd = a.rstd[row];
    float sum_g = 0.0f, sum_gx = 0.0f;
    for (int64_t c = first; c < C; c += T * V) {
      const sl_pack<float, V> x = load<V>(a.x, a.x_bf16, row * C + c), w = weights<V>(a.w, c, 1.0f);
      const sl_pack<float, V> dy = load<V>(a.dy, a.dy_bf16, row * C + c);
      for (int i = 0; i < V; i++) {
        const float g = dy.v[i] * w.v[i];
        sum_g += g;
        sum_gx += g * ((x.v[i] - mean) * rstd);
      }
    }
    const float mean_g = row_sum<T>(sum_g) / (float)C, mean_gx = row_sum<T>(sum_gx) / (float)C;
    for (int64_t c = first; c < C; c += T * V) {
      const sl_pack<float, V> x = load<V>(a.x, a.x_bf16, row * C + c), w = weights<V>(a.w, c, 1.0f);
      sl_pack<float, V> dy = load<V>(a.dy, a.dy_bf16, row * C + c);
      for (int i = 0; i < V; i++)
        dy.v[i] = sl_adaln_dr(dy.v[i] * w.v[i], (x.v[i] - mean) * rstd, rstd, mean_g, mean_gx);
      store<V>(a.y, a.y_bf16, row * C + c, dy);
    }
  }
}

/* --- sums over rows --- */

/* What one thread has of dw and db, of V columns. */
template <int V>
struct column_sums {
  float w[V], b[V];
};

/* Adds R rows, `step` apart, that are loaded before any is used; they join the sums together, which keeps rounding
 * small. */
template <int V, int R>
SL_DEVICE void add_rows(const norm_args &a, int64_t c, int64_t row, int64_t step, column_sums<V> &s) {
  sl_pack<float, V> dy[R], x[R];
  float mean[R], rstd[R];
  column_sums<V> run = {};
  for (int k = 0; k < R; k++) dy[k] = load<V>(a.dy, a.dy_bf16, (row + k * step) * a.C + c);
  for (int k = 0; k < R && a.dw; k++) {
    x[k] = load<V>(a.x, a.x_bf16, (row + k * step) * a.C + c);
    mean[k] = a.mean[row + k * step], rstd[k] = a.rstd[row + k * step];
  }
  for (int k = 0; k < R; k++)
    for (int i = 0; i < V; i++) run.b[i] += dy[k].v[i];
  for (int k = 0; k < R && a.dw; k++)
    for (int i = 0; i < V; i++) run.w[i] += dy[k].v[i] * ((x[k].v[i] - mean[k]) * rstd[k]);
  for (int i = 0; i < V; i++) s.w[i] += run.w[i], s.b[i] += run.b[i];
}

/* Rows first, first + step … of V columns from c. */
template <int V>
SL_DEVICE column_sums<V> sum_rows(const norm_args &a, int64_t c, int64_t first, int64_t step) {
  constexpr int R = 4;
  column_sums<V> s = {};
  int64_t row = first;
  for (; row + (R - 1) * step < a.rows; row += R * step) add_rows<V, R>(a, c, row, step, s);
  for (; row < a.rows; row += step) add_rows<V, 1>(a, c, row, step, s);
  return s;
}

/* A block has P V columns from blockIdx.x P V; thread t has V of them, in every (blockDim.x / P)-th row from t / P. */
template <int V, int P>
__global__ void layer_norm_weights_kernel(const norm_args a) {
  SL_SHARED(float, parts, 32 * P * V * 2);
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32, t = threadIdx.x;
  const int64_t strip = (int64_t)blockIdx.x * P * V, c = strip + t % P * V;
  column_sums<V> s = {};
  if (c < a.C) s = sum_rows<V>(a, c, t / P, blockDim.x / P);
  for (int i = 0; i < V; i++)
    for (int m = 16; m >= P; m >>= 1) {
      s.w[i] += __shfl_xor_sync(0xffffffffu, s.w[i], m);
      s.b[i] += __shfl_xor_sync(0xffffffffu, s.b[i], m);
    }
  for (int i = 0; i < V && lane < P; i++) {
    parts[(warp * 2 + 0) * P * V + lane * V + i] = s.w[i];
    parts[(warp * 2 + 1) * P * V + lane * V + i] = s.b[i];
  }
  __syncthreads();
  if (t >= 2 * P * V) return;
  float *out = t < P * V ? a.dw : a.db, sum = 0.0f;
  for (unsigned k = 0; k < warps; k++) sum += parts[k * 2 * P * V + t];
  if (out && strip + t % (P * V) < a.C) out[strip + t % (P * V)] = sum;
}

/* --- launches --- */

/* Neighbours that are read as one, 16 bytes where every tensor of rows has the dtype and the alignment for it. */
static int width_of(const norm_args &a) {
  const uintptr_t any = (uintptr_t)a.x | (uintptr_t)a.y | (uintptr_t)a.dy | (uintptr_t)a.w | (uintptr_t)a.b;
  const bool same = (!a.y || a.y_bf16 == a.x_bf16) && (!a.dy || a.dy_bf16 == a.x_bf16);
  const int v = a.x_bf16 ? 8 : 4;
  return same && any % 16 == 0 && a.C % v == 0 ? v : 1;
}

static dim3 grid_of(const norm_args &a, int threads) {
  const int64_t at_once = THREADS / threads, blocks = (a.rows + at_once - 1) / at_once;
  return dim3((unsigned)(blocks < (1 << 30) ? blocks : 1 << 30));
}

template <int V, int T>
static sl_status launch_rows(sl_exec *e, const norm_args &a) {
  if (a.dy) return SL_LAUNCH((layer_norm_backward_kernel<V, T>), grid_of(a, T), THREADS, 0, e->stream, a);
  return SL_LAUNCH((layer_norm_kernel<V, T>), grid_of(a, T), THREADS, 0, e->stream, a);
}

template <int V>
static sl_status launch_any(sl_exec *e, const norm_args &a) {
  return a.C < LONG_ROW ? launch_rows<V, 32>(e, a) : launch_rows<V, THREADS>(e, a);
}

static sl_status launch(sl_exec *e, const norm_args &a) {
  const int v = width_of(a);
  return v == 8 ? launch_any<8>(e, a) : v == 4 ? launch_any<4>(e, a) : launch_any<1>(e, a);
}

/* Strips of 32 bytes of a row, or of 32 elements where they are not aligned. */
static sl_status launch_weights(sl_exec *e, const norm_args &a) {
  const int v = width_of(a);
  const int64_t wide = v == 1 ? 32 : 2 * v;
  const dim3 grid((unsigned)((a.C + wide - 1) / wide));
  if (v == 8) return SL_LAUNCH((layer_norm_weights_kernel<8, 2>), grid, 512, 0, e->stream, a);
  if (v == 4) return SL_LAUNCH((layer_norm_weights_kernel<4, 2>), grid, 512, 0, e->stream, a);
  return SL_LAUNCH((layer_norm_weights_kernel<1, 32>), grid, 1024, 0, e->stream, a);
}

static norm_args args_of(const sl_view *y, const sl_view *x, const sl_view *w, const sl_view *mean,
                         const sl_view *rstd) {
  norm_args a = {};
  a.C = x->shape.dim[x->shape.rank - 1], a.rows = 1;
  for (int i = 0; i + 1 < x->shape.rank; i++) a.rows *= x->shape.dim[i];
  a.x = x->data, a.x_bf16 = x->dtype == SL_BF16;
  a.y = y->data, a.y_bf16 = y->dtype == SL_BF16;
  a.w = (const float *)w->data, a.mean = (float *)mean->data, a.rstd = (float *)rstd->data;
  return a;
}

extern "C" sl_status sl_cuda_layer_norm(sl_exec *e, const sl_view *y, const sl_view *mean, const sl_view *rstd,
                                        const sl_view *x, const sl_view *w, const sl_view *b, double eps) {
  norm_args a = args_of(y, x, w, mean, rstd);
  a.b = (const float *)b->data, a.eps = (float)eps;
  return a.rows * a.C == 0 ? SL_STATUS_OK : launch(e, a);
}

extern "C" sl_status sl_cuda_layer_norm_backward(sl_exec *e, const sl_view *dx, const sl_view *dw, const sl_view *db,
                                                 const sl_view *dy, const sl_view *x, const sl_view *w,
                                                 const sl_view *mean, const sl_view *rstd, void *workspace) {
  (void)workspace;
  norm_args a = args_of(dx, x, w, mean, rstd);
  a.dy = dy->data, a.dy_bf16 = dy->dtype == SL_BF16;
  a.dw = (float *)dw->data, a.db = (float *)db->data;
  if (a.rows * a.C > 0 && a.y) SL_TRY(launch(e, a));
  return a.C > 0 && (a.dw || a.db) ? launch_weights(e, a) : SL_STATUS_OK;
}
