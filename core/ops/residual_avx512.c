/* Gated residual's loops for AVX-512; see residual_loops.h. */
#define SL_RESIDUAL_LOOPS sl__residual_avx512
#include "ops/residual_loops.h"
