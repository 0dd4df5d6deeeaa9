/* The table by which the diffusion's loss is computed: whoever makes one knows the schedule and what the network
 * predicts. f64 [T, SL_LOSS_COLUMNS], a row per timestep; kernels round each number to float once. */
#ifndef SL_OPS_DIFFUSION_LOSS_H
#define SL_OPS_DIFFUSION_LOSS_H

enum {
  SL_LOSS_TARGET_NOISE, /* the network's target = TARGET_NOISE noise + TARGET_X0 x0 */
  SL_LOSS_TARGET_X0,
  SL_LOSS_X_XT, /* the x0 that it predicts = X_XT xt + X_OUT out */
  SL_LOSS_X_OUT,
  SL_LOSS_MEAN_X, /* the posterior's mean for an x0 = MEAN_X x0 + MEAN_XT xt */
  SL_LOSS_MEAN_XT,
  SL_LOSS_LOG_HIGH, /* the largest log variance, that of beta; */
  SL_LOSS_LOG_LOW,  /* the smallest, the posterior's: learned variances lie between, f LOG_HIGH + (1 - f) LOG_LOW */
  SL_LOSS_FIRST,    /* 1: t is 0, whose term of the bound is the likelihood of 8-bit pixels; else 0 */
  SL_LOSS_COLUMNS
};

#endif
