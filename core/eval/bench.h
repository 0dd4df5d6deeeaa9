/* How fast a device is, and what a model's programs ask of it. */
#ifndef SL_EVAL_BENCH_H
#define SL_EVAL_BENCH_H

#include "train/trainer.h"

typedef enum sl_bench_kind {
  SL_BENCH_F32,  /* products of f32 operands, none rounded */
  SL_BENCH_TF32, /* the same with operands rounded to TF32: GPUs only */
  SL_BENCH_BF16, /* of bf16 operands */
  SL_BENCH_COPY, /* the kernel `copy` on f32 */
} sl_bench_kind;

typedef struct sl_bench_rate {
  double median, least, most; /* of the samples: FLOP/s, or bytes read and written a second */
  int64_t size;               /* rows and columns of the square matrices; bytes copied */
  int samples;
} sl_bench_rate;

/* Measures a rate on random numbers. seconds: how long one sample takes, about; matrices grow until one product takes
 * that long, at most to 8192 x 8192, copies likewise to 1 GiB on a GPU and 512 MiB on the CPU, both only as far as
 * there is memory. Time is the device's own where it gives time stamps. ARG; OOM where nothing fits; CANCELLED when the
 * context was told to stop. */
SL_MUST_USE sl_status sl_bench_measure(sl_context *ctx, const sl_device *dev, sl_bench_kind kind, double seconds,
                                       sl_bench_rate *out);

/* A model's forward pass on random images, timesteps and labels, compiled for its device. */
typedef struct sl_bench_pass sl_bench_pass;
/* batch images. guided: as sampling with guidance runs it, on twice as many rows. ARG: guided without a null class;
 * OOM. */
SL_MUST_USE sl_status sl_bench_pass_new(sl_model *m, int64_t batch, bool guided, sl_bench_pass **out);
void sl_bench_pass_free(sl_bench_pass *p); /* NULL is allowed */
/* Runs it n times in a row: seconds of all of them. profile: gather seconds per op, for sl_program_cost. */
SL_MUST_USE sl_status sl_bench_pass_run(sl_bench_pass *p, int n, bool profile, double *seconds);
sl_program *sl_bench_pass_program(const sl_bench_pass *p); /* borrowed */

/* Calls `each` with what every op of such a pass, or of a training step's gradient program, asks of a machine of these
 * rates (sl_graph_costs). Nothing is compiled, and no weights are brought into being. o->loss must be NULL. */
SL_MUST_USE sl_status sl_bench_pass_costs(sl_model *m, int64_t batch, bool guided, const sl_rates *rates,
                                          void (*each)(void *user, const sl_op_cost *c), void *user);
SL_MUST_USE sl_status sl_bench_train_costs(sl_context *ctx, const sl_train_options *o, const sl_rates *rates,
                                           void (*each)(void *user, const sl_op_cost *c), void *user);

#endif
