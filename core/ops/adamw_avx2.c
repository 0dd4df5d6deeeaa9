/* AdamW's loops for AVX2; see adamw_loops.h. */
#define SL_LOOPS sl__adamw_avx2
#include "ops/adamw_loops.h"
