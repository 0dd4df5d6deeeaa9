/* adaLN's formulas for one element, and how backward cuts a sample into blocks of rows; shared by C and CUDA.
 * Source: DiT models.py, modulate(x, shift, scale) = x (1 + scale) + shift on a LayerNorm without weights. */
#ifndef SL_OPS_ADALN_MATH_H
#define SL_OPS_ADALN_MATH_H

#include <stddef.h>
#include <stdint.h>

#include "base/host_device.h"

/* Sums over T go block by block, then over blocks in order: the result does not depend on the number of threads. */
#define SL_ROW_BLOCK 32
SL_HD int64_t sl_row_blocks(int64_t T) { return T <= SL_ROW_BLOCK ? 1 : (T + SL_ROW_BLOCK - 1) / SL_ROW_BLOCK; }
/* Bytes of `sums` partial sums, f32 [N, blocks, sums, C]: the workspace of the backward kernels. */
SL_HD size_t sl_row_block_bytes(int64_t N, int64_t T, int64_t C, int64_t sums) {
  return (size_t)(N * sl_row_blocks(T) * sums * C) * sizeof(float);
}

SL_HD float sl_adaln_y(float r, float mean, float rstd, float shift, float scale) {
  return (r - mean) * rstd * (1.0f + scale) + shift;
}

/* d loss / d r, with g = dy (1 + scale), mean_g = mean(g), mean_gx = mean(g xhat) over the row. */
SL_HD float sl_adaln_dr(float g, float xhat, float rstd, float mean_g, float mean_gx) {
  return rstd * (g - mean_g - xhat * mean_gx);
}

#endif
