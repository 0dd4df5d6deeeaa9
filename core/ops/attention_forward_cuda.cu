/* Attention forward on CUDA: a block has 64 queries of a head and walks over its keys, 64 at a time. Source: Dao et
 * al., FlashAttention, 2022 (online softmax). */
#include "ops/attention_tiles_cuda.h"

using namespace sl_attention_gpu;

/* Hides keys of the tile at `key` from the queries at `query`. */
SL_DEVICE void hide_keys(const attention_args &a, float (&s)[ROWS][COLS], int n, int query, int key) {
  const int lead = lead_of(a, query, key) + row_of(), tx = tx_of();
  if (!a.mask && key + TILE <= a.Tk && lead - row_of() >= TILE - 1) return;
  const unsigned shown = keys_shown<COLS, 8>(a, n, key + tx);
  SL_UNROLL
  for (int j = 0; j < COLS; j++)
    for (int i = 0; i < ROWS; i++)
      if (!(shown >> j & 1) || tx + 8 * j > lead + 4 * i) s[i][j] = -INFINITY;
}

/* Scores to weights relative to the highest score so far; what was summed before shrinks. A thread has its own columns
 * of `total`. */
template <int OWN>
SL_DEVICE void softmax_rows(float (&s)[ROWS][COLS], float (&top)[ROWS], float (&total)[ROWS], float (&sum)[ROWS][OWN]) {
  SL_UNROLL
  for (int i = 0; i < ROWS; i++) {
    float high = top[i];
    SL_UNROLL
    for (int j = 0; j < COLS; j++) high = fmaxf(high, s[i][j]);
    for (int m = 2; m <= 8; m *= 2) high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, m));
    const float base = high == -INFINITY ? 0.0f : high, shrink = exp2f(top[i] - base);
    top[i] = high;
    total[i] *= shrink;
    SL_UNROLL
    for (int j = 0; j < COLS; j++) {
      s[i][j] = exp2f(s[i][j] - base);
      total[i] += s[i][j];
    }
    SL_UNROLL
    for (int c = 0; c < OWN; c++) sum[i][c] *= shrink;
  }
}

template <int WIDTH>
SL_DEVICE void write_rows(const attention_args &a, const part &b, const float (&top)[ROWS], const float (&total)[ROWS],
                          float (&sum)[ROWS][WIDTH / 8]) {
  const head out = a.out.p ? head_of(a.out, b) : head{};
  SL_UNROLL
  for (int i = 0; i < ROWS; i++) {
    const int t = b.row + row_of() + 4 * i;
    const float all = sum_of_row(total[i]);
    const bool none = all == 0.0f;
    if (t >= a.Tq) continue;
    if (a.out.p) write_row<WIDTH>(out, t, b.column, a.D, sum[i], none ? 0.0f : 1.0f / all);
    if (a.lse && b.column == 0 && tx_of() == 0)
      a.lse[known_at(a, b, t)] = none ? -INFINITY : (float)(((double)top[i] + (double)log2f(all)) * LN2);
  }
}

/* Block (tile of queries and head, columns of out); a thread has 4 queries and WIDTH / 8 columns. */
template <int DEPTH, int WIDTH>
__global__ void __launch_bounds__(THREADS, WIDTH <= 72 ? 4 : 3) attention_forward_kernel(const attention_args a) {
  typedef shape<DEPTH, WIDTH> S;
  SL_SHARED_DYN(float, room);
  const part b = part_of(a, a.Tq, WIDTH);
  const int last = visible(a, (b.row + TILE < a.Tq ? b.row + TILE : a.Tq) - 1);
  const side q = {head_of(a.q, b), b.row, a.Tq, a.factor};
  float sum[ROWS][S::own] = {}, top[ROWS], total[ROWS] = {};
  for (int i = 0; i < ROWS; i++) top[i] = -INFINITY;
  if (S::whole) fill<DEPTH>(room, q.of, q.row, q.T, 0, a.D, q.factor);
  for (int key = 0; key < last; key += TILE) {
    const side k = {head_of(a.k, b), key, a.Tk, 1.0f}, v = {head_of(a.v, b), key, a.Tk, 1.0f};
    float s[ROWS][COLS];
    scores<DEPTH, WIDTH>(s, room, q, k, a.D, S::whole);
    hide_keys(a, s, b.n, b.row, key);
    softmax_rows(s, top, total, sum);
    fill_z<DEPTH, WIDTH>(room, v, b.column, a.D);
    add_weighted<DEPTH, WIDTH>(sum, s, room, last - key);
  }
  write_rows<WIDTH>(a, b, top, total, sum);
}

template <int DEPTH, int WIDTH>
static sl_status run(void *stream, const attention_args &a) {
  dim3 grid;
  SL_TRY(grid_of(a, a.Tq, WIDTH, &grid));
  return SL_LAUNCH((attention_forward_kernel<DEPTH, WIDTH>), grid, THREADS, (shape<DEPTH, WIDTH>::bytes), stream, a);
}

extern "C" sl_status sl_gpu_attention_forward(void *stream, const sl_attention_job *j) {
  attention_args a;
  SL_TRY(args_of(j, &a));
  if (a.N == 0 || a.H == 0 || a.Tq == 0) return SL_STATUS_OK;
  if (a.D <= 32) return run<32, 32>(stream, a);
  if (a.D <= 64) return run<64, 64>(stream, a);
  if (a.D <= 72) return run<72, 72>(stream, a);
  if (a.D <= 96) return run<48, 96>(stream, a);
  return run<64, 128>(stream, a);
}
