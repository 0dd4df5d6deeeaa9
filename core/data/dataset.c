#include "data/dataset.h"

#include <stdatomic.h>
#include <string.h>

#include "base/parallel.h"
#include "base/random.h"
#include "io/tensor_file.h"

struct sl_dataset {
  sl_context *ctx;
  atomic_int references;
  sl_tensor *images; /* u8 or f32, seen as [N,C,H,W], on the CPU */
  int64_t *labels;   /* NULL: none */
  int64_t count, classes;
  float value[256]; /* of a byte */
};

/* --- making --- */

static sl_status view_images(sl_tensor *images, sl_tensor **out) {
  const sl_shape *s = sl_tensor_shape(images);
  sl_dtype dtype = sl_tensor_dtype(images);
  SL_REQUIRE(dtype == SL_U8 || sl_dtype_is_float(dtype), DTYPE, "data: images are %s, expected u8 or a float dtype",
             sl_dtype_name(dtype));
  SL_REQUIRE(s->rank == 4 || (s->rank == 3 && dtype == SL_U8), SHAPE, "data: images are %s %s, expected [N,C,H,W]%s",
             sl_dtype_name(dtype), sl_shape_text(s), dtype == SL_U8 ? " or [N,H,W]" : "");
  SL_REQUIRE(sl_tensor_numel(images) > 0, SHAPE, "data: images are %s, without any", sl_shape_text(s));
  if (sl_tensor_device(images)->kind != SL_DEVICE_CPU || (dtype != SL_U8 && dtype != SL_F32)) {
    SL_TRY(sl_tensor_to(images, dtype == SL_U8 ? SL_U8 : SL_F32, &sl_device_cpu, out));
    return SL_STATUS_OK;
  }
  if (s->rank == 4) {
    *out = sl_tensor_retain(images);
    return SL_STATUS_OK;
  }
  const int64_t *st = sl_tensor_strides(images);
  return sl_tensor_view_as(images, &SL_SHAPE(s->dim[0], 1, s->dim[1], s->dim[2]), (int64_t[]){st[0], 0, st[1], st[2]},
                           0, out);
}

static sl_status copy_labels(sl_dataset *d, const sl_tensor *labels) {
  const sl_shape *s = sl_tensor_shape(labels);
  sl_dtype dtype = sl_tensor_dtype(labels);
  SL_REQUIRE(!sl_dtype_is_float(dtype) && dtype != SL_BOOL, DTYPE, "data: labels are %s, expected integers",
             sl_dtype_name(dtype));
  SL_REQUIRE(s->rank == 1 && s->dim[0] == d->count, SHAPE, "data: labels are %s, expected [%lld], one per image",
             sl_shape_text(s), (long long)d->count);
  d->labels = sl_alloc(d->ctx, (size_t)d->count * sizeof *d->labels);
  if (!d->labels) return SL_STATUS_OOM;
  sl_tensor *wide;
  SL_TRY(sl_tensor_to(labels, SL_I64, &sl_device_cpu, &wide));
  memcpy(d->labels, sl_tensor_data(wide), (size_t)d->count * sizeof *d->labels);
  sl_tensor_release(wide);
  for (int64_t i = 0; i < d->count; i++) {
    SL_REQUIRE(d->labels[i] >= 0 && d->labels[i] < INT32_MAX, ARG, "data: label %lld is %lld, expected 0 … 2^31 - 2",
               (long long)i, (long long)d->labels[i]);
    if (d->labels[i] >= d->classes) d->classes = d->labels[i] + 1;
  }
  return SL_STATUS_OK;
}

sl_status sl_dataset_from_tensors(sl_tensor *images, const sl_tensor *labels, sl_dataset **out) {
  *out = NULL;
  SL_REQUIRE(images, ARG, "data: images must be given");
  sl_dataset *d = sl_alloc_zero(sl_tensor_context(images), sizeof *d);
  if (!d) return SL_STATUS_OOM;
  d->ctx = sl_tensor_context(images);
  atomic_init(&d->references, 1);
  for (int i = 0; i < 256; i++) d->value[i] = (float)i / 127.5f - 1.0f;
  sl_status status = view_images(images, &d->images);
  if (status == SL_STATUS_OK) {
    d->count = sl_tensor_shape(d->images)->dim[0];
    if (labels) status = copy_labels(d, labels);
  }
  if (status == SL_STATUS_OK) *out = d;
  else sl_dataset_release(d);
  return status;
}

/* [N,H,W,C] seen as [N,C,H,W], where that is how it lies; else retained as it is. */
static sl_status channels_first(sl_tensor *images, bool adm, sl_tensor **out) {
  const sl_shape *s = sl_tensor_shape(images);
  const int64_t *st = sl_tensor_strides(images);
  bool last = s->rank == 4 && sl_tensor_dtype(images) == SL_U8 && (s->dim[3] == 1 || s->dim[3] == 3);
  if (!last || (!adm && (s->dim[1] == 1 || s->dim[1] == 3))) {
    *out = sl_tensor_retain(images);
    return SL_STATUS_OK;
  }
  return sl_tensor_view_as(images, &SL_SHAPE(s->dim[0], s->dim[3], s->dim[1], s->dim[2]),
                           (int64_t[]){st[0], st[3], st[1], st[2]}, 0, out);
}

static sl_status from_file(const char *path, const sl_tensor_file *file, sl_dataset **out) {
  sl_tensor *images = sl_tensor_file_find(file, "images"), *labels = sl_tensor_file_find(file, "labels");
  bool adm = !images;
  if (adm) {
    images = sl_tensor_file_find(file, "arr_0");
    labels = sl_tensor_file_find(file, "arr_1");
  }
  const char *first = sl_tensor_file_name(file, 0);
  SL_REQUIRE(images, FORMAT, "%s: has no array \"images\" or \"arr_0\" (its first: %s%.100s%s)", path,
             first ? "\"" : "", first ? first : "none at all", first ? "\"" : "");
  sl_tensor *view;
  SL_TRY(channels_first(images, adm, &view));
  sl_status status = sl_dataset_from_tensors(view, labels, out);
  sl_tensor_release(view);
  return status == SL_STATUS_OK ? status : sl_fail_context(status, "%s", path);
}

sl_status sl_dataset_from_npz(sl_context *ctx, const char *path, sl_dataset **out) {
  *out = NULL;
  sl_tensor_file *file;
  SL_TRY(sl_tensor_file_load(ctx, path, &file));
  sl_status status = from_file(path, file, out);
  sl_tensor_file_free(file);
  return status;
}

sl_dataset *sl_dataset_retain(sl_dataset *d) {
  atomic_fetch_add(&d->references, 1);
  return d;
}

void sl_dataset_release(sl_dataset *d) {
  if (!d || atomic_fetch_sub(&d->references, 1) != 1) return;
  sl_context *ctx = d->ctx;
  sl_tensor_release(d->images);
  sl_free(ctx, d->labels);
  sl_free(ctx, d);
}

/* --- reading --- */

int64_t sl_dataset_count(const sl_dataset *d) { return d->count; }

sl_shape sl_dataset_image_shape(const sl_dataset *d) { return sl_shape_of(3, sl_tensor_shape(d->images)->dim + 1); }

int64_t sl_dataset_classes(const sl_dataset *d) { return d->classes; }

int64_t sl_dataset_label(const sl_dataset *d, int64_t index) {
  return d->labels && index >= 0 && index < d->count ? d->labels[index] : 0;
}

static void get(const sl_dataset *d, int64_t index, bool flip, float *out) {
  const int64_t *dim = sl_tensor_shape(d->images)->dim, *stride = sl_tensor_strides(d->images);
  int64_t width = dim[3], step = flip ? -stride[3] : stride[3];
  const float *f = sl_tensor_dtype(d->images) == SL_F32 ? sl_tensor_data(d->images) : NULL;
  const uint8_t *u = sl_tensor_data(d->images);
  for (int64_t c = 0; c < dim[1]; c++) {
    for (int64_t y = 0; y < dim[2]; y++) {
      int64_t from = index * stride[0] + c * stride[1] + y * stride[2] + (flip ? (width - 1) * stride[3] : 0);
      for (int64_t x = 0; x < width; x++, from += step) *out++ = f ? f[from] : d->value[u[from]];
    }
  }
}

sl_status sl_dataset_get(const sl_dataset *d, int64_t index, bool flip, float *out) {
  SL_REQUIRE(index >= 0 && index < d->count, ARG, "data: index is %lld, expected 0 … %lld", (long long)index,
             (long long)d->count - 1);
  get(d, index, flip, out);
  return SL_STATUS_OK;
}

typedef struct batch {
  const sl_dataset *d;
  uint32_t seed;
  int64_t first, image_size;
  bool flip;
  float *images;
  int64_t *labels;
} batch;

static void fill_batch(void *user, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const batch *b = user;
  for (int64_t i = begin; i < end; i++) {
    int64_t g = b->first + i, count = b->d->count;
    uint64_t index = sl_random_permute((sl_rng_key){b->seed, SL_STREAM_ORDER}, (uint32_t)(g / count),
                                       (uint64_t)(g % count), (uint64_t)count);
    uint32_t bits = 0;
    if (b->flip) sl_random_bits((sl_rng_key){b->seed, SL_STREAM_FLIP}, 0, 0, (uint64_t)g, 1, &bits);
    get(b->d, (int64_t)index, bits >> 31, b->images + i * b->image_size);
    if (b->labels) b->labels[i] = b->d->labels ? b->d->labels[index] : 0;
  }
}

sl_status sl_dataset_batch(const sl_dataset *d, uint32_t seed, int64_t first, int64_t n, bool flip, float *images,
                           int64_t *labels) {
  SL_REQUIRE(first >= 0 && n >= 0 && n <= INT64_MAX - first, ARG,
             "data: samples %lld and %lld more, expected 0 or more", (long long)first, (long long)n);
  SL_REQUIRE((first + n) / d->count <= UINT32_MAX, ARG, "data: sample %lld is behind the last epoch, 2^32",
             (long long)(first + n));
  batch b = {d, seed, first, sl_tensor_numel(d->images) / d->count, flip, images, labels};
  int64_t grain = (1 << 14) / b.image_size + 1;
  sl_parallel_for(d->ctx, n, grain, fill_batch, &b);
  return SL_STATUS_OK;
}
