/* Reckoning with shapes; see sluice/dtypes.h. */
#ifndef SL_TENSOR_SHAPE_H
#define SL_TENSOR_SHAPE_H

#include "base/dtype.h"

/* Dimensions are >= 0 and the element count fits in 63 bits with `elem` bytes each; else SHAPE, the text naming
 * `what`. */
SL_MUST_USE sl_status sl_shape_check(const sl_shape *s, size_t elem, const char *what);
/* Row-major strides, in elements. */
void sl_shape_strides(const sl_shape *s, int64_t *stride);
/* numpy's broadcast of a and b; false if they do not fit. */
bool sl_shape_broadcast(const sl_shape *a, const sl_shape *b, sl_shape *out);

#endif
