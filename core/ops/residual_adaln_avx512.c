/* The gated residual with the norm after it for AVX-512; see residual_adaln_loops.h. */
#define SL_RESIDUAL_ADALN_LOOPS sl__residual_adaln_avx512
#include "ops/residual_adaln_loops.h"
