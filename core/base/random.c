/* Compile with -ffp-contract=off (results must not depend on the machine) and -fno-math-errno (so that sqrt
 * vectorises). */
#include "base/random.h"

#include "base/random_math.h"
#define SL_BLOCKS sl__random_blocks_base
#include "base/random_blocks.h"

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif

enum { BLOCKS = SL_RANDOM_BLOCKS, CHUNK = 4 * BLOCKS };

void sl_philox(sl_rng_key key, uint64_t block, uint32_t sample, uint32_t step, uint32_t out[4]) {
  sl_rng_block(key.seed, key.stream, block, sample, step, out);
}

/* By the machine, not by a context's instruction set: integers are the same on every path. */
static sl_random_blocks_fn *blocks_of(void) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl"))
    return sl__random_blocks_avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return sl__random_blocks_avx2;
#endif
  return sl__random_blocks_base;
}

static void chunk_uniform(const uint32_t *bits, float *out) {
  for (int i = 0; i < CHUNK; i++) out[i] = sl_rng_uniform(bits[i]);
}

static void chunk_normal(const uint32_t *bits, float *out) {
  for (int i = 0; i < CHUNK; i += 2) sl_rng_normal_pair(bits[i], bits[i + 1], out + i, out + i + 1);
}

/* Chunks start at a block's first element; what lies before `first` or after the end is computed and dropped. */
typedef void chunk_fn(const uint32_t *bits, float *out);
static void draw(sl_rng_key key, uint32_t sample, uint32_t step, uint64_t first, int64_t n, void *out,
                 chunk_fn *convert) {
  uint32_t bits[CHUNK];
  float values[CHUNK];
  unsigned char *to = out;
  uint64_t skip = first % 4, block = first / 4;
  sl_random_blocks_fn *blocks = blocks_of();
  while (n > 0) {
    int64_t take = (int64_t)(CHUNK - skip) < n ? (int64_t)(CHUNK - skip) : n;
    bool direct = !convert && take == CHUNK;
    blocks(key.seed, key.stream, block, sample, step, direct ? (uint32_t *)(void *)to : bits);
    if (convert) convert(bits, values);
    const void *from = convert ? (const void *)(values + skip) : (const void *)(bits + skip);
    if (!direct) memcpy(to, from, (size_t)take * 4);
    to += take * 4;
    n -= take;
    block += BLOCKS;
    skip = 0;
  }
}

void sl_random_bits(sl_rng_key key, uint32_t sample, uint32_t step, uint64_t first, int64_t n, uint32_t *out) {
  draw(key, sample, step, first, n, out, NULL);
}

void sl_random_uniform(sl_rng_key key, uint32_t sample, uint32_t step, uint64_t first, int64_t n, float *out) {
  draw(key, sample, step, first, n, out, chunk_uniform);
}

void sl_random_normal(sl_rng_key key, uint32_t sample, uint32_t step, uint64_t first, int64_t n, float *out) {
  draw(key, sample, step, first, n, out, chunk_normal);
}

uint32_t sl_random_below(sl_rng_key key, uint32_t sample, uint32_t step, uint64_t first, uint32_t n) {
  uint32_t words[4];
  sl_philox(key, first / 4, sample, step, words);
  return (uint32_t)((uint64_t)words[first % 4] * n >> 32);
}

uint64_t sl_random_permute(sl_rng_key key, uint32_t epoch, uint64_t i, uint64_t n) {
  if (n < 2) return 0;
  SL_ASSERT(i < n);
  int half = 3; /* bits of each half; smaller Feistel networks mix too little */
  while (half < 32 && (n - 1) >> (2 * half)) half++;
  uint64_t mask = (UINT64_C(1) << half) - 1, x = i;
  do { /* a permutation of 0 … 4^half-1, walked along its cycle until it is back below n */
    uint64_t left = x >> half, right = x & mask;
    for (uint32_t round = 0; round < 6; round++) {
      uint32_t words[4];
      sl_philox(key, right, round, epoch, words);
      uint64_t next = left ^ (words[0] & mask);
      left = right;
      right = next;
    }
    x = left << half | right;
  } while (x >= n);
  return x;
}
