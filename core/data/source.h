/* Where a data set's images lie: chunks of whole images that are decoded one chunk at a time, through a cache of
 * decoded chunks that threads share. Only core/data includes this. */
#ifndef SL_DATA_SOURCE_H
#define SL_DATA_SOURCE_H

#include <pthread.h>
#include <stdatomic.h>

#include "tensor/tensor.h"

typedef struct sl_source sl_source;

typedef struct sl_source_kind {
  const char *name;
  /* Writes the chunk's images, u8 [images][C,H,W], to out; called from any thread. The text of an error names the file.
   */
  sl_status (*decode)(sl_source *s, int64_t chunk, uint8_t *out);
  void (*free)(sl_source *s); /* of `data`; also for one half made */
} sl_source_kind;

typedef struct sl_chunk_slot {
  uint8_t *bytes; /* NULL: not in the cache */
  int pins;       /* readers */
  bool busy;      /* a thread decodes it */
  bool touched;   /* since the clock's hand passed */
} sl_chunk_slot;

struct sl_source {
  sl_context *ctx;
  atomic_int references;
  const sl_source_kind *kind;
  void *data;     /* of the kind */
  sl_shape shape; /* [C,H,W] */
  int64_t count, chunks;
  int64_t *first; /* [chunks + 1]: number of each chunk's first image */
  int32_t *labels;
  int64_t classes; /* largest label + 1, or more names; 0: no labels */
  char **names;    /* [classes] of the classes, or NULL */
  char **captions; /* [count], or NULL; entries may be NULL */
  uint64_t digest; /* of what the images are */
  /* the cache */
  pthread_mutex_t lock;
  pthread_cond_t decoded;
  sl_chunk_slot *slots;
  uint64_t cached, budget; /* bytes */
  int64_t hand;
};

/* Takes over data, which kind->free frees, also when this fails. The caller fills in the rest, then calls
 * sl_source_ready. */
sl_status sl_source_new(sl_context *ctx, const sl_source_kind *kind, void *data, sl_source **out);
sl_status sl_source_ready(sl_source *s); /* shape, count, chunks and first are set */
sl_source *sl_source_retain(sl_source *s);
void sl_source_release(sl_source *s);
int64_t sl_source_image_bytes(const sl_source *s);
int64_t sl_source_chunk_of(const sl_source *s, int64_t image);
/* The decoded chunk, which stays until it is unpinned. */
sl_status sl_source_pin(sl_source *s, int64_t chunk, const uint8_t **bytes);
void sl_source_unpin(sl_source *s, int64_t chunk);

#endif
