/* The gated residual with the norm after it for AVX2; see residual_adaln_loops.h. */
#define SL_RESIDUAL_ADALN_LOOPS sl__residual_adaln_avx2
#include "ops/residual_adaln_loops.h"
