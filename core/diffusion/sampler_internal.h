/* What the files of the sampler share and nobody else sees. */
#ifndef SL_DIFFUSION_SAMPLER_INTERNAL_H
#define SL_DIFFUSION_SAMPLER_INTERNAL_H

#include "base/random.h"
#include "diffusion/sampler.h"
#include "ops/kernels.h"

/* What the model derives from timesteps and classes alone (every block's adaLN modulations), computed for many steps in
 * one batch: a step of few images would otherwise read those weights, a third of DiT's, for a few rows. */
typedef struct sl_conditioning sl_conditioning;

struct sl_sampler {
  sl_context *ctx;
  sl_sampler_options o;    /* tensors retained */
  const sl_device *device; /* the model's: images and draws lie there */
  sl_tensor *labels;       /* i64 [n]: the condition */
  /* Two of each that nobody else sees, now and next: the steps' programs, recorded with them, are replayed. */
  sl_tensor *x[2], *x0[2];
  sl_tensor *seen, *seen0; /* what a caller was given of x[0] and x0[0] since the last step, or NULL */
  sl_tensor *noise, *known_noise, *scale;
  sl_tensor *t;          /* i64 [n] */
  sl_tensor *rows;       /* f64 [steps, SL_UPDATE_COLUMNS] */
  sl_tensor *step_block; /* of draws: an sl_step where the device's kernels read it */
  int64_t steps, done;
  bool has_x0;    /* the last step gave one */
  sl_tensor *out; /* of own samplers: where the network's prediction is written, made at its first use */
  sl_eager *programs;
  sl_conditioning *conditioning[2]; /* of steps without and with guidance; NULL where it does not pay */
};

/* --- sampler.c --- */

SL_MUST_USE sl_status sl__sampler_check_images(const char *what, const sl_sampler_options *o, const sl_tensor *t,
                                               bool one_allowed);
SL_MUST_USE sl_status sl__sampler_exec(sl_sampler *s, sl_exec *e); /* the device is the exec's from here on */
/* Normal deviates of the stream at this number, into out [n,C,H,W]. */
SL_MUST_USE sl_status sl__sampler_draw(sl_sampler *s, sl_stream stream, uint32_t number, sl_tensor *out);
/* From the caller's noise: x_T for 0, then each step's. */
SL_MUST_USE sl_status sl__sampler_given_noise(sl_sampler *s, int64_t which, sl_tensor *out);

/* --- sampler_step.c --- */

/* The model's output for x [n,C,H,W], t i64 [n] (d's), y i64 [n] or NULL; guided: with y, then without. */
SL_MUST_USE sl_status sl__sampler_predict(sl_sampler *s, sl_diffusion *d, bool guided, sl_graph *g, sl_value *x,
                                          sl_value *t, sl_value *y, sl_value **out);
bool sl__sampler_guided(const sl_sampler *s, int64_t t); /* at this original timestep */
/* next with the known part of an in-painting: init at the noise level of x_{t-1}, and itself after the last step. */
sl_value *sl__sampler_keep_known(sl_sampler *s, bool last, sl_value *next, sl_value *t, sl_value *init, sl_value *mask,
                                 sl_value *noise);
int64_t sl__sampler_next(const sl_sampler *s); /* index into the diffusion of the step to be done */
SL_MUST_USE sl_status sl__sampler_fill_t(sl_sampler *s, int64_t i);
/* A step is done: x[1] and x0[1] are the state now; has_x0: whether the latter was written. */
void sl__sampler_advance(sl_sampler *s, bool has_x0);

/* --- sampler_own.c --- */

/* The network's prediction, guided where `guided` is; in: x, t, noise (unused), scale, y. */
SL_MUST_USE sl_status sl__sampler_build_out(sl_sampler *s, sl_diffusion *d, bool guided, sl_graph *g,
                                            sl_value *const *in, sl_value **out);

/* --- sampler_conditioning.c --- */

/* *out is NULL where it does not pay: on the CPU, for models without such values, and where few steps' would fit. */
SL_MUST_USE sl_status sl__conditioning_new(sl_sampler *s, bool guided, sl_conditioning **out);
void sl__conditioning_free(sl_conditioning *c); /* NULL is allowed */
uint64_t sl__conditioning_bytes(const sl_conditioning *c);
/* Puts the values of step i where the step's program reads them; *out is s's conditioning for that step, or NULL. */
SL_MUST_USE sl_status sl__conditioning_at(sl_sampler *s, sl_tensor *params, int64_t i, sl_conditioning **out);
/* For the step's program: the tables, before the model is built, and the model made to read them, after. */
SL_MUST_USE sl_status sl__conditioning_tables(sl_conditioning *c, sl_graph *g);
SL_MUST_USE sl_status sl__conditioning_use(sl_conditioning *c, sl_graph *g, sl_value *x);

#endif
