/* Elementwise walks: several operands of one shape and any strides, cut into units of at most SL_ROW elements that are
 * read into (or used as) rows without gaps. */
#ifndef SL_OPS_STRIDED_ROWS_H
#define SL_OPS_STRIDED_ROWS_H

#include "ops/elementwise_loops.h"
#include "ops/kernels.h"

#define SL_WALK_OPERANDS 4
#define SL_WALK_GRAIN (32768 / SL_ROW) /* units that are worth a thread */

typedef struct sl_operand {
  char *data;
  sl_dtype dtype;
  int64_t size;    /* bytes of an element */
  bool dense, one; /* row-major without gaps; one value everywhere */
  int64_t stride[SL_MAX_RANK];
} sl_operand;

typedef struct sl_walk {
  const sl_elementwise_loops *loops;
  int rank, n_operands; /* rank at least 1, after merging dimensions that all operands walk as one */
  int64_t dim[SL_MAX_RANK];
  int64_t inner, pieces, rows; /* the last dimension; units that it is cut into; rows of it in a unit */
  int64_t outer, units;
  sl_operand operand[SL_WALK_OPERANDS]; /* 0: the output */
} sl_walk;

typedef struct sl_unit {
  int64_t row, column, rows, n; /* first row and column; rows (whole ones if several); elements in all */
} sl_unit;

/* Room for a unit in the widest dtype. */
typedef union sl_row_buffer {
  float f[SL_ROW];
  uint16_t h[SL_ROW];
  uint8_t u[SL_ROW];
  int32_t i[SL_ROW];
  int64_t l[SL_ROW];
} sl_row_buffer;

const sl_elementwise_loops *sl__elementwise_loops(sl_context *ctx);
/* Shapes are equal; views[0] is the output. */
sl_walk sl__walk_of(sl_context *ctx, int n, const sl_view *const *views);
sl_unit sl__walk_unit(const sl_walk *w, int64_t index);
/* The unit's elements of operand k, in its dtype: where they lie, or gathered into buffer. *stride becomes 1, or 0 for
 * one value. */
const void *sl__walk_read(const sl_walk *w, const sl_unit *t, int k, sl_row_buffer *buffer, int *stride);
/* The same as floats, of f32 and bf16. */
const float *sl__walk_read_float(const sl_walk *w, const sl_unit *t, int k, sl_row_buffer *buffer, int *stride);
/* The same with stride 1 always. */
const float *sl__walk_read_floats(const sl_walk *w, const sl_unit *t, int k, sl_row_buffer *buffer);
/* Where to write the unit's output (bf16: as floats), to be followed by sl__walk_done with what this gave. */
void *sl__walk_target(const sl_walk *w, const sl_unit *t, sl_row_buffer *buffer);
void sl__walk_done(const sl_walk *w, const sl_unit *t, const void *written);

#endif
