/* What the files of core/train share; only they include this. */
#ifndef SL_TRAIN_TRAINER_INTERNAL_H
#define SL_TRAIN_TRAINER_INTERNAL_H

#include "data/loader.h"
#include "train/trainer.h"

enum { IN_X0, IN_T, IN_Y, IN_NOISE, N_IN };
enum { OUT_LOSS, OUT_MSE, OUT_VB, N_OUT };
struct sl_trainer {
  sl_context *ctx;
  sl_train_options o;               /* objects retained */
  sl_program *program, *evaluation; /* evaluation: NULL without held-out images */
  sl_loader *loader;                /* NULL: made at the first step, or none wanted */
  sl_tensor *params, *grads, *exp_avg, *exp_avg_sq, *ema[SL_MAX_EMA], *kept_grads;
  sl_tensor *batch_in[N_IN];
  sl_tensor *batch_out[N_OUT];
  sl_tensor **micro; /* [micro-batch][inputs, outputs]: views of the batch */
  int64_t n_micro;
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

#endif
