/* adaLN on CUDA: a warp per row; backward also sums over rows, a block per SL_ROW_BLOCK rows of a sample. */
#include "gpu/gpu.h"

#include "ops/adaln_math.h"
#include "ops/kernels.h"
#include "ops/rows_cuda.h"

namespace {

struct sizes {
  int64_t N, T, C;
};

struct adaln_args {
  sizes d;
  sl_gpu_rows x, y, dy, dx, prior, shift, scale, mask;
  float *mean, *rstd, *partial;
  float eps;
};

constexpr int WARPS = 8; /* rows that a block works on at once */

} // namespace

template <int V>
SL_DEVICE sl_pack<float, V> masked(const sl_gpu_rows &mask, int64_t n, int64_t c, sl_pack<float, V> x) {
  if (!mask.p) return x;
  const sl_pack<uint8_t, V> m = *(const sl_pack<uint8_t, V> *)((const uint8_t *)mask.p + n * mask.stride + c);
  for (int i = 0; i < V; i++) x.v[i] *= (float)m.v[i];
  return x;
}

template <int V>
SL_DEVICE sl_pack<float, V> value_of_row(const adaln_args &a, int64_t n, int64_t row, int64_t c) {
  return masked<V>(a.mask, n, c, sl_load<V>(a.x.p, a.x.bf16, row * a.d.C + c));
}

/* The row is read three times, from L1 after the first. */
template <int V>
__global__ void adaln_kernel(const adaln_args a) {
  const int64_t C = a.d.C, row = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32, n = row / a.d.T;
  const int64_t first = threadIdx.x % 32 * V, end = row < a.d.N * a.d.T ? C : 0;
  float sum = 0.0f, squares = 0.0f;
  for (int64_t c = first; c < end; c += 32 * V) {
    const sl_pack<float, V> r = value_of_row<V>(a, n, row, c);
    for (int i = 0; i < V; i++) sum += r.v[i];
  }
  const float mean = sl_warp_sum(sum) / (float)C;
  for (int64_t c = first; c < end; c += 32 * V) {
    const sl_pack<float, V> r = value_of_row<V>(a, n, row, c);
    for (int i = 0; i < V; i++) squares += (r.v[i] - mean) * (r.v[i] - mean);
  }
  const float rstd = 1.0f / sqrtf(sl_warp_sum(squares) / (float)C + a.eps);
  for (int64_t c = first; c < end && a.y.p; c += 32 * V) {
    const sl_pack<float, V> r = value_of_row<V>(a, n, row, c);
    const sl_pack<float, V> shift = sl_load<V>(a.shift.p, a.shift.bf16, n * a.shift.stride + c);
    const sl_pack<float, V> scale = sl_load<V>(a.scale.p, a.scale.bf16, n * a.scale.stride + c);
    sl_pack<float, V> y;
    for (int i = 0; i < V; i++) y.v[i] = sl_adaln_y(r.v[i], mean, rstd, shift.v[i], scale.v[i]);
    sl_store<V>(a.y.p, a.y.bf16, row * C + c, y);
  }
  if (end && threadIdx.x % 32 == 0) {
    if (a.mean) a.mean[row] = mean;
    if (a.rstd) a.rstd[row] = rstd;
  }
}

/* dx of one row, by one warp. */
template <int V>
SL_DEVICE void backward_row(const adaln_args &a, int64_t n, int64_t row, bool real) {
  const int64_t C = a.d.C, first = threadIdx.x % 32 * V, end = real ? C : 0;
  const float mean = real ? a.mean[row] : 0.0f, rstd = real ? a.rstd[row] : 0.0f;
  float sum_g = 0.0f, sum_gx = 0.0f;
  for (int64_t c = first; c < end; c += 32 * V) {
    const sl_pack<float, V> r = value_of_row<V>(a, n, row, c), dy = sl_load<V>(a.dy.p, a.dy.bf16, row * C + c);
    const sl_pack<float, V> scale = sl_load<V>(a.scale.p, a.scale.bf16, n * a.scale.stride + c);
    for (int i = 0; i < V; i++) {
      const float g = dy.v[i] * (1.0f + scale.v[i]);
      sum_g += g;
      sum_gx += g * ((r.v[i] - mean) * rstd);
    }
  }
  const float mean_g = sl_warp_sum(sum_g) / (float)C, mean_gx = sl_warp_sum(sum_gx) / (float)C;
  for (int64_t c = first; c < end; c += 32 * V) {
    const sl_pack<float, V> r = value_of_row<V>(a, n, row, c), dy = sl_load<V>(a.dy.p, a.dy.bf16, row * C + c);
    const sl_pack<float, V> scale = sl_load<V>(a.scale.p, a.scale.bf16, n * a.scale.stride + c);
    sl_pack<float, V> dx;
    for (int i = 0; i < V; i++)
      dx.v[i] = sl_adaln_dr(dy.v[i] * (1.0f + scale.v[i]), (r.v[i] - mean) * rstd, rstd, mean_g, mean_gx);
    dx = masked<V>(a.mask, n, c, dx);
    if (a.prior.p) {
      const sl_pack<float, V> prior = sl_load<V>(a.prior.p, a.prior.bf16, row * C + c);
      for (int i = 0; i < V; i++) dx.v[i] += prior.v[i];
    }
    sl_store<V>(a.dx.p, a.dx.bf16, row * C + c, dx);
  }
}

/* Warps first make dx of WARPS rows; then each thread adds those rows, still in L1, to the sums of its channels. The
 * sums lie in shared memory, [2, C]. Block (k, n) has rows k SL_ROW_BLOCK … of sample n. */
template <int V>
__global__ void adaln_backward_kernel(const adaln_args a) {
  SL_SHARED_DYN(float, sums);
  const int64_t C = a.d.C, n = blockIdx.y, begin = (int64_t)blockIdx.x * SL_ROW_BLOCK, stride = (int64_t)blockDim.x * V;
  const int64_t end = begin + SL_ROW_BLOCK < a.d.T ? begin + SL_ROW_BLOCK : a.d.T, mine = (int64_t)threadIdx.x * V;
  for (int64_t c = mine; c < C; c += stride)
    for (int i = 0; i < V; i++) sums[c + i] = sums[C + c + i] = 0.0f;
  for (int64_t t = begin; t < end; t += WARPS) {
    const int64_t own = t + threadIdx.x / 32, last = t + WARPS < end ? t + WARPS : end;
    if (a.dx.p) backward_row<V>(a, n, n * a.d.T + own, own < end);
    for (int64_t row = n * a.d.T + t; row < n * a.d.T + last; row++) {
      const float mean = a.mean[row], rstd = a.rstd[row];
      for (int64_t c = mine; c < C; c += stride) {
        const sl_pack<float, V> r = value_of_row<V>(a, n, row, c), dy = sl_load<V>(a.dy.p, a.dy.bf16, row * C + c);
        for (int i = 0; i < V; i++) {
          sums[c + i] += dy.v[i];
          sums[C + c + i] += dy.v[i] * ((r.v[i] - mean) * rstd);
        }
      }
    }
  }
  float *partial = a.partial + 2 * C * (n * gridDim.x + blockIdx.x);
  for (int64_t c = mine; c < C; c += stride)
    for (int i = 0; i < V; i++) partial[c + i] = sums[c + i], partial[C + c + i] = sums[C + c + i];
}

/* Adds the blocks' sums, in order. */
__global__ void adaln_sums_kernel(const float *partial, int64_t blocks, int64_t C, float *dshift, float *dscale) {
  const int64_t c = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, n = blockIdx.y;
  float shift = 0.0f, scale = 0.0f;
  for (int64_t b = 0; c < C && b < blocks; b++) {
    shift += partial[2 * C * (n * blocks + b) + c];
    scale += partial[2 * C * (n * blocks + b) + C + c];
  }
  if (c < C && dshift) dshift[n * C + c] = shift;
  if (c < C && dscale) dscale[n * C + c] = scale;
}

extern "C" sl_status sl_cuda_adaln(sl_exec *e, const sl_view *y, const sl_view *mean, const sl_view *rstd,
                                   const sl_view *x, const sl_view *shift, const sl_view *scale, const sl_view *mask,
                                   double eps) {
  adaln_args a = {};
  a.d = {x->shape.dim[0], x->shape.dim[1], x->shape.dim[2]};
  if (a.d.N * a.d.T * a.d.C == 0) return SL_STATUS_OK;
  a.x = sl_gpu_rows_of(x), a.y = sl_gpu_rows_of(y), a.shift = sl_gpu_rows_of(shift), a.scale = sl_gpu_rows_of(scale);
  a.mask = sl_gpu_rows_of(mask);
  a.mean = (float *)mean->data, a.rstd = (float *)rstd->data, a.eps = (float)eps;
  const sl_gpu_rows all[] = {a.x, a.y, a.shift, a.scale, a.mask};
  const dim3 grid((unsigned)((a.d.N * a.d.T + WARPS - 1) / WARPS));
  if (sl_gpu_by_four(a.d.C, all, 5)) return SL_LAUNCH(adaln_kernel<4>, grid, 32 * WARPS, 0, e->stream, a);
  return SL_LAUNCH(adaln_kernel<1>, grid, 32 * WARPS, 0, e->stream, a);
}

extern "C" sl_status sl_cuda_adaln_backward(sl_exec *e, const sl_view *dx, const sl_view *dshift, const sl_view *dscale,
                                            const sl_view *dy, const sl_view *x, const sl_view *scale,
                                            const sl_view *mask, const sl_view *mean, const sl_view *rstd,
                                            const sl_view *prior, void *workspace) {
  adaln_args a = {};
  a.d = {x->shape.dim[0], x->shape.dim[1], x->shape.dim[2]};
  if (a.d.N * a.d.C == 0) return SL_STATUS_OK;
  a.x = sl_gpu_rows_of(x), a.dy = sl_gpu_rows_of(dy), a.scale = sl_gpu_rows_of(scale);
  a.mask = sl_gpu_rows_of(mask);
  a.dx = sl_gpu_rows_of(dx);
  a.prior = sl_gpu_rows_of(prior);
  a.mean = (float *)mean->data, a.rstd = (float *)rstd->data, a.partial = (float *)workspace;
  const sl_gpu_rows all[] = {a.x, a.dy, a.scale, a.mask, a.dx, a.prior};
  const int64_t blocks = sl_row_blocks(a.d.T);
  const size_t bytes = 2 * (size_t)a.d.C * sizeof(float);
  SL_REQUIRE(bytes <= (48 << 10), UNSUPPORTED, "adaln: %lld channels, expected at most 6144 on a GPU",
             (long long)a.d.C);
  SL_REQUIRE(a.d.N <= 65535, UNSUPPORTED, "adaln: a batch of %lld, expected at most 65535 on a GPU", (long long)a.d.N);
  const dim3 grid((unsigned)blocks, (unsigned)a.d.N), grid2((unsigned)((a.d.C + 127) / 128), (unsigned)a.d.N);
  if (sl_gpu_by_four(a.d.C, all, 6)) SL_TRY(SL_LAUNCH(adaln_backward_kernel<4>, grid, 32 * WARPS, bytes, e->stream, a));
  else SL_TRY(SL_LAUNCH(adaln_backward_kernel<1>, grid, 32 * WARPS, bytes, e->stream, a));
  return SL_LAUNCH(adaln_sums_kernel, grid2, 128, 0, e->stream, a.partial, blocks, a.d.C, (float *)dshift->data,
                   (float *)dscale->data);
}
