/* Sampling: images of a model. Image k depends on the seed and on k alone: neither on n nor on the batch, but
 * for rounding. */
#ifndef SLUICE_SAMPLING_H
#define SLUICE_SAMPLING_H

#include "sluice/models.h"
#include "sluice/processes.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sl_sampler sl_sampler; /* one batch that is being drawn */

typedef enum sl_labels {
  SL_LABELS_NONE,     /* unconditional: the null class, where there is one */
  SL_LABELS_BALANCED, /* 0, 1, 2 … and again */
  SL_LABELS_UNIFORM,  /* drawn; image k's depends on the seed and k */
  SL_LABELS_ONE,      /* `label` for all */
  SL_LABELS_LIST      /* `label_list` */
} sl_labels;

/* What a step's hook is told. */
typedef struct sl_sample_step {
  sl_sampler *sampler;  /* for sl_sampler_x and the like; borrowed */
  int64_t first, count; /* the batch: images first … first+count-1, from 0; the last one may stand beyond n */
  int64_t n;            /* images in all */
  int64_t i, steps;     /* steps done of this batch, from 1, and how many it has */
  int64_t t;            /* original timestep of the step just done */
  int64_t done, all;    /* steps done of all batches together, and how many there are: for progress */
} sl_sample_step;

typedef struct sl_sample_options { /* from sl_sample_defaults, then changed */
  sl_diffusion *diffusion;         /* NULL: the checkpoint's */
  sl_tensor *weights;              /* flat weights to sample with (an EMA's); NULL: the model's own */
  int64_t n;                       /* images */
  sl_labels labels;
  int64_t label;             /* SL_LABELS_ONE */
  const int64_t *label_list; /* SL_LABELS_LIST */
  int64_t label_count;       /* of label_list; must be n */
  double cfg;                /* guidance; 1: none */
  int64_t cfg_channels;      /* channels that are guided, the first ones; 0: all */
  double cfg_lo, cfg_hi;     /* guided where lo <= original t <= hi; lo > hi: everywhere */
  const char *sampler;       /* "ddpm", "ddim" …; NULL: "ddpm" */
  int64_t steps;             /* of the process; 0: all it has. Refused for one that is respaced already */
  double eta;                /* of "ddim" */
  bool clip;                 /* pred_xstart is held to [-1, 1] */
  uint32_t seed;
  sl_precision precision;
  int64_t batch;    /* images at once; 0: 64. With noise, init or mask all are drawn at once */
  sl_tensor *noise; /* [n,C,H,W]: x_T; or [1+steps,n,C,H,W]: x_T and each step's noise in order of use. NULL: drawn */
  sl_tensor *init;  /* [n,C,H,W] or [1,C,H,W]: known images, for start and mask */
  sl_tensor *mask;  /* f32, broadcasts to [n,C,H,W]: 1 is to be drawn, 0 is kept from init */
  int64_t start;    /* steps to do, counted from the end (init noised to there); 0: all */
  /* Called after every step; false stops: sl_sample returns CANCELLED. NULL: not. */
  bool (*step)(void *user, const sl_sample_step *at);
  void *user;
} sl_sample_options;

/* The settings that the model's checkpoint stores, its first EMA among them; of a model that was not loaded from one:
 * one image, no labels, no guidance, ddpm. What they point to belongs to the model. */
sl_sample_options sl_sample_defaults(const sl_model *m);
/* f32 [n,C,H,W], on the CPU; latents where the model's images are latents. NULL options: sl_sample_defaults. The caller
 * owns *images. ARG and SHAPE name the option; CANCELLED; OOM. */
SL_MUST_USE sl_status sl_sample(sl_model *m, const sl_sample_options *options, sl_tensor **images);
/* The labels that sl_sample takes with these options, labels[n]; ARG as sl_sample's. SL_LABELS_NONE gives -1s. */
SL_MUST_USE sl_status sl_sample_labels(const sl_model *m, const sl_sample_options *options, int64_t *labels);

/* Averages of the weights that the model's checkpoint holds: how many; decay and flat weights (borrowed) of one. */
int sl_sample_averages(const sl_model *m);
SL_MUST_USE sl_status sl_sample_average(const sl_model *m, int i, double *decay, sl_tensor **weights);

/* In a step's hook. Copies for the caller to keep: the images as the step left them, from which the next step goes on
 * as the caller leaves them; and that step's pred_xstart. On the model's device; the caller owns one reference. */
SL_MUST_USE sl_status sl_sampler_x(sl_sampler *s, sl_tensor **out);
SL_MUST_USE sl_status sl_sampler_x0(sl_sampler *s, sl_tensor **out);
/* Puts other images in their place: f32 of x's shape; copied. */
SL_MUST_USE sl_status sl_sampler_set_x(sl_sampler *s, sl_tensor *x);

#ifdef __cplusplus
}
#endif

#endif
