/* Training, the part that only the library uses; see sluice/training.h. */
#ifndef SL_TRAIN_TRAINER_H
#define SL_TRAIN_TRAINER_H

#include "data/dataset.h"
#include "diffusion/process.h"
#include "model/model.h"
#include "sluice/training.h"

/* What a custom loss sees, symbolic. */
typedef struct sl_loss_inputs {
  sl_builder *builder;
  sl_diffusion *diffusion;
  sl_value *out, *x0, *xt, *t, *noise, *weight; /* weight f32 [steps] by t, or NULL */
} sl_loss_inputs;

/* Per-sample values of the last step, f32 [batch], borrowed: which is 0 loss, 1 mse, 2 vb. */
sl_tensor *sl_trainer_per_sample(sl_trainer *tr, int which);
/* The gradients of the last step (before clipping), flat: kept only when asked for before the step. */
SL_MUST_USE sl_status sl_trainer_keep_gradients(sl_trainer *tr);
/* A run of it adds the gradients of a micro-batch to those that are there, or, if the batch is one, writes them. */
sl_program *sl_trainer_program(sl_trainer *tr);
/* Steps from now on gather seconds per op (sl_program_cost of the trainer's program). Whether they did before this
 * call. */
bool sl_trainer_profiling(sl_trainer *tr);

#endif
