/* Sampling: a model and a process stepped from noise to images. One file per sampler's rule (ddpm.c, ddim.c); this is
 * what they share: batches, guidance, draws, in-painting. */
#ifndef SL_DIFFUSION_SAMPLER_H
#define SL_DIFFUSION_SAMPLER_H

#include "diffusion/process.h"
#include "model/model.h"

typedef struct sl_sampler sl_sampler;

/* A sampler's rule. */
typedef struct sl_sampler_kind {
  const char *name; /* "ddpm" */
  /* One step as nodes: x_t and the network's output -> x_{t-1}, and pred_xstart. */
  sl_value *(*step)(sl_diffusion *d, sl_value *out, sl_value *x, sl_value *t, sl_value *noise, double eta, bool clip,
                    sl_value **pred_xstart);
  bool (*needs_noise)(double eta);
} sl_sampler_kind;
extern const sl_sampler_kind sl_sampler_ddpm, sl_sampler_ddim;
SL_MUST_USE sl_status sl_sampler_find(const char *name, const sl_sampler_kind **out); /* ARG lists the names */

typedef struct sl_sampler_options {
  sl_model *model;
  sl_tensor *params;           /* flat weights to sample with (an EMA); NULL: the model's own */
  sl_diffusion *diffusion;     /* respaced as wanted */
  const sl_sampler_kind *kind; /* NULL: ddpm */
  int64_t n, first;            /* images first … first+n-1: image k's draws depend on (seed, k) alone */
  const int64_t *labels;       /* [n]; NULL: unconditional */
  double cfg;                  /* 1: no guidance */
  int64_t cfg_channels;        /* 0: all */
  double cfg_lo, cfg_hi;       /* guided where lo <= original t <= hi; lo > hi: everywhere */
  double eta;
  bool clip;
  sl_precision precision;
  uint32_t seed;
  /* [n,C,H,W]: x_T; or [1+steps,n,C,H,W]: x_T and then each step's noise in order of use. NULL: drawn. */
  sl_tensor *noise;
  sl_tensor *init; /* [n,C,H,W] or [1,C,H,W]: known images, for start and mask */
  int64_t start;   /* steps to do, counted from the end (init noised to there); 0: all */
  sl_tensor *mask; /* f32, broadcasts to [n,C,H,W]: 1 is to be drawn, 0 is kept from init */
} sl_sampler_options;

/* Checks options in words; copies and retains what it needs. The caller owns *out. */
SL_MUST_USE sl_status sl_sampler_new(const sl_sampler_options *o, sl_sampler **out);
void sl_sampler_free(sl_sampler *s);
/* Bytes that stepping will take beside what exists already: the arenas of its programs and its images. Nothing runs. */
SL_MUST_USE sl_status sl_sampler_forecast(sl_sampler *s, uint64_t *bytes);
int64_t sl_sampler_steps(const sl_sampler *s);
/* Goes one step on; *done is true when there was none left (and nothing was done). CANCELLED leaves the state as
 * before. */
SL_MUST_USE sl_status sl_sampler_step(sl_sampler *s, bool *done);
int64_t sl_sampler_i(const sl_sampler *s); /* steps done so far: 1 … steps after a step */
int64_t sl_sampler_t(const sl_sampler *s); /* original timestep of the last step; of the first before it */
sl_tensor *sl_sampler_x(sl_sampler *s);    /* borrowed; may be written between steps */
sl_tensor *sl_sampler_x0(sl_sampler *s);   /* the last step's pred_xstart, borrowed; NULL before the first */
SL_MUST_USE sl_status sl_sampler_set_x(sl_sampler *s, sl_tensor *x); /* f32 of x's shape; copied */

#endif
