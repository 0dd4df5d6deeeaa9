/* Tiles that attention's CUDA kernels share. A block of 128 threads has 64 rows of the result (queries, or keys for
 * their gradients) and walks over columns, 64 at a time: scores = X Y^T from two tiles in shared memory, then
 * sum += P Z with the weights P made of the scores. Arithmetic is float32.
 *
 * A warp has 16 rows, so that weights pass between its lanes alone. A thread has 4 rows and 8 columns; both numbers are
 * interleaved in the lane's, so that half a warp reads at most 128 different bytes of either tile: one access. */
#ifndef SL_OPS_ATTENTION_TILES_CUDA_H
#define SL_OPS_ATTENTION_TILES_CUDA_H

#include "gpu/gpu.h"

#include "base/host_device.h"
#include "ops/attention_kernels_cuda.h"

namespace sl_attention_gpu {

constexpr int TILE = 64, THREADS = 128, ROWS = 4, COLS = 8;
constexpr int PIECE = 32, PIECE_LD = 40; /* weights on their way, in pieces of 32 columns */
constexpr double LOG2E = 1.44269504088896341, LN2 = 0.69314718055994531;

/* [N,T,H,D], unit stride along D; p NULL: absent. by4: four neighbours may be read as one everywhere. */
struct heads {
  void *p;
  bool bf16, by4;
  int64_t n, t, h;
};

struct attention_args {
  int N, H, Tq, Tk, D;
  float scale, factor; /* factor: scale log2(e); exponentials are powers of two */
  bool causal;
  heads q, k, v, out, dout, dq, dk, dv;
  const uint8_t *mask; /* NULL: absent */
  int64_t mask_n, mask_t;
  float *lse;
  float *shift, *delta; /* [N,H,Tq], backward: lse log2(e), and the sum of dout out of the query */
};

/* One sample's head: rows of D elements, t apart. */
struct head {
  void *p;
  bool bf16, by4;
  int64_t t;
};

/* What a block has: rows from `row` on of head (n, h), and columns of the result from `column` on. */
struct part {
  int n, h, row, column;
};

/* DEPTH: head dimensions that a score's tile holds. WIDTH: columns of the result. With both equal one tile holds the
 * whole head; else tiles of scores are filled again for each DEPTH, and Z takes the place of both. */
template <int DEPTH, int WIDTH>
struct shape {
  static constexpr bool whole = DEPTH == WIDTH;
  static constexpr int ld = DEPTH + 4, width_ld = WIDTH + 4; /* odd numbers of 16 bytes: rows start at other banks */
  static constexpr int groups = WIDTH / 32, singles = WIDTH % 32 / 8, own = WIDTH / 8; /* columns of a thread */
  static constexpr int y = TILE * ld, z = whole ? y : 0, piece = 2 * TILE * ld;        /* offsets in shared memory */
  static constexpr size_t bytes = (piece + TILE * PIECE_LD) * sizeof(float);
  static_assert(DEPTH % 8 == 0 && WIDTH % 8 == 0 && bytes <= (48 << 10), "fits any GPU");
  static_assert(whole || TILE * width_ld <= piece, "Z lies where X and Y lay");
};

/* --- on the host --- */

static inline heads heads_of(const sl_view *v, int64_t D) {
  if (!v || !v->data) return {};
  const bool bf16 = v->dtype == SL_BF16;
  const int64_t n = v->stride[0], t = v->stride[1], h = v->stride[2];
  const bool by4 = D % 4 == 0 && n % 4 == 0 && t % 4 == 0 && h % 4 == 0 && (uintptr_t)v->data % (bf16 ? 8 : 16) == 0;
  return {v->data, bf16, by4, n, t, h};
}

/* Sizes that a kernel's 32-bit numbers of rows, heads and columns hold, tiles past the end included. */
static inline sl_status args_of(const sl_attention_job *j, attention_args *args) {
  const int64_t most = 0x7fffffff - 2 * TILE, sizes[] = {j->N, j->H, j->Tq, j->Tk, j->D};
  for (int64_t n : sizes)
    SL_REQUIRE(n <= most, UNSUPPORTED, "attention: a size of %lld, expected at most %lld on a GPU", (long long)n,
               (long long)most);
  attention_args a = {};
  a.N = (int)j->N, a.H = (int)j->H, a.Tq = (int)j->Tq, a.Tk = (int)j->Tk, a.D = (int)j->D, a.causal = j->causal;
  a.scale = j->scale, a.factor = (float)((double)j->scale * LOG2E);
  a.q = heads_of(j->q, j->D), a.k = heads_of(j->k, j->D), a.v = heads_of(j->v, j->D), a.out = heads_of(j->out, j->D);
  if (j->mask && j->mask->data)
    a.mask = (const uint8_t *)j->mask->data, a.mask_n = j->mask->stride[0], a.mask_t = j->mask->stride[1];
  a.lse = j->lse ? (float *)j->lse->data : NULL;
  *args = a;
  return SL_STATUS_OK;
}

SL_HD int tiles_of(int n) { return (n + TILE - 1) / TILE; }

/* Blocks (tile of rows and head, columns of the result). */
static inline sl_status grid_of(const attention_args &a, int rows, int width, dim3 *grid) {
  const int64_t heads = (int64_t)a.N * a.H, x = heads * tiles_of(rows), y = (a.D + width - 1) / width;
  SL_REQUIRE(heads <= 0x7fffffff && x <= 0x7fffffff && y <= 65535, UNSUPPORTED,
             "attention: %lld tiles of rows and %lld of columns, expected at most 2147483647 and 65535 on a GPU",
             (long long)x, (long long)y);
  *grid = dim3((unsigned)x, (unsigned)y);
  return SL_STATUS_OK;
}

/* --- where a thread is --- */

SL_DEVICE int tx_of() { return (int)(threadIdx.x % 32 / 2 % 8); }
SL_DEVICE int ty_of() { return (int)(threadIdx.x % 2 + threadIdx.x % 32 / 16 * 2); }
/* A thread's rows are 4 apart from this one, its columns 8 apart from tx. */
SL_DEVICE int row_of() { return (int)(threadIdx.x / 32) * (ROWS * 4) + ty_of(); }

SL_DEVICE float sum_of_row(float v) { /* over the lanes of a row */
  for (int m = 2; m <= 8; m *= 2) v += __shfl_xor_sync(0xffffffffu, v, m);
  return v;
}

SL_DEVICE part part_of(const attention_args &a, int rows, int width) {
  const unsigned tiles = (unsigned)tiles_of(rows), head = blockIdx.x / tiles, H = (unsigned)a.H;
  return {(int)(head / H), (int)(head % H), (int)(blockIdx.x % tiles) * TILE, (int)blockIdx.y * width};
}

SL_DEVICE head head_of(const heads &x, const part &b) {
  const int64_t at = b.n * x.n + b.h * x.h;
  return {(char *)x.p + at * (x.bf16 ? 2 : 4), x.bf16, x.by4, x.t};
}

/* Element t of the part's head in [N,H,T]. */
SL_DEVICE int64_t known_at(const attention_args &a, const part &b, int t) {
  return ((int64_t)b.n * a.H + b.h) * a.Tq + t;
}

/* Keys that query i sees, all from 0 on. */
SL_DEVICE int visible(const attention_args &a, int i) {
  const int n = i + (a.Tk - a.Tq) + 1;
  return !a.causal || n > a.Tk ? a.Tk : n < 0 ? 0 : n;
}

/* Key `key` of a tile is seen by query `query` of another where key <= query + lead. */
SL_DEVICE int lead_of(const attention_args &a, int query, int key) {
  return a.causal ? query + (a.Tk - a.Tq) - key : TILE;
}

/* A bit for each of COUNT keys, STEP apart: whether it exists and is not hidden by the mask. */
template <int COUNT, int STEP>
SL_DEVICE unsigned keys_shown(const attention_args &a, int n, int key) {
  unsigned bits = 0;
  SL_UNROLL
  for (int i = 0; i < COUNT; i++) bits |= (key + i * STEP < a.Tk) << i;
  if (!a.mask) return bits;
  const uint8_t *m = a.mask + n * a.mask_n + key * a.mask_t;
  unsigned unmasked = 0;
  SL_UNROLL_BY(4)
  for (int i = 0; i < COUNT; i++, m += STEP * a.mask_t)
    if (bits >> i & 1) unmasked |= (*m != 0) << i;
  return unmasked;
}

/* --- tiles --- */

/* Eight lanes have a row at a time, so that rows differ by a stride alone. */
template <int V, int WIDTH>
SL_DEVICE void fill_by(float *to, const head &x, bool bf16, int row, int T, int column, int D, float factor) {
  const int first = (int)threadIdx.x / 8, c0 = (int)threadIdx.x % 8 * V;
  int64_t at = (int64_t)(row + first) * x.t + column + c0;
  to += first * (WIDTH + 4) + c0;
  SL_UNROLL_BY(2)
  for (int r = 0; r < TILE; r += THREADS / 8, at += THREADS / 8 * x.t, to += THREADS / 8 * (WIDTH + 4)) {
    SL_UNROLL_BY(V)
    for (int c = 0; c < WIDTH; c += 8 * V) {
      sl_pack<float, V> v = {};
      if (row + first + r < T && column + c0 + c < D) v = sl_load<V>(x.p, bf16, at + c);
      for (int i = 0; i < V; i++) v.v[i] *= factor;
      if (c + 8 * V <= WIDTH || c0 + c < WIDTH) *(sl_pack<float, V> *)(to + c) = v;
    }
  }
}

/* TILE rows of WIDTH columns times factor; zeros outside of [T, D]. */
template <int WIDTH>
SL_DEVICE void fill(float *to, const head &x, int row, int T, int column, int D, float factor) {
  if (!x.by4) fill_by<1, WIDTH>(to, x, x.bf16, row, T, column, D, factor);
  else if (x.bf16) fill_by<4, WIDTH>(to, x, true, row, T, column, D, factor); /* one branch, not one at each load */
  else fill_by<4, WIDTH>(to, x, false, row, T, column, D, factor);
}

/* s += X Y^T over `depth` dimensions, rounded up to 4. */
template <int LD>
SL_DEVICE void add_scores(float (&s)[ROWS][COLS], const float *x, const float *y, int depth) {
  x += row_of() * LD, y += tx_of() * LD;
  SL_UNROLL_BY(1)
  for (int d = 0; d < depth; d += 4) {
    sl_pack<float, 4> a[ROWS];
    SL_UNROLL
    for (int i = 0; i < ROWS; i++) a[i] = *(const sl_pack<float, 4> *)(x + 4 * i * LD + d);
    SL_UNROLL
    for (int j = 0; j < COLS; j++) {
      const sl_pack<float, 4> b = *(const sl_pack<float, 4> *)(y + 8 * j * LD + d);
      SL_UNROLL
      for (int e = 0; e < 4; e++)
        for (int i = 0; i < ROWS; i++) s[i][j] += a[i].v[e] * b.v[e];
    }
  }
}

/* One of a product's two factors: rows from `row` on, of T. */
struct side {
  head of;
  int row, T;
  float factor;
};

/* s = X Y^T in full. held: X is already there (a whole head). */
template <int DEPTH, int WIDTH>
SL_DEVICE void scores(float (&s)[ROWS][COLS], float *room, const side &x, const side &y, int D, bool held) {
  typedef shape<DEPTH, WIDTH> S;
  SL_UNROLL
  for (int i = 0; i < ROWS; i++)
    for (int j = 0; j < COLS; j++) s[i][j] = 0.0f;
  for (int d = 0; d < D; d += DEPTH) {
    __syncthreads(); /* the tiles may still be read */
    if (!held) fill<DEPTH>(room, x.of, x.row, x.T, d, D, x.factor);
    fill<DEPTH>(room + S::y, y.of, y.row, y.T, d, D, y.factor);
    __syncthreads();
    add_scores<S::ld>(s, room, room + S::y, D - d < DEPTH ? D - d : DEPTH);
  }
}

/* Z, WIDTH columns of `of` from `column` on. */
template <int DEPTH, int WIDTH>
SL_DEVICE void fill_z(float *room, const side &z, int column, int D) {
  __syncthreads();
  fill<WIDTH>(room + shape<DEPTH, WIDTH>::z, z.of, z.row, z.T, column, D, z.factor);
  __syncthreads();
}

template <int DEPTH, int WIDTH>
SL_DEVICE void add_piece(float (&sum)[ROWS][WIDTH / 8], const float *p, const float *z) {
  typedef shape<DEPTH, WIDTH> S;
  const int tx = tx_of();
  SL_UNROLL_BY(1)
  for (int t = 0; t < PIECE; t += 4) {
    sl_pack<float, 4> w[ROWS];
    SL_UNROLL
    for (int i = 0; i < ROWS; i++) w[i] = *(const sl_pack<float, 4> *)(p + 4 * i * PIECE_LD + t);
    SL_UNROLL
    for (int e = 0; e < 4; e++) {
      const float *row = z + (t + e) * S::width_ld;
      SL_UNROLL
      for (int g = 0; g < S::groups; g++) {
        const sl_pack<float, 4> b = *(const sl_pack<float, 4> *)(row + 32 * g + 4 * tx);
        SL_UNROLL
        for (int c = 0; c < 4; c++)
          for (int i = 0; i < ROWS; i++) sum[i][4 * g + c] += w[i].v[e] * b.v[c];
      }
      SL_UNROLL
      for (int k = 0; k < S::singles; k++) {
        const float b = row[32 * S::groups + 8 * k + tx];
        SL_UNROLL
        for (int i = 0; i < ROWS; i++) sum[i][4 * S::groups + k] += w[i].v[e] * b;
      }
    }
  }
}

/* sum += P Z; only the first `count` rows of Z count. */
template <int DEPTH, int WIDTH>
SL_DEVICE void add_weighted(float (&sum)[ROWS][WIDTH / 8], const float (&p)[ROWS][COLS], float *room, int count) {
  typedef shape<DEPTH, WIDTH> S;
  float *piece = room + S::piece + row_of() * PIECE_LD;
  SL_UNROLL
  for (int half = 0; half < 2; half++) {
    if (half * PIECE >= count) break;
    __syncwarp(); /* the piece may still be read */
    SL_UNROLL
    for (int i = 0; i < ROWS; i++)
      for (int j = 0; j < COLS / 2; j++) piece[4 * i * PIECE_LD + tx_of() + 8 * j] = p[i][half * (COLS / 2) + j];
    __syncwarp();
    add_piece<DEPTH, WIDTH>(sum, piece, room + S::z + half * PIECE * S::width_ld);
  }
}

/* Row t of the result times factor. */
template <int WIDTH>
SL_DEVICE void write_row(const head &y, int t, int column, int D, const float (&sum)[WIDTH / 8], float factor) {
  constexpr int groups = WIDTH / 32, singles = WIDTH % 32 / 8;
  const int64_t at = t * y.t;
  const int tx = tx_of();
  SL_UNROLL
  for (int g = 0; g < groups; g++) {
    const int c = column + 32 * g + 4 * tx;
    sl_pack<float, 4> v;
    for (int i = 0; i < 4; i++) v.v[i] = sum[4 * g + i] * factor;
    if (y.by4 && c < D) sl_store<4>(y.p, y.bf16, at + c, v);
    for (int i = 0; i < 4 && !y.by4; i++)
      if (c + i < D) sl_store<1>(y.p, y.bf16, at + c + i, {{v.v[i]}});
  }
  SL_UNROLL
  for (int k = 0; k < singles; k++) {
    const int c = column + 32 * groups + 8 * k + tx;
    if (c < D) sl_store<1>(y.p, y.bf16, at + c, {{sum[4 * groups + k] * factor}});
  }
}

} // namespace sl_attention_gpu

#endif
