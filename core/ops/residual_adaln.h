/* The gated residual and the norm that follows it as one op: places of inputs and outputs in the rows residual_adaln
 * and residual_adaln_backward, which the kernels are given as they are. */
#ifndef SL_OPS_RESIDUAL_ADALN_H
#define SL_OPS_RESIDUAL_ADALN_H

enum { SL_RA_X, SL_RA_Y, SL_RA_GATE, SL_RA_SHIFT, SL_RA_SCALE, SL_RA_MASK, SL_RA_SKIP, SL_RA_NEXT_MASK, SL_RA_INPUTS };
enum { SL_RA_R, SL_RA_H, SL_RA_MEAN, SL_RA_RSTD };

enum {
  SL_RAB_DR, /* what arrives at r itself: first, so that dx may take its memory */
  SL_RAB_DH,
  SL_RAB_R,
  SL_RAB_Y,
  SL_RAB_GATE,
  SL_RAB_SCALE,
  SL_RAB_MASK,
  SL_RAB_NEXT_MASK,
  SL_RAB_MEAN,
  SL_RAB_RSTD,
  SL_RAB_PRIOR,
  SL_RAB_INPUTS
};
enum { SL_RAB_DX, SL_RAB_DY, SL_RAB_DGATE, SL_RAB_DSKIP, SL_RAB_DSHIFT, SL_RAB_DSCALE };

/* What x gets of d, the gradient at r; prior is added where it is given. */
typedef enum sl_residual_share {
  SL_SHARE_WHOLE,    /* d */
  SL_SHARE_MASKED,   /* mask*d */
  SL_SHARE_RESTORED, /* mask*d + (1 - mask)*dr: x is the skip of the residual after r too, which has r's gradient dr */
} sl_residual_share;

#endif
