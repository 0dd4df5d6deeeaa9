/* The diffusion process: q, p, single sampling steps and losses, written once as graph builders. They serve eager
 * tensors (through sl_diffusion_call), symbolic tensors of a trace, samplers and training alike. Source:
 * openai/guided-diffusion gaussian_diffusion.py (as used by DiT and DTR), Ho et al. 2020, Nichol and Dhariwal 2021,
 * Song et al. 2021 (DDIM), Salimans and Ho 2022 (v).
 * Everywhere t is i64 [N], an index into this (possibly respaced) process; x, noise f32 [N,C,H,W]; out is the network's
 * output, [N,2C,H,W] with learned variance, else [N,C,H,W]. */
#ifndef SL_DIFFUSION_PROCESS_H
#define SL_DIFFUSION_PROCESS_H

#include "diffusion/schedule.h"
#include "diffusion/weight.h"
#include "graph/program.h"
#include "sluice/processes.h"

/* Tables over t, f32 [T], computed in double. X(field) in the schedule's own names. */
#define SL_DIFFUSION_TABLES(X)                                                                                         \
  SL_SCHEDULE_FIELDS(X)                                                                                                \
  X(log_betas)                                                                                                         \
  X(fixed_large_log_variance) /* log of beta, element 0 replaced by posterior_variance[1] */

typedef enum sl_diffusion_table {
#define X(name) SL_TABLE_##name,
  SL_DIFFUSION_TABLES(X)
#undef X
      SL_DIFFUSION_TABLE_COUNT
} sl_diffusion_table;

struct sl_diffusion {
  sl_context *ctx;
  int refs;
  sl_schedule *schedule; /* owned; respaced */
  int64_t steps;         /* its length */
  int64_t original_steps;
  sl_predict predict;
  sl_variance variance;
  sl_tensor *table[SL_DIFFUSION_TABLE_COUNT];
  sl_tensor *loss_rows;    /* f64 [steps, SL_LOSS_COLUMNS] */
  sl_tensor *timestep_map; /* i64 [steps] */
  sl_eager *programs;
};

/* Takes over the schedule (also on failure). original_steps: of the process before respacing. */
SL_MUST_USE sl_status sl_diffusion_new(sl_context *ctx, sl_schedule *schedule, int64_t original_steps,
                                       sl_predict predict, sl_variance variance, sl_diffusion **out);
const char *sl_diffusion_table_name(sl_diffusion_table t);
/* "eps" and "learned" and the like, lists that NULL ends. */
extern const char *const sl_predict_names[], *const sl_variance_names[];
double sl_diffusion_number(const sl_diffusion *d, sl_diffusion_table table, int64_t i); /* unrounded */
/* The x0 that the network's prediction p stands for at step i: *of_x x + *of_p p. */
void sl_diffusion_predicts(const sl_diffusion *d, int64_t i, double *of_x, double *of_p);

/* --- graph builders --- */

typedef struct sl_gaussian {
  sl_value *mean, *variance, *log_variance, *pred_xstart;
} sl_gaussian;

/* table[t] as [N,1,1,1] (as many 1s as x has trailing dimensions). */
sl_value *sl_diffusion_at(sl_diffusion *d, sl_diffusion_table table, sl_value *t, const sl_value *like);
sl_value *sl_diffusion_model_t(sl_diffusion *d, sl_value *t); /* timestep_map[t], i64 [N]: what the network gets */
sl_value *sl_q_sample(sl_diffusion *d, sl_value *x0, sl_value *t, sl_value *noise);
/* variance and log_variance are [N]. */
sl_gaussian sl_q_mean_variance(sl_diffusion *d, sl_value *x0, sl_value *t);
sl_gaussian sl_q_posterior(sl_diffusion *d, sl_value *x0, sl_value *xt, sl_value *t);
/* variance and log_variance are like x. */
sl_gaussian sl_p_mean_variance(sl_diffusion *d, sl_value *out, sl_value *x, sl_value *t, bool clip);
/* One ancestral step; pred_xstart (may be NULL) is given too. */
sl_value *sl_p_sample(sl_diffusion *d, sl_value *out, sl_value *x, sl_value *t, sl_value *noise, bool clip,
                      sl_value **pred_xstart);
/* noise may be NULL when eta is 0. */
sl_value *sl_ddim_sample(sl_diffusion *d, sl_value *out, sl_value *x, sl_value *t, sl_value *noise, double eta,
                         bool clip, sl_value **pred_xstart);
sl_value *sl_ddim_reverse(sl_diffusion *d, sl_value *out, sl_value *x, sl_value *t, bool clip, sl_value **pred_xstart);
/* One term of the variational bound, bits per dimension, [N]. */
sl_value *sl_vb_bpd(sl_diffusion *d, sl_value *out, sl_value *x0, sl_value *xt, sl_value *t, bool clip);
/* What the network should say: noise, x0 or v. */
sl_value *sl_diffusion_target(sl_diffusion *d, sl_value *x0, sl_value *t, sl_value *noise);
/* The network's prediction without the variance channels. */
sl_value *sl_diffusion_prediction(sl_diffusion *d, sl_value *out);
/* loss = mse + vb (vb only with learned variance, else NULL; its mean's gradient by out stopped), each [N], in one
 * pass: sl_diffusion_loss (ops.h), whose gradients by out, x0, xt, noise and weight are all there. vb is what sl_vb_bpd
 * gives without clipping, composed of nodes there. weight f32 [steps] by t, or NULL: 1. noise may be NULL if x0 is
 * predicted. */
typedef struct sl_losses {
  sl_value *loss, *mse, *vb;
} sl_losses;
sl_losses sl_diffusion_losses(sl_diffusion *d, sl_value *out, sl_value *x0, sl_value *xt, sl_value *t, sl_value *noise,
                              sl_value *weight);

/* --- the same on tensors --- */

typedef enum sl_diffusion_fn {
  SL_FN_Q_SAMPLE,        /* x0, t, noise -> x_t */
  SL_FN_Q_MEAN_VARIANCE, /* x0, t -> mean, variance, log_variance */
  SL_FN_Q_POSTERIOR,     /* x0, xt, t -> mean, variance, log_variance */
  SL_FN_P_MEAN_VARIANCE, /* out, x, t -> mean, variance, log_variance, pred_xstart */
  SL_FN_P_SAMPLE,        /* out, x, t, noise -> sample, pred_xstart */
  SL_FN_DDIM_SAMPLE,     /* out, x, t, noise? -> sample, pred_xstart */
  SL_FN_DDIM_REVERSE,    /* out, x, t -> sample, pred_xstart */
  SL_FN_VB_BPD,          /* out, x0, xt, t -> vb */
  SL_FN_LOSSES,          /* out, x0, xt, t, noise, weight? -> loss, mse, vb (vb zeros without learned variance) */
  SL_FN_COUNT
} sl_diffusion_fn;
typedef struct sl_diffusion_options {
  bool clip;
  double eta;
} sl_diffusion_options;
int sl_diffusion_fn_inputs(sl_diffusion_fn fn); /* the optional last one counted */
int sl_diffusion_fn_outputs(sl_diffusion_fn fn);
/* Builds fn on values: in[] as listed (optional ones may be NULL), out[] filled. */
SL_MUST_USE sl_status sl_diffusion_build(sl_diffusion *d, sl_diffusion_fn fn, sl_diffusion_options o, sl_graph *g,
                                         sl_value *const *in, sl_value **out);
/* Runs fn on tensors; t is checked against the steps; outputs are new, owned by the caller. With a tensor on a GPU all
 * run there, and outputs lie there. */
SL_MUST_USE sl_status sl_diffusion_call(sl_diffusion *d, sl_diffusion_fn fn, sl_diffusion_options o,
                                        sl_tensor *const *in, sl_tensor **out);

#endif
