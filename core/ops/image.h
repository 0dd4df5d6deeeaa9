/* The order in which images lie. Users see [N,C,H,W]; where it pays, the memory behind it is [N,H,W,C] ("channels
 * last") and the value a permuted view of that. Elementwise ops keep an order, so it travels from one convolution to
 * the next and is left at the graph's edges. */
#ifndef SL_OPS_IMAGE_H
#define SL_OPS_IMAGE_H

#include "graph/graph.h"

/* Whether convolutions had better be given channels-last images: on GPUs and AVX-512 machines; below that oneDNN's
 * kernels are quicker on its own blocked layout, into which they bring plain images by themselves. */
bool sl__prefers_last(sl_graph *g);
/* Whether x [N,C,H,W] lies channels last. */
bool sl__lies_last(const sl_value *x);
/* [N,C,H,W] seen as [N,H,W,C], and back. */
sl_value *sl__to_last(sl_value *x);
sl_value *sl__from_last(sl_value *x);
/* Applies `op` (whose attribute `last` stands in slot `slot` of attrs) to in[0] in the given order, and gives back all
 * outputs' first as [N,C,H,W]. */
sl_value *sl__apply_image(sl_graph *g, const char *op, int n, sl_value **in, const sl_attrs *attrs, int slot,
                          bool last);

#endif
