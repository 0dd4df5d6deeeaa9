/* Counter-based random numbers: Philox4x32-10 (Salmon et al., 2011; Random123).
 * Key = (seed, stream); counter = (element block, sample index, step): a draw depends on nothing else, so it is the
 * same for any number of threads, ranks or micro-batches. */
#ifndef SL_BASE_RANDOM_H
#define SL_BASE_RANDOM_H

#include "base/status.h"

typedef enum sl_stream {                     /* what a draw is for; part of the key, so streams never meet */
                         SL_STREAM_USER = 0, /* sluice.randn and friends */
                         SL_STREAM_INIT,     /* parameter initialisation; sample = parameter index */
                         SL_STREAM_NOISE,    /* training noise */
                         SL_STREAM_TIMESTEP,
                         SL_STREAM_LABEL_DROPOUT,
                         SL_STREAM_FLIP,
                         SL_STREAM_ORDER,       /* data order */
                         SL_STREAM_DROPOUT,     /* sample = node */
                         SL_STREAM_SAMPLE_INIT, /* x_T */
                         SL_STREAM_SAMPLE_STEP, /* noise of sampling steps */
                         SL_STREAM_SAMPLE_LABEL,
                         SL_STREAM_ROUTING, /* random masks; sample = block, step = timestep */
                         SL_STREAM_HOLDOUT, /* which images are held back, and their t and noise */
} sl_stream;

typedef struct sl_rng_key {
  uint32_t seed, stream;
} sl_rng_key;

/* The 4 words of counter (block, sample, step). */
void sl_philox(sl_rng_key key, uint64_t block, uint32_t sample, uint32_t step, uint32_t out[4]);
/* out[i], i = 0 … n-1: element `first + i` of sample `sample` at `step`. Uniforms are odd multiples of 2^-24
 * in (0, 1); normals are
 * Box-Muller on pairs of words with a shared polynomial for log, sin and cos (no libm, no contraction): bit-equal
 * everywhere. */
void sl_random_bits(sl_rng_key key, uint32_t sample, uint32_t step, uint64_t first, int64_t n, uint32_t *out);
void sl_random_uniform(sl_rng_key key, uint32_t sample, uint32_t step, uint64_t first, int64_t n, float *out);
void sl_random_normal(sl_rng_key key, uint32_t sample, uint32_t step, uint64_t first, int64_t n, float *out);
/* One integer in 0 … n-1 (n < 2^32), without modulo bias beyond 2^-32: element `first`. */
uint32_t sl_random_below(sl_rng_key key, uint32_t sample, uint32_t step, uint64_t first, uint32_t n);
/* Position i of a pseudo-random permutation of 0 … n-1 chosen by (key, epoch); stateless (Feistel walk). */
uint64_t sl_random_permute(sl_rng_key key, uint32_t epoch, uint64_t i, uint64_t n);

#endif
