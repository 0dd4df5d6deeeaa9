/* Training: gradients of micro-batches added up, clipping, one fused pass of AdamW and EMA. */
#ifndef SLUICE_TRAINING_H
#define SLUICE_TRAINING_H

#include "sluice/datasets.h"
#include "sluice/models.h"
#include "sluice/processes.h"
#include "sluice/recompute.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SL_MAX_EMA 4

typedef struct sl_trainer sl_trainer;
struct sl_graph;
struct sl_value;
struct sl_loss_inputs;

typedef struct sl_train_options {
  sl_model *model;
  sl_diffusion *diffusion;
  sl_dataset *data;     /* NULL: every step is given its batch */
  sl_tensor *weight;    /* loss weight, f32 [steps of the diffusion]; NULL: 1 */
  sl_tensor *t_density; /* f32 [steps]: relative density of t, not negative; NULL: uniform */
  /* A loss of its own, described once with the operations of the library's source tree (ops/ops.h), which are not
   * installed: the per-sample losses [N]; NULL: mse + vb. Errors go through the graph. */
  struct sl_value *(*loss)(void *user, struct sl_graph *g, const struct sl_loss_inputs *in);
  void *loss_user;
  double lr, beta1, beta2, eps, weight_decay;
  double clip;         /* largest global gradient norm; 0: none */
  sl_tensor *schedule; /* f32 [steps of training]: multiplies lr; NULL: constant */
  int n_ema;
  double ema_decay[SL_MAX_EMA];
  bool ema_warmup;            /* min(decay, (1+n)/(10+n)), n the steps done */
  int64_t batch, micro_batch; /* micro_batch divides batch; 0: the whole batch */
  uint32_t seed;
  bool flip; /* horizontal, each with probability 1/2 */
  /* What backward computes again instead of keeping it: SEGMENTS are blocks, LIGHT norms and activations. NONE: on a
   * GPU whose memory would be nine tenths full, LIGHT all the same. */
  sl_recompute recompute;
  bool keep_all; /* with NONE: nothing is computed again, whatever it takes */
  sl_precision precision;
  sl_dataset *holdout; /* for sl_trainer_evaluate; NULL: none */
  int loader_threads;  /* that read batches ahead; 0: none; negative: one where images must be decoded */
} sl_train_options;

#define SL_T_BINS 10 /* equal parts of the diffusion's steps, for losses by timestep */

/* lr 1e-4, betas 0.9 and 0.999, eps 1e-8, one EMA of 0.9999 with warm-up, batch 1, loader as needed. */
sl_train_options sl_train_defaults(void);

typedef struct sl_step_result {
  int64_t step;         /* number of this step, from 1 */
  double loss, mse, vb; /* means over the batch; mse and vb are 0 with a loss of its own */
  double grad_norm;     /* before clipping */
  double lr;
} sl_step_result;

/* A batch given by the caller: x0, noise f32 [batch,C,H,W], t, y i64 [batch] (y NULL: null class). */
typedef struct sl_batch {
  sl_tensor *x0, *t, *y, *noise;
} sl_batch;

/* Checks options in words, builds and plans. Brings the model's weights into being. EMAs start from the weights. */
SL_MUST_USE sl_status sl_trainer_new(sl_context *ctx, const sl_train_options *o, sl_trainer **out);
/* NULL is allowed. */
void sl_trainer_free(sl_trainer *tr);
/* One step. NUMERIC when the loss or a gradient is not finite: nothing is written, and the text names the first such
 * node. CANCELLED leaves the weights as they were. */
SL_MUST_USE sl_status sl_trainer_step(sl_trainer *tr, sl_step_result *r);
SL_MUST_USE sl_status sl_trainer_step_on(sl_trainer *tr, const sl_batch *b, sl_step_result *r);
int64_t sl_trainer_steps_done(const sl_trainer *tr);
/* Goes on as a trainer that has done `steps`, once its arrays hold what that one's held: draws, data position, bias
 * corrections and EMA warm-up follow from the number alone. ARG: negative. */
SL_MUST_USE sl_status sl_trainer_restore(sl_trainer *tr, int64_t steps);
/* Sums of the per-sample losses since the last call by bin of t, and how many they were; starts new ones. */
void sl_trainer_take_bins(sl_trainer *tr, double sum[SL_T_BINS], int64_t count[SL_T_BINS]);
/* Mean loss over the held-out images with the flat weights (NULL: the trainer's): each image at one t, the t spread
 * evenly over the steps, with noise that is the same at each call; nothing is dropped. ARG without such images. */
SL_MUST_USE sl_status sl_trainer_evaluate(sl_trainer *tr, sl_tensor *weights, double *loss);
/* Flat arrays, borrowed: "params" (the model's weights as they are trained), "exp_avg", "exp_avg_sq", "grads" (kept),
 * "ema.0" …; NULL: no such array. */
sl_tensor *sl_trainer_array(sl_trainer *tr, const char *name);
/* Bytes that training takes, known before the first step: arena, parameters, gradients, moments, averages, batch. */
uint64_t sl_trainer_memory(const sl_trainer *tr);
/* The same without making a trainer: by building and planning alone. */
SL_MUST_USE sl_status sl_train_forecast(sl_context *ctx, const sl_train_options *o, uint64_t *bytes);

#ifdef __cplusplus
}
#endif

#endif
