/* Attention backward on CUDA, in three kernels: what is known of each query; dk and dv, a block having 64 keys and
 * walking over the queries; dq, a block having 64 queries and walking over the keys. Weights are computed again from
 * the log-sum-exp. Source: Dao et al., FlashAttention, 2022. */
#include "ops/attention_tiles_cuda.h"

using namespace sl_attention_gpu;

constexpr int LANES = 8; /* for one query in attention_rows_kernel */

/* shift and delta: 8 lanes have one query of one head, blocks follow the memory of [N,Tq,H,D]. */
template <int V>
__global__ void __launch_bounds__(THREADS) attention_rows_kernel(const attention_args a) {
  const int64_t i = (int64_t)blockIdx.x * (THREADS / LANES) + threadIdx.x / LANES, h = i % a.H, t = i / a.H % a.Tq;
  const int64_t n = i / a.H / a.Tq, end = n < a.N ? a.D : 0;
  const int64_t g_at = n * a.dout.n + t * a.dout.t + h * a.dout.h, o_at = n * a.out.n + t * a.out.t + h * a.out.h;
  float delta = 0.0f;
  for (int64_t d = threadIdx.x % LANES * V; d < end; d += LANES * V) {
    const sl_pack<float, V> g = sl_load<V>(a.dout.p, a.dout.bf16, g_at + d),
                            o = sl_load<V>(a.out.p, a.out.bf16, o_at + d);
    for (int k = 0; k < V; k++) delta += g.v[k] * o.v[k];
  }
  for (int m = 1; m < LANES; m *= 2) delta += __shfl_xor_sync(0xffffffffu, delta, m);
  if (n >= a.N || threadIdx.x % LANES) return;
  const int64_t at = (n * a.H + h) * a.Tq + t;
  const float lse = a.lse[at];
  a.delta[at] = delta;
  a.shift[at] = lse == -INFINITY ? INFINITY : (float)((double)lse * LOG2E); /* of no key: every weight becomes 0 */
}

/* Scores to weights; rows are keys, columns the queries from `query` on, whose shift is the head's. */
SL_DEVICE void weights_of_keys(const attention_args &a, float (&s)[ROWS][COLS], unsigned shown, const float *shift,
                               int query, int lead) {
  const int tx = tx_of(), row = row_of() - tx - lead, left = a.Tq - query - tx;
  shift += query + tx;
  SL_UNROLL
  for (int j = 0; j < COLS; j++) {
    const float by = 8 * j < left ? shift[8 * j] : INFINITY;
    SL_UNROLL
    for (int i = 0; i < ROWS; i++) {
      const bool seen = (shown >> i & 1) && row + 4 * i <= 8 * j;
      s[i][j] = seen ? exp2f(s[i][j] - by) : 0.0f;
    }
  }
}

/* ds = p (dp - delta), in dp. */
SL_DEVICE void gradients_of_keys(const attention_args &a, const float (&p)[ROWS][COLS], float (&dp)[ROWS][COLS],
                                 const float *delta, int query) {
  const int tx = tx_of(), left = a.Tq - query - tx;
  delta += query + tx;
  SL_UNROLL
  for (int j = 0; j < COLS; j++) {
    const float by = 8 * j < left ? delta[8 * j] : 0.0f;
    SL_UNROLL
    for (int i = 0; i < ROWS; i++) dp[i][j] = p[i][j] * (dp[i][j] - by);
  }
}

template <int WIDTH>
SL_DEVICE void write_rows(const attention_args &a, const part &b, const heads &to, int T,
                          const float (&sum)[ROWS][WIDTH / 8], float factor) {
  if (!to.p) return;
  const head y = head_of(to, b);
  SL_UNROLL
  for (int i = 0; i < ROWS; i++) {
    const int t = b.row + row_of() + 4 * i;
    if (t < T) write_row<WIDTH>(y, t, b.column, a.D, sum[i], factor);
  }
}

/* First query, rounded down to a tile, that sees a key from `key` on. */
SL_DEVICE int first_query(const attention_args &a, int key) {
  const int t = key - (a.Tk - a.Tq);
  return !a.causal || t < 0 ? 0 : t / TILE * TILE;
}

/* Block (tile of keys and head, columns of dk and dv); a thread has 4 keys and WIDTH / 8 columns of both. */
template <int DEPTH, int WIDTH>
__global__ void __launch_bounds__(THREADS, WIDTH <= 64 ? 3 : 2) attention_dkdv_kernel(const attention_args a) {
  typedef shape<DEPTH, WIDTH> S;
  SL_SHARED_DYN(float, room);
  const part b = part_of(a, a.Tk, WIDTH);
  const float *shift = a.shift + known_at(a, b, 0), *delta = a.delta + known_at(a, b, 0);
  const side k = {head_of(a.k, b), b.row, a.Tk, a.factor}, v = {head_of(a.v, b), b.row, a.Tk, 1.0f};
  float dk[ROWS][S::own] = {}, dv[ROWS][S::own] = {};
  const unsigned shown = keys_shown<ROWS, 4>(a, b.n, b.row + row_of());
  for (int query = first_query(a, b.row); query < a.Tq; query += TILE) {
    const side q = {head_of(a.q, b), query, a.Tq, 1.0f}, dout = {head_of(a.dout, b), query, a.Tq, 1.0f};
    float p[ROWS][COLS], ds[ROWS][COLS];
    scores<DEPTH, WIDTH>(p, room, k, q, a.D, false);
    weights_of_keys(a, p, shown, shift, query, lead_of(a, query, b.row));
    scores<DEPTH, WIDTH>(ds, room, v, dout, a.D, false);
    if (!S::whole) fill_z<DEPTH, WIDTH>(room, dout, b.column, a.D);
    add_weighted<DEPTH, WIDTH>(dv, p, room, a.Tq - query);
    gradients_of_keys(a, p, ds, delta, query);
    fill_z<DEPTH, WIDTH>(room, q, b.column, a.D);
    add_weighted<DEPTH, WIDTH>(dk, ds, room, a.Tq - query);
  }
  write_rows<WIDTH>(a, b, a.dk, a.Tk, dk, a.scale);
  write_rows<WIDTH>(a, b, a.dv, a.Tk, dv, 1.0f);
}

/* ds = p (dp - delta), in dp; rows are queries, columns the keys from `key` on. */
SL_DEVICE void gradients_of_queries(const attention_args &a, const part &b, const float (&s)[ROWS][COLS],
                                    float (&dp)[ROWS][COLS], int key) {
  const int row = row_of(), tx = tx_of(), last = lead_of(a, b.row, key) + row - tx;
  const int left = a.Tq - b.row - row;
  const unsigned shown = keys_shown<COLS, 8>(a, b.n, key + tx);
  const float *shift = a.shift + known_at(a, b, b.row + row), *delta = shift + (a.delta - a.shift);
  SL_UNROLL
  for (int i = 0; i < ROWS; i++) {
    const float by = 4 * i < left ? shift[4 * i] : INFINITY, mean = 4 * i < left ? delta[4 * i] : 0.0f;
    SL_UNROLL
    for (int j = 0; j < COLS; j++) {
      const bool seen = (shown >> j & 1) && 8 * j <= last + 4 * i;
      dp[i][j] = seen ? exp2f(s[i][j] - by) * (dp[i][j] - mean) : 0.0f;
    }
  }
}

/* Block (tile of queries and head, columns of dq); a thread has 4 queries and WIDTH / 8 columns. */
template <int DEPTH, int WIDTH>
__global__ void __launch_bounds__(THREADS, WIDTH <= 96 ? 3 : 2) attention_dq_kernel(const attention_args a) {
  typedef shape<DEPTH, WIDTH> S;
  SL_SHARED_DYN(float, room);
  const part b = part_of(a, a.Tq, WIDTH);
  const int last = visible(a, (b.row + TILE < a.Tq ? b.row + TILE : a.Tq) - 1);
  const side q = {head_of(a.q, b), b.row, a.Tq, a.factor}, dout = {head_of(a.dout, b), b.row, a.Tq, 1.0f};
  float dq[ROWS][S::own] = {};
  for (int key = 0; key < last; key += TILE) {
    const side k = {head_of(a.k, b), key, a.Tk, 1.0f}, v = {head_of(a.v, b), key, a.Tk, 1.0f};
    float s[ROWS][COLS], ds[ROWS][COLS];
    scores<DEPTH, WIDTH>(ds, room, dout, v, a.D, false);
    scores<DEPTH, WIDTH>(s, room, q, k, a.D, false); /* leaves k where Z lies, if it is whole */
    gradients_of_queries(a, b, s, ds, key);
    if (!S::whole) fill_z<DEPTH, WIDTH>(room, k, b.column, a.D);
    add_weighted<DEPTH, WIDTH>(dq, ds, room, last - key);
  }
  write_rows<WIDTH>(a, b, a.dq, a.Tq, dq, a.scale);
}

static sl_status run_rows(void *stream, const attention_args &a) {
  const int64_t rows = (int64_t)a.N * a.H * a.Tq, blocks = (rows + THREADS / LANES - 1) / (THREADS / LANES);
  if (blocks == 0) return SL_STATUS_OK;
  SL_REQUIRE(blocks <= 0x7fffffff, UNSUPPORTED, "attention: %lld rows of queries, more than a GPU's grid holds",
             (long long)rows);
  const dim3 grid((unsigned)blocks);
  if (a.dout.by4 && a.out.by4) return SL_LAUNCH(attention_rows_kernel<4>, grid, THREADS, 0, stream, a);
  return SL_LAUNCH(attention_rows_kernel<1>, grid, THREADS, 0, stream, a);
}

template <int DEPTH, int WIDTH>
static sl_status run(void *stream, const attention_args &a) {
  const size_t bytes = shape<DEPTH, WIDTH>::bytes;
  dim3 keys, queries;
  SL_TRY(grid_of(a, a.Tk, WIDTH, &keys));
  SL_TRY(grid_of(a, a.Tq, WIDTH, &queries));
  SL_TRY(run_rows(stream, a));
  if (keys.x && (a.dk.p || a.dv.p))
    SL_TRY(SL_LAUNCH((attention_dkdv_kernel<DEPTH, WIDTH>), keys, THREADS, bytes, stream, a));
  if (queries.x && a.dq.p) SL_TRY(SL_LAUNCH((attention_dq_kernel<DEPTH, WIDTH>), queries, THREADS, bytes, stream, a));
  return SL_STATUS_OK;
}

extern "C" size_t sl_gpu_attention_backward_workspace(const sl_attention_job *j) {
  return 2 * (size_t)(j->N * j->H * j->Tq) * sizeof(float);
}

extern "C" sl_status sl_gpu_attention_backward(void *stream, const sl_attention_job *j, void *workspace) {
  attention_args a;
  SL_TRY(args_of(j, &a));
  a.dout = heads_of(j->dout, a.D);
  a.dq = heads_of(j->dq, a.D), a.dk = heads_of(j->dk, a.D), a.dv = heads_of(j->dv, a.D);
  a.shift = (float *)workspace, a.delta = a.shift + j->N * j->H * j->Tq;
  if (a.D <= 32) return run<32, 32>(stream, a);
  if (a.D <= 64) return run<64, 64>(stream, a);
  if (a.D <= 72) return run<72, 72>(stream, a);
  if (a.D <= 96) return run<48, 96>(stream, a);
  return run<64, 128>(stream, a);
}
