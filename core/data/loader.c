#include "data/loader.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { MAX_THREADS = 64, TEXT = 512 };

typedef struct slot {
  int64_t number; /* of the batch in it, from 0; -1: none yet */
  float *images;
  int64_t *labels;
  sl_status status;
  char text[TEXT]; /* of the error: error texts belong to threads */
} slot;

struct sl_loader {
  sl_context *ctx;
  sl_dataset *d;
  sl_stream_part part;
  int64_t image_size;
  pthread_mutex_t lock;
  pthread_cond_t changed;
  pthread_t threads[MAX_THREADS];
  int n_threads, n_slots;
  slot slots[MAX_THREADS + 1];
  int64_t taken; /* batches handed to threads */
  int64_t given; /* batches handed to the caller */
  bool stop;
};

static void decode(sl_loader *l, slot *s, int64_t number) {
  sl_stream_part p = l->part;
  p.first += number * p.n;
  s->status = sl_dataset_fill(l->d, &p, s->images, s->labels);
  s->text[0] = 0;
  if (s->status != SL_STATUS_OK) snprintf(s->text, sizeof s->text, "%s", sl_error());
}

static void *work(void *user) {
  sl_loader *l = user;
  pthread_mutex_lock(&l->lock);
  while (!l->stop) {
    if (l->taken >= l->given + l->n_slots) {
      pthread_cond_wait(&l->changed, &l->lock);
      continue;
    }
    int64_t number = l->taken++;
    slot *s = &l->slots[number % l->n_slots];
    pthread_mutex_unlock(&l->lock);
    decode(l, s, number);
    pthread_mutex_lock(&l->lock);
    s->number = number;
    pthread_cond_broadcast(&l->changed);
  }
  pthread_mutex_unlock(&l->lock);
  return NULL;
}

/* Signals are the main thread's: a handler may look at thread-local things. */
static sl_status start_threads(sl_loader *l, int n) {
  sigset_t all, old;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  int rc = 0;
  while (l->n_threads < n && rc == 0) {
    rc = pthread_create(&l->threads[l->n_threads], NULL, work, l);
    if (rc == 0) l->n_threads++;
  }
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  SL_REQUIRE(l->n_threads > 0, OOM, "loader: no thread could be started: %s", strerror(rc));
  return SL_STATUS_OK;
}

sl_status sl_loader_new(sl_dataset *d, const sl_stream_part *part, int threads, sl_loader **out) {
  *out = NULL;
  SL_REQUIRE(threads >= 1 && threads <= MAX_THREADS, ARG, "loader: threads is %d, expected 1 … %d", threads,
             MAX_THREADS);
  SL_REQUIRE(part->n > 0 && part->first >= 0, ARG, "loader: %lld samples from %lld on, expected at least 1 from 0",
             (long long)part->n, (long long)part->first);
  sl_shape s = sl_dataset_image_shape(d);
  sl_context *ctx = sl_dataset_context(d);
  sl_loader *l = sl_alloc_zero(ctx, sizeof *l);
  if (!l) return SL_STATUS_OOM;
  l->ctx = ctx;
  l->d = sl_dataset_retain(d);
  l->part = *part;
  l->image_size = sl_shape_numel(&s);
  pthread_mutex_init(&l->lock, NULL);
  pthread_condattr_t attributes;
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_cond_init(&l->changed, &attributes);
  pthread_condattr_destroy(&attributes);
  l->n_slots = threads + 1;
  sl_status status = SL_STATUS_OK;
  for (int i = 0; i < l->n_slots && status == SL_STATUS_OK; i++) {
    l->slots[i].number = -1;
    l->slots[i].images = sl_alloc(ctx, (size_t)(part->n * l->image_size) * sizeof(float));
    l->slots[i].labels = sl_alloc(ctx, (size_t)part->n * sizeof(int64_t));
    if (!l->slots[i].images || !l->slots[i].labels) status = SL_STATUS_OOM;
  }
  if (status == SL_STATUS_OK) status = start_threads(l, threads);
  if (status == SL_STATUS_OK) *out = l;
  else sl_loader_free(l);
  return status;
}

void sl_loader_free(sl_loader *l) {
  if (!l) return;
  pthread_mutex_lock(&l->lock);
  l->stop = true;
  pthread_cond_broadcast(&l->changed);
  pthread_mutex_unlock(&l->lock);
  for (int i = 0; i < l->n_threads; i++) pthread_join(l->threads[i], NULL);
  for (int i = 0; i < l->n_slots; i++) {
    sl_free(l->ctx, l->slots[i].images);
    sl_free(l->ctx, l->slots[i].labels);
  }
  pthread_mutex_destroy(&l->lock);
  pthread_cond_destroy(&l->changed);
  sl_dataset_release(l->d);
  sl_free(l->ctx, l);
}

/* Waits at most a tenth of a second, so that a cancellation is seen. The lock is held. */
static void wait_a_little(sl_loader *l) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  t.tv_nsec += 100000000;
  if (t.tv_nsec >= 1000000000) t.tv_nsec -= 1000000000, t.tv_sec++;
  pthread_cond_timedwait(&l->changed, &l->lock, &t);
}

sl_status sl_loader_next(sl_loader *l, float *images, int64_t *labels) {
  slot *s = &l->slots[l->given % l->n_slots];
  pthread_mutex_lock(&l->lock);
  while (s->number != l->given && !sl_context_cancelled(l->ctx)) wait_a_little(l);
  bool there = s->number == l->given;
  pthread_mutex_unlock(&l->lock);
  SL_REQUIRE(there, CANCELLED, "cancelled while waiting for data");
  if (s->status != SL_STATUS_OK) return sl_fail(s->status, "%s", s->text);
  memcpy(images, s->images, (size_t)(l->part.n * l->image_size) * sizeof(float));
  if (labels) memcpy(labels, s->labels, (size_t)l->part.n * sizeof(int64_t));
  pthread_mutex_lock(&l->lock);
  l->given++;
  pthread_cond_broadcast(&l->changed);
  pthread_mutex_unlock(&l->lock);
  return SL_STATUS_OK;
}

uint64_t sl_loader_memory(const sl_dataset *d, int64_t batch, int threads) {
  sl_shape s = sl_dataset_image_shape(d);
  return (uint64_t)(threads + 1) * (uint64_t)batch * ((uint64_t)sl_shape_numel(&s) * sizeof(float) + sizeof(int64_t));
}
