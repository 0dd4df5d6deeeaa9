#include "data/resize.h"

#include <math.h>
#include <string.h>

enum { BITS = 22, MAX_SIDE = 1 << 20 };

/* --- one axis --- */

typedef struct axis { /* output i is the sum of weight[i * taps + k] times input lo[i] + k, k < n[i] */
  int64_t taps;
  int64_t *lo, *n;
  int32_t *weight;
  double *exact;
} axis;

static double box(double x) { return x > -0.5 && x <= 0.5 ? 1.0 : 0.0; }

static double bicubic(double x) {
  const double a = -0.5;
  x = fabs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

static void free_axis(sl_context *ctx, axis *a) {
  sl_free(ctx, a->lo);
  sl_free(ctx, a->n);
  sl_free(ctx, a->weight);
  sl_free(ctx, a->exact);
}

static sl_status make_axis(sl_context *ctx, int64_t in, int64_t out, sl_resize_filter filter, axis *a) {
  double scale = (double)in / (double)out, stretch = scale > 1 ? scale : 1;
  double support = (filter == SL_RESIZE_BOX ? 0.5 : 2.0) * stretch;
  a->taps = (int64_t)ceil(support) * 2 + 1;
  a->lo = sl_alloc(ctx, (size_t)out * sizeof *a->lo);
  a->n = sl_alloc(ctx, (size_t)out * sizeof *a->n);
  a->weight = sl_alloc(ctx, (size_t)(out * a->taps) * sizeof *a->weight);
  a->exact = sl_alloc(ctx, (size_t)a->taps * sizeof *a->exact);
  if (!a->lo || !a->n || !a->weight || !a->exact) return SL_STATUS_OOM;
  for (int64_t i = 0; i < out; i++) {
    double centre = ((double)i + 0.5) * scale, sum = 0;
    double from = centre - support + 0.5, to = centre + support + 0.5;
    int64_t lo = from > 0 ? (int64_t)from : 0, hi = to < (double)in ? (int64_t)to : in;
    for (int64_t k = 0; k < hi - lo; k++) {
      double x = ((double)(lo + k) - centre + 0.5) / stretch;
      sum += a->exact[k] = filter == SL_RESIZE_BOX ? box(x) : bicubic(x);
    }
    for (int64_t k = 0; k < hi - lo; k++) {
      double w = (sum != 0 ? a->exact[k] / sum : a->exact[k]) * (1 << BITS);
      a->weight[i * a->taps + k] = (int32_t)(w < 0 ? w - 0.5 : w + 0.5);
    }
    a->lo[i] = lo;
    a->n[i] = hi - lo;
  }
  return SL_STATUS_OK;
}

/* One output row of `n` elements from rows or pixels that lie `stride` elements apart. */
static void weigh(const uint8_t *from, int64_t stride, const int32_t *weight, int64_t taps, uint8_t *to, int64_t n) {
  for (int64_t e = 0; e < n; e++) {
    int64_t sum = 1 << (BITS - 1);
    for (int64_t k = 0; k < taps; k++) sum += (int64_t)weight[k] * from[k * stride + e];
    sum >>= BITS;
    to[e] = (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
  }
}

/* Along dim 0 (rows) or 1 (columns). */
static sl_status resize_axis(sl_tensor *image, int dim, int64_t size, sl_resize_filter filter, sl_tensor **out) {
  const sl_shape *s = sl_tensor_shape(image);
  sl_context *ctx = sl_tensor_context(image);
  int64_t h = s->dim[0], w = s->dim[1], c = s->dim[2];
  axis a = {0};
  sl_tensor *t = NULL;
  sl_status status;
  SL_GOTO(make_axis(ctx, dim ? w : h, size, filter, &a));
  SL_GOTO(sl_tensor_new(ctx, NULL, SL_U8, &SL_SHAPE(dim ? h : size, dim ? size : w, c), &t));
  const uint8_t *from = sl_tensor_data(image);
  uint8_t *to = sl_tensor_data(t);
  if (dim == 0) {
    for (int64_t i = 0; i < size; i++)
      weigh(from + a.lo[i] * w * c, w * c, a.weight + i * a.taps, a.n[i], to + i * w * c, w * c);
  } else {
    for (int64_t y = 0; y < h; y++)
      for (int64_t i = 0; i < size; i++)
        weigh(from + (y * w + a.lo[i]) * c, c, a.weight + i * a.taps, a.n[i], to + (y * size + i) * c, c);
  }
  *out = t;
  t = NULL;
done:
  sl_tensor_release(t);
  free_axis(ctx, &a);
  return status;
}

/* --- pictures --- */

static sl_status check_picture(const char *what, const sl_tensor *image) {
  const sl_shape *s = sl_tensor_shape(image);
  SL_REQUIRE(sl_tensor_dtype(image) == SL_U8, DTYPE, "%s: the image is %s, expected u8", what,
             sl_dtype_name(sl_tensor_dtype(image)));
  SL_REQUIRE(s->rank == 3 && s->dim[0] > 0 && s->dim[1] > 0 && s->dim[2] > 0, SHAPE,
             "%s: the image is %s, expected [H,W,C]", what, sl_shape_text(s));
  SL_REQUIRE(s->dim[0] <= MAX_SIDE && s->dim[1] <= MAX_SIDE, SHAPE, "%s: the image is %s, sides at most %d", what,
             sl_shape_text(s), MAX_SIDE);
  return SL_STATUS_OK;
}

sl_status sl_resize(sl_tensor *image, int64_t height, int64_t width, sl_resize_filter filter, sl_tensor **out) {
  *out = NULL;
  SL_TRY(check_picture("resize", image));
  SL_REQUIRE(height > 0 && height <= MAX_SIDE && width > 0 && width <= MAX_SIDE, ARG,
             "resize: to %lld x %lld, expected sides of 1 … %d", (long long)height, (long long)width, MAX_SIDE);
  sl_tensor *now, *next = NULL;
  SL_TRY(sl_tensor_to(image, SL_U8, &sl_device_cpu, &now)); /* contiguous */
  sl_status status = SL_STATUS_OK;
  if (sl_tensor_shape(now)->dim[1] != width) {
    status = resize_axis(now, 1, width, filter, &next);
    sl_tensor_release(now);
    now = next;
  }
  if (status == SL_STATUS_OK && sl_tensor_shape(now)->dim[0] != height) {
    next = NULL;
    status = resize_axis(now, 0, height, filter, &next);
    sl_tensor_release(now);
    now = next;
  }
  *out = now;
  return status;
}

static sl_status cut(sl_tensor *image, int64_t size, sl_tensor **out) {
  const sl_shape *s = sl_tensor_shape(image);
  int64_t top = (s->dim[0] - size) / 2, left = (s->dim[1] - size) / 2, c = s->dim[2];
  SL_TRY(sl_tensor_new(sl_tensor_context(image), NULL, SL_U8, &SL_SHAPE(size, size, c), out));
  const uint8_t *from = (const uint8_t *)sl_tensor_data(image) + (top * s->dim[1] + left) * c;
  uint8_t *to = sl_tensor_data(*out);
  for (int64_t y = 0; y < size; y++) memcpy(to + y * size * c, from + y * s->dim[1] * c, (size_t)(size * c));
  return SL_STATUS_OK;
}

sl_status sl_center_crop(sl_tensor *image, int64_t size, sl_tensor **out) {
  *out = NULL;
  SL_TRY(check_picture("center_crop", image));
  SL_REQUIRE(size > 0 && size <= MAX_SIDE, ARG, "center_crop: size is %lld, expected 1 … %d", (long long)size,
             MAX_SIDE);
  sl_tensor *now = sl_tensor_retain(image), *next = NULL;
  sl_status status = SL_STATUS_OK;
  for (;;) {
    const sl_shape *s = sl_tensor_shape(now);
    int64_t h = s->dim[0], w = s->dim[1], shorter = h < w ? h : w;
    bool halve = shorter >= 2 * size;
    double scale = (double)size / (double)shorter;
    status = halve ? sl_resize(now, h / 2, w / 2, SL_RESIZE_BOX, &next)
                   : sl_resize(now, (int64_t)nearbyint((double)h * scale), (int64_t)nearbyint((double)w * scale),
                               SL_RESIZE_BICUBIC, &next);
    sl_tensor_release(now);
    if (status != SL_STATUS_OK) return status;
    now = next;
    if (!halve) break;
  }
  status = cut(now, size, out);
  sl_tensor_release(now);
  return status;
}
