/* Attention's tiles: sizes that the rules (workspace), the CPU kernels and their per-instruction-set loops agree on. */
#ifndef SL_OPS_ATTENTION_H
#define SL_OPS_ATTENTION_H

#include "tensor/tensor.h"

enum {
  SL_ATTENTION_PAD = 16,          /* keys and head dimensions are padded to it: the widest vector, in floats */
  SL_ATTENTION_KEYS = 256,        /* keys in a tile of scores */
  SL_ATTENTION_QUERIES = 32,      /* queries in a tile, forward: the scores stay in L1 */
  SL_ATTENTION_QUERIES_BACK = 64, /* backward: dK and dV are read and written once per so many queries */
};

typedef struct sl_attention_job {
  const sl_view *q, *k, *v, *mask, *out, *lse; /* as kernels.def says; never NULL */
  const sl_view *dout, *dq, *dk, *dv;          /* backward; else NULL */
  int64_t N, H, Tq, Tk, D;
  float scale;
  bool causal;
} sl_attention_job;

/* Forward covers items (n, h, block of queries), backward items (n, h); workspace is one slot. */
typedef struct sl_attention_loops {
  void (*forward)(const sl_attention_job *j, int64_t begin, int64_t end, float *workspace);
  void (*backward)(const sl_attention_job *j, int64_t begin, int64_t end, float *workspace);
} sl_attention_loops;
extern const sl_attention_loops sl__attention_base, sl__attention_avx2, sl__attention_avx512;

static inline int64_t sl_attention_pad(int64_t n) {
  return (n + SL_ATTENTION_PAD - 1) / SL_ATTENTION_PAD * SL_ATTENTION_PAD;
}
static inline int64_t sl_attention_blocks(int64_t Tq) { return (Tq + SL_ATTENTION_QUERIES - 1) / SL_ATTENTION_QUERIES; }

/* Floats of one slot, a multiple of 16; the loops carve it in this order. */
static inline int64_t sl_attention_slot(int64_t Tk, int64_t D, bool backward) {
  int64_t t = sl_attention_pad(Tk), d = sl_attention_pad(D);
  int64_t m = backward ? SL_ATTENTION_QUERIES_BACK : SL_ATTENTION_QUERIES;
  int64_t shared = 2 * t * d + t + 4 * d + m * d * 2 + m * SL_ATTENTION_KEYS + 2 * m;
  return backward ? shared + 3 * t * d + 3 * m * d + m * SL_ATTENTION_KEYS : shared;
}

#endif
