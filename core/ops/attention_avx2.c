/* Attention's tiles for AVX2; see attention_loops.h. */
#define SL_LOOPS sl__attention_avx2
#include "ops/attention_loops.h"
