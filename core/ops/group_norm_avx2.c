/* GroupNorm's loops for AVX2; see group_norm_loops.h. */
#define SL_LOOPS sl__group_norm_avx2
#include "ops/group_norm_loops.h"
