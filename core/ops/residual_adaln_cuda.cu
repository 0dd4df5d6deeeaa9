/* The gated residual with adaLN after it on CUDA. */
#include "ops/residual_adaln_any_cuda.h"

using sl_rows_gpu::rows_args;

extern "C" sl_status sl_cuda_residual_adaln(sl_exec *e, const sl_view *out, const sl_view *in, double eps) {
  const sl_view *x = &in[SL_RA_X];
  rows_args a = {};
  a.N = x->shape.dim[0], a.T = x->shape.dim[1], a.C = x->shape.dim[2];
  if (a.N * a.T * a.C == 0) return SL_STATUS_OK;
  a.x = sl_gpu_rows_of(x), a.y = sl_gpu_rows_of(&in[SL_RA_Y]), a.gate = sl_gpu_rows_of(&in[SL_RA_GATE]);
  a.mask = sl_gpu_rows_of(&in[SL_RA_MASK]), a.skip = sl_gpu_rows_of(&in[SL_RA_SKIP]);
  a.shift = sl_gpu_rows_of(&in[SL_RA_SHIFT]), a.scale = sl_gpu_rows_of(&in[SL_RA_SCALE]);
  a.next = sl_gpu_rows_of(&in[SL_RA_NEXT_MASK]);
  a.r = sl_gpu_rows_of(&out[SL_RA_R]), a.h = sl_gpu_rows_of(&out[SL_RA_H]);
  a.mean = (float *)out[SL_RA_MEAN].data, a.rstd = (float *)out[SL_RA_RSTD].data, a.eps = (float)eps;
  return sl_rows_gpu::forward<true>(e->stream, a);
}

extern "C" sl_status sl_cuda_residual_adaln_backward(sl_exec *e, const sl_view *out, const sl_view *in, int share,
                                                     void *workspace) {
  const sl_view *r = &in[SL_RAB_R];
  rows_args a = {};
  a.N = r->shape.dim[0], a.T = r->shape.dim[1], a.C = r->shape.dim[2];
  if (a.N * a.C == 0) return SL_STATUS_OK;
  SL_REQUIRE(a.N <= 65535, UNSUPPORTED, "residual_adaln: a batch of %lld, expected at most 65535 on a GPU",
             (long long)a.N);
  a.r = sl_gpu_rows_of(r), a.dr = sl_gpu_rows_of(&in[SL_RAB_DR]), a.dh = sl_gpu_rows_of(&in[SL_RAB_DH]);
  a.y = sl_gpu_rows_of(&in[SL_RAB_Y]), a.gate = sl_gpu_rows_of(&in[SL_RAB_GATE]);
  a.scale = sl_gpu_rows_of(&in[SL_RAB_SCALE]), a.prior = sl_gpu_rows_of(&in[SL_RAB_PRIOR]);
  a.mask = sl_gpu_rows_of(&in[SL_RAB_MASK]), a.next = sl_gpu_rows_of(&in[SL_RAB_NEXT_MASK]);
  a.dx = sl_gpu_rows_of(&out[SL_RAB_DX]), a.dy = sl_gpu_rows_of(&out[SL_RAB_DY]);
  a.dskip = sl_gpu_rows_of(&out[SL_RAB_DSKIP]);
  a.mean = (float *)in[SL_RAB_MEAN].data, a.rstd = (float *)in[SL_RAB_RSTD].data;
  a.partial = (float *)workspace, a.share = share;
  return sl_rows_gpu::backward<true>(e->stream, a, (float *)out[SL_RAB_DSHIFT].data, (float *)out[SL_RAB_DSCALE].data,
                                     (float *)out[SL_RAB_DGATE].data);
}
