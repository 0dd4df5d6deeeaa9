/* Sampling: a model and a process stepped from noise to images. One file per sampler's rule (ddpm.c, ddim.c); this is
 * what they share: batches, guidance, draws, in-painting. */
#ifndef SL_DIFFUSION_SAMPLER_H
#define SL_DIFFUSION_SAMPLER_H

#include "diffusion/process.h"
#include "model/model.h"
#include "ops/sampler_update.h"
#include "sluice/sampling.h"

/* A sampler's rule. */
typedef struct sl_sampler_kind {
  const char *name; /* "ddpm" */
  /* The step from i: the columns that come after X_OUT of a row of zeros but for E_DIV, which is 1
   * (ops/sampler_update.h); numbers that are not finite: eta is refused. */
  void (*row)(const sl_diffusion *d, int64_t i, double eta, double *row);
  bool (*needs_noise)(double eta);
  bool own_variance; /* the noise's is the network's, where that is learned */
} sl_sampler_kind;
extern const sl_sampler_kind sl_sampler_ddpm, sl_sampler_ddim;
/* Not found by name: the caller takes the steps, between sl_sampler_predict and sl_sampler_take. Its row is NULL. */
extern const sl_sampler_kind sl_sampler_own;
SL_MUST_USE sl_status sl_sampler_find(const char *name, const sl_sampler_kind **out); /* ARG lists the names */
/* The table that sl_sampler_update reads for steps from `steps` - 1 to 0: f64 [steps, SL_UPDATE_COLUMNS]; the caller
 * owns it. ARG: eta. */
SL_MUST_USE sl_status sl_sampler_rows(const sl_sampler_kind *kind, const sl_diffusion *d, int64_t steps, double eta,
                                      sl_tensor **out);

typedef struct sl_sampler_options {
  sl_model *model;
  sl_tensor *params;           /* flat weights to sample with (an EMA); NULL: the model's own */
  sl_diffusion *diffusion;     /* respaced as wanted */
  sl_diffusion *whole;         /* the same before that, so that own samplers may ask at every timestep; may be NULL */
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
/* Beside sl_sampler_x, x0 and set_x (sluice/sampling.h): before the first step x is the beginning and x0 NULL; asked
 * again before the next step they give the same tensor. */

/* --- a caller's own sampler (sampler_own.c) --- */

/* Where original timestep t is: *d is the diffusion or the whole one, *i an index into it. ARG: in neither. */
SL_MUST_USE sl_status sl_sampler_find_t(const sl_sampler *s, int64_t t, sl_diffusion **d, int64_t *i);
/* The network's output for x (f32 [n,C,H,W], anywhere) at original timestep t, guided as the options say: a new tensor
 * [n, out channels, H, W], the caller's. The variance's channels are those with labels. The sampler's state stays. */
SL_MUST_USE sl_status sl_sampler_predict(sl_sampler *s, sl_tensor *x, int64_t t, sl_tensor **out);
/* Normal deviates for the step to be done, [n,C,H,W], the caller's: for number 0 what the built-in samplers add (given
 * noise, if there is a row per step), for others more of the same kind, by (seed, image, step, number) alone. */
SL_MUST_USE sl_status sl_sampler_noise(sl_sampler *s, int64_t number, sl_tensor **out);
/* Makes x, f32 [n,C,H,W], what the step gave (an in-painting's known part is put in), and x0 (may be NULL) what it
 * predicted. Both are copied. On failure the state is as before. ARG: no step is left. */
SL_MUST_USE sl_status sl_sampler_take(sl_sampler *s, sl_tensor *x, sl_tensor *x0);

#endif
