/* Elementwise loops for AVX-512; see elementwise_loops.h. */
#define SL_LOOPS sl__elementwise_avx512
#include "ops/elementwise_loops.h"
