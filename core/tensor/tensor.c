#include "tensor/tensor.h"

#include <inttypes.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

typedef struct storage {
  sl_context *ctx;
  const sl_device *dev;
  char *data;
  uint64_t bytes;
  atomic_uint_fast64_t version;
  atomic_int refs;
  struct sl_tensor *shadow;    /* a bf16 copy, or NULL */
  uint64_t shadow_version;     /* that it was made of, + 1; 0: none yet */
  bool wrapped;                /* someone else's memory */
  void (*release)(void *user); /* wrapped only; may be NULL */
  void *user;
} storage;

struct sl_tensor {
  atomic_int refs;
  storage *storage;
  int64_t offset; /* of the first element, in elements */
  int64_t numel;
  sl_dtype dtype;
  bool contiguous;
  sl_shape shape;
  int64_t stride[SL_MAX_RANK];
};

/* --- storage --- */

static void storage_release(storage *s) {
  if (atomic_fetch_sub(&s->refs, 1) != 1) return;
  sl_context *ctx = s->ctx;
  sl_tensor_release(s->shadow);
  if (!s->wrapped && s->dev->gpu) sl_context_count_device(ctx, -(int64_t)s->bytes);
  if (!s->wrapped) s->dev->free(s->dev, ctx, s->data);
  else if (s->release) s->release(s->user);
  sl_free(ctx, s);
}

static storage *storage_new(sl_context *ctx, const sl_device *dev, uint64_t bytes, void *wrapped) {
  storage *s = sl_alloc_zero(ctx, sizeof *s);
  if (!s) return NULL;
  s->ctx = ctx;
  s->dev = dev;
  s->bytes = bytes;
  s->wrapped = wrapped != NULL;
  s->data = wrapped ? wrapped : dev->alloc(dev, ctx, bytes);
  atomic_init(&s->refs, 1);
  if (!s->data) {
    sl_free(ctx, s);
    return NULL;
  }
  if (!wrapped && dev->gpu) sl_context_count_device(ctx, (int64_t)bytes);
  return s;
}

/* --- tensors --- */

static bool is_row_major(const sl_shape *shape, const int64_t *stride) {
  int64_t n = 1;
  for (int i = shape->rank - 1; i >= 0; i--) {
    if (shape->dim[i] == 0) return true;
    if (shape->dim[i] != 1 && stride[i] != n) return false;
    n *= shape->dim[i];
  }
  return true;
}

/* Takes over one reference of s, also on failure. stride NULL: row-major. */
static sl_status tensor_on(storage *s, sl_dtype dtype, const sl_shape *shape, const int64_t *stride, int64_t offset,
                           sl_tensor **out) {
  sl_tensor *t = sl_alloc_zero(s->ctx, sizeof *t);
  if (!t) {
    storage_release(s);
    return SL_STATUS_OOM;
  }
  atomic_init(&t->refs, 1);
  t->storage = s;
  t->offset = offset;
  t->dtype = dtype;
  t->shape = *shape;
  t->numel = sl_shape_numel(shape);
  if (stride) memcpy(t->stride, stride, (size_t)shape->rank * sizeof *stride);
  else sl_shape_strides(shape, t->stride);
  t->contiguous = is_row_major(shape, t->stride);
  *out = t;
  return SL_STATUS_OK;
}

static sl_status check_new(sl_dtype dtype, const sl_shape *shape) {
  SL_REQUIRE((unsigned)dtype < SL_DTYPE_COUNT, DTYPE, "tensor: dtype is %d, expected 0 to %d", (int)dtype,
             SL_DTYPE_COUNT - 1);
  return sl_shape_check(shape, sl_dtype_size(dtype), "tensor");
}

sl_status sl_tensor_new(sl_context *ctx, const sl_device *dev, sl_dtype dtype, const sl_shape *shape, sl_tensor **out) {
  *out = NULL;
  SL_TRY(check_new(dtype, shape));
  uint64_t bytes = (uint64_t)sl_shape_numel(shape) * sl_dtype_size(dtype);
  storage *s = storage_new(ctx, dev ? dev : &sl_device_cpu, bytes, NULL);
  if (!s) return SL_STATUS_OOM;
  return tensor_on(s, dtype, shape, NULL, 0, out);
}

sl_status sl_tensor_zeros(sl_context *ctx, const sl_device *dev, sl_dtype dtype, const sl_shape *shape,
                          sl_tensor **out) {
  sl_tensor *t;
  *out = NULL;
  SL_TRY(sl_tensor_new(ctx, dev, dtype, shape, &t));
  const sl_device *d = t->storage->dev;
  sl_status status = d->fill(d, t->storage->data, 0, t->storage->bytes, NULL);
  if (status == SL_STATUS_OK) *out = t;
  else sl_tensor_release(t);
  return status;
}

sl_status sl_tensor_from(sl_context *ctx, sl_dtype dtype, int rank, const int64_t *dim, const void *data,
                         sl_tensor **out) {
  *out = NULL;
  SL_REQUIRE(rank <= 0 || dim, ARG, "tensor: rank is %d, but dim is NULL", rank);
  sl_shape shape = sl_shape_of(rank, dim);
  SL_TRY(check_new(dtype, &shape));
  SL_REQUIRE(data || !sl_shape_numel(&shape), ARG, "tensor: data is NULL for shape %s", sl_shape_text(&shape));
  SL_TRY(sl_tensor_new(ctx, NULL, dtype, &shape, out));
  if ((*out)->storage->bytes) memcpy((*out)->storage->data, data, (*out)->storage->bytes);
  return SL_STATUS_OK;
}

sl_status sl_tensor_wrap(sl_context *ctx, sl_dtype dtype, const sl_shape *shape, void *data,
                         void (*release)(void *user), void *user, sl_tensor **out) {
  static char nothing[64]; /* what an empty tensor points to */
  *out = NULL;
  SL_TRY(check_new(dtype, shape));
  uint64_t bytes = (uint64_t)sl_shape_numel(shape) * sl_dtype_size(dtype);
  SL_REQUIRE(data || !bytes, ARG, "tensor: no data to wrap as shape %s", sl_shape_text(shape));
  SL_REQUIRE((uintptr_t)data % sl_dtype_size(dtype) == 0, ARG, "tensor: data to wrap is not aligned for %s",
             sl_dtype_name(dtype));
  storage *s = storage_new(ctx, &sl_device_cpu, bytes, data ? data : nothing);
  if (!s) return SL_STATUS_OOM;
  SL_TRY(tensor_on(s, dtype, shape, NULL, 0, out));
  s->release = release; /* not before: on failure the caller still owns the memory */
  s->user = user;
  return SL_STATUS_OK;
}

sl_tensor *sl_tensor_retain(sl_tensor *t) {
  if (t) atomic_fetch_add(&t->refs, 1);
  return t;
}

void sl_tensor_release(sl_tensor *t) {
  if (!t || atomic_fetch_sub(&t->refs, 1) != 1) return;
  storage *s = t->storage;
  sl_free(s->ctx, t);
  storage_release(s);
}

bool sl_tensor_shared(const sl_tensor *t) { return atomic_load(&t->refs) > 1 || atomic_load(&t->storage->refs) > 1; }

sl_context *sl_tensor_context(const sl_tensor *t) { return t->storage->ctx; }
const sl_device *sl_tensor_device(const sl_tensor *t) { return t->storage->dev; }
sl_dtype sl_tensor_dtype(const sl_tensor *t) { return t->dtype; }
const sl_shape *sl_tensor_shape(const sl_tensor *t) { return &t->shape; }
const int64_t *sl_tensor_strides(const sl_tensor *t) { return t->stride; }
int64_t sl_tensor_numel(const sl_tensor *t) { return t->numel; }
bool sl_tensor_is_contiguous(const sl_tensor *t) { return t->contiguous; }
uint64_t sl_tensor_storage_bytes(const sl_tensor *t) { return t->storage->bytes; }
uint64_t sl_tensor_version(const sl_tensor *t) { return atomic_load(&t->storage->version); }
void sl_tensor_bump(sl_tensor *t) { atomic_fetch_add(&t->storage->version, 1); }

sl_status sl_tensor_shadow(sl_tensor *t, sl_tensor **shadow, bool *fresh) {
  storage *s = t->storage;
  SL_REQUIRE(t->dtype == SL_F32 && t->contiguous && t->offset == 0, INTERNAL, "only flat f32 arrays have bf16 copies");
  if (!s->shadow) SL_TRY(sl_tensor_new(s->ctx, s->dev, SL_BF16, &t->shape, &s->shadow));
  *shadow = s->shadow;
  *fresh = s->shadow_version == sl_tensor_version(t) + 1;
  return SL_STATUS_OK;
}

bool sl_tensor_has_shadow(const sl_tensor *t) { return t->storage->shadow != NULL; }
void sl_tensor_shadow_fresh(sl_tensor *t) { t->storage->shadow_version = sl_tensor_version(t) + 1; }

void *sl_tensor_data(const sl_tensor *t) { return t->storage->data + t->offset * (int64_t)sl_dtype_size(t->dtype); }

sl_view sl_tensor_view(const sl_tensor *t) {
  sl_view v = {.data = sl_tensor_data(t), .dtype = t->dtype, .shape = t->shape};
  memcpy(v.stride, t->stride, sizeof v.stride);
  return v;
}

/* --- views --- */

/* The span of elements that a view touches, relative to its first: [low, high]. False if it cannot be computed. */
static bool view_span(const sl_shape *shape, const int64_t *stride, int64_t *low, int64_t *high) {
  *low = *high = 0;
  for (int i = 0; i < shape->rank; i++) {
    int64_t reach, *end;
    if (__builtin_mul_overflow(shape->dim[i] - 1, stride[i], &reach)) return false;
    end = reach < 0 ? low : high;
    if (__builtin_add_overflow(*end, reach, end)) return false;
  }
  return true;
}

sl_status sl_tensor_view_as(sl_tensor *t, const sl_shape *shape, const int64_t *stride, int64_t offset,
                            sl_tensor **out) {
  *out = NULL;
  SL_TRY(sl_shape_check(shape, sl_dtype_size(t->dtype), "view"));
  int64_t row_major[SL_MAX_RANK], low, high, first;
  if (!stride) {
    sl_shape_strides(shape, row_major);
    stride = row_major;
  }
  int64_t total = (int64_t)(t->storage->bytes / sl_dtype_size(t->dtype));
  bool empty = sl_shape_numel(shape) == 0;
  bool fits = !__builtin_add_overflow(t->offset, offset, &first) && first >= 0 && first <= total;
  fits = fits && (empty || (view_span(shape, stride, &low, &high) && first + low >= 0 && high < total - first));
  SL_REQUIRE(fits, SHAPE, "view: shape %s at offset %" PRId64 " reaches outside a storage of %" PRId64 " elements",
             sl_shape_text(shape), offset, total);
  atomic_fetch_add(&t->storage->refs, 1);
  return tensor_on(t->storage, t->dtype, shape, stride, first, out);
}

static sl_status check_dim(const sl_tensor *t, int dim, const char *what) {
  SL_REQUIRE(dim >= 0 && dim < t->shape.rank, SHAPE, "%s: dimension %d of shape %s, expected 1 to %d", what, dim + 1,
             sl_shape_text(&t->shape), t->shape.rank);
  return SL_STATUS_OK;
}

sl_status sl_tensor_select(sl_tensor *t, int dim, int64_t index, sl_tensor **out) {
  *out = NULL;
  SL_TRY(check_dim(t, dim, "select"));
  SL_REQUIRE(index >= 0 && index < t->shape.dim[dim], SHAPE, "select: index %" PRId64 " in dimension %d of shape %s",
             index + 1, dim + 1, sl_shape_text(&t->shape));
  sl_shape shape = {.rank = 0};
  int64_t stride[SL_MAX_RANK] = {0};
  for (int i = 0; i < t->shape.rank; i++) {
    if (i == dim) continue;
    stride[shape.rank] = t->stride[i];
    shape.dim[shape.rank++] = t->shape.dim[i];
  }
  return sl_tensor_view_as(t, &shape, stride, index * t->stride[dim], out);
}

sl_status sl_tensor_narrow(sl_tensor *t, int dim, int64_t first, int64_t length, sl_tensor **out) {
  *out = NULL;
  SL_TRY(check_dim(t, dim, "narrow"));
  int64_t n = t->shape.dim[dim];
  SL_REQUIRE(first >= 0 && length >= 0 && first <= n && length <= n - first, SHAPE,
             "narrow: %" PRId64 " from %" PRId64 " in dimension %d of shape %s", length,
             first < INT64_MAX ? first + 1 : first, dim + 1, sl_shape_text(&t->shape));
  sl_shape shape = t->shape;
  shape.dim[dim] = length;
  return sl_tensor_view_as(t, &shape, t->stride, length ? first * t->stride[dim] : 0, out);
}

/* Strides that show t's elements in row-major order under `shape`; false if only a copy can. */
static bool reshape_strides(const sl_tensor *t, const sl_shape *shape, int64_t *stride) {
  if (t->contiguous) {
    sl_shape_strides(shape, stride);
    return true;
  }
  int to = shape->rank - 1;
  for (int i = t->shape.rank - 1; i >= 0;) {
    int64_t run = t->shape.dim[i], step = t->stride[i]; /* a run of dimensions that walk as one */
    for (i--; i >= 0 && (t->shape.dim[i] == 1 || t->stride[i] == run * step); i--) run *= t->shape.dim[i];
    int64_t covered = 1;
    for (; to >= 0 && (covered < run || shape->dim[to] == 1); to--) {
      stride[to] = step * covered;
      covered *= shape->dim[to];
    }
    if (covered != run) return false;
  }
  return true;
}

sl_status sl_tensor_reshape(sl_tensor *t, const sl_shape *shape, sl_tensor **out) {
  *out = NULL;
  SL_TRY(sl_shape_check(shape, sl_dtype_size(t->dtype), "reshape"));
  SL_REQUIRE(sl_shape_numel(shape) == t->numel, SHAPE, "reshape: shape %s has %" PRId64 " elements, %s has %" PRId64,
             sl_shape_text(&t->shape), t->numel, sl_shape_text(shape), sl_shape_numel(shape));
  int64_t stride[SL_MAX_RANK] = {0};
  if (reshape_strides(t, shape, stride)) return sl_tensor_view_as(t, shape, stride, 0, out);
  sl_tensor *copy;
  SL_TRY(sl_tensor_to(t, t->dtype, NULL, &copy));
  sl_status status = sl_tensor_view_as(copy, shape, NULL, 0, out);
  sl_tensor_release(copy);
  return status;
}

double sl_tensor_at(const sl_tensor *t, int64_t index) {
  if (t->storage->dev->kind != SL_DEVICE_CPU || index < 0 || index >= t->numel) return NAN;
  int64_t at = 0;
  for (int i = t->shape.rank - 1; i >= 0; i--) {
    at += index % t->shape.dim[i] * t->stride[i];
    index /= t->shape.dim[i];
  }
  return sl_element_get(t->dtype, (const char *)sl_tensor_data(t) + at * (int64_t)sl_dtype_size(t->dtype));
}
