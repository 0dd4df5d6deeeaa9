/* The diffusion loss's loops for AVX2; see diffusion_loss_loops.h. */
#define SL_LOOPS sl__diffusion_loss_avx2
#include "ops/diffusion_loss_loops.h"
