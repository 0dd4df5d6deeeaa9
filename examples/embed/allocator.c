/* An allocator, a log and error handling of the host's own:  allocator CHECKPOINT
 * Loads and samples again and again; the first run's first allocation fails, the next run's second one, and so on,
 * until a run gets all that it needs. Every failure comes back as a status, and none leaves a block behind. */
#include <sluice.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct accounts {
  atomic_llong bytes, peak, blocks, left; /* left: allocations until they fail */
} accounts;

static void *counted_alloc(void *user, size_t bytes) {
  accounts *a = user;
  if (atomic_fetch_sub(&a->left, 1) <= 0) return NULL;
  void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (!p) return NULL;
  atomic_fetch_add(&a->blocks, 1);
  long long now = atomic_fetch_add(&a->bytes, (long long)bytes) + (long long)bytes;
  if (now > atomic_load(&a->peak)) atomic_store(&a->peak, now);
  return p;
}

static void counted_free(void *user, void *p, size_t bytes) {
  accounts *a = user;
  atomic_fetch_sub(&a->blocks, 1);
  atomic_fetch_sub(&a->bytes, (long long)bytes);
  free(p);
}

static void on_log(void *user, const char *text) {
  (void)user;
  fprintf(stderr, "allocator: %s\n", text);
}

static sl_status run(accounts *a, const char *path) {
  sl_context_options options = {.alloc = counted_alloc, .free = counted_free, .log = on_log, .user = a};
  sl_context *ctx = NULL;
  sl_model *model = NULL;
  sl_tensor *images = NULL;
  sl_status status = sl_context_new(&options, &ctx);
  if (status == SL_STATUS_OK) status = sl_model_load(ctx, path, &model);
  if (status == SL_STATUS_OK) {
    sl_sample_options o = sl_sample_defaults(model);
    o.n = o.steps = 2;
    status = sl_sample(model, &o, &images);
  }
  sl_tensor_release(images);
  sl_model_release(model);
  sl_context_free(ctx);
  return status;
}

int main(int argc, char **argv) {
  if (argc != 2) return fprintf(stderr, "usage: allocator CHECKPOINT\n"), 2;
  accounts a = {0};
  int failed = 0;
  for (long long n = 0;; n += 1 + n / 50, failed++) {
    atomic_store(&a.left, n);
    sl_status status = run(&a, argv[1]);
    if (a.blocks != 0) return printf("after %lld allocations %lld blocks are left\n", n, (long long)a.blocks), 1;
    if (status == SL_STATUS_OK) break;
    if (status != SL_STATUS_OOM) return fprintf(stderr, "allocator: %s\n", sl_error()), 1;
  }
  printf("%d runs failed (the last: %s), none leaked; the whole one took at most %.1f MiB\n", failed, sl_error(),
         (double)a.peak / (1 << 20));
  return 0;
}
