/* Philox blocks for AVX-512; see random_blocks.h. */
#define SL_BLOCKS sl__random_blocks_avx512
#include "base/random_blocks.h"
