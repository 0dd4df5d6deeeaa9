/* Attention's tiles for AVX-512; see attention_loops.h. */
#define SL_LOOPS sl__attention_avx512
#include "ops/attention_loops.h"
