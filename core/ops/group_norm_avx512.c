/* GroupNorm's loops for AVX-512; see group_norm_loops.h. */
#define SL_LOOPS sl__group_norm_avx512
#include "ops/group_norm_loops.h"
