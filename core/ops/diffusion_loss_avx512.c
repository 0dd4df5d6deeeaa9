/* The diffusion loss's loops for AVX-512; see diffusion_loss_loops.h. */
#define SL_LOOPS sl__diffusion_loss_avx512
#include "ops/diffusion_loss_loops.h"
