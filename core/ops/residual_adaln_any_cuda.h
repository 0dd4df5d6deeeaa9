/* The kernels of residual_adaln_rows_cuda.h for rows of any length and any mix of dtypes, V neighbours (4 or 1) at a
 * time: rows are read again where those keep them in registers, from L1 or L2. */
#ifndef SL_OPS_RESIDUAL_ADALN_ANY_CUDA_H
#define SL_OPS_RESIDUAL_ADALN_ANY_CUDA_H

#include "ops/residual_adaln_rows_cuda.h"

namespace sl_rows_gpu {

template <int V>
SL_DEVICE sl_pack<float, V> row_of(const sl_gpu_rows &r, int64_t n, int64_t c) {
  return sl_load<V>(r.p, r.bf16, n * r.stride + c);
}

/* Ones where there is no mask. */
template <int V>
SL_DEVICE sl_pack<float, V> mask_of(const sl_gpu_rows &mask, int64_t n, int64_t c) {
  sl_pack<float, V> r;
  for (int i = 0; i < V; i++) r.v[i] = 1.0f;
  return mask.p ? sl_floats(sl_read<uint8_t, V>(mask.p, n * mask.stride + c)) : r;
}

template <int V>
SL_DEVICE void times(sl_pack<float, V> *x, const sl_pack<float, V> &by) {
  for (int i = 0; i < V; i++) x->v[i] *= by.v[i];
}

/* r, as it is rounded: the first time computed and written; then read, unless nobody keeps it. */
template <int V>
SL_DEVICE sl_pack<float, V> sum_at(const rows_args &a, int64_t n, int64_t at, int64_t c, bool again) {
  if (again && a.r.p) return sl_load<V>(a.r.p, a.r.bf16, at);
  const sl_pack<float, V> y = sl_load<V>(a.y.p, a.y.bf16, at), gate = row_of<V>(a.gate, n, c);
  const sl_pack<float, V> mask = mask_of<V>(a.mask, n, c);
  sl_pack<float, V> r = sl_load<V>(a.x.p, a.x.bf16, at);
  if (a.skip.p && a.mask.p) {
    const sl_pack<float, V> skip = sl_load<V>(a.skip.p, a.skip.bf16, at);
    for (int i = 0; i < V; i++) r.v[i] = r.v[i] + gate.v[i] * y.v[i] + (1.0f - mask.v[i]) * skip.v[i];
  } else {
    for (int i = 0; i < V; i++) r.v[i] = mask.v[i] * r.v[i] + gate.v[i] * y.v[i];
  }
  if (a.r.p) sl_store<V>(a.r.p, a.r.bf16, at, r);
  for (int i = 0; i < V && a.x.bf16; i++) r.v[i] = sl_gpu_from_bf16(sl_gpu_to_bf16(r.v[i]));
  return r;
}

/* What is normed. */
template <int V, bool JOINED>
SL_DEVICE sl_pack<float, V> normed_at(const rows_args &a, int64_t n, int64_t row, int64_t c, bool again) {
  const int64_t at = row * a.C + c;
  sl_pack<float, V> r;
  if constexpr (JOINED) r = sum_at<V>(a, n, at, c, again);
  else r = sl_load<V>(a.x.p, a.x.bf16, at);
  times(&r, mask_of<V>(a.next, n, c));
  return r;
}

template <int V, bool JOINED>
__global__ void any_rows_kernel(const rows_args a) {
  const int64_t C = a.C, row = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32, n = row / a.T;
  const int64_t first = threadIdx.x % 32 * V, end = row < a.N * a.T ? C : 0;
  float sum = 0.0f, squares = 0.0f;
  for (int64_t c = first; c < end; c += 32 * V) {
    const sl_pack<float, V> r = normed_at<V, JOINED>(a, n, row, c, false);
    for (int i = 0; i < V; i++) sum += r.v[i];
  }
  const float mean = sl_warp_sum(sum) / (float)C;
  for (int64_t c = first; c < end; c += 32 * V) {
    const sl_pack<float, V> r = normed_at<V, JOINED>(a, n, row, c, true);
    for (int i = 0; i < V; i++) squares += (r.v[i] - mean) * (r.v[i] - mean);
  }
  const float rstd = 1.0f / sqrtf(sl_warp_sum(squares) / (float)C + a.eps);
  for (int64_t c = first; c < end && a.h.p; c += 32 * V) {
    const sl_pack<float, V> r = normed_at<V, JOINED>(a, n, row, c, true);
    const sl_pack<float, V> shift = row_of<V>(a.shift, n, c), scale = row_of<V>(a.scale, n, c);
    sl_pack<float, V> h;
    for (int i = 0; i < V; i++) h.v[i] = sl_adaln_y(r.v[i], mean, rstd, shift.v[i], scale.v[i]);
    sl_store<V>(a.h.p, a.h.bf16, row * C + c, h);
  }
  if (end && threadIdx.x % 32 == 0) {
    if (a.mean) a.mean[row] = mean;
    if (a.rstd) a.rstd[row] = rstd;
  }
}

/* xhat and g = dh (1 + scale) of V channels of a row. */
template <int V>
struct normed_part {
  sl_pack<float, V> xhat, dh, g;
};

template <int V>
SL_DEVICE normed_part<V> normed_part_at(const rows_args &a, int64_t n, int64_t row, int64_t c) {
  const int64_t at = row * a.C + c;
  const float mean = a.mean[row], rstd = a.rstd[row];
  const sl_pack<float, V> scale = row_of<V>(a.scale, n, c);
  normed_part<V> p;
  p.xhat = sl_load<V>(a.r.p, a.r.bf16, at);
  times(&p.xhat, mask_of<V>(a.next, n, c));
  p.dh = sl_load<V>(a.dh.p, a.dh.bf16, at);
  for (int i = 0; i < V; i++) {
    p.xhat.v[i] = (p.xhat.v[i] - mean) * rstd;
    p.g.v[i] = p.dh.v[i] * (1.0f + scale.v[i]);
  }
  return p;
}

/* Gradients of V channels of a row, from d, the gradient at r; adds to dgate. */
template <int V>
SL_DEVICE void write_shares(const rows_args &a, int64_t n, int64_t at, int64_t c, const sl_pack<float, V> &d,
                            sl_pack<float, V> *dgate) {
  const sl_pack<float, V> y = sl_load<V>(a.y.p, a.y.bf16, at), mask = mask_of<V>(a.mask, n, c);
  sl_pack<float, V> v = row_of<V>(a.gate, n, c), dx = d;
  for (int i = 0; i < V; i++) dgate->v[i] += d.v[i] * y.v[i];
  times(&v, d);
  if (a.dy.p) sl_store<V>(a.dy.p, a.dy.bf16, at, v);
  for (int i = 0; i < V; i++) v.v[i] = (1.0f - mask.v[i]) * d.v[i];
  if (a.dskip.p) sl_store<V>(a.dskip.p, a.dskip.bf16, at, v);
  if (!a.dx.p) return;
  if (a.share != SL_SHARE_WHOLE) times(&dx, mask);
  if (a.share == SL_SHARE_RESTORED) {
    v = sl_load<V>(a.dr.p, a.dr.bf16, at);
    for (int i = 0; i < V; i++) dx.v[i] += (1.0f - mask.v[i]) * v.v[i];
  }
  if (a.prior.p) {
    v = sl_load<V>(a.prior.p, a.prior.bf16, at);
    for (int i = 0; i < V; i++) dx.v[i] += v.v[i];
  }
  sl_store<V>(a.dx.p, a.dx.bf16, at, dx);
}

/* d of V channels of a row, as it is rounded. */
template <int V>
SL_DEVICE sl_pack<float, V> gradient_at(const rows_args &a, int64_t n, int64_t row, int64_t c, const normed_part<V> &p,
                                        const float *means) {
  const float rstd = a.rstd[row];
  sl_pack<float, V> d;
  for (int i = 0; i < V; i++) d.v[i] = sl_adaln_dr(p.g.v[i], p.xhat.v[i], rstd, means[0], means[1]);
  times(&d, mask_of<V>(a.next, n, c));
  if (a.dr.p) {
    const sl_pack<float, V> dr = sl_load<V>(a.dr.p, a.dr.bf16, row * a.C + c);
    for (int i = 0; i < V; i++) d.v[i] += dr.v[i];
  }
  for (int i = 0; i < V && a.r.bf16; i++) d.v[i] = sl_gpu_from_bf16(sl_gpu_to_bf16(d.v[i]));
  return d;
}

/* Block (b, n): rows from b SL_ROW_BLOCK of sample n, WARPS of them at once: a warp makes a row's means, then a thread
 * has its channels of all of them. */
template <int V, bool JOINED>
__global__ void any_rows_backward_kernel(const rows_args a) {
  SL_SHARED(float, means, 2 * WARPS);
  const int64_t C = a.C, n = blockIdx.y, begin = (int64_t)blockIdx.x * SL_ROW_BLOCK, step = (int64_t)blockDim.x * V;
  const int64_t end = begin + SL_ROW_BLOCK < a.T ? begin + SL_ROW_BLOCK : a.T, warp = threadIdx.x / 32;
  const sl_pack<float, V> none = {};
  float *dshift = a.partial + (JOINED ? 3 : 2) * C * (n * gridDim.x + blockIdx.x), *dscale = dshift + C;
  for (int64_t c = (int64_t)threadIdx.x * V; c < C; c += step)
    for (int k = 0; k < (JOINED ? 3 : 2); k++) sl_write<float, V>(dshift, k * C + c, none);
  for (int64_t t = begin; t < end; t += WARPS) {
    const int64_t rows = t + WARPS < end ? WARPS : end - t;
    float g = 0.0f, gx = 0.0f;
    for (int64_t c = threadIdx.x % 32 * V; warp < rows && c < C; c += 32 * V) {
      const normed_part<V> p = normed_part_at<V>(a, n, n * a.T + t + warp, c);
      for (int i = 0; i < V; i++) g += p.g.v[i], gx += p.g.v[i] * p.xhat.v[i];
    }
    g = sl_warp_sum(g), gx = sl_warp_sum(gx);
    __syncthreads(); /* the means before may still be read */
    if (threadIdx.x % 32 == 0) means[2 * warp] = g / (float)C, means[2 * warp + 1] = gx / (float)C;
    __syncthreads();
    for (int64_t c = (int64_t)threadIdx.x * V; c < C; c += step) {
      sl_pack<float, V> shift = sl_read<float, V>(dshift, c), scale = sl_read<float, V>(dscale, c), gate = {};
      if constexpr (JOINED) gate = sl_read<float, V>(dscale, C + c);
      for (int64_t k = 0; k < rows; k++) {
        const int64_t row = n * a.T + t + k;
        const normed_part<V> p = normed_part_at<V>(a, n, row, c);
        for (int i = 0; i < V; i++) shift.v[i] += p.dh.v[i], scale.v[i] += p.dh.v[i] * p.xhat.v[i];
        if (!JOINED && !a.dx.p) continue;
        const sl_pack<float, V> d = gradient_at<V>(a, n, row, c, p, means + 2 * k);
        if constexpr (JOINED) write_shares<V>(a, n, row * C + c, c, d, &gate);
        else sl_store<V>(a.dx.p, a.dx.bf16, row * C + c, d);
      }
      sl_write<float, V>(dshift, c, shift);
      sl_write<float, V>(dscale, c, scale);
      if constexpr (JOINED) sl_write<float, V>(dscale, C + c, gate);
    }
  }
}

/* --- launches --- */

template <class S, class B, int V, bool JOINED>
static sl_status launch_forward(void *stream, const rows_args &a, const dim3 &grid) {
  constexpr int SMALL = V == 4 ? 3 : 2, B_SIZE = V == 4 ? 6 : 3, L_SIZE = V == 4 ? 8 : 4, XL_SIZE = V == 4 ? 9 : 5;
  const int64_t packs = (a.C / V + 31) / 32; /* of a lane */
  const unsigned threads = 32 * WARPS;
  if (packs <= SMALL) return SL_LAUNCH((rows_kernel<S, B, V, SMALL, JOINED>), grid, threads, 0, stream, a);
  if (packs <= B_SIZE) return SL_LAUNCH((rows_kernel<S, B, V, B_SIZE, JOINED>), grid, threads, 0, stream, a);
  if (packs <= L_SIZE) return SL_LAUNCH((rows_kernel<S, B, V, L_SIZE, JOINED>), grid, threads, 0, stream, a);
  if (packs <= XL_SIZE) return SL_LAUNCH((rows_kernel<S, B, V, XL_SIZE, JOINED>), grid, threads, 0, stream, a);
  return SL_LAUNCH((any_rows_kernel<4, JOINED>), grid, threads, 0, stream, a);
}

template <bool JOINED>
static sl_status forward(void *stream, const rows_args &a) {
  const sl_gpu_rows wide[] = {a.x, a.skip, a.r}, narrow[] = {a.y, a.gate, a.shift, a.scale, a.h};
  const sl_gpu_rows all[] = {a.x, a.skip, a.r, a.y, a.gate, a.shift, a.scale, a.h, a.mask, a.next};
  const dim3 grid((unsigned)((a.N * a.T + WARPS - 1) / WARPS));
  const bool by4 = sl_gpu_rows_fit(4, a.C, all, 10), by8 = sl_gpu_rows_fit(8, a.C, all, 10);
  const bool f32 = sl_gpu_rows_all(false, wide, 3), narrow_f32 = sl_gpu_rows_all(false, narrow, 5),
             bf16 = sl_gpu_rows_all(true, narrow, 5);
  if (by4 && f32 && narrow_f32) return launch_forward<float, float, 4, JOINED>(stream, a, grid);
  if (by4 && f32 && bf16) return launch_forward<float, uint16_t, 4, JOINED>(stream, a, grid);
  if (by8 && bf16 && sl_gpu_rows_all(true, wide, 3))
    return launch_forward<uint16_t, uint16_t, 8, JOINED>(stream, a, grid);
  if (by4) return SL_LAUNCH((any_rows_kernel<4, JOINED>), grid, 32 * WARPS, 0, stream, a);
  return SL_LAUNCH((any_rows_kernel<1, JOINED>), grid, 32 * WARPS, 0, stream, a);
}

/* The blocks' sums. */
template <bool JOINED>
static sl_status backward_rows(void *stream, const rows_args &a) {
  const sl_gpu_rows wide[] = {a.r, a.dr, a.prior, a.dx, a.dskip}, narrow[] = {a.y, a.dh, a.gate, a.scale, a.dy};
  const sl_gpu_rows all[] = {a.r, a.dr, a.prior, a.dx, a.dskip, a.y, a.dh, a.gate, a.scale, a.dy, a.mask, a.next};
  const dim3 grid((unsigned)sl_row_blocks(a.T), (unsigned)a.N);
  const bool by4 = sl_gpu_rows_fit(4, a.C, all, 12), by8 = sl_gpu_rows_fit(8, a.C, all, 12);
  const bool f32 = sl_gpu_rows_all(false, wide, 5), narrow_f32 = sl_gpu_rows_all(false, narrow, 5),
             bf16 = sl_gpu_rows_all(true, narrow, 5);
  const unsigned by_four = (unsigned)(a.C / 4 + 31) / 32 * 32, by_eight = (unsigned)(a.C / 8 + 31) / 32 * 32;
  if (by4 && f32 && narrow_f32 && by_four <= BACK_THREADS)
    return SL_LAUNCH((rows_backward_kernel<float, float, 4, 2, JOINED>), grid, by_four, 0, stream, a);
  if (by4 && f32 && bf16 && by_four <= BACK_THREADS)
    return SL_LAUNCH((rows_backward_kernel<float, uint16_t, 4, 2, JOINED>), grid, by_four, 0, stream, a);
  if (by8 && bf16 && sl_gpu_rows_all(true, wide, 5) && by_eight <= BACK_THREADS)
    return SL_LAUNCH((rows_backward_kernel<uint16_t, uint16_t, 8, 2, JOINED>), grid, by_eight, 0, stream, a);
  if (by4) return SL_LAUNCH((any_rows_backward_kernel<4, JOINED>), grid, 32 * WARPS, 0, stream, a);
  return SL_LAUNCH((any_rows_backward_kernel<1, JOINED>), grid, 32 * WARPS, 0, stream, a);
}

/* dshift, dscale, dgate: f32 [N,C], or NULL; dgate is NULL unless JOINED. */
template <bool JOINED>
static sl_status backward(void *stream, const rows_args &a, float *dshift, float *dscale, float *dgate) {
  const sums_args s = {a.partial, sl_row_blocks(a.T), a.C, dshift, dscale, dgate};
  const dim3 grid((unsigned)((a.C + 127) / 128), (unsigned)a.N);
  SL_TRY(backward_rows<JOINED>(stream, a));
  return SL_LAUNCH(rows_sums_kernel<JOINED>, grid, 128, 0, stream, s);
}

} // namespace sl_rows_gpu

#endif
