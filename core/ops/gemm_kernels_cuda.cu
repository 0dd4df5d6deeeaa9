/* A tiled product: a block makes a TILE x TILE part of C, each of its 256 threads a (TILE/16)^2 part in registers. */
#include "gpu/gpu.h"

#include "ops/gemm_kernels_cuda.h"

/* Loops over parts of a thread's registers, which have no addresses. */
#ifdef __CUDACC__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL
#endif

namespace {

typedef sl_pack<float, 4> quad;

constexpr int THREADS = 256; /* 16 x 16 */

/* A as rows of k, or B^T: one stride is 1. */
struct operand {
  const void *p;
  bool bf16, by_four; /* four neighbours may be read as one */
  int64_t rows, ld;   /* ld: the stride that is not 1 */
  int64_t batch[SL_MAX_RANK];
};

struct gemm_args {
  operand a, b;
  void *c;
  const float *bias;
  bool c_bf16, c_by_four, accumulate;
  int k, rank;
  int64_t c_row, tiles_n, batches, first_z;
  int64_t batch[SL_MAX_RANK], c_batch[SL_MAX_RANK];
};

} // namespace

SL_DEVICE int64_t offset_of(const gemm_args &g, const int64_t *strides) {
  int64_t at = 0, z = g.first_z + blockIdx.z;
  for (int i = g.rank; i-- > 0; z /= g.batch[i]) at += z % g.batch[i] * strides[i];
  return at;
}

/* Four elements at `at` along the unit stride, zeros outside. K_FIRST: they are (row, k … k + 3), else (row … row + 3,
 * k). rows, depth: how many of either are left, from this row and k. */
template <bool K_FIRST>
SL_DEVICE quad fetch(const operand &o, int64_t at, int rows, int depth) {
  const bool inside = K_FIRST ? rows > 0 : depth > 0;
  const int room = K_FIRST ? depth : rows;
  if (inside && o.by_four && room >= 4) return sl_load<4>(o.p, o.bf16, at);
  quad q;
  for (int i = 0; i < 4; i++) q.v[i] = inside && i < room ? sl_load<1>(o.p, o.bf16, at + i).v[0] : 0.0f;
  return q;
}

/* A tile is [DEPTH][TILE + 4] in shared memory. Which quad of it a thread brings: */
template <int TILE, bool K_FIRST>
SL_DEVICE void place(int *row, int *k) {
  constexpr int DEPTH = 4 * THREADS / TILE, ACROSS = K_FIRST ? DEPTH / 4 : TILE / 4;
  const int along = (int)threadIdx.x % ACROSS * 4, other = (int)threadIdx.x / ACROSS;
  *row = K_FIRST ? other : along;
  *k = K_FIRST ? along : other;
}

template <int TILE, bool K_FIRST>
SL_DEVICE void put(float *tile, int row, int k, const quad &q) {
  if (K_FIRST) {
    for (int i = 0; i < 4; i++) tile[(k + i) * (TILE + 4) + row] = q.v[i];
  } else {
    *(quad *)(tile + k * (TILE + 4) + row) = q;
  }
}

/* sum += the product of two tiles. Thread (y, x) has rows 64 g + 4 y + i and columns 64 h + 4 x + j. */
template <int TILE>
SL_DEVICE void multiply(const float *a, const float *b, float (*sum)[TILE / 16]) {
  constexpr int DEPTH = 4 * THREADS / TILE, PARTS = TILE / 64;
  const int y = (int)threadIdx.x / 16, x = (int)threadIdx.x % 16;
  UNROLL
  for (int k = 0; k < DEPTH; k++) {
    quad qa[PARTS], qb[PARTS];
    for (int g = 0; g < PARTS; g++) {
      qa[g] = *(const quad *)(a + k * (TILE + 4) + 64 * g + 4 * y);
      qb[g] = *(const quad *)(b + k * (TILE + 4) + 64 * g + 4 * x);
    }
    for (int i = 0; i < 4 * PARTS; i++)
      for (int j = 0; j < 4 * PARTS; j++) sum[i][j] += qa[i / 4].v[i % 4] * qb[j / 4].v[j % 4];
  }
}

/* How many there are, at most MOST. */
template <int MOST>
SL_DEVICE int left(int64_t n) {
  return n < 0 ? 0 : n < MOST ? (int)n : MOST;
}

/* V neighbours of C. */
template <int V>
SL_DEVICE void finish(const gemm_args &g, int64_t at, const float *sum) {
  sl_pack<float, V> q = {};
  if (g.accumulate) q = sl_load<V>(g.c, g.c_bf16, at);
  for (int i = 0; i < V; i++) q.v[i] += sum[i];
  sl_store<V>(g.c, g.c_bf16, at, q);
}

template <int TILE>
SL_DEVICE void write(const gemm_args &g, float (*sum)[TILE / 16]) {
  const int64_t row = (int64_t)blockIdx.x / g.tiles_n * TILE + threadIdx.x / 16 * 4;
  const int64_t col = (int64_t)blockIdx.x % g.tiles_n * TILE + threadIdx.x % 16 * 4;
  const int rows = left<TILE>(g.a.rows - row), cols = left<TILE>(g.b.rows - col);
  int64_t at = offset_of(g, g.c_batch) + row * g.c_row + col;
  if (g.bias) {
    UNROLL
    for (int j = 0; j < TILE / 16; j++) {
      const int c = 64 * (j / 4) + j % 4;
      const float bias = c < cols ? g.bias[col + c] : 0.0f;
      UNROLL
      for (int i = 0; i < TILE / 16; i++) sum[i][j] += bias;
    }
  }
  UNROLL
  for (int i = 0; i < TILE / 16; i++) {
    UNROLL
    for (int h = 0; h < TILE / 64; h++) {
      const int room = 64 * (i / 4) + i % 4 < rows ? cols - 64 * h : 0;
      if (g.c_by_four && room >= 4) finish<4>(g, at + 64 * h, &sum[i][4 * h]);
      else {
        UNROLL
        for (int j = 0; j < 4; j++)
          if (j < room) finish<1>(g, at + 64 * h + j, &sum[i][4 * h + j]);
      }
    }
    at += (i % 4 == 3 ? 61 : 1) * g.c_row;
  }
}

template <bool K_FIRST>
SL_DEVICE int64_t first(const gemm_args &g, const operand &o, int64_t row, int k) {
  return offset_of(g, o.batch) + (K_FIRST ? row * o.ld + k : k * o.ld + row);
}

/* Block (t, z): tile t of C, row by row of tiles, in matrix first_z + z of the batch. While a tile of A and one of B
 * are multiplied, the next ones are on their way in registers. */
template <int TILE, bool A_K_FIRST, bool B_K_FIRST>
__global__ void __launch_bounds__(THREADS, 2) gemm_kernel(const gemm_args g) {
  constexpr int DEPTH = 4 * THREADS / TILE, SIZE = DEPTH * (TILE + 4);
  SL_SHARED(quad, tiles_a, 2 * SIZE / 4);
  SL_SHARED(quad, tiles_b, 2 * SIZE / 4);
  float *const as = (float *)tiles_a, *const bs = (float *)tiles_b;
  const int64_t m0 = (int64_t)blockIdx.x / g.tiles_n * TILE, n0 = (int64_t)blockIdx.x % g.tiles_n * TILE;
  int row_a, k_a, row_b, k_b;
  place<TILE, A_K_FIRST>(&row_a, &k_a);
  place<TILE, B_K_FIRST>(&row_b, &k_b);
  const int rows_a = left<4>(g.a.rows - m0 - row_a), rows_b = left<4>(g.b.rows - n0 - row_b);
  int64_t a = first<A_K_FIRST>(g, g.a, m0 + row_a, k_a), b = first<B_K_FIRST>(g, g.b, n0 + row_b, k_b);
  float sum[TILE / 16][TILE / 16] = {};
  quad qa = fetch<A_K_FIRST>(g.a, a, rows_a, g.k - k_a), qb = fetch<B_K_FIRST>(g.b, b, rows_b, g.k - k_b);
  int now = 0; /* where in shared memory the tiles of this round begin */
  put<TILE, A_K_FIRST>(as, row_a, k_a, qa);
  put<TILE, B_K_FIRST>(bs, row_b, k_b, qb);
  __syncthreads();
  for (int k = g.k; k > 0; now = SIZE - now) {
    k -= DEPTH;
    if (k > 0) {
      a += A_K_FIRST ? DEPTH : DEPTH * g.a.ld, b += B_K_FIRST ? DEPTH : DEPTH * g.b.ld;
      qa = fetch<A_K_FIRST>(g.a, a, rows_a, k - k_a);
      qb = fetch<B_K_FIRST>(g.b, b, rows_b, k - k_b);
    }
    multiply<TILE>(as + now, bs + now, sum);
    if (k > 0) {
      put<TILE, A_K_FIRST>(as + SIZE - now, row_a, k_a, qa);
      put<TILE, B_K_FIRST>(bs + SIZE - now, row_b, k_b, qb);
    }
    __syncthreads();
  }
  write<TILE>(g, sum);
}

/* --- launching --- */

static bool by_four(const void *p, bool bf16, int64_t ld, const int64_t *batch, int rank) {
  bool fits = ld % 4 == 0 && (uintptr_t)p % (bf16 ? 8 : 16) == 0;
  for (int i = 0; i < rank; i++) fits &= batch[i] % 4 == 0;
  return fits;
}

static operand operand_of(const sl_gemm *g, const void *p, int64_t rows, int64_t ld, const int64_t *batch) {
  operand o = {p, g->ab == SL_BF16, false, rows, ld, {}};
  for (int i = 0; i < g->rank; i++) o.batch[i] = batch[i];
  o.by_four = by_four(p, o.bf16, ld, batch, g->rank);
  return o;
}

template <int TILE, bool A_K_FIRST, bool B_K_FIRST>
static sl_status launch(gemm_args *g, void *stream) {
  const int64_t tiles_m = (g->a.rows + TILE - 1) / TILE;
  g->tiles_n = (g->b.rows + TILE - 1) / TILE;
  SL_REQUIRE(tiles_m <= INT32_MAX / g->tiles_n, UNSUPPORTED, "gemm: a result of %lld x %lld is too large for a GPU",
             (long long)g->a.rows, (long long)g->b.rows);
  for (g->first_z = 0; g->first_z < g->batches; g->first_z += 65535) {
    const int64_t rest = g->batches - g->first_z;
    const dim3 grid((unsigned)(tiles_m * g->tiles_n), 1, (unsigned)(rest < 65535 ? rest : 65535));
    SL_TRY(SL_LAUNCH((gemm_kernel<TILE, A_K_FIRST, B_K_FIRST>), grid, THREADS, 0, stream, *g));
  }
  return SL_STATUS_OK;
}

template <int TILE>
static sl_status launch_for(gemm_args *g, bool a_k_first, bool b_k_first, void *stream) {
  if (a_k_first) return b_k_first ? launch<TILE, true, true>(g, stream) : launch<TILE, true, false>(g, stream);
  return b_k_first ? launch<TILE, false, true>(g, stream) : launch<TILE, false, false>(g, stream);
}

/* Large tiles read the operands half as often, but must be as many as the largest GPUs have multiprocessors. */
static bool large_tiles(const gemm_args *g) {
  const int64_t tiles_m = (g->a.rows + 127) / 128, tiles_n = (g->b.rows + 127) / 128;
  return g->a.rows > 64 && g->b.rows > 64 && (double)tiles_m * (double)tiles_n * (double)g->batches >= 128.0;
}

extern "C" sl_status sl_gpu_gemm(void *stream, const sl_gemm *g, const void *a, const void *b, void *c,
                                 const float *bias, bool accumulate) {
  gemm_args s = {};
  s.batches = 1, s.rank = g->rank;
  for (int i = 0; i < g->rank; i++) {
    s.batch[i] = g->batch[i], s.c_batch[i] = g->c_batch[i];
    s.batches *= g->batch[i];
  }
  if (g->m == 0 || g->n == 0 || s.batches == 0 || (g->k == 0 && accumulate)) return SL_STATUS_OK;
  SL_REQUIRE(g->k < INT32_MAX, UNSUPPORTED, "gemm: sums of %lld products are too long for a GPU", (long long)g->k);
  const bool a_k_first = g->a_col == 1, b_k_first = g->b_row == 1;
  SL_REQUIRE((a_k_first || g->a_row == 1) && (b_k_first || g->b_col == 1), INTERNAL,
             "gemm: neither stride of an operand is 1");
  s.a = operand_of(g, a, g->m, a_k_first ? g->a_row : g->a_col, g->a_batch);
  s.b = operand_of(g, b, g->n, b_k_first ? g->b_col : g->b_row, g->b_batch);
  s.c = c, s.bias = bias, s.accumulate = accumulate, s.k = (int)g->k, s.c_row = g->c_row, s.c_bf16 = g->c == SL_BF16;
  s.c_by_four = by_four(c, s.c_bf16, s.c_row, s.c_batch, s.rank);
  if (large_tiles(&s)) return launch_for<128>(&s, a_k_first, b_k_first, stream);
  return launch_for<64>(&s, a_k_first, b_k_first, stream);
}
