/* Pictures of any kind that is read here: PNG and JPEG, recognised by content. */
#ifndef SL_IO_PICTURE_H
#define SL_IO_PICTURE_H

#include "sluice/pictures.h"
#include "tensor/tensor.h"

/* u8 [H,W,channels], channels 1 or 3. As Pillow's convert: "RGB" repeats grey and drops alpha, "L" is
 * (19595 R + 38470 G + 7471 B + 32768) >> 16. FORMAT: neither PNG nor JPEG, or broken; IO. */
SL_MUST_USE sl_status sl_picture_read(sl_context *ctx, const char *path, int channels, sl_tensor **out);

#endif
