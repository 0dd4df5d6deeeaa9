/* The GPU's table of kernels, and copies of views within its memory. Compiled for CUDA, and for the host stand-in. */
#include "ops/kernels.h"

#define SL_KERNEL(name, args) .name = sl_cuda_##name,
const sl_kernels sl_kernels_cuda = {
#include "ops/kernels.def"
};
#undef SL_KERNEL

sl_status sl_device_copy_views(const sl_device *dev, sl_context *ctx, const sl_view *dst, const sl_view *src) {
  sl_exec e = sl_exec_on(ctx, dev);
  sl_view from = *src;
  if (from.shape.rank == 0 && dst->shape.rank > 0) { /* one value everywhere */
    from.shape = dst->shape;
    for (int i = 0; i < from.shape.rank; i++) from.stride[i] = 0;
  }
  SL_TRY(dev->use(dev));
  return e.kernels->copy(&e, dst, &from);
}

sl_status sl_device_put(const sl_device *dev, sl_context *ctx, void *to, const void *from, size_t bytes) {
  sl_exec e = sl_exec_on(ctx, dev);
  SL_TRY(dev->use(dev));
  return e.kernels->put(&e, to, from, bytes);
}
