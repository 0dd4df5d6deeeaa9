/* softmax(q k^T scale) v in tiles, forward and backward, compiled once per instruction set: the file that includes this
 * names the table in SL_LOOPS. Scores are kept times log2(e), so that exponentials are powers of two. Source: Dao et
 * al., FlashAttention, 2022 (online softmax, recomputation from the log-sum-exp). */
#include "ops/attention.h"
#include "ops/attention_vectors.h"
#include "ops/row_loops.h"

#define LOG2E 1.44269504088896341
#define LN2 0.69314718055994531

/* Rows of one head: element (t, 0) of v [N,T,H,D]. */
static inline int64_t head_row(const sl_view *v, int64_t n, int64_t t, int64_t h) {
  return n * v->stride[0] + t * v->stride[1] + h * v->stride[2];
}

static inline int64_t clamped(int64_t x, int64_t lo, int64_t hi) { return x < lo ? lo : x > hi ? hi : x; }

/* Keys that query i sees, all from 0 on. */
static inline int64_t visible(const sl_attention_job *j, int64_t i) {
  return j->causal ? clamped(i + j->Tk - j->Tq + 1, 0, j->Tk) : j->Tk;
}

static float *take(float **workspace, int64_t n) {
  float *p = *workspace;
  *workspace += n;
  return p;
}

/* A head's keys or values as B = x^T [D, T]. buffer: 4 D floats. */
static void pack_transposed(const sl_attention_job *j, const sl_view *x, int64_t n, int64_t h, float *panels,
                            float *buffer) {
  int64_t D = j->D, Dp = sl_attention_pad(D), T = sl_attention_pad(j->Tk);
  for (int64_t t = 0; t < T; t += 4) {
    const float *rows[4];
    for (int i = 0; i < 4; i++) {
      float *mine = buffer + i * Dp;
      if (t + i < j->Tk) rows[i] = row_read(x, head_row(x, n, t + i, h), D, mine);
      else rows[i] = memset(mine, 0, (size_t)D * sizeof(float));
    }
    panel_columns(panels, D, T, t, rows);
  }
}

/* The same as B = x [T, D]. */
static void pack_plain(const sl_attention_job *j, const sl_view *x, int64_t n, int64_t h, float *panels,
                       float *buffer) {
  int64_t T = sl_attention_pad(j->Tk);
  for (int64_t t = 0; t < j->Tk; t++) panel_row(panels, T, t, row_read(x, head_row(x, n, t, h), j->D, buffer), j->D);
  if (j->Tk == T) return;
  memset(buffer, 0, (size_t)j->D * sizeof(float));
  for (int64_t t = j->Tk; t < T; t++) panel_row(panels, T, t, buffer, j->D);
}

/* What is added to a sample's scores: 0, or -infinity where a key is hidden or does not exist. */
static void make_bias(const sl_attention_job *j, int64_t n, float *bias) {
  int64_t T = sl_attention_pad(j->Tk);
  const uint8_t *mask = j->mask->data;
  if (mask) mask += n * j->mask->stride[0];
  for (int64_t t = 0; t < T; t++) bias[t] = t < j->Tk && (!mask || mask[t * j->mask->stride[1]]) ? 0.0f : -INFINITY;
}

/* Rows q0 … of q times scale log2(e), [rows, D]; zeros up to whole register tiles. */
static void scaled_queries(const sl_attention_job *j, int64_t n, int64_t h, int64_t q0, int64_t rows, float *to) {
  const float factor = (float)((double)j->scale * LOG2E);
  for (int64_t i = 0; i < rows; i++) {
    const float *q = row_read(j->q, head_row(j->q, n, q0 + i, h), j->D, to + i * j->D);
    for (int64_t d = 0; d < j->D; d++) to[i * j->D + d] = q[d] * factor;
  }
  int64_t padded = (rows + MR - 1) / MR * MR;
  memset(to + rows * j->D, 0, (size_t)((padded - rows) * j->D) * sizeof(float));
}

/* --- forward --- */

typedef struct row_state {
  float *top, *sum; /* running maximum (times log2 e) and sum of exponentials, per row */
} row_state;

/* s [w] becomes exp2(s + bias - top); returns by how much what was summed before shrinks. */
static float softmax_row(float *s, const float *bias, int64_t w, int64_t limit, float *top, float *sum) {
  vf high = v_set(-INFINITY), total = {0};
  for (int64_t i = clamped(limit, 0, w); i < w; i++) s[i] = -INFINITY;
  for (int64_t i = 0; i < w; i += VL) {
    vf x = v_load(s + i) + v_load(bias + i);
    v_store(s + i, x);
    high = v_max(x, high);
  }
  float before = *top, now = v_highest(high);
  if (before > now) now = before;
  float base = now == -INFINITY ? 0.0f : now;
  vf shift = v_set(base);
  for (int64_t i = 0; i < w; i += VL) {
    vf p = v_exp2(v_load(s + i) - shift);
    v_store(s + i, p);
    total = total + p;
  }
  float shrink = before == now ? 1.0f : exp2f(before - base);
  *top = now;
  *sum = *sum * shrink + v_sum(total);
  return shrink;
}

static void write_block(const sl_attention_job *j, int64_t n, int64_t h, int64_t q0, int64_t rows, const float *o,
                        row_state st, float *buffer) {
  int64_t D = j->D, Dp = sl_attention_pad(D);
  for (int64_t i = 0; i < rows; i++) {
    bool none = st.sum[i] == 0.0f;
    float factor = none ? 0.0f : 1.0f / st.sum[i];
    if (j->out->data) {
      int64_t at = head_row(j->out, n, q0 + i, h);
      float *to = row_target(j->out, at, buffer);
      for (int64_t d = 0; d < D; d++) to[d] = none ? 0.0f : o[i * Dp + d] * factor;
      row_done(j->out, at, D, to);
    }
    if (j->lse->data) {
      float *lse = (float *)j->lse->data + (n * j->H + h) * j->Tq + q0 + i;
      *lse = none ? -INFINITY : (float)(((double)st.top[i] + (double)log2f(st.sum[i])) * LN2);
    }
  }
}

static void forward(const sl_attention_job *j, int64_t begin, int64_t end, float *work) {
  enum { M = SL_ATTENTION_QUERIES, W = SL_ATTENTION_KEYS };
  int64_t D = j->D, Dp = sl_attention_pad(D), T = sl_attention_pad(j->Tk), blocks = sl_attention_blocks(j->Tq),
          packed = -1;
  float *keys = take(&work, T * Dp), *values = take(&work, T * Dp), *bias = take(&work, T),
        *buffer = take(&work, 4 * Dp);
  float *q = take(&work, M * Dp), *o = take(&work, M * Dp), *s = take(&work, M * W);
  row_state st = {.top = take(&work, M), .sum = take(&work, M)};
  for (int64_t item = begin; item < end; item++) {
    int64_t head = item / blocks, n = head / j->H, h = head % j->H, q0 = item % blocks * M;
    int64_t rows = j->Tq - q0 < M ? j->Tq - q0 : M, last = visible(j, q0 + rows - 1);
    if (head != packed) {
      pack_transposed(j, j->k, n, h, keys, buffer);
      pack_plain(j, j->v, n, h, values, buffer);
      make_bias(j, n, bias);
      packed = head;
    }
    scaled_queries(j, n, h, q0, rows, q);
    for (int64_t i = 0; i < rows; i++) st.top[i] = -INFINITY, st.sum[i] = 0.0f;
    for (int64_t t = 0; t < last; t += W) {
      int64_t w = T - t < W ? T - t : W;
      small_product(rows, w, D, q, D, 1, (operand){keys + t * D, D, 0}, s, W, 0);
      for (int64_t i = 0; i < rows; i++) {
        float shrink = softmax_row(s + i * W, bias + t, w, visible(j, q0 + i) - t, &st.top[i], &st.sum[i]);
        if (t == 0 || shrink == 1.0f) continue;
        for (int64_t d = 0; d < Dp; d++) o[i * Dp + d] *= shrink;
      }
      small_product(rows, (D + VL - 1) / VL * VL, w, s, W, 1, (operand){values, T, t}, o, Dp, t > 0);
    }
    write_block(j, n, h, q0, rows, o, st, buffer);
  }
}

/* --- backward --- */

typedef struct back_head { /* one (n, h) */
  int64_t n, h;
  float *keys_t, *keys, *values_t; /* k^T, k, v^T as operands */
  float *dk, *dv;                  /* sums [T, Dp] */
  float *bias, *buffer;
  float *q, *q_rows, *dout, *dout_rows, *s, *ds, *dq, *lse, *delta; /* one block of queries */
} back_head;

/* Reads q, dout and their products with what is known of their rows; _rows are operands [M, D]. */
static void back_read(const sl_attention_job *j, back_head *b, int64_t q0, int64_t rows) {
  enum { M = SL_ATTENTION_QUERIES_BACK };
  int64_t D = j->D;
  scaled_queries(j, b->n, b->h, q0, rows, b->q);
  for (int64_t i = 0; i < rows; i++) {
    panel_row(b->q_rows, M, i, row_read(j->q, head_row(j->q, b->n, q0 + i, b->h), D, b->buffer), D);
    const float *g = row_read(j->dout, head_row(j->dout, b->n, q0 + i, b->h), D, b->buffer);
    const float *o = row_read(j->out, head_row(j->out, b->n, q0 + i, b->h), D, b->buffer + sl_attention_pad(D));
    float delta = 0;
#pragma omp simd reduction(+ : delta)
    for (int64_t d = 0; d < D; d++) delta += g[d] * o[d];
    memcpy(b->dout + i * D, g, (size_t)D * sizeof(float));
    panel_row(b->dout_rows, M, i, g, D);
    float lse = ((const float *)j->lse->data)[(b->n * j->H + b->h) * j->Tq + q0 + i];
    b->lse[i] = lse == -INFINITY ? INFINITY : (float)((double)lse * LOG2E); /* of no key: every probability becomes 0 */
    b->delta[i] = delta;
  }
  int64_t padded = (rows + MR - 1) / MR * MR;
  memset(b->dout + rows * D, 0, (size_t)((padded - rows) * D) * sizeof(float));
}

/* Scores to probabilities, and products dout v^T to gradients of scores. */
static void back_row(float *s, float *ds, const float *bias, int64_t w, int64_t limit, float lse, float delta) {
  vf shift = v_set(lse), mean = v_set(delta);
  for (int64_t i = clamped(limit, 0, w); i < w; i++) s[i] = -INFINITY;
  for (int64_t i = 0; i < w; i += VL) {
    vf p = v_exp2(v_load(s + i) + v_load(bias + i) - shift);
    v_store(s + i, p);
    v_store(ds + i, p * (v_load(ds + i) - mean));
  }
}

static void back_block(const sl_attention_job *j, back_head *b, int64_t q0, int64_t rows) {
  enum { M = SL_ATTENTION_QUERIES_BACK, W = SL_ATTENTION_KEYS };
  int64_t D = j->D, Dp = sl_attention_pad(D), Dv = (D + VL - 1) / VL * VL, T = sl_attention_pad(j->Tk);
  int64_t last = visible(j, q0 + rows - 1);
  back_read(j, b, q0, rows);
  memset(b->dq, 0, (size_t)(M * Dp) * sizeof(float));
  for (int64_t t = 0; t < last; t += W) {
    int64_t w = T - t < W ? T - t : W;
    small_product(rows, w, D, b->q, D, 1, (operand){b->keys_t + t * D, D, 0}, b->s, W, 0);
    small_product(rows, w, D, b->dout, D, 1, (operand){b->values_t + t * D, D, 0}, b->ds, W, 0);
    for (int64_t i = 0; i < rows; i++)
      back_row(b->s + i * W, b->ds + i * W, b->bias + t, w, visible(j, q0 + i) - t, b->lse[i], b->delta[i]);
    small_product(w, Dv, rows, b->s, 1, W, (operand){b->dout_rows, M, 0}, b->dv + t * Dp, Dp, 1);
    small_product(w, Dv, rows, b->ds, 1, W, (operand){b->q_rows, M, 0}, b->dk + t * Dp, Dp, 1);
    small_product(rows, Dv, w, b->ds, W, 1, (operand){b->keys, T, t}, b->dq, Dp, 1);
  }
}

static void write_rows(const sl_view *to, int64_t n, int64_t h, int64_t t0, int64_t rows, int64_t D, const float *from,
                       float factor, float *buffer) {
  int64_t Dp = sl_attention_pad(D);
  if (!to->data) return;
  for (int64_t i = 0; i < rows; i++) {
    int64_t at = head_row(to, n, t0 + i, h);
    float *row = row_target(to, at, buffer);
    for (int64_t d = 0; d < D; d++) row[d] = from[i * Dp + d] * factor;
    row_done(to, at, D, row);
  }
}

static void backward(const sl_attention_job *j, int64_t begin, int64_t end, float *work) {
  enum { M = SL_ATTENTION_QUERIES_BACK, W = SL_ATTENTION_KEYS };
  int64_t D = j->D, Dp = sl_attention_pad(D), T = sl_attention_pad(j->Tk);
  back_head b = {.keys_t = take(&work, T * Dp), .keys = take(&work, T * Dp), .values_t = take(&work, T * Dp)};
  b.dk = take(&work, T * Dp), b.dv = take(&work, T * Dp), b.bias = take(&work, T), b.buffer = take(&work, 4 * Dp);
  b.q = take(&work, M * Dp), b.q_rows = take(&work, M * Dp), b.dout = take(&work, M * Dp),
  b.dout_rows = take(&work, M * Dp);
  b.dq = take(&work, M * Dp), b.s = take(&work, M * W), b.ds = take(&work, M * W);
  b.lse = take(&work, M), b.delta = take(&work, M);
  for (int64_t head = begin; head < end; head++) {
    b.n = head / j->H, b.h = head % j->H;
    pack_transposed(j, j->k, b.n, b.h, b.keys_t, b.buffer);
    pack_transposed(j, j->v, b.n, b.h, b.values_t, b.buffer);
    pack_plain(j, j->k, b.n, b.h, b.keys, b.buffer);
    make_bias(j, b.n, b.bias);
    memset(b.dk, 0, (size_t)(T * Dp) * sizeof(float));
    memset(b.dv, 0, (size_t)(T * Dp) * sizeof(float));
    for (int64_t q0 = 0; q0 < j->Tq; q0 += M) {
      int64_t rows = j->Tq - q0 < M ? j->Tq - q0 : M;
      back_block(j, &b, q0, rows);
      write_rows(j->dq, b.n, b.h, q0, rows, D, b.dq, j->scale, b.buffer);
    }
    write_rows(j->dk, b.n, b.h, 0, j->Tk, D, b.dk, j->scale, b.buffer);
    write_rows(j->dv, b.n, b.h, 0, j->Tk, D, b.dv, 1.0f, b.buffer);
  }
}

const sl_attention_loops SL_LOOPS = {forward, backward};
