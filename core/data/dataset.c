#include "data/dataset.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/parallel.h"
#include "base/random.h"
#include "data/dataset_internal.h"
#include "io/tensor_file.h"

/* A window on images in memory, or on a source of decoded chunks. */
struct sl_dataset {
  sl_context *ctx;
  atomic_int references;
  sl_tensor *images; /* u8 or f32, seen as [N,C,H,W], on the CPU; NULL: source */
  sl_source *source;
  int64_t *labels; /* of the images in memory; NULL: none */
  int64_t *map;    /* [count]: number of each image in images or source; NULL: all, in order */
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
  if (sl_tensor_device(images)->gpu || (dtype != SL_U8 && dtype != SL_F32)) {
    sl_tensor *here = NULL;
    SL_TRY(sl_tensor_to(images, dtype == SL_U8 ? SL_U8 : SL_F32, &sl_device_cpu, &here));
    sl_status status = view_images(here, out);
    sl_tensor_release(here);
    return status;
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

static sl_status new_dataset(sl_context *ctx, sl_dataset **out) {
  sl_dataset *d = *out = sl_alloc_zero(ctx, sizeof *d);
  if (!d) return SL_STATUS_OOM;
  d->ctx = ctx;
  atomic_init(&d->references, 1);
  for (int i = 0; i < 256; i++) d->value[i] = (float)i / 127.5f - 1.0f;
  return SL_STATUS_OK;
}

/* The usual mistakes with pictures in floats: bytes as they are, 0 … 1, and NaN. Looks at some values of the first
 * images; latents have ranges of their own. */
static void warn_range(const sl_tensor *images) {
  const sl_shape *s = sl_tensor_shape(images);
  if (!sl_dtype_is_float(sl_tensor_dtype(images)) || (s->dim[1] != 1 && s->dim[1] != 3)) return;
  const int64_t n = (s->dim[0] < 64 ? s->dim[0] : 64) * s->dim[1] * s->dim[2] * s->dim[3];
  double low = INFINITY, high = -INFINITY;
  bool finite = true;
  const int64_t step = n / 65536 | 1; /* odd: no power of two, which sizes are, would show a column alone */
  for (int64_t i = 0; i < n; i += step) {
    const double v = sl_tensor_at(images, i);
    finite &= isfinite(v) != 0;
    low = v < low ? v : low;
    high = v > high ? v : high;
  }
  if (!finite) sl_context_log(sl_tensor_context(images), "warning: data: images hold values that are not finite");
  else if (low >= 0 && high > 8)
    sl_context_log(sl_tensor_context(images),
                   "warning: data: images go from %.3g to %.3g, expected about -1 to 1: x / 127.5 - 1, or u8", low,
                   high);
  else if (low >= 0 && high > 0.5)
    sl_context_log(sl_tensor_context(images),
                   "warning: data: images go from %.3g to %.3g, expected about -1 to 1: 2 * x - 1", low, high);
}

sl_status sl_dataset_from_tensors(sl_tensor *images, const sl_tensor *labels, sl_dataset **out) {
  *out = NULL;
  SL_REQUIRE(images, ARG, "data: images must be given");
  sl_dataset *d;
  SL_TRY(new_dataset(sl_tensor_context(images), &d));
  sl_status status = view_images(images, &d->images);
  if (status == SL_STATUS_OK) {
    d->count = sl_tensor_shape(d->images)->dim[0];
    if (labels) status = copy_labels(d, labels);
  }
  if (status == SL_STATUS_OK) {
    warn_range(d->images);
    *out = d;
  } else sl_dataset_release(d);
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

/* Reads every chunk once; the images of those that can be read. */
static sl_status map_readable(sl_dataset *d) {
  sl_source *src = d->source;
  d->map = sl_alloc(d->ctx, (size_t)d->count * sizeof *d->map);
  if (!d->map) return SL_STATUS_OOM;
  int64_t kept = 0, dropped = 0;
  for (int64_t chunk = 0; chunk < src->chunks; chunk++) {
    const uint8_t *bytes;
    sl_status status = sl_source_pin(src, chunk, &bytes);
    int64_t first = src->first[chunk], end = src->first[chunk + 1];
    if (status == SL_STATUS_OK) {
      sl_source_unpin(src, chunk);
      for (int64_t i = first; i < end; i++) d->map[kept++] = i;
    } else if (status == SL_STATUS_OOM || sl_context_cancelled(d->ctx)) {
      return status;
    } else {
      dropped += end - first;
      sl_context_log(d->ctx, "skipped (%lld image%s): %s", (long long)(end - first), end - first == 1 ? "" : "s",
                     sl_error());
    }
  }
  SL_REQUIRE(kept > 0, FORMAT, "data: none of the %lld images can be read", (long long)d->count);
  if (dropped) src->digest ^= XXH3_64bits(d->map, (size_t)kept * sizeof *d->map);
  d->count = kept;
  return SL_STATUS_OK;
}

sl_status sl_dataset_from_source(sl_source *s, bool skip, sl_dataset **out) {
  *out = NULL;
  sl_dataset *d;
  sl_status status = new_dataset(s->ctx, &d);
  if (status != SL_STATUS_OK) {
    sl_source_release(s);
    return status;
  }
  d->source = s;
  d->count = s->count;
  d->classes = s->classes;
  if (skip) status = map_readable(d);
  if (status == SL_STATUS_OK) *out = d;
  else sl_dataset_release(d);
  return status;
}

void sl_source_count_classes(sl_source *s) {
  for (int64_t i = 0; s->labels && !s->names && i < s->count; i++)
    if (s->labels[i] >= s->classes) s->classes = (int64_t)s->labels[i] + 1;
}

sl_dataset *sl_dataset_retain(sl_dataset *d) {
  atomic_fetch_add(&d->references, 1);
  return d;
}

void sl_dataset_release(sl_dataset *d) {
  if (!d || atomic_fetch_sub(&d->references, 1) != 1) return;
  sl_context *ctx = d->ctx;
  sl_tensor_release(d->images);
  sl_source_release(d->source);
  sl_free(ctx, d->labels);
  sl_free(ctx, d->map);
  sl_free(ctx, d);
}

/* A window on `n` images of d; takes over map, also on failure. */
static sl_status window(sl_dataset *d, int64_t *map, int64_t n, sl_dataset **out) {
  sl_dataset *w;
  sl_status status = new_dataset(d->ctx, &w);
  if (status != SL_STATUS_OK) {
    sl_free(d->ctx, map);
    return status;
  }
  w->map = map;
  w->count = n;
  w->classes = d->classes;
  if (d->images) w->images = sl_tensor_retain(d->images);
  if (d->source) w->source = sl_source_retain(d->source);
  if (d->labels) {
    int64_t all = sl_tensor_shape(d->images)->dim[0];
    w->labels = sl_alloc(d->ctx, (size_t)all * sizeof *w->labels);
    if (!w->labels) {
      sl_dataset_release(w);
      return SL_STATUS_OOM;
    }
    memcpy(w->labels, d->labels, (size_t)all * sizeof *w->labels);
  }
  *out = w;
  return SL_STATUS_OK;
}

static int64_t place(const sl_dataset *d, int64_t index) { return d->map ? d->map[index] : index; }

sl_status sl_dataset_split(sl_dataset *d, int64_t held, sl_dataset **train, sl_dataset **holdout) {
  *train = *holdout = NULL;
  SL_REQUIRE(held > 0 && held < d->count, ARG, "data: holdout is %lld, expected 1 … %lld, fewer than the images",
             (long long)held, (long long)d->count - 1);
  int64_t *back = sl_alloc(d->ctx, (size_t)held * sizeof *back);
  int64_t *rest = sl_alloc(d->ctx, (size_t)(d->count - held) * sizeof *rest);
  bool *taken = sl_alloc_zero(d->ctx, (size_t)d->count * sizeof *taken);
  if (!back || !rest || !taken) {
    sl_free(d->ctx, back);
    sl_free(d->ctx, rest);
    sl_free(d->ctx, taken);
    return SL_STATUS_OOM;
  }
  for (int64_t i = 0; i < held; i++) {
    uint64_t at = sl_random_permute((sl_rng_key){0, SL_STREAM_HOLDOUT}, 0, (uint64_t)i, (uint64_t)d->count);
    taken[at] = true;
    back[i] = place(d, (int64_t)at);
  }
  int64_t n = 0;
  for (int64_t i = 0; i < d->count; i++)
    if (!taken[i]) rest[n++] = place(d, i);
  sl_free(d->ctx, taken);
  sl_status status = window(d, rest, n, train);
  if (status == SL_STATUS_OK) status = window(d, back, held, holdout);
  else sl_free(d->ctx, back);
  if (status != SL_STATUS_OK) {
    sl_dataset_release(*train);
    *train = NULL;
  }
  return status;
}

/* --- what is known of it --- */

sl_context *sl_dataset_context(const sl_dataset *d) { return d->ctx; }

int64_t sl_dataset_count(const sl_dataset *d) { return d->count; }

sl_shape sl_dataset_image_shape(const sl_dataset *d) {
  return d->source ? d->source->shape : sl_shape_of(3, sl_tensor_shape(d->images)->dim + 1);
}

bool sl_dataset_is_bytes(const sl_dataset *d) { return d->source || sl_tensor_dtype(d->images) == SL_U8; }

int64_t sl_dataset_classes(const sl_dataset *d) { return d->classes; }

const char *sl_dataset_class_name(const sl_dataset *d, int64_t k) {
  return d->source && d->source->names && k >= 0 && k < d->source->classes ? d->source->names[k] : NULL;
}

static int64_t label_at(const sl_dataset *d, int64_t at) {
  if (d->source) return d->source->labels ? d->source->labels[at] : 0;
  return d->labels ? d->labels[at] : 0;
}

int64_t sl_dataset_label(const sl_dataset *d, int64_t index) {
  return index >= 0 && index < d->count ? label_at(d, place(d, index)) : 0;
}

const char *sl_dataset_caption(const sl_dataset *d, int64_t index) {
  bool has = d->source && d->source->captions && index >= 0 && index < d->count;
  return has ? d->source->captions[place(d, index)] : NULL;
}

const char *sl_dataset_note(const sl_dataset *d) { return d->source ? sl_pack_note(d->source) : ""; }

bool sl_dataset_decodes(const sl_dataset *d) { return d->source != NULL; }

uint64_t sl_dataset_memory(const sl_dataset *d) {
  if (!d->source) return 0;
  uint64_t all = (uint64_t)d->source->count * (uint64_t)sl_source_image_bytes(d->source);
  return all < d->source->budget ? all : d->source->budget;
}

static uint64_t digest_tensor(const sl_dataset *d) {
  XXH3_state_t state;
  XXH3_64bits_reset(&state);
  const sl_tensor *t = d->images;
  const sl_shape *s = sl_tensor_shape(t);
  XXH3_64bits_update(&state, s->dim, sizeof(int64_t) * 4);
  size_t item = sl_dtype_size(sl_tensor_dtype(t));
  if (sl_tensor_is_contiguous(t)) {
    XXH3_64bits_update(&state, sl_tensor_data(t), (size_t)sl_tensor_numel(t) * item);
  } else {
    const int64_t *st = sl_tensor_strides(t);
    const uint8_t *p = sl_tensor_data(t);
    for (int64_t n = 0; n < s->dim[0]; n++)
      for (int64_t c = 0; c < s->dim[1]; c++)
        for (int64_t y = 0; y < s->dim[2]; y++)
          for (int64_t x = 0; x < s->dim[3]; x++)
            XXH3_64bits_update(&state, p + (n * st[0] + c * st[1] + y * st[2] + x * st[3]) * (int64_t)item, item);
  }
  if (d->labels) XXH3_64bits_update(&state, d->labels, (size_t)s->dim[0] * sizeof *d->labels);
  return XXH3_64bits_digest(&state);
}

uint64_t sl_dataset_digest(const sl_dataset *d) {
  uint64_t digest = d->source ? d->source->digest : digest_tensor(d);
  return d->map ? digest ^ XXH3_64bits_withSeed(d->map, (size_t)d->count * sizeof *d->map, 1) : digest;
}

/* --- reading --- */

static void get_from_tensor(const sl_dataset *d, int64_t at, bool flip, float *out) {
  const int64_t *dim = sl_tensor_shape(d->images)->dim, *stride = sl_tensor_strides(d->images);
  int64_t width = dim[3], step = flip ? -stride[3] : stride[3];
  const float *f = sl_tensor_dtype(d->images) == SL_F32 ? sl_tensor_data(d->images) : NULL;
  const uint8_t *u = sl_tensor_data(d->images);
  for (int64_t c = 0; c < dim[1]; c++) {
    for (int64_t y = 0; y < dim[2]; y++) {
      int64_t from = at * stride[0] + c * stride[1] + y * stride[2] + (flip ? (width - 1) * stride[3] : 0);
      for (int64_t x = 0; x < width; x++, from += step) *out++ = f ? f[from] : d->value[u[from]];
    }
  }
}

static sl_status pin_image(const sl_dataset *d, int64_t at, int64_t *chunk, const uint8_t **image) {
  *chunk = sl_source_chunk_of(d->source, at);
  SL_TRY(sl_source_pin(d->source, *chunk, image));
  *image += (at - d->source->first[*chunk]) * sl_source_image_bytes(d->source);
  return SL_STATUS_OK;
}

static sl_status get(const sl_dataset *d, int64_t at, bool flip, float *out) {
  if (!d->source) {
    get_from_tensor(d, at, flip, out);
    return SL_STATUS_OK;
  }
  int64_t chunk, width = d->source->shape.dim[2], rows = d->source->shape.dim[0] * d->source->shape.dim[1];
  const uint8_t *p;
  SL_TRY(pin_image(d, at, &chunk, &p));
  for (int64_t y = 0; y < rows; y++, p += width)
    for (int64_t x = 0; x < width; x++) *out++ = d->value[p[flip ? width - 1 - x : x]];
  sl_source_unpin(d->source, chunk);
  return SL_STATUS_OK;
}

static sl_status check_index(const sl_dataset *d, int64_t index) {
  SL_REQUIRE(index >= 0 && index < d->count, ARG, "data: index is %lld, expected 0 … %lld", (long long)index,
             (long long)d->count - 1);
  return SL_STATUS_OK;
}

sl_status sl_dataset_get(const sl_dataset *d, int64_t index, bool flip, float *out) {
  SL_TRY(check_index(d, index));
  return get(d, place(d, index), flip, out);
}

sl_status sl_dataset_bytes(const sl_dataset *d, int64_t index, uint8_t *out) {
  SL_TRY(check_index(d, index));
  int64_t at = place(d, index);
  if (d->source) {
    int64_t chunk;
    const uint8_t *p;
    SL_TRY(pin_image(d, at, &chunk, &p));
    memcpy(out, p, (size_t)sl_source_image_bytes(d->source));
    sl_source_unpin(d->source, chunk);
    return SL_STATUS_OK;
  }
  SL_REQUIRE(sl_tensor_dtype(d->images) == SL_U8, DTYPE, "data: the images are %s, expected u8",
             sl_dtype_name(sl_tensor_dtype(d->images)));
  const int64_t *dim = sl_tensor_shape(d->images)->dim, *st = sl_tensor_strides(d->images);
  const uint8_t *p = (const uint8_t *)sl_tensor_data(d->images) + at * st[0];
  for (int64_t c = 0; c < dim[1]; c++)
    for (int64_t y = 0; y < dim[2]; y++)
      for (int64_t x = 0; x < dim[3]; x++) *out++ = p[c * st[1] + y * st[2] + x * st[3]];
  return SL_STATUS_OK;
}

static sl_status check_part(const sl_dataset *d, const sl_stream_part *p) {
  SL_REQUIRE(p->first >= 0 && p->n >= 0 && p->n <= INT64_MAX - p->first, ARG,
             "data: samples %lld and %lld more, expected 0 or more", (long long)p->first, (long long)p->n);
  SL_REQUIRE((p->first + p->n) / d->count <= UINT32_MAX, ARG, "data: sample %lld is behind the last epoch, 2^32",
             (long long)(p->first + p->n));
  return SL_STATUS_OK;
}

static sl_status fill_one(const sl_dataset *d, const sl_stream_part *p, int64_t i, float *image, int64_t *label) {
  int64_t g = p->first + i, count = d->count;
  uint64_t index = sl_random_permute((sl_rng_key){p->seed, SL_STREAM_ORDER}, (uint32_t)(g / count),
                                     (uint64_t)(g % count), (uint64_t)count);
  uint32_t bits = 0;
  if (p->flip) sl_random_bits((sl_rng_key){p->seed, SL_STREAM_FLIP}, 0, 0, (uint64_t)g, 1, &bits);
  int64_t at = place(d, (int64_t)index);
  if (label) *label = label_at(d, at);
  return get(d, at, bits >> 31, image);
}

static int64_t image_size(const sl_dataset *d) {
  sl_shape s = sl_dataset_image_shape(d);
  return sl_shape_numel(&s);
}

sl_status sl_dataset_fill(const sl_dataset *d, const sl_stream_part *p, float *images, int64_t *labels) {
  SL_TRY(check_part(d, p));
  int64_t size = image_size(d);
  for (int64_t i = 0; i < p->n; i++) SL_TRY(fill_one(d, p, i, images + i * size, labels ? labels + i : NULL));
  return SL_STATUS_OK;
}

typedef struct batch {
  const sl_dataset *d;
  sl_stream_part part;
  int64_t image_size;
  float *images;
  int64_t *labels;
} batch;

/* Of images in memory, which cannot fail. */
static void fill_batch(void *user, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const batch *b = user;
  for (int64_t i = begin; i < end; i++)
    (void)!fill_one(b->d, &b->part, i, b->images + i * b->image_size, b->labels ? b->labels + i : NULL);
}

sl_status sl_dataset_batch(const sl_dataset *d, uint32_t seed, int64_t first, int64_t n, bool flip, float *images,
                           int64_t *labels) {
  batch b = {d, {seed, first, n, flip}, image_size(d), images, labels};
  if (d->source) return sl_dataset_fill(d, &b.part, images, labels);
  SL_TRY(check_part(d, &b.part));
  int64_t grain = (1 << 14) / b.image_size + 1;
  sl_parallel_for(d->ctx, n, grain, fill_batch, &b);
  return SL_STATUS_OK;
}
