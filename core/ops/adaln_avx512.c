/* adaLN's loops for AVX-512; see adaln_loops.h. */
#define SL_ADALN_LOOPS sl__adaln_avx512
#include "ops/adaln_loops.h"
