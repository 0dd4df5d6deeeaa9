/* What the files of core/train share; only they include this. */
#ifndef SL_TRAIN_TRAINER_INTERNAL_H
#define SL_TRAIN_TRAINER_INTERNAL_H

#include "data/loader.h"
#include "ops/kernels.h"
#include "train/trainer.h"

enum { IN_X0, IN_T, IN_Y, IN_NOISE, N_IN };
enum { OUT_LOSS, OUT_MSE, OUT_VB, N_OUT };

/* A batch as the host fills it: on the CPU the program's own inputs; on a GPU pinned memory that is brought there, of
 * which there are two, so that one is filled while the other's step runs. */
typedef struct sl_host_batch {
  sl_tensor *in[N_IN]; /* noise: only for batches given by the caller */
  int64_t step;        /* the number of steps done before the one it was filled for; -1: none */
} sl_host_batch;

struct sl_trainer {
  sl_context *ctx;
  sl_train_options o; /* objects retained */
  const sl_device *device;
  sl_exec exec;
  sl_program *program, *evaluation; /* evaluation: NULL without held-out images */
  sl_loader *loader;                /* NULL: made at the first step, or none wanted */
  sl_tensor *params, *grads, *exp_avg, *exp_avg_sq, *ema[SL_MAX_EMA], *kept_grads;
  sl_tensor *batch_in[N_IN], *batch_out[N_OUT]; /* where the program runs */
  sl_tensor **micro;                            /* [micro-batch][inputs, outputs]: views of the batch */
  int64_t n_micro;
  sl_host_batch host[2]; /* the CPU has the first only */
  sl_tensor *host_out[N_OUT], *host_squares;
  /* Where the device's kernels read and write them: sl_step of each micro-batch, sl_adamw_f32, sums of squares of
   * gradients and losses (trainer_update.c). */
  sl_tensor *steps, *rates, *squares;
  void *recording;    /* of a whole step, on GPUs that can; NULL: not yet */
  bool warm;          /* a step has run: libraries have made their choices */
  bool unrecordable;  /* recording failed once */
  double *cumulative; /* of t_density */
  int64_t steps_done;
  bool profiling;
  double bin_sum[SL_T_BINS];
  int64_t bin_count[SL_T_BINS];
};

/* Checks every option in words. */
sl_status sl_train_check(const sl_train_options *o);
int64_t sl_train_micro_size(const sl_train_options *o); /* images of a run of the program */
/* The program of one micro-batch: inputs and outputs as the enums above; training: with gradients and all three losses,
 * else the loss alone, without dropout. */
sl_status sl_train_compile(sl_context *ctx, const sl_train_options *o, bool training, sl_program **out);
/* Bytes beside the programs' arenas: arrays, batch, decoded images. */
uint64_t sl_train_fixed_bytes(const sl_train_options *o);

/* --- trainer_batch.c --- */
sl_status sl__batch_make(sl_trainer *tr);
void sl__batch_free(sl_trainer *tr);
/* The batch of the next step, drawn from the data set: filled now unless it was before. */
sl_status sl__batch_draw(sl_trainer *tr, sl_host_batch **out);
/* Fills the batch after the one that is being trained on, while a GPU is busy; what fails is told when it is its turn.
 */
void sl__batch_draw_ahead(sl_trainer *tr);
/* A batch with the caller's tensors. */
sl_status sl__batch_given(sl_trainer *tr, const sl_batch *b, sl_host_batch **out);
/* Brings a batch where the program reads it. */
sl_status sl__batch_bring(sl_trainer *tr, const sl_host_batch *b, bool noise);
/* Forgets what was read ahead: a step did not happen, or another one follows. */
void sl__batch_forget(sl_trainer *tr);

/* --- trainer_update.c --- */
sl_status sl__update_make(sl_trainer *tr);
void sl__update_free(sl_trainer *tr);
/* Launches one step on the batch that was brought: noise (unless given), gradients, their norm, update. Nothing is
 * written to the weights when a loss or gradient is not finite. */
sl_status sl__update_launch(sl_trainer *tr, bool given, double lr);
/* Waits for it: per-sample losses come to host_out; the sum of squares of the gradients. */
sl_status sl__update_fetch(sl_trainer *tr, double *squares);
/* One micro-batch of the gradient program. */
sl_status sl__update_micro(sl_trainer *tr, int64_t k, bool (*trace)(void *, const sl_trace *), void *user);
sl_status sl__update_zero(sl_trainer *tr); /* the gradients */
/* What was recorded does not hold any more. */
void sl__update_changed(sl_trainer *tr);

#endif
