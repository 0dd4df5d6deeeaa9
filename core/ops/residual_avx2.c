/* Gated residual's loops for AVX2; see residual_loops.h. */
#define SL_RESIDUAL_LOOPS sl__residual_avx2
#include "ops/residual_loops.h"
