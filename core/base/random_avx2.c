/* Philox blocks for AVX2; see random_blocks.h. */
#define SL_BLOCKS sl__random_blocks_avx2
#include "base/random_blocks.h"
