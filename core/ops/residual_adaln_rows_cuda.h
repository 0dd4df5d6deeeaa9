/* Kernels over rows of a residual stream that adaLN (JOINED false) and the gated residual with adaLN after it share.
 *
 * Forward: a warp has a row and keeps it in registers from the sum to the modulation, so the stream is read and written
 * once. Backward: a block has SL_ROW_BLOCK rows of a sample, a thread V channels of all of them; with them stay what
 * modulates the channels and the channels' sums in registers. R rows go through the block at once, which waits once for
 * their means. Both are for one dtype of the stream (x, r, skip and their gradients) and one of the branch (y, h, their
 * gradients, and the rows that modulate), V neighbours in 16 bytes of the wider one.
 *
 * All else (wider rows, other alignment or dtypes) goes to residual_adaln_any_cuda.h. */
#ifndef SL_OPS_RESIDUAL_ADALN_ROWS_CUDA_H
#define SL_OPS_RESIDUAL_ADALN_ROWS_CUDA_H

#include "gpu/gpu.h"

#include "ops/adaln_math.h"
#include "ops/kernels.h"
#include "ops/residual_adaln.h"
#include "ops/rows_cuda.h"
#include "ops/views_cuda.h"

namespace sl_rows_gpu {

constexpr int WARPS = 8;          /* rows of a block, forward */
constexpr int BACK_THREADS = 320; /* at most, backward: 1280 or 2560 channels */

/* Names as in the rows of residual_adaln and its backward. adaLN alone: forward x and no y, gate, skip, r; backward r
 * is x and dr its prior. */
struct rows_args {
  int64_t N, T, C;
  sl_gpu_rows x, y, gate, mask, skip, shift, scale, next, r, h;
  sl_gpu_rows dr, dh, prior, dx, dy, dskip;
  float *mean, *rstd;
  float *partial; /* [N, blocks, sums, C]: dshift, dscale and, joined, dgate */
  float eps;
  int share; /* sl_residual_share */
};

/* --- forward --- */

/* The lane's k-th pack begins there. A lane without one reads the row's first instead, and writes nothing. */
template <int V>
SL_DEVICE int column_of(int k) {
  return (k * 32 + (int)threadIdx.x % 32) * V;
}
template <int V>
SL_DEVICE int readable(int k, int C) {
  const int c = column_of<V>(k);
  return c < C ? c : 0;
}

template <int V>
SL_DEVICE bool has_zero(const sl_pack<uint8_t, V> &mask) {
  bool any = false;
  for (int i = 0; i < V; i++) any |= mask.v[i] == 0;
  return any;
}

/* One form of the sum for the whole row, so that its loads are under way together; then the skip's, which is read where
 * the mask is 0 alone: a fifth of DTR's channels. */
template <class S, class B, int V, int K, bool MASKED, bool SKIPS>
SL_DEVICE void read_sum(const rows_args &a, int64_t n, int64_t row, sl_pack<float, V> (&v)[K]) {
  sl_pack<uint8_t, V> mask[K] = {};
  SL_UNROLL
  for (int k = 0; k < K; k++) {
    const int c = readable<V>(k, (int)a.C);
    const sl_pack<S, V> x = sl_read<S, V>(a.x.p, row * a.C + c);
    const sl_pack<B, V> y = sl_read<B, V>(a.y.p, row * a.C + c), gate = sl_read<B, V>(a.gate.p, n * a.gate.stride + c);
    if constexpr (MASKED) mask[k] = sl_read<uint8_t, V>(a.mask.p, n * a.mask.stride + c);
    for (int i = 0; i < V; i++) {
      const float gated = sl_float_of(gate.v[i]) * sl_float_of(y.v[i]), own = sl_float_of(x.v[i]);
      v[k].v[i] = (MASKED && !SKIPS ? sl_float_of(mask[k].v[i]) * own : own) + gated;
    }
  }
  SL_UNROLL
  for (int k = 0; k < K && SKIPS; k++) {
    sl_pack<S, V> skip = {};
    if (has_zero(mask[k])) skip = sl_read<S, V>(a.skip.p, row * a.C + readable<V>(k, (int)a.C));
    for (int i = 0; i < V; i++) v[k].v[i] += (1.0f - sl_float_of(mask[k].v[i])) * sl_float_of(skip.v[i]);
  }
}

template <class S, class B, int V, int K, bool JOINED>
SL_DEVICE void read_row(const rows_args &a, int64_t n, int64_t row, sl_pack<float, V> (&v)[K]) {
  if constexpr (JOINED) {
    if (a.mask.p && a.skip.p) read_sum<S, B, V, K, true, true>(a, n, row, v);
    else if (a.mask.p) read_sum<S, B, V, K, true, false>(a, n, row, v);
    else read_sum<S, B, V, K, false, false>(a, n, row, v);
  } else {
    SL_UNROLL
    for (int k = 0; k < K; k++) v[k] = sl_floats(sl_read<S, V>(a.x.p, row * a.C + readable<V>(k, (int)a.C)));
  }
}

/* mean and rstd of the row. */
template <int V, int K>
SL_DEVICE void statistics(const rows_args &a, const sl_pack<float, V> (&v)[K], float *mean, float *rstd) {
  const int C = (int)a.C;
  float sum = 0.0f, squares = 0.0f;
  SL_UNROLL
  for (int k = 0; k < K; k++)
    for (int i = 0; i < V; i++) sum += column_of<V>(k) < C ? v[k].v[i] : 0.0f;
  *mean = sl_warp_sum(sum) / (float)C;
  SL_UNROLL
  for (int k = 0; k < K; k++)
    for (int i = 0; i < V; i++) {
      const float from_mean = v[k].v[i] - *mean;
      squares += column_of<V>(k) < C ? from_mean * from_mean : 0.0f;
    }
  *rstd = 1.0f / sqrtf(sl_warp_sum(squares) / (float)C + a.eps);
}

template <class B, int V, int K>
SL_DEVICE void write_modulated(const rows_args &a, int64_t n, int64_t row, const sl_pack<float, V> (&v)[K], float mean,
                               float rstd) {
  SL_UNROLL
  for (int k = 0; k < K; k++) {
    const int c = column_of<V>(k);
    if (c >= a.C) continue;
    const sl_pack<B, V> shift = sl_read<B, V>(a.shift.p, n * a.shift.stride + c);
    const sl_pack<B, V> scale = sl_read<B, V>(a.scale.p, n * a.scale.stride + c);
    sl_pack<float, V> h;
    for (int i = 0; i < V; i++)
      h.v[i] = sl_adaln_y(v[k].v[i], mean, rstd, sl_float_of(shift.v[i]), sl_float_of(scale.v[i]));
    sl_write<B, V>(a.h.p, row * a.C + c, sl_rounded<B, V>(h));
  }
}

template <class S, class B, int V, int K, bool JOINED>
__global__ void __launch_bounds__(32 * WARPS) rows_kernel(const rows_args a) {
  const int64_t rows = a.N * a.T, own = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
  const bool real = own < rows;
  const int64_t row = real ? own : rows - 1, n = row / a.T;
  const int C = (int)a.C;
  sl_pack<float, V> v[K];
  float mean, rstd;
  read_row<S, B, V, K, JOINED>(a, n, row, v);
  if constexpr (JOINED) {
    SL_UNROLL
    for (int k = 0; k < K; k++) {
      const sl_pack<S, V> r = sl_rounded<S, V>(v[k]);
      if (a.r.p && real && column_of<V>(k) < C) sl_write<S, V>(a.r.p, row * C + column_of<V>(k), r);
      v[k] = sl_floats(r);
    }
  }
  if (a.next.p) {
    SL_UNROLL
    for (int k = 0; k < K; k++) {
      const sl_pack<uint8_t, V> m = sl_read<uint8_t, V>(a.next.p, n * a.next.stride + readable<V>(k, C));
      for (int i = 0; i < V; i++) v[k].v[i] *= sl_float_of(m.v[i]);
    }
  }
  statistics<V, K>(a, v, &mean, &rstd);
  if (!real) return;
  if (a.h.p) write_modulated<B, V, K>(a, n, row, v, mean, rstd);
  if (threadIdx.x % 32) return;
  if (a.mean) a.mean[row] = mean;
  if (a.rstd) a.rstd[row] = rstd;
}

/* --- backward --- */

/* What a thread's channels have of a sample. */
template <class B, int V>
struct channels {
  sl_pack<B, V> scale, gate;
  sl_pack<uint8_t, V> mask, next;
};

template <class B, int V, bool JOINED>
SL_DEVICE channels<B, V> channels_of(const rows_args &a, int64_t n, int c) {
  channels<B, V> k = {};
  for (int i = 0; i < V; i++) k.mask.v[i] = k.next.v[i] = 1;
  k.scale = sl_read<B, V>(a.scale.p, n * a.scale.stride + c);
  if (a.next.p) k.next = sl_read<uint8_t, V>(a.next.p, n * a.next.stride + c);
  if constexpr (JOINED) {
    k.gate = sl_read<B, V>(a.gate.p, n * a.gate.stride + c);
    if (a.mask.p) k.mask = sl_read<uint8_t, V>(a.mask.p, n * a.mask.stride + c);
  }
  return k;
}

/* A thread's part of a row on its way: as read, then xhat and g. */
template <class S, class B, int V>
struct part {
  sl_pack<S, V> r, dr;
  sl_pack<B, V> dh, y;
  float mean, rstd;
  sl_pack<float, V> xhat, g;
};

template <class S, class B, int V, bool JOINED>
SL_DEVICE void read_part(const rows_args &a, int64_t row, int c, part<S, B, V> *p) {
  const int64_t at = row * a.C + c;
  p->r = sl_read<S, V>(a.r.p, at);
  p->dh = sl_read<B, V>(a.dh.p, at);
  p->dr = sl_read<S, V>(a.dr.p ? a.dr.p : a.r.p, at);
  if constexpr (JOINED) p->y = sl_read<B, V>(a.y.p, at);
  p->mean = a.mean[row], p->rstd = a.rstd[row];
}

/* Shares of the means of g and g xhat over the row, and of the channels' sums; nothing where there is no such part. */
template <class S, class B, int V>
SL_DEVICE void gather_part(const channels<B, V> &k, bool real, part<S, B, V> *p, float *g, float *gx,
                           sl_pack<float, V> *dshift, sl_pack<float, V> *dscale) {
  *g = *gx = 0.0f;
  for (int i = 0; i < V; i++) {
    const float dh = real ? sl_float_of(p->dh.v[i]) : 0.0f;
    p->xhat.v[i] = (sl_float_of(p->r.v[i]) * sl_float_of(k.next.v[i]) - p->mean) * p->rstd;
    p->g.v[i] = dh * (1.0f + sl_float_of(k.scale.v[i]));
    *g += p->g.v[i];
    *gx += p->g.v[i] * p->xhat.v[i];
    dshift->v[i] += dh;
    dscale->v[i] += dh * p->xhat.v[i];
  }
}

/* What x gets of d, the gradient at r; dr: what arrived there. */
template <class S, class B, int V>
SL_DEVICE sl_pack<S, V> share_of(const rows_args &a, int64_t at, const channels<B, V> &k, const sl_pack<float, V> &d,
                                 const sl_pack<S, V> &dr) {
  sl_pack<float, V> x = d;
  if (a.share != SL_SHARE_WHOLE)
    for (int i = 0; i < V; i++) x.v[i] *= sl_float_of(k.mask.v[i]);
  if (a.share == SL_SHARE_RESTORED)
    for (int i = 0; i < V; i++) x.v[i] += (1.0f - sl_float_of(k.mask.v[i])) * sl_float_of(dr.v[i]);
  if (a.prior.p) {
    const sl_pack<S, V> prior = sl_read<S, V>(a.prior.p, at);
    for (int i = 0; i < V; i++) x.v[i] += sl_float_of(prior.v[i]);
  }
  return sl_rounded<S, V>(x);
}

/* Gradients of the part, once its row's means are known. */
template <class S, class B, int V, bool JOINED>
SL_DEVICE void write_part(const rows_args &a, int64_t at, const channels<B, V> &k, bool real, const part<S, B, V> &p,
                          float mean_g, float mean_gx, sl_pack<float, V> *dgate) {
  sl_pack<float, V> d;
  for (int i = 0; i < V; i++) {
    d.v[i] = sl_adaln_dr(p.g.v[i], p.xhat.v[i], p.rstd, mean_g, mean_gx) * sl_float_of(k.next.v[i]);
    d.v[i] += a.dr.p ? sl_float_of(p.dr.v[i]) : 0.0f;
  }
  const sl_pack<S, V> rounded = sl_rounded<S, V>(d);
  if constexpr (!JOINED) {
    if (real) sl_write<S, V>(a.dx.p, at, rounded);
  } else {
    sl_pack<float, V> dy, dskip;
    d = sl_floats(rounded);
    for (int i = 0; i < V; i++) {
      dgate->v[i] += real ? d.v[i] * sl_float_of(p.y.v[i]) : 0.0f;
      dy.v[i] = sl_float_of(k.gate.v[i]) * d.v[i];
      dskip.v[i] = (1.0f - sl_float_of(k.mask.v[i])) * d.v[i];
    }
    if (!real) return;
    if (a.dy.p) sl_write<B, V>(a.dy.p, at, sl_rounded<B, V>(dy));
    if (a.dskip.p) sl_write<S, V>(a.dskip.p, at, sl_rounded<S, V>(dskip));
    if (a.dx.p) sl_write<S, V>(a.dx.p, at, share_of<S, B, V>(a, at, k, d, p.dr));
  }
}

/* Sums over the block; `room` is read by nobody before its next use but one, so one barrier will do. */
template <int M>
SL_DEVICE void sum_over_block(float (&s)[M], float *room) {
  const int warp = (int)threadIdx.x / 32, warps = (int)blockDim.x / 32;
  SL_UNROLL
  for (int i = 0; i < M; i++) s[i] = sl_warp_sum(s[i]);
  if (threadIdx.x % 32 == 0)
    for (int i = 0; i < M; i++) room[warp * M + i] = s[i];
  __syncthreads();
  for (int i = 0; i < M; i++) s[i] = 0.0f;
  for (int w = 0; w < warps; w++) {
    const sl_pack<float, M> v = sl_read<float, M>(room, w * M);
    for (int i = 0; i < M; i++) s[i] += v.v[i];
  }
}

/* Block (b, n): rows from b SL_ROW_BLOCK of sample n. */
template <class S, class B, int V, int R, bool JOINED>
__global__ void __launch_bounds__(BACK_THREADS) rows_backward_kernel(const rows_args a) {
  constexpr int ROOM = BACK_THREADS / 32 * 2 * R;
  SL_SHARED(float, room, 2 * ROOM);
  const int C = (int)a.C, c = (int)threadIdx.x * V < C ? (int)threadIdx.x * V : 0;
  const bool mine = (int)threadIdx.x * V < C;
  const int64_t n = blockIdx.y, begin = (int64_t)blockIdx.x * SL_ROW_BLOCK;
  const int64_t end = begin + SL_ROW_BLOCK < a.T ? begin + SL_ROW_BLOCK : a.T;
  const channels<B, V> k = channels_of<B, V, JOINED>(a, n, c);
  sl_pack<float, V> dshift = {}, dscale = {}, dgate = {};
  int half = 0;
  for (int64_t t = begin; t < end; t += R, half = ROOM - half) {
    part<S, B, V> p[R];
    float s[2 * R];
    SL_UNROLL
    for (int i = 0; i < R; i++) read_part<S, B, V, JOINED>(a, n * a.T + (t + i < end ? t + i : end - 1), c, &p[i]);
    SL_UNROLL
    for (int i = 0; i < R; i++)
      gather_part<S, B, V>(k, mine && t + i < end, &p[i], &s[2 * i], &s[2 * i + 1], &dshift, &dscale);
    if (!JOINED && !a.dx.p) continue;
    sum_over_block<2 * R>(s, room + half);
    SL_UNROLL
    for (int i = 0; i < R; i++)
      write_part<S, B, V, JOINED>(a, (n * a.T + t + i) * a.C + c, k, mine && t + i < end, p[i], s[2 * i] / (float)C,
                                  s[2 * i + 1] / (float)C, &dgate);
  }
  if (!mine) return;
  float *partial = a.partial + (JOINED ? 3 : 2) * a.C * (n * gridDim.x + blockIdx.x) + c;
  sl_write<float, V>(partial, 0, dshift);
  sl_write<float, V>(partial, a.C, dscale);
  if (JOINED) sl_write<float, V>(partial, 2 * a.C, dgate);
}

struct sums_args {
  const float *partial;
  int64_t blocks, C;
  float *dshift, *dscale, *dgate; /* [N,C] each, or NULL */
};

/* Adds the blocks' sums, in order. */
template <bool JOINED>
__global__ void rows_sums_kernel(const sums_args a) {
  constexpr int SUMS = JOINED ? 3 : 2;
  const int64_t c = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, n = blockIdx.y;
  float sum[SUMS] = {};
  if (c >= a.C) return;
  for (int64_t b = 0; b < a.blocks; b++) {
    const float *partial = a.partial + SUMS * (n * a.blocks + b) * a.C + c;
    for (int k = 0; k < SUMS; k++) sum[k] += partial[k * a.C];
  }
  if (a.dshift) a.dshift[n * a.C + c] = sum[0];
  if (a.dscale) a.dscale[n * a.C + c] = sum[1];
  if (JOINED && a.dgate) a.dgate[n * a.C + c] = sum[SUMS - 1];
}

} // namespace sl_rows_gpu

#endif
