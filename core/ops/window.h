/* Windows that slide over an image: of pooling and convolution. */
#ifndef SL_OPS_WINDOW_H
#define SL_OPS_WINDOW_H

#include "tensor/shape.h"

typedef struct sl_window {
  int64_t kernel[2], stride[2], dilation[2]; /* rows, columns */
  int64_t pad[4];                            /* top, bottom, left, right */
} sl_window;

/* Sizes of what the window gives over an image of in[2] rows and columns; SHAPE when it does not fit. */
sl_status sl__window_size(const char *op, const sl_window *w, const int64_t in[2], int64_t out[2]);
/* A list attribute made two positive numbers: one counts for both; none is `fallback` (0: refused). */
sl_status sl__pair(const char *op, const char *name, int64_t *list, int64_t fallback);
/* A list attribute made four paddings: one for all sides, two for rows and columns, or top, bottom, left, right. */
sl_status sl__sides(const char *op, int64_t *list);
void sl__copy_list(int64_t *to, const int64_t *from);

#endif
