/* Elementwise loops for AVX2; see elementwise_loops.h. */
#define SL_LOOPS sl__elementwise_avx2
#include "ops/elementwise_loops.h"
