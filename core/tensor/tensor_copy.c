/* Copies between tensors: on the CPU by sl_view_copy, within a GPU by its kernel; between devices whole spans of bytes
 * are moved, converted on the host where strides or dtypes differ. */
#include "tensor/tensor.h"

#include <string.h>

static bool on_cpu(const sl_tensor *t) { return sl_tensor_device(t)->kind == SL_DEVICE_CPU; }

typedef struct span {
  char *low;    /* lowest address that the tensor touches */
  size_t bytes; /* from there to the end of its last element */
} span;

static span span_of(const sl_tensor *t) {
  const sl_shape *shape = sl_tensor_shape(t);
  const int64_t *stride = sl_tensor_strides(t);
  int64_t low = 0, high = 0, size = (int64_t)sl_dtype_size(sl_tensor_dtype(t));
  for (int i = 0; i < shape->rank; i++) *(stride[i] < 0 ? &low : &high) += (shape->dim[i] - 1) * stride[i];
  return (span){(char *)sl_tensor_data(t) + low * size, (size_t)((high - low + 1) * size)};
}

static bool overlap(const sl_tensor *a, const sl_tensor *b) {
  span x = span_of(a), y = span_of(b);
  return x.low < y.low + y.bytes && y.low < x.low + x.bytes;
}

/* A host buffer with the tensor's bytes, and the view of it that t is of the device's; free the buffer with sl_free. */
static sl_status to_host(const sl_tensor *t, sl_view *view, void **buffer) {
  span s = span_of(t);
  *buffer = sl_alloc(sl_tensor_context(t), s.bytes);
  if (!*buffer) return SL_STATUS_OOM;
  const sl_device *dev = sl_tensor_device(t);
  sl_status status = dev->copy_out(dev, *buffer, s.low, s.bytes, NULL);
  *view = sl_tensor_view(t);
  view->data = (char *)*buffer + ((char *)view->data - s.low);
  if (status != SL_STATUS_OK) {
    sl_free(sl_tensor_context(t), *buffer);
    *buffer = NULL;
  }
  return status;
}

static sl_status copy_across(sl_tensor *dst, const sl_tensor *src, const sl_view *from_view) {
  sl_context *ctx = sl_tensor_context(dst);
  const sl_device *to = sl_tensor_device(dst), *from = sl_tensor_device(src);
  sl_view d = sl_tensor_view(dst), s = *from_view;
  bool plain = sl_shape_equal(sl_tensor_shape(dst), sl_tensor_shape(src)) && d.dtype == s.dtype &&
               sl_tensor_is_contiguous(dst) && sl_tensor_is_contiguous(src);
  size_t bytes = (size_t)sl_tensor_numel(dst) * sl_dtype_size(d.dtype);
  if (plain && to == from) return to->copy(to, d.data, s.data, bytes, NULL);
  if (plain && on_cpu(src)) return to->copy_in(to, d.data, s.data, bytes, NULL);
  if (plain && on_cpu(dst)) return from->copy_out(from, d.data, s.data, bytes, NULL);
  if (to == from && &sl_device_copy_views) return sl_device_copy_views(to, ctx, &d, &s);
  void *src_host = NULL, *dst_host = NULL;
  sl_status status = SL_STATUS_OK;
  if (!on_cpu(src)) {
    sl_view host;
    SL_GOTO(to_host(src, &host, &src_host));
    s.data = host.data;
  }
  if (!on_cpu(dst)) SL_GOTO(to_host(dst, &d, &dst_host)); /* with what lies between its elements */
  sl_view_copy(ctx, &d, &s);
  if (dst_host) {
    span whole = span_of(dst);
    status = to->copy_in(to, whole.low, dst_host, whole.bytes, NULL);
  }
done:
  sl_free(ctx, src_host);
  sl_free(ctx, dst_host);
  return status;
}

sl_status sl_tensor_copy(sl_tensor *dst, const sl_tensor *src) {
  const sl_shape *to = sl_tensor_shape(dst), *from = sl_tensor_shape(src);
  bool broadcast = from->rank == 0;
  SL_REQUIRE(broadcast || sl_shape_equal(to, from), SHAPE, "copy: source has shape %s, expected %s as the destination",
             sl_shape_text(from), sl_shape_text(to));
  if (sl_tensor_numel(dst) == 0) return SL_STATUS_OK;
  sl_view d = sl_tensor_view(dst), s = sl_tensor_view(src);
  if (broadcast) {
    s.shape = d.shape;
    memset(s.stride, 0, sizeof s.stride);
  }
  sl_status status = SL_STATUS_OK;
  bool same = d.data == s.data && d.dtype == s.dtype &&
              memcmp(d.stride, s.stride, (size_t)d.shape.rank * sizeof *d.stride) == 0;
  if (same) return SL_STATUS_OK;
  if (sl_tensor_device(dst) == sl_tensor_device(src) && overlap(dst, src)) {
    sl_tensor *copy;
    SL_TRY(sl_tensor_to(src, s.dtype, NULL, &copy));
    status = sl_tensor_copy(dst, copy);
    sl_tensor_release(copy);
    return status;
  }
  if (on_cpu(dst) && on_cpu(src)) sl_view_copy(sl_tensor_context(dst), &d, &s);
  else status = copy_across(dst, src, &s);
  sl_tensor_bump(dst);
  return status;
}

sl_status sl_tensor_on_host(sl_tensor *t, sl_tensor **out) {
  if (!on_cpu(t)) return sl_tensor_to(t, sl_tensor_dtype(t), &sl_device_cpu, out);
  *out = sl_tensor_retain(t);
  return SL_STATUS_OK;
}

sl_status sl_tensor_to(const sl_tensor *t, sl_dtype dtype, const sl_device *dev, sl_tensor **out) {
  sl_tensor *copy;
  *out = NULL;
  SL_TRY(sl_tensor_new(sl_tensor_context(t), dev ? dev : sl_tensor_device(t), dtype, sl_tensor_shape(t), &copy));
  sl_status status = sl_tensor_copy(copy, t);
  if (status == SL_STATUS_OK) *out = copy;
  else sl_tensor_release(copy);
  return status;
}
