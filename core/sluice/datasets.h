/* Data sets: images, with labels and captions or without, in memory or decoded when needed. */
#ifndef SLUICE_DATASETS_H
#define SLUICE_DATASETS_H

#include "sluice/tensors.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sl_dataset sl_dataset; /* reference-counted; may be read from several threads */

/* images: u8 [N,C,H,W] or [N,H,W] (C = 1), or floats [N,C,H,W] in [-1, 1]; any strides. labels: integers [N], at least
 * 0; NULL: none. Retains the images (CPU u8 and f32; else a copy), copies the labels; the caller owns one reference to
 * *out. SHAPE, DTYPE, ARG. */
SL_MUST_USE sl_status sl_dataset_from_tensors(sl_tensor *images, const sl_tensor *labels, sl_dataset **out);
/* An .npz, .npy or .safetensors file with arrays "images" and perhaps "labels", or "arr_0" and perhaps "arr_1".
 * u8 images of rank 4 may lie as [N,H,W,C], guided-diffusion's order: "arr_0" if its last dimension is 1 or 3,
 * "images" if the last dimension is and the second is not. The caller owns one reference to *out. FORMAT: no such
 * arrays; IO. */
SL_MUST_USE sl_status sl_dataset_from_npz(sl_context *ctx, const char *path, sl_dataset **out);

typedef struct sl_folder_options {
  int64_t size;      /* images become size x size, their middle, scaled as guided-diffusion does; 0: all of one size */
  int channels;      /* 3 (or 0), or 1 for grey */
  const char *index; /* a table of the images; NULL: "index.tsv" if it is there */
  bool skip;         /* leave out what cannot be read, each named through the context's log; else it is an error */
} sl_folder_options;

/* PNG and JPEG files below a folder. With an index (tab-separated, a first line of column names): column "file", below
 * the folder or its images/; "class" (or "group", "label"), numbered as the names sort; "caption" (or "name"). Without:
 * each subfolder is a class, in the order of its name; a folder without subfolders has no labels. Decoded when
 * needed; without `skip` a broken file is an error when it is first read, with it all are read once at the start. NULL
 * options: all 0. The caller owns one reference to *out. ARG, FORMAT, IO. */
SL_MUST_USE sl_status sl_dataset_from_folder(sl_context *ctx, const char *path, const sl_folder_options *o,
                                             sl_dataset **out);
/* A packed set (sl_dataset_write_pack), checked chunk by chunk as it is read; skip: broken chunks are named through the
 * log and left out, which reads all of it once. The caller owns one reference to *out. FORMAT, IO. */
SL_MUST_USE sl_status sl_dataset_from_pack(sl_context *ctx, const char *path, bool skip, sl_dataset **out);

typedef struct sl_pack_options {
  int level;        /* of zstd, 1 … 19; 0: 19 */
  const char *note; /* source and licence; NULL: none */
  /* Called now and then with the images written; false stops (CANCELLED). NULL: not. */
  bool (*progress)(void *user, int64_t done, int64_t count);
  void *user;
} sl_pack_options;

/* Writes u8 images, labels, class names and captions as a pack; the file appears whole or not at all. DTYPE: the images
 * are floats. */
SL_MUST_USE sl_status sl_dataset_write_pack(const sl_dataset *d, const char *path, const sl_pack_options *o);
/* Keeps `held` images back, the same ones for the same data set, drawn without a seed. The caller owns one reference to
 * each part. ARG. */
SL_MUST_USE sl_status sl_dataset_split(sl_dataset *d, int64_t held, sl_dataset **train, sl_dataset **holdout);
sl_context *sl_dataset_context(const sl_dataset *d);
/* One reference more; returns d. */
sl_dataset *sl_dataset_retain(sl_dataset *d);
/* One reference less. NULL is allowed. */
void sl_dataset_release(sl_dataset *d);

int64_t sl_dataset_count(const sl_dataset *d);                      /* images */
sl_shape sl_dataset_image_shape(const sl_dataset *d);               /* [C,H,W] */
bool sl_dataset_is_bytes(const sl_dataset *d);                      /* u8 images, not floats */
int64_t sl_dataset_classes(const sl_dataset *d);                    /* the largest label + 1; 0: no labels */
const char *sl_dataset_class_name(const sl_dataset *d, int64_t k);  /* NULL: it has none */
int64_t sl_dataset_label(const sl_dataset *d, int64_t index);       /* 0 without labels or out of range */
const char *sl_dataset_caption(const sl_dataset *d, int64_t index); /* NULL: none */
const char *sl_dataset_note(const sl_dataset *d);                   /* of a pack: source and licence; "" */
bool sl_dataset_decodes(const sl_dataset *d);                       /* reading may mean decoding: a loader pays */
uint64_t sl_dataset_memory(const sl_dataset *d);                    /* bytes that decoded images may come to take */
uint64_t sl_dataset_digest(const sl_dataset *d);                    /* differs where images or labels differ */
/* Image `index` (0 … N-1) as f32 [C,H,W], u8 by x / 127.5 - 1; flip: mirrored left to right. ARG; FORMAT, IO: it cannot
 * be decoded. */
SL_MUST_USE sl_status sl_dataset_get(const sl_dataset *d, int64_t index, bool flip, float *out);
SL_MUST_USE sl_status sl_dataset_bytes(const sl_dataset *d, int64_t index, uint8_t *out); /* u8 [C,H,W]. DTYPE too */

#ifdef __cplusplus
}
#endif

#endif
