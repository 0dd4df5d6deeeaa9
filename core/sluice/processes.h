/* The diffusion process: a noise schedule, what the network predicts, and how its variance is told. */
#ifndef SLUICE_PROCESSES_H
#define SLUICE_PROCESSES_H

#include "sluice/tensors.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sl_diffusion sl_diffusion;

/* What the network predicts; v = sqrt(A) eps - sqrt(1 - A) x0 (Salimans and Ho 2022). */
typedef enum sl_predict { SL_PREDICT_EPS, SL_PREDICT_X0, SL_PREDICT_V } sl_predict;

/* How the variance of a step is told: by half of the network's output, or fixed. */
typedef enum sl_variance { SL_VARIANCE_LEARNED, SL_VARIANCE_FIXED_SMALL, SL_VARIANCE_FIXED_LARGE } sl_variance;

typedef struct sl_process_options { /* all 0: 1000 steps, cosine, eps, learned variance */
  int64_t steps;                    /* 0: 1000 */
  const char *schedule;             /* "cosine" or "linear"; NULL: cosine */
  const double *betas;              /* [steps], instead of a schedule by name; copied. NULL: by name */
  sl_predict predict;
  sl_variance variance;
  const char *respacing; /* "250", "10,10,20" (steps kept of each section), "ddim50"; NULL: all steps */
} sl_process_options;

/* NULL options: the defaults. The caller owns one reference to *out. ARG names the option. */
SL_MUST_USE sl_status sl_diffusion_make(sl_context *ctx, const sl_process_options *options, sl_diffusion **out);
/* The same process with fewer steps; respacing as above. The caller owns one reference to *out. ARG. */
SL_MUST_USE sl_status sl_diffusion_respace(const sl_diffusion *d, const char *respacing, sl_diffusion **out);
/* One reference more; returns d. */
sl_diffusion *sl_diffusion_retain(sl_diffusion *d);
/* One reference less. NULL is allowed. */
void sl_diffusion_release(sl_diffusion *d);
/* Steps of it, and of the process before respacing. */
int64_t sl_diffusion_steps(const sl_diffusion *d);
int64_t sl_diffusion_original_steps(const sl_diffusion *d);
/* A table over its steps by name, f32 ("betas", "alphas_cumprod" …) or i64 ("timestep_map"), borrowed; NULL: no such
 * table. */
sl_tensor *sl_diffusion_find(sl_diffusion *d, const char *name);

#ifdef __cplusplus
}
#endif

#endif
