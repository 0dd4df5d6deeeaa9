/* GroupNorm on CUDA. As on the CPU a block has a slab: some whole groups of one sample, so that nothing passes between
 * blocks; it reads the slab twice, from L2 where the slabs under way fit there. In channels-last images a slab has
 * at least SLAB_WIDTH channels, neighbours in memory; in planes it is one group. */
#include "gpu/gpu.h"

#include "ops/group_norm_math.h"
#include "ops/kernels.h"

namespace {

constexpr int MAX_THREADS = 512;
constexpr int64_t LIMIT = (int64_t)1 << 30;
constexpr int SLAB_WIDTH = 24;  /* channels: 96 bytes of each pixel, whole sectors with 6, 12 or 24 channels a group */
constexpr int SLAB_GROUPS = 32; /* at most, and enough: SLAB_WIDTH groups of one channel, made a multiple of 4 */
constexpr int CHUNK = 32;       /* packs whose sums a thread takes in float before they join those in double */
constexpr int PART_LANES = 16;  /* rows of threads that share the samples where parameters' gradients are summed */

struct group_norm_args {
  const float *x, *w, *b, *scale, *shift, *dy;
  const uint8_t *mask;
  float *y, *mean, *rstd, *dx;
  double *sums;         /* [N, C, 2]: sum dz, sum dz xhat */
  int N, C, S;          /* samples, channels, elements of a channel; below LIMIT, unlike their products */
  int groups, per;      /* of a sample; channels of a group */
  int slab, slabs;      /* groups of a slab, slabs of a sample */
  int rows, row_stride; /* of a slab: pixels, or the group's channels in planes; elements between them */
  double eps;
  bool silu, last;
};

/* Rows of packs, of V neighbours each. In channels-last images a column has its channels in every row. */
struct slab {
  int64_t at; /* first element */
  int n, g0, groups, c0;
  int rows, columns, stride;
};

/* A thread's way through a slab: row r, pack j. */
struct walk {
  int r, j, step_r, step_j;
};

/* What the channels of a pack have. */
template <int V>
struct column {
  float mean[V], rstd[V], gain[V], offset[V], mask[V];
};

struct parts_args {
  const double *sums;
  const float *w, *b, *scale;
  float *dw, *db, *dscale, *dshift;
  int N, C;
};

} // namespace

template <int V>
SL_DEVICE slab slab_of(const group_norm_args &a) {
  slab s;
  s.n = (int)blockIdx.x / a.slabs, s.g0 = (int)blockIdx.x % a.slabs * a.slab;
  s.groups = s.g0 + a.slab < a.groups ? a.slab : a.groups - s.g0;
  s.c0 = s.g0 * a.per;
  s.at = (int64_t)s.n * a.C * a.S + (int64_t)s.c0 * (a.last ? 1 : a.S);
  s.rows = a.rows, s.stride = a.row_stride;
  s.columns = (a.last ? s.groups * a.per : a.S) / V;
  return s;
}

/* Neighbouring threads have neighbouring packs. Where rows are short, as many threads take part as keep their column
 * forever; the others begin past the end. */
SL_DEVICE walk walk_of(const slab &s) {
  const int threads = (int)blockDim.x, t = (int)threadIdx.x;
  if (s.columns == 0) return {s.rows, 0, 0, 0};
  const int used = s.columns <= threads ? threads / s.columns * s.columns : threads;
  return {t < used ? t / s.columns : s.rows, t % s.columns, used / s.columns, used % s.columns};
}

template <bool FIXED>
SL_DEVICE void go_on(const slab &s, walk &p) {
  p.r += p.step_r;
  if (FIXED) return;
  p.j += p.step_j;
  if (p.j >= s.columns) p.j -= s.columns, p.r++;
}

/* Pack at element `at`; zeros if that is below 0, past the end. */
template <int V>
SL_DEVICE sl_pack<float, V> pack_at(const float *p, int64_t at) {
  return at < 0 ? sl_pack<float, V>{} : sl_load<V>(p, false, at);
}

/* The second time a slab is read from its end, which is still in L2. */
SL_DEVICE walk from_end(const slab &s, const walk &p) { return {s.rows - 1 - p.r, p.j, 0, 0}; }

/* Element where p stands, or -1. */
template <int V>
SL_DEVICE int64_t element_of(const slab &s, const walk &p) {
  return p.r >= 0 && p.r < s.rows ? s.at + (int64_t)p.r * s.stride + (int64_t)p.j * V : -1;
}

SL_DEVICE float gain_of(const group_norm_args &a, int n, int c) {
  return (a.w ? a.w[c] : 1.0f) * (a.scale ? 1.0f + a.scale[(int64_t)n * a.C + c] : 1.0f);
}

/* moments: mean and rstd of each group of the slab. */
template <int V>
SL_DEVICE column<V> column_of(const group_norm_args &a, const slab &s, const float *moments, int r, int j) {
  column<V> k;
  for (int v = 0; v < V; v++) {
    if (v > 0 && !a.last) {
      k.mean[v] = k.mean[0], k.rstd[v] = k.rstd[0], k.gain[v] = k.gain[0], k.offset[v] = k.offset[0];
      k.mask[v] = k.mask[0];
      continue;
    }
    const int i = a.last ? j * V + v : r, c = s.c0 + i, g = i / a.per;
    const int64_t nc = (int64_t)s.n * a.C + c;
    k.mean[v] = moments[2 * g], k.rstd[v] = moments[2 * g + 1];
    k.gain[v] = gain_of(a, s.n, c);
    k.offset[v] = (a.b ? a.b[c] : 0.0f) * (a.scale ? 1.0f + a.scale[nc] : 1.0f) + (a.shift ? a.shift[nc] : 0.0f);
    k.mask[v] = a.mask ? (float)a.mask[nc] : 1.0f;
  }
  return k;
}

/* Each thread of a block left `values` numbers in room[values][threads]. Adds up those of a column, thread by thread in
 * pairs; thread j < columns finds the sums of column j at its own place. */
SL_DEVICE void sum_lanes(double *room, int values, int columns, int lanes) {
  const int threads = (int)blockDim.x, t = (int)threadIdx.x, lane = t / columns;
  int half = 1;
  while (half < lanes) half *= 2;
  for (half /= 2; half > 0; half /= 2) {
    __syncthreads();
    if (lane >= half || lane + half >= lanes) continue;
    for (int i = 0; i < values; i++) room[i * threads + t] += room[i * threads + t + half * columns];
  }
  __syncthreads();
}

/* --- forward --- */

/* What a thread has seen of a channel in up to CHUNK packs: n elements, the sum of their deviations from the first and
 * of the squares of these, in float; nothing cancels that is not the thread's own. */
template <int V>
struct seen {
  int n;
  float first[V], sum[V], squares[V];
};

template <int V, bool FIXED>
SL_DEVICE seen<V> look(const group_norm_args &a, const slab &s, walk &p) {
  constexpr int BATCH = 4;
  seen<V> t = {};
  while (t.n < CHUNK && p.r < s.rows) {
    sl_pack<float, V> x[BATCH];
    int64_t at[BATCH];
    for (int k = 0; k < BATCH; k++) {
      at[k] = element_of<V>(s, p);
      x[k] = pack_at<V>(a.x, at[k]);
      go_on<FIXED>(s, p);
    }
    for (int v = 0; v < V && t.n == 0; v++) t.first[v] = x[0].v[v];
    for (int k = 0; k < BATCH; k++) {
      if (at[k] < 0) continue;
      t.n++;
      for (int v = 0; v < V; v++) {
        const float d = x[k].v[v] - t.first[v];
        t.sum[v] += d;
        t.squares[v] += d * d;
      }
    }
  }
  return t;
}

/* Adds it as sums of deviations from `origin`, and of their squares, in double. */
template <int V>
SL_DEVICE void add_deviations(const seen<V> &t, int v, float origin, double *sum, double *squares) {
  const double n = (double)t.n, part = 1.0 / n, own = (double)t.sum[v] * part;
  const double d = (double)t.first[v] - (double)origin + own;
  *sum += n * d;
  *squares += (double)t.squares[v] - n * own * own + n * d * d;
}

/* Of a group, by one thread. */
SL_DEVICE void set_moments(const group_norm_args &a, float origin, double sum, double squares, float *moments) {
  const double count = (double)a.per * (double)a.S, mean = count > 0.0 ? sum / count : 0.0;
  const double variance = count > 0.0 ? squares / count - mean * mean : 0.0;
  moments[0] = (float)((double)origin + mean);
  moments[1] = (float)(1.0 / sqrt((variance < 0.0 ? 0.0 : variance) + a.eps));
}

/* Deviations are taken from the first element of each group. */
template <int V>
SL_DEVICE void moments_of_groups(const group_norm_args &a, const slab &s, float *moments) {
  SL_SHARED_DYN(double, room);
  const int threads = (int)blockDim.x, me = (int)threadIdx.x;
  for (int i = 0; i < 2 * V; i++) room[i * threads + me] = 0.0;
  for (walk p = walk_of(s); p.r < s.rows;) {
    const seen<V> t = look<V, true>(a, s, p);
    for (int v = 0; v < V; v++) {
      const float origin = a.x[s.at + (p.j * V + v) / a.per * a.per];
      add_deviations(t, v, origin, &room[2 * v * threads + me], &room[(2 * v + 1) * threads + me]);
    }
  }
  sum_lanes(room, 2 * V, s.columns, threads / s.columns);
  for (int g = me / 32; g < s.groups; g += threads / 32) {
    double sum = 0.0, squares = 0.0;
    for (int c = g * a.per + me % 32; c < (g + 1) * a.per; c += 32) {
      const double *of = room + c % V * 2 * threads + c / V;
      sum += of[0], squares += of[threads];
    }
    sum = sl_warp_sum(sum), squares = sl_warp_sum(squares);
    if (me % 32 == 0) set_moments(a, s.rows > 0 ? a.x[s.at + g * a.per] : 0.0f, sum, squares, moments + 2 * g);
  }
}

template <int V>
SL_DEVICE void moments_of_one(const group_norm_args &a, const slab &s, float *moments) {
  const float origin = s.rows > 0 && s.columns > 0 ? a.x[s.at] : 0.0f;
  double sum = 0.0, squares = 0.0;
  for (walk p = walk_of(s); p.r < s.rows;) {
    const seen<V> t = look<V, false>(a, s, p);
    for (int v = 0; v < V; v++) add_deviations(t, v, origin, &sum, &squares);
  }
  sum = sl_block_sum(sum), squares = sl_block_sum(squares);
  if (threadIdx.x == 0) set_moments(a, origin, sum, squares, moments);
}

template <int V, bool FIXED>
SL_DEVICE void normalize(const group_norm_args &a, const slab &s, const float *moments) {
  constexpr int BATCH = FIXED ? 4 : 1;
  walk p = walk_of(s);
  int channel = -1;
  column<V> c = {};
  if (FIXED) c = column_of<V>(a, s, moments, p.r, p.j);
  while (p.r < s.rows) {
    sl_pack<float, V> x[BATCH];
    int64_t at[BATCH];
    for (int k = 0; k < BATCH; k++) {
      const walk q = from_end(s, p);
      at[k] = element_of<V>(s, q);
      x[k] = pack_at<V>(a.x, at[k]);
      if (!FIXED && channel != (a.last ? q.j : q.r)) {
        channel = a.last ? q.j : q.r;
        c = column_of<V>(a, s, moments, q.r, q.j);
      }
      go_on<FIXED>(s, p);
    }
    for (int k = 0; k < BATCH; k++) {
      if (at[k] < 0) continue;
      for (int v = 0; v < V; v++) x[k].v[v] = sl_group_norm_z(x[k].v[v], c.mean[v], c.rstd[v], c.gain[v], c.offset[v]);
      for (int v = 0; v < V && a.silu; v++) x[k].v[v] = sl_silu_f(x[k].v[v]);
      for (int v = 0; v < V; v++) x[k].v[v] *= c.mask[v];
      sl_store<V>(a.y, false, at[k], x[k]);
    }
  }
}

/* A block has a slab; a thread every so many packs of it. FIXED: channels-last images whose slabs are at most as wide
 * as the block, so that a thread has one column. Else a slab is one group. */
template <int V, bool FIXED>
__global__ void __launch_bounds__(MAX_THREADS, 2) group_norm_kernel(const group_norm_args a) {
  SL_SHARED(float, moments, 2 * SLAB_GROUPS);
  const slab s = slab_of<V>(a);
  if (FIXED) moments_of_groups<V>(a, s, moments);
  else moments_of_one<V>(a, s, moments);
  __syncthreads();
  if ((int)threadIdx.x < s.groups) {
    const int64_t g = (int64_t)s.n * a.groups + s.g0 + (int)threadIdx.x;
    if (a.mean) a.mean[g] = moments[2 * threadIdx.x];
    if (a.rstd) a.rstd[g] = moments[2 * threadIdx.x + 1];
  }
  if (a.y) normalize<V, FIXED>(a, s, moments);
}

/* --- backward --- */

/* Makes of dy the gradient before the activation. */
template <int V>
SL_DEVICE void to_dz(const group_norm_args &a, const column<V> &c, const sl_pack<float, V> &x, sl_pack<float, V> &dy) {
  for (int v = 0; v < V; v++) dy.v[v] *= c.mask[v];
  if (!a.silu) return;
  for (int v = 0; v < V; v++)
    dy.v[v] *= sl_silu_d(sl_group_norm_z(x.v[v], c.mean[v], c.rstd[v], c.gain[v], c.offset[v]));
}

/* Sums of dz and of dz xhat over n packs from element `at` on, `stride` apart. */
template <int V>
struct dz_sums {
  float sum[V], along[V];
};

template <int V>
SL_DEVICE dz_sums<V> sum_packs(const group_norm_args &a, const column<V> &c, int64_t at, int n, int64_t stride) {
  dz_sums<V> r = {};
  for (; n > 0; n--, at += stride) {
    const sl_pack<float, V> x = sl_load<V>(a.x, false, at);
    sl_pack<float, V> dz = sl_load<V>(a.dy, false, at);
    to_dz(a, c, x, dz);
    for (int v = 0; v < V; v++) {
      r.sum[v] += dz.v[v];
      r.along[v] += dz.v[v] * ((x.v[v] - c.mean[v]) * c.rstd[v]);
    }
  }
  return r;
}

/* Channels last: as many columns at once as the block has threads. */
template <int V>
SL_DEVICE void sum_columns(const group_norm_args &a, const slab &s, const float *moments) {
  SL_SHARED_DYN(double, room);
  const int threads = (int)blockDim.x, t = (int)threadIdx.x;
  for (int j0 = 0; j0 < s.columns; j0 += threads) {
    const int columns = s.columns - j0 < threads ? s.columns - j0 : threads, lanes = threads / columns;
    const int lane = t / columns, j = j0 + t % columns, end = lane < lanes ? s.rows : 0;
    const column<V> c = column_of<V>(a, s, moments, 0, j);
    for (int i = 0; i < 2 * V; i++) room[i * threads + t] = 0.0;
    for (int r = lane; r < end; r += CHUNK * lanes) {
      const int left = (end - r + lanes - 1) / lanes;
      const int64_t at = s.at + (int64_t)r * s.stride + (int64_t)j * V;
      const dz_sums<V> part = sum_packs<V>(a, c, at, left < CHUNK ? left : CHUNK, (int64_t)lanes * s.stride);
      for (int v = 0; v < V; v++) {
        room[2 * v * threads + t] += (double)part.sum[v];
        room[(2 * v + 1) * threads + t] += (double)part.along[v];
      }
    }
    sum_lanes(room, 2 * V, columns, lanes);
    double *to = a.sums + 2 * ((int64_t)s.n * a.C + s.c0 + (int64_t)j * V);
    for (int i = 0; i < 2 * V && t < columns; i++) to[i] = room[i * threads + t];
  }
}

/* Planes: a warp has a channel. */
template <int V>
SL_DEVICE void sum_rows(const group_norm_args &a, const slab &s, const float *moments) {
  const int lane = (int)threadIdx.x % 32;
  for (int r = (int)threadIdx.x / 32; r < s.rows; r += (int)blockDim.x / 32) {
    const column<V> c = column_of<V>(a, s, moments, r, 0);
    double sum = 0.0, along = 0.0;
    for (int j = lane; j < s.columns; j += 32 * CHUNK) {
      const int left = (s.columns - j + 31) / 32;
      const int64_t at = s.at + (int64_t)r * s.stride + (int64_t)j * V;
      const dz_sums<V> part = sum_packs<V>(a, c, at, left < CHUNK ? left : CHUNK, 32 * V);
      for (int v = 0; v < V; v++) sum += (double)part.sum[v], along += (double)part.along[v];
    }
    sum = sl_warp_sum(sum), along = sl_warp_sum(along);
    double *to = a.sums + 2 * ((int64_t)s.n * a.C + s.c0 + r);
    if (lane == 0) to[0] = sum, to[1] = along;
  }
}

/* Means over each group of dxhat and of dxhat xhat, from its channels' sums; a warp has a group. */
SL_DEVICE void gradient_means(const group_norm_args &a, const slab &s, float *means) {
  const double count = (double)a.per * (double)a.S;
  for (int g = (int)threadIdx.x / 32; g < s.groups; g += (int)blockDim.x / 32) {
    double all = 0.0, along = 0.0;
    for (int i = (int)threadIdx.x % 32; i < a.per; i += 32) {
      const int c = s.c0 + g * a.per + i;
      const double *sums = a.sums + 2 * ((int64_t)s.n * a.C + c), gain = (double)gain_of(a, s.n, c);
      all += sums[0] * gain;
      along += sums[1] * gain;
    }
    all = sl_warp_sum(all), along = sl_warp_sum(along);
    if (threadIdx.x % 32 == 0) means[2 * g] = (float)(all / count), means[2 * g + 1] = (float)(along / count);
  }
}

template <int V, bool FIXED>
SL_DEVICE void write_dx(const group_norm_args &a, const slab &s, const float *moments, const float *means) {
  walk p = walk_of(s);
  int channel = -1;
  column<V> c = {};
  float all[V], along[V];
  for (int v = 0; v < V; v++) {
    const int g = FIXED ? (p.j * V + v) / a.per : 0;
    all[v] = means[2 * g], along[v] = means[2 * g + 1];
  }
  if (FIXED) c = column_of<V>(a, s, moments, p.r, p.j);
  for (; p.r < s.rows; go_on<FIXED>(s, p)) {
    const walk q = from_end(s, p);
    const int64_t at = element_of<V>(s, q);
    sl_pack<float, V> x = sl_load<V>(a.x, false, at), dz = sl_load<V>(a.dy, false, at);
    if (!FIXED && channel != (a.last ? q.j : q.r)) {
      channel = a.last ? q.j : q.r;
      c = column_of<V>(a, s, moments, q.r, q.j);
    }
    to_dz(a, c, x, dz);
    for (int v = 0; v < V; v++) {
      const float xhat = (x.v[v] - c.mean[v]) * c.rstd[v];
      x.v[v] = sl_group_norm_dx(dz.v[v] * c.gain[v], xhat, c.rstd[v], all[v], along[v]);
    }
    sl_store<V>(a.dx, false, at, x);
  }
}

/* As forward: first the sums of the slab's channels, then dx, for which dz is computed again: that costs less than to
 * write it and read it back. */
template <int V, bool FIXED>
__global__ void __launch_bounds__(MAX_THREADS, 2) group_norm_backward_kernel(const group_norm_args a) {
  SL_SHARED(float, moments, 2 * SLAB_GROUPS);
  SL_SHARED(float, means, 2 * SLAB_GROUPS);
  const slab s = slab_of<V>(a);
  if ((int)threadIdx.x < s.groups) {
    const int64_t g = (int64_t)s.n * a.groups + s.g0 + (int)threadIdx.x;
    moments[2 * threadIdx.x] = a.mean[g], moments[2 * threadIdx.x + 1] = a.rstd[g];
  }
  __syncthreads();
  if (FIXED || a.last) sum_columns<V>(a, s, moments);
  else sum_rows<V>(a, s, moments);
  __syncthreads();
  if (!a.dx || s.rows == 0 || s.columns == 0) return;
  gradient_means(a, s, means);
  __syncthreads();
  write_dx<V, FIXED>(a, s, moments, means);
}

/* Gradients of the parameters from a channel's two sums: with a = xhat w + b, z = a (1 + scale) + shift. Block i has
 * channels from 32 i on, a thread the samples of its lane. */
__global__ void group_norm_parts_kernel(const parts_args a) {
  SL_SHARED(double, room, 2 * 32 * PART_LANES);
  const int c = (int)(blockIdx.x * 32 + threadIdx.x % 32), lane = (int)threadIdx.x / 32;
  const double w = c < a.C && a.w ? (double)a.w[c] : 1.0, b = c < a.C && a.b ? (double)a.b[c] : 0.0;
  double dw = 0.0, db = 0.0;
  for (int n = lane; n < a.N && c < a.C; n += PART_LANES) {
    const int64_t nc = (int64_t)n * a.C + c;
    const double sum = a.sums[2 * nc], along = a.sums[2 * nc + 1], factor = a.scale ? 1.0 + (double)a.scale[nc] : 1.0;
    dw += along * factor;
    db += sum * factor;
    if (a.dscale) a.dscale[nc] = (float)(w * along + b * sum);
    if (a.dshift) a.dshift[nc] = (float)sum;
  }
  room[threadIdx.x] = dw, room[32 * PART_LANES + threadIdx.x] = db;
  __syncthreads();
  if (lane > 0 || c >= a.C) return;
  for (int i = 1; i < PART_LANES; i++)
    dw += room[32 * i + threadIdx.x], db += room[32 * (PART_LANES + i) + threadIdx.x];
  if (a.dw) a.dw[c] = (float)dw;
  if (a.db) a.db[c] = (float)db;
}

/* --- launchers --- */

static sl_status args_of(const sl_view *x, int64_t groups, bool silu, bool last, group_norm_args *a) {
  const int rank = x->shape.rank, channels = last ? rank - 1 : 1;
  const int64_t N = x->shape.dim[0], C = x->shape.dim[channels];
  int64_t S = 1;
  for (int i = 1; i < rank; i++) S *= i == channels ? 1 : x->shape.dim[i];
  SL_REQUIRE(S < LIMIT && C < LIMIT && N * groups < LIMIT, UNSUPPORTED,
             "group_norm: %lld samples of %lld channels of %lld elements in %lld groups on a GPU", (long long)N,
             (long long)C, (long long)S, (long long)groups);
  *a = {};
  a->x = (const float *)x->data;
  a->N = (int)N, a->C = (int)C, a->S = (int)S, a->groups = (int)groups, a->per = (int)(C / groups);
  a->silu = silu, a->last = last;
  a->rows = last ? a->S : a->per, a->row_stride = last ? a->C : a->S;
  return SL_STATUS_OK;
}

/* Groups of a slab, whose channels are a multiple of v. */
static int groups_of_slab(const group_norm_args &a, int v) {
  int k = 1;
  while (a.last && a.per > 0 && k < a.groups && (k * a.per < SLAB_WIDTH || k * a.per % v)) k++;
  return k;
}

struct plan {
  bool four, fixed;
  unsigned threads;
  dim3 grid;
  size_t bytes; /* room for the sums of threads */
};

/* Sets a's slabs. Several groups in a slab have their columns side by side in a block. */
static plan plan_of(group_norm_args &a) {
  const uintptr_t all = (uintptr_t)a.x | (uintptr_t)a.y | (uintptr_t)a.dy | (uintptr_t)a.dx;
  plan p = {};
  a.slab = groups_of_slab(a, 4);
  p.four = all % 16 == 0 && (a.last ? a.C : a.S) % 4 == 0 && (a.slab == 1 || a.slab * a.per / 4 <= MAX_THREADS);
  if (!p.four) a.slab = groups_of_slab(a, 1);
  a.slabs = (a.groups + a.slab - 1) / a.slab;
  const int columns = (a.last ? a.slab * a.per : a.S) / (p.four ? 4 : 1);
  const int64_t packs = (int64_t)columns * a.rows;
  p.fixed = a.last && columns > 0 && columns <= MAX_THREADS;
  p.threads = packs >= 4096 ? 512 : packs >= 1024 ? 256 : 128;
  while (p.fixed && p.threads < (unsigned)columns) p.threads *= 2;
  p.grid = dim3((unsigned)(a.N * a.slabs));
  p.bytes = 2 * (p.four ? 4 : 1) * p.threads * sizeof(double);
  return p;
}

extern "C" sl_status sl_cuda_group_norm(sl_exec *e, const sl_view *out, const sl_view *in, int64_t groups, double eps,
                                        bool silu, bool last) {
  group_norm_args a;
  SL_TRY(args_of(&in[0], groups, silu, last, &a));
  a.w = (const float *)in[1].data, a.b = (const float *)in[2].data, a.scale = (const float *)in[3].data;
  a.shift = (const float *)in[4].data, a.mask = (const uint8_t *)in[5].data;
  a.y = (float *)out[0].data, a.mean = (float *)out[1].data, a.rstd = (float *)out[2].data, a.eps = eps;
  if (a.N == 0) return SL_STATUS_OK;
  const plan p = plan_of(a);
  if (!p.fixed && p.four) return SL_LAUNCH((group_norm_kernel<4, false>), p.grid, p.threads, 0, e->stream, a);
  if (!p.fixed) return SL_LAUNCH((group_norm_kernel<1, false>), p.grid, p.threads, 0, e->stream, a);
  if (p.four) return SL_LAUNCH((group_norm_kernel<4, true>), p.grid, p.threads, p.bytes, e->stream, a);
  return SL_LAUNCH((group_norm_kernel<1, true>), p.grid, p.threads, p.bytes, e->stream, a);
}

static sl_status launch_backward(sl_exec *e, group_norm_args a) {
  const plan p = plan_of(a);
  if (p.fixed && p.four)
    return SL_LAUNCH((group_norm_backward_kernel<4, true>), p.grid, p.threads, p.bytes, e->stream, a);
  if (p.fixed) return SL_LAUNCH((group_norm_backward_kernel<1, true>), p.grid, p.threads, p.bytes, e->stream, a);
  if (p.four) return SL_LAUNCH((group_norm_backward_kernel<4, false>), p.grid, p.threads, p.bytes, e->stream, a);
  return SL_LAUNCH((group_norm_backward_kernel<1, false>), p.grid, p.threads, p.bytes, e->stream, a);
}

extern "C" sl_status sl_cuda_group_norm_backward(sl_exec *e, const sl_view *out, const sl_view *in, int64_t groups,
                                                 bool silu, bool last, void *workspace) {
  group_norm_args a;
  SL_TRY(args_of(&in[1], groups, silu, last, &a));
  a.dy = (const float *)in[0].data, a.w = (const float *)in[2].data, a.b = (const float *)in[3].data;
  a.scale = (const float *)in[4].data, a.shift = (const float *)in[5].data, a.mask = (const uint8_t *)in[6].data;
  a.mean = (float *)in[7].data, a.rstd = (float *)in[8].data, a.dx = (float *)out[0].data;
  a.sums = (double *)workspace;
  if (a.C == 0) return SL_STATUS_OK;
  if (a.N > 0) SL_TRY(launch_backward(e, a));
  parts_args q = {a.sums, a.w, a.b, a.scale, nullptr, nullptr, nullptr, nullptr, a.N, a.C};
  q.dw = (float *)out[1].data, q.db = (float *)out[2].data;
  q.dscale = (float *)out[3].data, q.dshift = (float *)out[4].data;
  if (!q.dw && !q.db && !q.dscale && !q.dshift) return SL_STATUS_OK;
  return SL_LAUNCH(group_norm_parts_kernel, (unsigned)((a.C + 31) / 32), 32 * PART_LANES, 0, e->stream, q);
}
