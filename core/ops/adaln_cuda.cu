/* adaLN on CUDA: the kernels over rows without the residual before it. */
#include "ops/residual_adaln_any_cuda.h"

using sl_rows_gpu::rows_args;

extern "C" sl_status sl_cuda_adaln(sl_exec *e, const sl_view *y, const sl_view *mean, const sl_view *rstd,
                                   const sl_view *x, const sl_view *shift, const sl_view *scale, const sl_view *mask,
                                   double eps) {
  rows_args a = {};
  a.N = x->shape.dim[0], a.T = x->shape.dim[1], a.C = x->shape.dim[2];
  if (a.N * a.T * a.C == 0) return SL_STATUS_OK;
  a.x = sl_gpu_rows_of(x), a.h = sl_gpu_rows_of(y), a.shift = sl_gpu_rows_of(shift), a.scale = sl_gpu_rows_of(scale);
  a.next = sl_gpu_rows_of(mask);
  a.mean = (float *)mean->data, a.rstd = (float *)rstd->data, a.eps = (float)eps;
  return sl_rows_gpu::forward<false>(e->stream, a);
}

extern "C" sl_status sl_cuda_adaln_backward(sl_exec *e, const sl_view *dx, const sl_view *dshift, const sl_view *dscale,
                                            const sl_view *dy, const sl_view *x, const sl_view *scale,
                                            const sl_view *mask, const sl_view *mean, const sl_view *rstd,
                                            const sl_view *prior, void *workspace) {
  rows_args a = {};
  a.N = x->shape.dim[0], a.T = x->shape.dim[1], a.C = x->shape.dim[2];
  if (a.N * a.C == 0) return SL_STATUS_OK;
  SL_REQUIRE(a.N <= 65535, UNSUPPORTED, "adaln: a batch of %lld, expected at most 65535 on a GPU", (long long)a.N);
  a.r = sl_gpu_rows_of(x), a.dh = sl_gpu_rows_of(dy), a.scale = sl_gpu_rows_of(scale), a.next = sl_gpu_rows_of(mask);
  a.dx = sl_gpu_rows_of(dx), a.dr = sl_gpu_rows_of(prior);
  a.mean = (float *)mean->data, a.rstd = (float *)rstd->data, a.partial = (float *)workspace;
  return sl_rows_gpu::backward<false>(e->stream, a, (float *)dshift->data, (float *)dscale->data, nullptr);
}
