/* Threads that decode batches ahead of the training. */
#ifndef SL_DATA_LOADER_H
#define SL_DATA_LOADER_H

#include "data/dataset.h"

typedef struct sl_loader sl_loader;

/* Batches of part.n samples of the shuffled stream from part.first on, decoded by `threads` threads (1 … 64), up to
 * threads + 1 batches ahead. What comes out does not depend on the number of threads. Retains d. */
SL_MUST_USE sl_status sl_loader_new(sl_dataset *d, const sl_stream_part *part, int threads, sl_loader **out);
void sl_loader_free(sl_loader *l); /* waits for the batches being decoded; NULL is allowed */
/* The next batch, copied. images: f32 [n,C,H,W]; labels: [n], or NULL. A thread's error comes out in its batch's turn,
 * and again at each further call; CANCELLED. */
SL_MUST_USE sl_status sl_loader_next(sl_loader *l, float *images, int64_t *labels);
uint64_t sl_loader_memory(const sl_dataset *d, int64_t batch, int threads); /* bytes of its batches */

#endif
