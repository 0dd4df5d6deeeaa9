/* The table by which a sampling step is taken: whoever makes one knows the schedule, what the network predicts and the
 * sampler's rule. f64 [T, SL_UPDATE_COLUMNS], a row per timestep; kernels round each number to float once.
 * With p the network's prediction, v the channels beside it and z the noise:
 *   x0 = X_X x + X_OUT p, clamped to [-1, 1] if asked
 *   e = (E_X x - x0) / E_DIV, the noise that x and x0 imply
 *   next = NEXT_X0 x0 + NEXT_X x + NEXT_E e + SIGMA z exp(f LOG_HIGH / 2 + (1 - f) LOG_LOW / 2), f = (v + 1) / 2
 * the exponential only with learned variance. */
#ifndef SL_OPS_SAMPLER_UPDATE_H
#define SL_OPS_SAMPLER_UPDATE_H

enum {
  SL_UPDATE_X_X,
  SL_UPDATE_X_OUT,
  SL_UPDATE_E_X,
  SL_UPDATE_E_DIV,
  SL_UPDATE_NEXT_X0,
  SL_UPDATE_NEXT_X,
  SL_UPDATE_NEXT_E, /* 0: e is not computed */
  SL_UPDATE_SIGMA,
  SL_UPDATE_LOG_HIGH,
  SL_UPDATE_LOG_LOW,
  SL_UPDATE_COLUMNS
};

#endif
