/* The diffusion process as JSON and back, for checkpoints. */
#ifndef SL_DIFFUSION_DIFFUSION_DESCRIPTION_H
#define SL_DIFFUSION_DIFFUSION_DESCRIPTION_H

#include "diffusion/process.h"

/* {"steps", "schedule", "predict", "variance"}, steps before respacing; and of a schedule of its own or a respaced one
 * "timesteps", the original ones that are left, with *betas f64 [steps]; else *betas is NULL. Both are the caller's,
 * *text from sl_alloc. OOM. */
SL_MUST_USE sl_status sl_diffusion_describe(const sl_diffusion *d, char **text, sl_tensor **betas);
/* The process again; betas NULL: there are none. FORMAT names the field. */
SL_MUST_USE sl_status sl_diffusion_from_description(sl_context *ctx, const char *text, const sl_tensor *betas,
                                                    sl_diffusion **out);

#endif
