/* JPEG to tensors (libjpeg). */
#ifndef SL_IO_JPEG_H
#define SL_IO_JPEG_H

#include "tensor/tensor.h"

/* u8 [H,W,C]: C = 1 grey, 3 RGB. No orientation is applied, as Pillow's open. FORMAT: no JPEG, or broken, a part that
 * had to be guessed included; UNSUPPORTED: CMYK. */
SL_MUST_USE sl_status sl_jpeg_read(sl_context *ctx, const char *path, sl_tensor **out);

#endif
