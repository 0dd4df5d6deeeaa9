/* Many consecutive Philox blocks at once, compiled once per instruction set: the file that includes this names the
 * function in SL_BLOCKS. The same integers as Random123's philox4x32 gives one by one. */
#ifndef SL_BASE_RANDOM_BLOCKS_H
#define SL_BASE_RANDOM_BLOCKS_H

#include <Random123/philox.h>
#include <stdint.h>

#define SL_RANDOM_BLOCKS 64 /* of 4 words each */

/* Words of the counters (block … block + SL_RANDOM_BLOCKS - 1, sample, step), 4 each. */
typedef void sl_random_blocks_fn(uint32_t seed, uint32_t stream, uint64_t block, uint32_t sample, uint32_t step,
                                 uint32_t *out);
sl_random_blocks_fn sl__random_blocks_base, sl__random_blocks_avx2, sl__random_blocks_avx512;

#ifdef SL_BLOCKS
enum { LANES = 16 };

static inline void rounds(uint32_t k0, uint32_t k1, uint32_t c[4][LANES]) {
  for (int r = 0; r < 10; r++, k0 += PHILOX_W32_0, k1 += PHILOX_W32_1) {
#pragma omp simd
    for (int i = 0; i < LANES; i++) {
      uint64_t a = (uint64_t)PHILOX_M4x32_0 * c[0][i], b = (uint64_t)PHILOX_M4x32_1 * c[2][i];
      c[0][i] = (uint32_t)(b >> 32) ^ c[1][i] ^ k0;
      c[1][i] = (uint32_t)b;
      c[2][i] = (uint32_t)(a >> 32) ^ c[3][i] ^ k1;
      c[3][i] = (uint32_t)a;
    }
  }
}

void SL_BLOCKS(uint32_t seed, uint32_t stream, uint64_t block, uint32_t sample, uint32_t step, uint32_t *out) {
  uint32_t c[4][LANES];
  for (int at = 0; at < SL_RANDOM_BLOCKS; at += LANES, out += 4 * LANES) {
    for (int i = 0; i < LANES; i++) {
      uint64_t b = block + (uint64_t)(at + i);
      c[0][i] = (uint32_t)b, c[1][i] = (uint32_t)(b >> 32), c[2][i] = sample, c[3][i] = step;
    }
    rounds(seed, stream, c);
    for (int i = 0; i < LANES; i++)
      for (int k = 0; k < 4; k++) out[4 * i + k] = c[k][i];
  }
}
#endif
#endif
