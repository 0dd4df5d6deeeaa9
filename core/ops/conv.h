/* One convolution, or one of its gradients, as every device can plan it. */
#ifndef SL_OPS_CONV_H
#define SL_OPS_CONV_H

#include "graph/graph.h"
#include "ops/window.h"

typedef enum sl_conv_kind { SL_CONV_FORWARD, SL_CONV_DATA, SL_CONV_WEIGHTS } sl_conv_kind;

/* x [N,C,H,W], w [K, C/groups, kernel], bias [K], y [N,K,OH,OW], all f32, dense, row-major; last: x [N,H,W,C], y
 * [N,OH,OW,K]. bf16: what is multiplied is rounded to it first, where the machine gains by that. */
typedef struct sl_conv {
  sl_conv_kind kind; /* y of x and w; dx of dy and w; dw (and db) of dy and x */
  int64_t N, C, H, W, K, OH, OW, groups;
  sl_window window;
  bool bias, last, bf16;
} sl_conv;

/* The convolution, or gradient of one, that a node of a graph is; false for other nodes. */
bool sl_conv_of_node(const sl_node *n, sl_conv *c);

#endif
