/* GroupNorm's formulas for one element, shared by C and CUDA. Source: guided-diffusion unet.py, ResBlock: with
 * gain = w (1 + scale) and offset = b (1 + scale) + shift of the channel, y = act(xhat gain + offset) mask. */
#ifndef SL_OPS_GROUP_NORM_MATH_H
#define SL_OPS_GROUP_NORM_MATH_H

#include "ops/elementwise_math.h"

/* Before the activation. */
SL_HD float sl_group_norm_z(float x, float mean, float rstd, float gain, float offset) {
  return (x - mean) * rstd * gain + offset;
}

/* d loss / d x, with d = dz gain, and the means of d and of d xhat over the group. */
SL_HD float sl_group_norm_dx(float d, float xhat, float rstd, float mean_all, float mean_along) {
  return rstd * (d - mean_all - xhat * mean_along);
}

#endif
