/* ADM, the U-Net of Dhariwal and Nichol 2021 (openai/guided-diffusion unet.py, UNetModel), with task routing (Park et
 * al. 2024, appendix A.1 and Pseudo Code 2). Names of parameters and options are guided-diffusion's. */
#ifndef SL_MODEL_ADM_H
#define SL_MODEL_ADM_H

#include "model/model.h"

#define SL_ADM_MAX_LEVELS 12

/* Where a block's mask stands. Attention blocks: always after their GroupNorm. Residual blocks, which have two norms:
 * X(enum, name). */
#define SL_ADM_MASKS(X)                                                                                                \
  X(IN_SILU, "in_silu")   /* after the first norm and SiLU, over the block's input channels (Pseudo Code 2) */         \
  X(IN_NORM, "in_norm")   /* after the first norm (A.1): the same numbers, as SiLU keeps zeros */                      \
  X(OUT_NORM, "out_norm") /* after the second norm, scale-shift and SiLU, over the output channels (the authors' reply \
                             in byeongjun-park/DTR, thread 1) */                                                       \
  X(BOTH, "both")         /* in_silu and out_norm */

typedef enum sl_adm_mask {
#define X(e, name) SL_ADM_MASK_##e,
  SL_ADM_MASKS(X)
#undef X
      SL_ADM_MASK_COUNT
} sl_adm_mask;

typedef struct sl_adm_config {
  int64_t image_size, in_channels, out_channels; /* square images; out: in_channels, or twice that: learned variance */
  int64_t model_channels, num_res_blocks;
  int levels, attentions;                           /* entries of the next two */
  double channel_mult[SL_ADM_MAX_LEVELS];           /* level i has int(channel_mult[i] * model_channels) channels */
  int64_t attention_resolutions[SL_ADM_MAX_LEVELS]; /* in pixels, as guided-diffusion's flag */
  int64_t num_heads, num_head_channels; /* channels of a head, if above 0, decide; else the number of heads */
  bool use_scale_shift_norm, resblock_updown, use_new_attention_order, conv_resample;
  double dropout;       /* in residual blocks, while training */
  int64_t classes;      /* 0: takes no labels; 1: one row, y NULL or zeros */
  double class_dropout; /* above 0: a null class, row `classes`, for guidance */
  sl_adm_mask mask_at;
  sl_model_options options;
} sl_adm_config;

/* As UNetModel's: in_channels 3, num_heads 1, conv_resample, 1000 timesteps. out_channels 0: twice in_channels. */
sl_adm_config sl_adm_defaults(void);
/* Fills the architecture from "ADM-64", "ADM-128", "ADM-256" or "ADM-512", guided-diffusion's released models with 1000
 * classes, or the same without labels: "ADM-64-uncond". The paper's 64x64 models are ADM-64. ARG lists the names. */
SL_MUST_USE sl_status sl_adm_preset(const char *name, sl_adm_config *config);
/* routing NULL: none. The routed places are counted in the order of building: input, middle, output blocks; with
 * SL_ADM_MASK_BOTH a residual block has two, one after the other. ARG names the field. */
SL_MUST_USE sl_status sl_adm_new(sl_context *ctx, const sl_adm_config *config, sl_routing *routing, sl_model **out);
const sl_adm_config *sl_adm_config_of(const sl_model *m); /* NULL if it is no ADM */
const char *sl_adm_mask_name(sl_adm_mask mask);

#endif
