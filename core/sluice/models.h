/* Models: a description (an architecture and its routing) with parameters that come into being at first use, and the
 * programs compiled from it. The state dict's names are the reference projects' own. */
#ifndef SLUICE_MODELS_H
#define SLUICE_MODELS_H

#include "sluice/routings.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sl_model sl_model;

/* What a program computes in, other than its model says. All zeros: as the model says. */
typedef struct sl_precision {
  bool given;
  sl_dtype compute, residual; /* f32 and f32, or bf16 and either */
  bool tf32;                  /* with f32: products may round what they multiply to TF32, on GPUs that have it */
} sl_precision;

/* What every architecture's configuration has. */
typedef struct sl_model_options {
  int64_t timesteps;          /* rows of the mask tables */
  uint32_t seed;              /* of the weights */
  sl_dtype compute, residual; /* f32, or bf16 (then the residual stream f32 or bf16) */
  bool tf32;
  const sl_device *device; /* NULL: the CPU */
} sl_model_options;

/* What every architecture tells of itself. */
typedef struct sl_model_info {
  int64_t in_channels, out_channels, height, width;
  int64_t classes; /* 0: takes no y */
  bool null_class; /* row `classes` is the null class: guidance and y = NULL are possible */
  bool one_class;  /* classes = 1: y is NULL or zeros */
  double class_dropout;
  bool learn_sigma;
  int64_t timesteps;
  int routed_blocks;
} sl_model_info;

/* --- DiT (Peebles and Xie 2023; facebookresearch/DiT models.py) with task routing (Park et al. 2024) --- */

typedef struct sl_dit_config {
  int64_t channels, height, width; /* of the input */
  int64_t patch, hidden, depth, heads;
  double mlp_ratio;
  int64_t classes;      /* 1: unconditional, one row and no dropout, as the reference */
  double class_dropout; /* 0 with more classes: no null row */
  bool learn_sigma;     /* twice the input's channels come out */
  sl_model_options options;
} sl_dit_config;

/* mlp_ratio 4, learn_sigma, class_dropout 0.1, classes 1000, 1000 timesteps; the rest 0. */
sl_dit_config sl_dit_defaults(void);
/* Fills patch, hidden, depth and heads from "DiT-B/2" and the like (S, B, L, XL; 2, 4, 8); ARG lists the names. */
SL_MUST_USE sl_status sl_dit_preset(const char *name, sl_dit_config *config);
/* routing NULL: none; it is retained. The caller owns one reference to *out. ARG and SHAPE name the field. */
SL_MUST_USE sl_status sl_dit_new(sl_context *ctx, const sl_dit_config *config, sl_routing *routing, sl_model **out);
/* Lives with the model; NULL if it is no DiT. */
const sl_dit_config *sl_dit_config_of(const sl_model *m);

/* --- ADM, the U-Net of Dhariwal and Nichol 2021 (openai/guided-diffusion unet.py, UNetModel), with task routing (Park
 * et al. 2024, appendix A.1 and Pseudo Code 2); names of parameters and options are guided-diffusion's --- */

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
 * SL_ADM_MASK_BOTH a residual block has two, one after the other. The caller owns one reference to *out. ARG names the
 * field. */
SL_MUST_USE sl_status sl_adm_new(sl_context *ctx, const sl_adm_config *config, sl_routing *routing, sl_model **out);
/* Lives with the model; NULL if it is no ADM. */
const sl_adm_config *sl_adm_config_of(const sl_model *m);

/* --- of every model --- */

/* One reference more; returns m. */
sl_model *sl_model_retain(sl_model *m);
/* One reference less. NULL is allowed. */
void sl_model_release(sl_model *m);
sl_model_info sl_model_info_of(const sl_model *m);
/* "dit" */
const char *sl_model_kind_name(const sl_model *m);
/* The mask table u8 [timesteps, C] of routed block `block` (from 0), borrowed; NULL: no routing, or no such block. */
sl_tensor *sl_model_mask_table(const sl_model *m, int block);
/* Parameters: all of them, and those trained. */
void sl_model_count(const sl_model *m, int64_t *all, int64_t *trainable);
/* Multiply-adds of one forward pass of so many images. */
SL_MUST_USE sl_status sl_model_macs(sl_model *m, int64_t batch, int64_t *macs);
/* Draws the weights anew. */
SL_MUST_USE sl_status sl_model_init(sl_model *m, uint32_t seed);
/* All weights as one flat f32 array, borrowed; brought into being (seed of the model) if they are not there. */
SL_MUST_USE sl_status sl_model_weights(sl_model *m, sl_tensor **borrowed);
/* Moves the model: weights that exist are copied, trainers and samplers made of it before keep theirs. */
SL_MUST_USE sl_status sl_model_to(sl_model *m, const sl_device *dev);

/* One forward pass. Tensors may lie anywhere; results lie where x does.
 * x f32 [N,C,H,W]; t i64, i32 or f32 [N] or [1] or 0-d; y i64/i32 [N] or NULL. Labels and shapes are checked in words.
 * keep: names of values to return too ("c", "blocks.0"), kept[n_keep] owned by the caller, as is *out. */
SL_MUST_USE sl_status sl_model_forward(sl_model *m, sl_tensor *x, sl_tensor *t, sl_tensor *y, int n_keep,
                                       const char *const *keep, sl_tensor **out, sl_tensor **kept);
/* With guidance, 2N rows: N labels, then nulls; the first N of x are used twice. The first `channels` output channels
 * are guided, the others stay. */
SL_MUST_USE sl_status sl_model_forward_cfg(sl_model *m, sl_tensor *x, sl_tensor *t, sl_tensor *y, float scale,
                                           int64_t channels, sl_tensor **out);

#ifdef __cplusplus
}
#endif

#endif
