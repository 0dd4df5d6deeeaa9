/* adaLN's loops for AVX2; see adaln_loops.h. */
#define SL_ADALN_LOOPS sl__adaln_avx2
#include "ops/adaln_loops.h"
