#include "data/source.h"

enum { DEFAULT_BUDGET = 512 << 20 };

sl_status sl_source_new(sl_context *ctx, const sl_source_kind *kind, void *data, sl_source **out) {
  *out = NULL;
  sl_source *s = sl_alloc_zero(ctx, sizeof *s);
  sl_source half = {.ctx = ctx, .kind = kind, .data = data};
  if (!s) {
    kind->free(&half);
    return SL_STATUS_OOM;
  }
  *s = half;
  s->budget = DEFAULT_BUDGET;
  atomic_init(&s->references, 1);
  pthread_mutex_init(&s->lock, NULL);
  pthread_cond_init(&s->decoded, NULL);
  *out = s;
  return SL_STATUS_OK;
}

sl_status sl_source_ready(sl_source *s) {
  s->slots = sl_alloc_zero(s->ctx, (size_t)(s->chunks ? s->chunks : 1) * sizeof *s->slots);
  return s->slots ? SL_STATUS_OK : SL_STATUS_OOM;
}

sl_source *sl_source_retain(sl_source *s) {
  atomic_fetch_add(&s->references, 1);
  return s;
}

static void free_texts(sl_context *ctx, char **texts, int64_t n) {
  for (int64_t i = 0; texts && i < n; i++) sl_free(ctx, texts[i]);
  sl_free(ctx, texts);
}

void sl_source_release(sl_source *s) {
  if (!s || atomic_fetch_sub(&s->references, 1) != 1) return;
  sl_context *ctx = s->ctx;
  s->kind->free(s);
  for (int64_t i = 0; s->slots && i < s->chunks; i++) sl_free(ctx, s->slots[i].bytes);
  sl_free(ctx, s->slots);
  sl_free(ctx, s->first);
  sl_free(ctx, s->labels);
  free_texts(ctx, s->names, s->classes);
  free_texts(ctx, s->captions, s->count);
  pthread_mutex_destroy(&s->lock);
  pthread_cond_destroy(&s->decoded);
  sl_free(ctx, s);
}

int64_t sl_source_image_bytes(const sl_source *s) { return s->shape.dim[0] * s->shape.dim[1] * s->shape.dim[2]; }

int64_t sl_source_chunk_of(const sl_source *s, int64_t image) {
  int64_t lo = 0, hi = s->chunks - 1; /* the last chunk that begins at or before the image */
  while (lo < hi) {
    int64_t mid = (lo + hi + 1) / 2;
    if (s->first[mid] <= image) lo = mid;
    else hi = mid - 1;
  }
  return lo;
}

static uint64_t chunk_bytes(const sl_source *s, int64_t chunk) {
  return (uint64_t)(s->first[chunk + 1] - s->first[chunk]) * (uint64_t)sl_source_image_bytes(s);
}

/* Frees chunks that nobody reads until `more` bytes fit, second chance first. The lock is held. */
static void make_room(sl_source *s, uint64_t more, uint64_t budget) {
  for (int64_t seen = 0; s->cached + more > budget && seen < 2 * s->chunks; seen++) {
    int64_t at = s->hand;
    s->hand = (at + 1) % s->chunks;
    sl_chunk_slot *slot = &s->slots[at];
    if (!slot->bytes || slot->pins) continue;
    if (slot->touched) {
      slot->touched = false;
      continue;
    }
    sl_free(s->ctx, slot->bytes);
    slot->bytes = NULL;
    s->cached -= chunk_bytes(s, at);
  }
}

/* Decodes without the lock; the slot is marked busy. */
static sl_status decode_slot(sl_source *s, int64_t chunk, uint8_t **out) {
  uint64_t bytes = chunk_bytes(s, chunk);
  uint8_t *p = sl_alloc(s->ctx, bytes);
  if (!p) { /* the context's limit: the cache gives way */
    pthread_mutex_lock(&s->lock);
    make_room(s, 0, 0);
    make_room(s, 0, 0);
    pthread_mutex_unlock(&s->lock);
    p = sl_alloc(s->ctx, bytes);
  }
  if (!p) return SL_STATUS_OOM;
  sl_status status = s->kind->decode(s, chunk, p);
  if (status != SL_STATUS_OK) {
    sl_free(s->ctx, p);
    p = NULL;
  }
  *out = p;
  return status;
}

sl_status sl_source_pin(sl_source *s, int64_t chunk, const uint8_t **bytes) {
  sl_chunk_slot *slot = &s->slots[chunk];
  sl_status status = SL_STATUS_OK;
  pthread_mutex_lock(&s->lock);
  while (slot->busy) pthread_cond_wait(&s->decoded, &s->lock);
  if (!slot->bytes) {
    slot->busy = true;
    make_room(s, chunk_bytes(s, chunk), s->budget);
    pthread_mutex_unlock(&s->lock);
    uint8_t *p = NULL;
    status = decode_slot(s, chunk, &p);
    pthread_mutex_lock(&s->lock);
    slot->bytes = p;
    slot->busy = false;
    if (p) s->cached += chunk_bytes(s, chunk);
    pthread_cond_broadcast(&s->decoded);
  }
  if (status == SL_STATUS_OK) {
    slot->pins++;
    slot->touched = true;
    *bytes = slot->bytes;
  }
  pthread_mutex_unlock(&s->lock);
  return status;
}

void sl_source_unpin(sl_source *s, int64_t chunk) {
  pthread_mutex_lock(&s->lock);
  s->slots[chunk].pins--;
  pthread_mutex_unlock(&s->lock);
}
