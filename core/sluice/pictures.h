/* Pictures: grids of samples to PNG, PNG and JPEG to tensors. */
#ifndef SLUICE_PICTURES_H
#define SLUICE_PICTURES_H

#include "sluice/tensors.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum sl_png_quant { /* how [-1, 1] becomes 0 … 255 */
                            /* floor(clamp(x/2 + 1/2) * 255 + 1/2): torchvision's save_image, as DiT's sample.py calls
                               it */
                            SL_PNG_DIT,
                            SL_PNG_ADM /* (x + 1) * 127.5, clamped, fraction dropped: guided-diffusion's image_sample.py
                                        */
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

/* Float images [N,C,H,W] or [C,H,W] in [-1, 1], or u8 images [N,H,W,C] or [H,W,C]; C is 1 or 3. N > 1 makes a grid
 * (torchvision's make_grid) of so many columns; 0: ceil(sqrt(N)). The file appears whole or not at all. SHAPE, DTYPE,
 * ARG, IO. */
SL_MUST_USE sl_status sl_png_write(const char *path, const sl_tensor *images, int columns);
/* The same with all options. NULL: the defaults. */
SL_MUST_USE sl_status sl_png_write_as(const char *path, const sl_tensor *images, const sl_png_options *options);
/* The same picture as u8 [H,W,C]. */
SL_MUST_USE sl_status sl_image_grid(const sl_tensor *images, const sl_png_options *options, sl_tensor **out);
/* A PNG or JPEG file as f32 [3,H,W] in [-1, 1] by x / 127.5 - 1. FORMAT: neither, or broken; IO. */
SL_MUST_USE sl_status sl_image_load(sl_context *ctx, const char *path, sl_tensor **out);

#ifdef __cplusplus
}
#endif

#endif
