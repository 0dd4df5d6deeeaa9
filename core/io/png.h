/* Pictures: grids of samples to PNG, PNG to tensors. */
#ifndef SL_IO_PNG_H
#define SL_IO_PNG_H

#include "tensor/tensor.h"

typedef enum sl_png_quant {             /* how [-1, 1] becomes 0 … 255 */
                            SL_PNG_DIT, /* floor(clamp(x/2 + 1/2) * 255 + 1/2): torchvision's save_image, as DiT's
                                           sample.py calls it */
                            SL_PNG_ADM, /* (x + 1) * 127.5, clamped, fraction dropped: guided-diffusion's
                                           image_sample.py */
} sl_png_quant;

/* A text chunk: tEXt, or iTXt if the value is not ASCII. The key is 1 … 79 printable ASCII characters without spaces at
 * its ends or two in a row; the value is UTF-8 of at most 4 MiB. "Description", "Software" and others are the format's
 * own keys. */
typedef struct sl_png_text {
  const char *key, *value;
} sl_png_text;

typedef struct sl_png_options { /* all 0: the defaults */
  int columns;                  /* pictures per row; 0: ceil(sqrt(N)) */
  sl_png_quant quant;           /* of float tensors */
  int pad;                      /* black pixels around each picture of a grid; 0: 2, as torchvision; negative: none */
  int scale;                    /* each pixel becomes scale x scale; 0: 1 */
  int n_text;                   /* chunks, in this order */
  const sl_png_text *text;
} sl_png_options;

/* "dit", "adm" */
bool sl_png_quant_from_name(const char *name, sl_png_quant *out);

/* Float images [N,C,H,W] or [C,H,W] in [-1, 1], or u8 images [N,H,W,C] or [H,W,C]; C is 1 or 3. N > 1 makes a grid
 * (torchvision's make_grid). The file appears whole or not at all. NULL options: defaults. SHAPE, DTYPE, ARG, IO. */
SL_MUST_USE sl_status sl_png_write(const char *path, const sl_tensor *images, const sl_png_options *options);
/* The same picture as u8 [H,W,C]. */
SL_MUST_USE sl_status sl_image_grid(const sl_tensor *images, const sl_png_options *options, sl_tensor **out);
/* u8 [H,W,C]: C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA. Palettes are looked up, 16 bits scaled to 8, 1, 2 and 4
 * widened; gamma is ignored. FORMAT: no PNG, or broken. */
SL_MUST_USE sl_status sl_png_read(sl_context *ctx, const char *path, sl_tensor **out);
/* The text chunks of a PNG, wherever they stand: *items [*n] is the caller's to sl_free, one block with all the texts.
 * Latin-1 (tEXt, zTXt) becomes UTF-8. FORMAT: no PNG, or broken. */
SL_MUST_USE sl_status sl_png_read_text(sl_context *ctx, const char *path, sl_png_text **items, int *n);

#endif
