/* Shapes: row-major, dim[0] outermost. */
#ifndef SL_TENSOR_SHAPE_H
#define SL_TENSOR_SHAPE_H

#include "base/dtype.h"

#define SL_MAX_RANK 8

typedef struct sl_shape {
  int rank; /* 0: a scalar, one element */
  int64_t dim[SL_MAX_RANK];
} sl_shape;

/* A shape in place, an lvalue: f(&SL_SHAPE(n, 3)). */
#define SL_SHAPE(...)                                                                                                  \
  ((sl_shape){.rank = (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), .dim = {__VA_ARGS__}})
sl_shape sl_shape_of(int rank, const int64_t *dim);
int64_t sl_shape_numel(const sl_shape *s);
bool sl_shape_equal(const sl_shape *a, const sl_shape *b);
/* Dimensions are >= 0 and the element count fits in 63 bits with `elem` bytes each; else SHAPE, the text naming
 * `what`. */
SL_MUST_USE sl_status sl_shape_check(const sl_shape *s, size_t elem, const char *what);
/* Row-major strides, in elements. */
void sl_shape_strides(const sl_shape *s, int64_t *stride);
/* "[2,3]"; one of 8 per-thread buffers, so that several fit into one message. */
const char *sl_shape_text(const sl_shape *s);
/* numpy's broadcast of a and b; false if they do not fit. */
bool sl_shape_broadcast(const sl_shape *a, const sl_shape *b, sl_shape *out);

#endif
