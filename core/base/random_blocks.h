/* Many consecutive Philox blocks at once, compiled once per instruction set: the file that includes this names the
 * function in SL_BLOCKS. The same integers as Random123's philox4x32 gives one by one. */
#ifndef SL_BASE_RANDOM_BLOCKS_H
#define SL_BASE_RANDOM_BLOCKS_H

#include <Random123/philox.h>
#include <stdint.h>
#include <string.h>

#define SL_RANDOM_BLOCKS 64 /* of 4 words each */

/* Words of the counters (block … block + SL_RANDOM_BLOCKS - 1, sample, step), 4 each. */
typedef void sl_random_blocks_fn(uint32_t seed, uint32_t stream, uint64_t block, uint32_t sample, uint32_t step,
                                 uint32_t *out);
sl_random_blocks_fn sl__random_blocks_base, sl__random_blocks_avx2, sl__random_blocks_avx512;

#ifdef SL_BLOCKS
/* Each lane holds one counter's words as 64-bit numbers, so that one instruction gives their whole products. */
#if defined(__AVX512F__)
#include <immintrin.h>
typedef uint64_t lanes __attribute__((vector_size(64)));
static inline lanes product(lanes a, lanes b) { return (lanes)_mm512_mul_epu32((__m512i)a, (__m512i)b); }
#elif defined(__AVX2__)
#include <immintrin.h>
typedef uint64_t lanes __attribute__((vector_size(32)));
static inline lanes product(lanes a, lanes b) { return (lanes)_mm256_mul_epu32((__m256i)a, (__m256i)b); }
#elif defined(__SSE2__)
#include <emmintrin.h>
typedef uint64_t lanes __attribute__((vector_size(16)));
static inline lanes product(lanes a, lanes b) { return (lanes)_mm_mul_epu32((__m128i)a, (__m128i)b); }
#else
typedef uint64_t lanes __attribute__((vector_size(16)));
static inline lanes product(lanes a, lanes b) { return a * b; } /* words are below 2^32 */
#endif

enum { LANES = sizeof(lanes) / sizeof(uint64_t) };

static inline lanes everywhere(uint32_t v) { return (lanes){0} + (uint64_t)v; }

void SL_BLOCKS(uint32_t seed, uint32_t stream, uint64_t block, uint32_t sample, uint32_t step, uint32_t *out) {
  const lanes low = everywhere(0xffffffffu), m0 = everywhere(PHILOX_M4x32_0), m1 = everywhere(PHILOX_M4x32_1);
  lanes first;
  for (int i = 0; i < LANES; i++) first[i] = block + (uint64_t)i;
  for (int at = 0; at < SL_RANDOM_BLOCKS; at += LANES, first += (uint64_t)LANES) {
    lanes c0 = first & low, c1 = first >> 32, c2 = everywhere(sample), c3 = everywhere(step);
    uint32_t k0 = seed, k1 = stream;
    for (int r = 0; r < 10; r++, k0 += PHILOX_W32_0, k1 += PHILOX_W32_1) {
      lanes a = product(c0, m0), b = product(c2, m1);
      c0 = (b >> 32) ^ c1 ^ everywhere(k0);
      c1 = b & low;
      c2 = (a >> 32) ^ c3 ^ everywhere(k1);
      c3 = a & low;
    }
    uint64_t halves[2][LANES]; /* x86 and the formats are little-endian: a word's lower half comes first */
    c0 |= c1 << 32;
    c2 |= c3 << 32;
    memcpy(halves[0], &c0, sizeof c0);
    memcpy(halves[1], &c2, sizeof c2);
    for (int i = 0; i < LANES; i++, out += 4) {
      memcpy(out, &halves[0][i], 8);
      memcpy(out + 2, &halves[1][i], 8);
    }
  }
}
#endif
#endif
