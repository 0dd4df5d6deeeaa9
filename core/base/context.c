#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* sched_getaffinity */
#endif
#include "base/context.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 64, MAX_THREADS = 1024 };
#define BLOCK_MAGIC UINT64_C(0x736c756963652121)

typedef struct attachment {
  struct attachment *next;
  const void *key;
  void *what;
  void (*free)(sl_context *ctx, void *what);
} attachment;

struct sl_context {
  sl_context_options options;
  attachment *attachments; /* the latest first */
  atomic_int threads, isa;
  atomic_bool cancelled;
  pthread_t owner;  /* the pressure hook may be Lua's collector: it runs on the thread that made the context, only */
  bool in_pressure; /* owner's thread only */
  atomic_uint_fast64_t bytes, peak, blocks, calls, device_bytes;
  atomic_int_fast64_t fail_after;
};

typedef struct block_header {
  alignas(ALIGN) uint64_t magic;
  size_t bytes; /* as asked for */
  size_t total; /* as taken from the allocator */
} block_header;
_Static_assert(sizeof(block_header) == ALIGN, "a block's header must keep the alignment");

static void *default_alloc(void *user, size_t bytes) {
  (void)user;
  return aligned_alloc(ALIGN, bytes);
}

static void default_free(void *user, void *p, size_t bytes) {
  (void)user;
  (void)bytes;
  free(p);
}

static size_t round_up(size_t bytes) { return (bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1); }

static int usable_cores(void) {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  int n = CPU_COUNT(&set);
  return n > 0 ? n : 1;
}

/* --- isa --- */

const char *sl_isa_name(sl_isa isa) {
  static const char *const names[] = {"base", "avx2", "avx512"};
  return (unsigned)isa < sizeof names / sizeof *names ? names[isa] : "?";
}

sl_isa sl_isa_machine(void) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return SL_ISA_BASE;
  unsigned a, b, c, d; /* F16C by cpuid: clang 14 cannot name it above */
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_F16C)) return SL_ISA_BASE;
  bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  return avx512 ? SL_ISA_AVX512 : SL_ISA_AVX2;
#else
  return SL_ISA_BASE;
#endif
}

sl_isa sl_context_isa(const sl_context *ctx) { return (sl_isa)atomic_load_explicit(&ctx->isa, memory_order_relaxed); }

void sl_context_set_isa(sl_context *ctx, sl_isa isa) {
  sl_isa best = sl_isa_machine();
  atomic_store(&ctx->isa, (int)(isa > best ? best : isa));
}

static void isa_from_environment(sl_context *ctx) {
  sl_context_set_isa(ctx, SL_ISA_AVX512);
  const char *want = getenv("SLUICE_ISA");
  if (!want || !*want) return;
  for (int i = SL_ISA_BASE; i <= SL_ISA_AVX512; i++) {
    if (strcmp(want, sl_isa_name((sl_isa)i)) == 0) {
      sl_context_set_isa(ctx, (sl_isa)i);
      return;
    }
  }
  sl_context_log(ctx, "SLUICE_ISA=%s is not known and ignored; expected base, avx2 or avx512", want);
}

/* --- the context --- */

sl_status sl_context_new(const sl_context_options *options, sl_context **out) {
  *out = NULL;
  sl_context_options o = {0};
  if (options) o = *options;
  SL_REQUIRE(!o.alloc == !o.free, ARG, "context: alloc and free must be given together");
  SL_REQUIRE(o.threads >= 0, ARG, "context: threads is %d, expected 0 (all cores) or more", o.threads);
  if (!o.alloc) {
    o.alloc = default_alloc;
    o.free = default_free;
  }
  sl_context *ctx = o.alloc(o.user, round_up(sizeof *ctx));
  SL_REQUIRE(ctx, OOM, "context: no memory for %zu bytes", sizeof *ctx);
  memset(ctx, 0, sizeof *ctx);
  ctx->options = o;
  ctx->owner = pthread_self();
  atomic_init(&ctx->fail_after, -1);
  sl_context_set_threads(ctx, o.threads ? o.threads : usable_cores());
  isa_from_environment(ctx);
  *out = ctx;
  return SL_STATUS_OK;
}

void sl_context_free(sl_context *ctx) {
  if (!ctx) return;
  while (ctx->attachments) {
    attachment *a = ctx->attachments;
    ctx->attachments = a->next;
    a->free(ctx, a->what);
    sl_free(ctx, a);
  }
  sl_memory m = sl_context_memory(ctx);
  if (m.blocks) {
    sl_context_log(ctx, "context freed while %" PRIu64 " blocks (%" PRIu64 " bytes) made from it are alive", m.blocks,
                   m.bytes);
  }
  ctx->options.free(ctx->options.user, ctx, round_up(sizeof *ctx));
}

sl_status sl_context_attach(sl_context *ctx, const void *key, void *what,
                            void (*free_what)(sl_context *ctx, void *what)) {
  attachment *a = sl_alloc(ctx, sizeof *a);
  if (!a) return SL_STATUS_OOM;
  *a = (attachment){ctx->attachments, key, what, free_what};
  ctx->attachments = a;
  return SL_STATUS_OK;
}

void *sl_context_attached(const sl_context *ctx, const void *key) {
  for (const attachment *a = ctx->attachments; a; a = a->next)
    if (a->key == key) return a->what;
  return NULL;
}

int sl_context_threads(const sl_context *ctx) { return atomic_load_explicit(&ctx->threads, memory_order_relaxed); }

void sl_context_set_threads(sl_context *ctx, int threads) {
  atomic_store(&ctx->threads, threads < 1 ? 1 : threads > MAX_THREADS ? MAX_THREADS : threads);
}

void sl_context_log(sl_context *ctx, const char *fmt, ...) {
  if (!ctx->options.log) return;
  char text[1024];
  va_list args;
  va_start(args, fmt);
  vsnprintf(text, sizeof text, fmt, args);
  va_end(args);
  ctx->options.log(ctx->options.user, text);
}

void sl_context_cancel(sl_context *ctx) { atomic_store(&ctx->cancelled, true); }
void sl_context_cancel_clear(sl_context *ctx) { atomic_store(&ctx->cancelled, false); }
bool sl_context_cancelled(const sl_context *ctx) { return atomic_load_explicit(&ctx->cancelled, memory_order_relaxed); }

/* --- memory --- */

/* Reserves the bytes first and gives them back on failure, so that threads together never pass the limit. */
static void *try_alloc(sl_context *ctx, size_t bytes, size_t total) {
  uint64_t now = atomic_fetch_add(&ctx->bytes, bytes) + bytes;
  uint64_t limit = ctx->options.memory_limit;
  block_header *h = limit && now > limit ? NULL : ctx->options.alloc(ctx->options.user, total);
  if (!h) {
    atomic_fetch_sub(&ctx->bytes, bytes);
    return NULL;
  }
  uint_fast64_t peak = atomic_load(&ctx->peak);
  while (now > peak && !atomic_compare_exchange_weak(&ctx->peak, &peak, now)) continue;
  atomic_fetch_add(&ctx->blocks, 1);
  *h = (block_header){.magic = BLOCK_MAGIC, .bytes = bytes, .total = total};
  return h + 1;
}

static void *fail_alloc(sl_context *ctx, size_t bytes) {
  uint64_t used = atomic_load(&ctx->bytes), limit = ctx->options.memory_limit;
  if (limit) {
    (void)sl_fail(SL_STATUS_OOM, "out of memory: %zu bytes requested, %" PRIu64 " used of a limit of %" PRIu64, bytes,
                  used, limit);
  } else {
    (void)sl_fail(SL_STATUS_OOM, "out of memory: %zu bytes requested, %" PRIu64 " used, no limit set", bytes, used);
  }
  return NULL;
}

/* False when a test wants this call to fail. The counter goes down to 0 and stays there: all later calls fail too. */
static bool allowed(sl_context *ctx) {
  int_fast64_t left = atomic_load(&ctx->fail_after);
  while (left > 0) {
    if (atomic_compare_exchange_weak(&ctx->fail_after, &left, left - 1)) return true;
  }
  return left < 0;
}

void sl_context_pressure(sl_context *ctx) {
  if (!ctx->options.pressure || !pthread_equal(pthread_self(), ctx->owner) || ctx->in_pressure) return;
  ctx->in_pressure = true;
  ctx->options.pressure(ctx->options.user);
  ctx->in_pressure = false;
}

void *sl_alloc(sl_context *ctx, size_t bytes) {
  atomic_fetch_add(&ctx->calls, 1);
  bool ok = allowed(ctx) && bytes <= SIZE_MAX / 2;
  size_t total = ok ? round_up(bytes ? bytes : 1) + sizeof(block_header) : 0;
  void *p = ok ? try_alloc(ctx, bytes, total) : NULL;
  if (p) return p;
  sl_context_pressure(ctx);
  p = ok ? try_alloc(ctx, bytes, total) : NULL;
  return p ? p : fail_alloc(ctx, bytes);
}

void *sl_alloc_zero(sl_context *ctx, size_t bytes) {
  void *p = sl_alloc(ctx, bytes);
  if (p) memset(p, 0, bytes);
  return p;
}

static block_header *header_of(void *p) {
  block_header *h = (block_header *)p - 1;
  SL_ASSERT(h->magic == BLOCK_MAGIC); /* not ours, freed before, or written over */
  return h;
}

void *sl_realloc(sl_context *ctx, void *p, size_t bytes) {
  if (!p) return sl_alloc(ctx, bytes);
  size_t old = header_of(p)->bytes;
  if (bytes <= old) return p;
  void *grown = sl_alloc(ctx, bytes);
  if (!grown) return NULL;
  memcpy(grown, p, old);
  sl_free(ctx, p);
  return grown;
}

void sl_free(sl_context *ctx, void *p) {
  if (!p) return;
  block_header *h = header_of(p);
  h->magic = 0;
  atomic_fetch_sub(&ctx->bytes, h->bytes);
  atomic_fetch_sub(&ctx->blocks, 1);
  ctx->options.free(ctx->options.user, h, h->total);
}

char *sl_strdup(sl_context *ctx, const char *text) {
  size_t n = strlen(text) + 1;
  char *copy = sl_alloc(ctx, n);
  if (copy) memcpy(copy, text, n);
  return copy;
}

uint64_t sl_context_memory_limit(const sl_context *ctx) { return ctx->options.memory_limit; }
void sl_context_set_memory_limit(sl_context *ctx, uint64_t bytes) { ctx->options.memory_limit = bytes; }

sl_memory sl_context_memory(const sl_context *ctx) {
  return (sl_memory){.bytes = atomic_load(&ctx->bytes),
                     .peak_bytes = atomic_load(&ctx->peak),
                     .blocks = atomic_load(&ctx->blocks),
                     .calls = atomic_load(&ctx->calls),
                     .device_bytes = atomic_load(&ctx->device_bytes)};
}

void sl_context_count_device(sl_context *ctx, int64_t bytes) { atomic_fetch_add(&ctx->device_bytes, (uint64_t)bytes); }

void sl_context_reset_peak(sl_context *ctx) { atomic_store(&ctx->peak, atomic_load(&ctx->bytes)); }

void sl_context_fail_after(sl_context *ctx, int64_t n) { atomic_store(&ctx->fail_after, n < 0 ? -1 : n); }
