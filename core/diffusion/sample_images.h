/* What a checkpoint stores for sampling, kept with its model; what hosts see stands in sluice/sampling.h. */
#ifndef SL_DIFFUSION_SAMPLE_IMAGES_H
#define SL_DIFFUSION_SAMPLE_IMAGES_H

#include "diffusion/sampler.h"

#define SL_MAX_AVERAGES 4

typedef struct sl_averages {
  int n;
  double decay[SL_MAX_AVERAGES];
  sl_tensor *weights[SL_MAX_AVERAGES]; /* flat, as the model's */
} sl_averages;

/* Keeps diffusion, averages (all retained) and settings with the model, instead of what was there: the defaults of its
 * samples. settings: an object under the names of sluice.sample's options, as checkpoints store it; "columns", which is
 * for pictures, is passed over, and other names are told to the log. FORMAT names a field that makes no sense. */
SL_MUST_USE sl_status sl_sample_keep(sl_model *m, sl_diffusion *d, const sl_averages *averages, const char *settings);

/* What stored settings need beside sl_sample_options; texts and lists are from sl_alloc, the caller's, also on failure.
 */
typedef struct sl_settings {
  int64_t *label_list; /* what the options' label_list points to, or NULL */
  char *sampler;       /* the options', too */
  double ema;          /* the decay that is named; -1: "none"; 0: nothing said */
} sl_settings;
/* For sl_sample_keep: the settings over *o. */
SL_MUST_USE sl_status sl_sample_read_settings(sl_context *ctx, const char *text, sl_sample_options *o, sl_settings *to);

#endif
