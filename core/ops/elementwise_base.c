/* Elementwise loops for any machine; see elementwise_loops.h. */
#define SL_LOOPS sl__elementwise_base
#include "ops/elementwise_loops.h"
