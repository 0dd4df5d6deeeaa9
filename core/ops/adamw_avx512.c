/* AdamW's loops for AVX-512; see adamw_loops.h. */
#define SL_LOOPS sl__adamw_avx512
#include "ops/adamw_loops.h"
