/* Data sets, the part that only the library uses; see sluice/datasets.h. */
#ifndef SL_DATA_DATASET_H
#define SL_DATA_DATASET_H

#include "sluice/datasets.h"
#include "tensor/tensor.h"

/* A part of the endless shuffled stream: sample g is position g % N of epoch g / N, whose order is the permutation
 * (seed, SL_STREAM_ORDER, epoch); with `flip`, g's draw of SL_STREAM_FLIP mirrors half of them. */
typedef struct sl_stream_part {
  uint32_t seed;
  int64_t first, n;
  bool flip;
} sl_stream_part;
/* Samples first … first+n-1. images: f32 [n,C,H,W]; labels: [n], or NULL; zeros without labels. On the calling thread;
 * sl_dataset_batch uses the context's. ARG; FORMAT, IO. */
SL_MUST_USE sl_status sl_dataset_fill(const sl_dataset *d, const sl_stream_part *p, float *images, int64_t *labels);
SL_MUST_USE sl_status sl_dataset_batch(const sl_dataset *d, uint32_t seed, int64_t first, int64_t n, bool flip,
                                       float *images, int64_t *labels);

#endif
