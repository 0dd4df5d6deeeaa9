/* PNG for the library; see sluice/pictures.h. */
#ifndef SL_IO_PNG_H
#define SL_IO_PNG_H

#include "sluice/pictures.h"
#include "tensor/tensor.h"

/* "dit", "adm" */
bool sl_png_quant_from_name(const char *name, sl_png_quant *out);
/* u8 [H,W,C]: C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA. Palettes are looked up, 16 bits scaled to 8, 1, 2 and 4
 * widened; gamma is ignored. FORMAT: no PNG, or broken. */
SL_MUST_USE sl_status sl_png_read(sl_context *ctx, const char *path, sl_tensor **out);
/* The text chunks of a PNG, wherever they stand: *items [*n] is the caller's to sl_free, one block with all the texts.
 * Latin-1 (tEXt, zTXt) becomes UTF-8. FORMAT: no PNG, or broken. */
SL_MUST_USE sl_status sl_png_read_text(sl_context *ctx, const char *path, sl_png_text **items, int *n);

#endif
