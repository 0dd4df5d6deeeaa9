/* The gated residual on CUDA: a thread has one channel, or four, of many rows. */
#include "gpu/gpu.h"

#include "ops/adaln_math.h"
#include "ops/kernels.h"
#include "ops/rows_cuda.h"

namespace {

struct residual_args {
  int64_t N, T, C;
  sl_gpu_rows out, x, y, gate, mask, skip, dout, dx, dy, dskip;
  float *partial;
};

constexpr int THREADS = 128;

} // namespace

template <int V>
SL_DEVICE sl_pack<float, V> mask_of(const sl_gpu_rows &mask, int64_t n, int64_t c) {
  sl_pack<float, V> r;
  for (int i = 0; i < V; i++) r.v[i] = 1.0f;
  if (!mask.p) return r;
  const sl_pack<uint8_t, V> m = *(const sl_pack<uint8_t, V> *)((const uint8_t *)mask.p + n * mask.stride + c);
  for (int i = 0; i < V; i++) r.v[i] = (float)m.v[i];
  return r;
}

template <int V>
SL_DEVICE sl_pack<float, V> product(const sl_pack<float, V> &a, const sl_pack<float, V> &b) {
  sl_pack<float, V> r;
  for (int i = 0; i < V; i++) r.v[i] = a.v[i] * b.v[i];
  return r;
}

/* Block (i, k, n): channels from i THREADS V, rows from k SL_ROW_BLOCK of sample n; gate and mask are read once. */
template <int V>
__global__ void gated_residual_kernel(const residual_args a) {
  const int64_t n = blockIdx.z, c = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * V,
                begin = (int64_t)blockIdx.y * SL_ROW_BLOCK;
  if (c >= a.C) return;
  const int64_t end = begin + SL_ROW_BLOCK < a.T ? begin + SL_ROW_BLOCK : a.T;
  const sl_pack<float, V> gate = sl_load<V>(a.gate.p, a.gate.bf16, n * a.gate.stride + c),
                          mask = mask_of<V>(a.mask, n, c);
  for (int64_t t = begin; t < end; t++) {
    const int64_t at = (n * a.T + t) * a.C + c;
    const sl_pack<float, V> x = sl_load<V>(a.x.p, a.x.bf16, at), y = sl_load<V>(a.y.p, a.y.bf16, at);
    sl_pack<float, V> out;
    if (a.skip.p && a.mask.p) {
      const sl_pack<float, V> skip = sl_load<V>(a.skip.p, a.skip.bf16, at);
      for (int i = 0; i < V; i++) out.v[i] = x.v[i] + gate.v[i] * y.v[i] + (1.0f - mask.v[i]) * skip.v[i];
    } else {
      for (int i = 0; i < V; i++) out.v[i] = mask.v[i] * x.v[i] + gate.v[i] * y.v[i];
    }
    sl_store<V>(a.out.p, a.out.bf16, at, out);
  }
}

template <int V>
__global__ void gated_residual_backward_kernel(const residual_args a) {
  const int64_t n = blockIdx.z, c = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * V,
                begin = (int64_t)blockIdx.y * SL_ROW_BLOCK;
  if (c >= a.C) return;
  const int64_t end = begin + SL_ROW_BLOCK < a.T ? begin + SL_ROW_BLOCK : a.T;
  const sl_pack<float, V> gate = sl_load<V>(a.gate.p, a.gate.bf16, n * a.gate.stride + c),
                          mask = mask_of<V>(a.mask, n, c);
  sl_pack<float, V> rest, dgate;
  for (int i = 0; i < V; i++) rest.v[i] = 1.0f - mask.v[i], dgate.v[i] = 0.0f;
  for (int64_t t = begin; t < end; t++) {
    const int64_t at = (n * a.T + t) * a.C + c;
    const sl_pack<float, V> dout = sl_load<V>(a.dout.p, a.dout.bf16, at);
    if (a.partial) {
      const sl_pack<float, V> y = sl_load<V>(a.y.p, a.y.bf16, at);
      for (int i = 0; i < V; i++) dgate.v[i] += dout.v[i] * y.v[i];
    }
    if (a.dy.p) sl_store<V>(a.dy.p, a.dy.bf16, at, product<V>(gate, dout));
    if (a.dx.p) sl_store<V>(a.dx.p, a.dx.bf16, at, product<V>(mask, dout));
    if (a.dskip.p) sl_store<V>(a.dskip.p, a.dskip.bf16, at, product<V>(rest, dout));
  }
  if (a.partial) sl_store<V>(a.partial, false, (n * gridDim.y + blockIdx.y) * a.C + c, dgate);
}

/* Adds the blocks' sums, in order. */
__global__ void gate_sums_kernel(const float *partial, int64_t blocks, int64_t C, float *dgate) {
  const int64_t c = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, n = blockIdx.y;
  float sum = 0.0f;
  for (int64_t b = 0; c < C && b < blocks; b++) sum += partial[(n * blocks + b) * C + c];
  if (c < C) dgate[n * C + c] = sum;
}

static sl_status check_grid(const residual_args &a) {
  SL_REQUIRE(a.N <= 65535 && sl_row_blocks(a.T) <= 65535, UNSUPPORTED,
             "gated_residual: %lld samples of %lld tokens, expected at most 65535 of 2097120 on a GPU", (long long)a.N,
             (long long)a.T);
  return SL_STATUS_OK;
}

static dim3 grid_of(const residual_args &a, int v) {
  return dim3((unsigned)((a.C + THREADS * v - 1) / (THREADS * v)), (unsigned)sl_row_blocks(a.T), (unsigned)a.N);
}

extern "C" sl_status sl_cuda_gated_residual(sl_exec *e, const sl_view *out, const sl_view *x, const sl_view *y,
                                            const sl_view *gate, const sl_view *mask, const sl_view *skip) {
  residual_args a = {};
  a.N = x->shape.dim[0], a.T = x->shape.dim[1], a.C = x->shape.dim[2];
  if (a.N * a.T * a.C == 0) return SL_STATUS_OK;
  SL_TRY(check_grid(a));
  a.out = sl_gpu_rows_of(out), a.x = sl_gpu_rows_of(x), a.y = sl_gpu_rows_of(y), a.gate = sl_gpu_rows_of(gate),
  a.mask = sl_gpu_rows_of(mask), a.skip = sl_gpu_rows_of(skip);
  const sl_gpu_rows all[] = {a.out, a.x, a.y, a.gate, a.mask, a.skip};
  if (sl_gpu_by_four(a.C, all, 6)) return SL_LAUNCH(gated_residual_kernel<4>, grid_of(a, 4), THREADS, 0, e->stream, a);
  return SL_LAUNCH(gated_residual_kernel<1>, grid_of(a, 1), THREADS, 0, e->stream, a);
}

extern "C" sl_status sl_cuda_gated_residual_backward(sl_exec *e, const sl_view *dx, const sl_view *dy,
                                                     const sl_view *dgate, const sl_view *dskip, const sl_view *dout,
                                                     const sl_view *y, const sl_view *gate, const sl_view *mask,
                                                     void *workspace) {
  residual_args a = {};
  a.N = dout->shape.dim[0], a.T = dout->shape.dim[1], a.C = dout->shape.dim[2];
  if (a.N * a.C == 0) return SL_STATUS_OK;
  SL_TRY(check_grid(a));
  a.dout = sl_gpu_rows_of(dout), a.y = sl_gpu_rows_of(y), a.gate = sl_gpu_rows_of(gate), a.mask = sl_gpu_rows_of(mask);
  a.dx = sl_gpu_rows_of(dx), a.dy = sl_gpu_rows_of(dy), a.dskip = sl_gpu_rows_of(dskip);
  a.partial = dgate->data ? (float *)workspace : nullptr;
  const sl_gpu_rows all[] = {a.dout, a.y, a.gate, a.mask, a.dx, a.dy, a.dskip};
  if (sl_gpu_by_four(a.C, all, 7))
    SL_TRY(SL_LAUNCH(gated_residual_backward_kernel<4>, grid_of(a, 4), THREADS, 0, e->stream, a));
  else SL_TRY(SL_LAUNCH(gated_residual_backward_kernel<1>, grid_of(a, 1), THREADS, 0, e->stream, a));
  if (!dgate->data) return SL_STATUS_OK;
  const dim3 grid((unsigned)((a.C + THREADS - 1) / THREADS), (unsigned)a.N);
  return SL_LAUNCH(gate_sums_kernel, grid, THREADS, 0, e->stream, a.partial, sl_row_blocks(a.T), a.C,
                   (float *)dgate->data);
}
