/* Device "gpu-host", for tests: the GPU's kernels run by gpu_host.h over memory that the host may not touch. All of it
 * is one range of addresses, closed but while a kernel, a copy or a library's stand-in runs: who reads a GPU's memory
 * from the host, as no real one allows, is stopped by a signal. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "gpu/gpu_host_control.h"
#include "tensor/device.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer) && !defined(__SANITIZE_ADDRESS__)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

enum { PAGE = 4096, ALIGN = 256, MOST_BLOCKS = 65536 };
static const size_t GIB = (size_t)1 << 30;

typedef struct block {
  size_t at, size; /* size: whole, with the red zone after it */
} block;

/* One range for all contexts of the process; tests use one thread. */
static struct {
  char *base;
  size_t size; /* addresses, not memory */
  size_t high; /* bytes that were ever handed out, in pages */
  block *blocks;
  int n, depth, devices;
  size_t used, peak;
} room;

/* --- opening and closing --- */

static void protect(int how) {
  if (room.high && mprotect(room.base, room.high, how)) sl_assert_failed("mprotect", __FILE__, __LINE__);
}

void sl_gpu_host_enter(void) {
  if (room.depth++ == 0) protect(PROT_READ | PROT_WRITE);
}

void sl_gpu_host_leave(void) {
  if (--room.depth == 0) protect(PROT_NONE);
}

/* SLUICE_GPU_HOST_ORDER: ascending (default), descending, or a number: shuffled by it. */
static void choose_order(void) {
  const char *order = getenv("SLUICE_GPU_HOST_ORDER");
  if (!order || !*order || !strcmp(order, "ascending")) return;
  bool descending = !strcmp(order, "descending");
  sl_gpu_host_order(descending ? 1 : 2, descending ? 0 : strtoull(order, NULL, 10));
}

/* SLUICE_GPU_HOST_GIB: of the device's memory; 8 unless set. To plan for a GPU of that size nothing is taken. */
static size_t size_asked_for(void) {
  const char *gib = getenv("SLUICE_GPU_HOST_GIB");
  long n = gib ? strtol(gib, NULL, 10) : 0;
  return (n > 0 && n <= 1024 ? (size_t)n : 8) * GIB;
}

static sl_status make_room(void) {
  if (room.base) return SL_STATUS_OK;
  room.size = size_asked_for();
  void *p = mmap(NULL, room.size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  void *list = mmap(NULL, MOST_BLOCKS * sizeof(block), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  SL_REQUIRE(p != MAP_FAILED && list != MAP_FAILED, OOM, "gpu-host: no room for %zu addresses", room.size);
  room.base = p;
  room.blocks = list;
  sl_gpu_host_hooks(sl_gpu_host_enter, sl_gpu_host_leave);
  choose_order();
  return SL_STATUS_OK;
}

/* --- memory: the lowest gap that fits --- */

static void *gpu_host_alloc(const sl_device *dev, sl_context *ctx, size_t bytes) {
  size_t size = (bytes + ALIGN - 1) / ALIGN * ALIGN + ALIGN, at = 0;
  int k = 0;
  (void)dev, (void)ctx;
  for (; k < room.n && room.blocks[k].at < at + size; k++) at = room.blocks[k].at + room.blocks[k].size;
  if (at + size > room.size || room.n == MOST_BLOCKS) {
    (void)sl_fail(SL_STATUS_OOM, "gpu-host is out of memory: %zu bytes asked for, %zu taken", bytes, room.used);
    return NULL;
  }
  memmove(room.blocks + k + 1, room.blocks + k, (size_t)(room.n - k) * sizeof(block));
  room.blocks[k] = (block){at, size};
  room.n++;
  room.used += size;
  if (room.used > room.peak) room.peak = room.used;
  size_t end = (at + size + PAGE - 1) / PAGE * PAGE;
  if (end > room.high) {
    room.high = end;
    protect(room.depth ? PROT_READ | PROT_WRITE : PROT_NONE);
  }
  char *p = room.base + at;
  sl_gpu_host_enter();
  ASAN_UNPOISON_MEMORY_REGION(p, size);
  memset(p, 0xff, bytes); /* NaN: device memory is not zero */
  ASAN_POISON_MEMORY_REGION(p + bytes, size - bytes);
  sl_gpu_host_leave();
  return p;
}

static void gpu_host_free(const sl_device *dev, sl_context *ctx, void *p) {
  (void)dev, (void)ctx;
  if (!p) return;
  size_t at = (size_t)((char *)p - room.base);
  int k = 0;
  while (k < room.n && room.blocks[k].at != at) k++;
  SL_ASSERT(k < room.n); /* not ours, or freed before */
  ASAN_POISON_MEMORY_REGION(p, room.blocks[k].size);
  room.used -= room.blocks[k].size;
  memmove(room.blocks + k, room.blocks + k + 1, (size_t)(room.n - k - 1) * sizeof(block));
  room.n--;
}

static sl_status gpu_host_memory(const sl_device *dev, sl_device_memory *out) {
  (void)dev;
  *out = (sl_device_memory){room.size - room.used, room.size, room.used, room.peak};
  return SL_STATUS_OK;
}

/* --- copies --- */

typedef struct copy_job {
  void *dst;
  const void *src;
  size_t bytes;
  int byte;
} copy_job;

static sl_status do_copy(void *job) {
  const copy_job *j = job;
  sl_gpu_host_enter();
  if (j->src) memmove(j->dst, j->src, j->bytes);
  else memset(j->dst, j->byte, j->bytes);
  sl_gpu_host_leave();
  return SL_STATUS_OK;
}

static sl_status gpu_host_copy(const sl_device *dev, void *dst, const void *src, size_t bytes, void *stream) {
  (void)dev, (void)stream;
  copy_job j = {dst, src, bytes, 0};
  return bytes ? sl_gpu_host_do(do_copy, &j, sizeof j) : SL_STATUS_OK;
}

/* Between the host and the device: waited for, unless a stream is given. */
static sl_status gpu_host_move(const sl_device *dev, void *dst, const void *src, size_t bytes, void *stream) {
  SL_TRY(gpu_host_copy(dev, dst, src, bytes, NULL));
  return stream ? SL_STATUS_OK : sl_device_take_fault(dev);
}

static sl_status gpu_host_fill(const sl_device *dev, void *dst, int byte, size_t bytes, void *stream) {
  (void)dev, (void)stream;
  copy_job j = {dst, NULL, bytes, byte};
  return bytes ? sl_gpu_host_do(do_copy, &j, sizeof j) : SL_STATUS_OK;
}

static sl_status gpu_host_sync(const sl_device *dev, void *stream) {
  (void)stream;
  return sl_device_take_fault(dev);
}

/* --- recording --- */

static sl_status record_begin(const sl_device *dev) {
  (void)dev;
  return sl_gpu_host_record_begin();
}

static sl_status record_end(const sl_device *dev, void **recording) {
  (void)dev;
  return sl_gpu_host_record_end(recording);
}

static sl_status replay(const sl_device *dev, void *recording) {
  (void)dev;
  return sl_gpu_host_replay(recording);
}

static void record_free(const sl_device *dev, void *recording) {
  (void)dev;
  sl_gpu_host_record_free(recording);
}

/* --- the driver --- */

typedef struct gpu_host_device {
  sl_device table;
  sl_gpu gpu;
  int64_t fault[SL_FAULT_WORDS];
} gpu_host_device;

static sl_status use(const sl_device *dev) {
  (void)dev;
  return SL_STATUS_OK;
}

static int count(void) { return 1; }
static const char *missing(void) { return ""; }

static sl_status open_device(sl_context *ctx, int index, const sl_device **out) {
  (void)index;
  *out = NULL;
  SL_TRY(make_room());
  gpu_host_device *d = sl_alloc_zero(ctx, sizeof *d);
  if (!d) return SL_STATUS_OOM;
  d->gpu = (sl_gpu){.ctx = ctx, .multiprocessors = 4, .stream = d}; /* any address that is not NULL */
  d->table = (sl_device){.kind = SL_DEVICE_GPU_HOST,
                         .name = "gpu-host",
                         .gpu = &d->gpu,
                         .alloc = gpu_host_alloc,
                         .free = gpu_host_free,
                         .copy_in = gpu_host_move,
                         .copy_out = gpu_host_move,
                         .copy = gpu_host_copy,
                         .fill = gpu_host_fill,
                         .sync = gpu_host_sync,
                         .fault = d->fault,
                         .host = &sl_device_cpu,
                         .use = use,
                         .memory = gpu_host_memory,
                         .record_begin = record_begin,
                         .record_end = record_end,
                         .replay = replay,
                         .record_free = record_free};
  *out = &d->table;
  return SL_STATUS_OK;
}

static void close_device(sl_context *ctx, const sl_device *dev) { sl_free(ctx, (void *)(uintptr_t)dev); }

const sl_device_driver sl_driver_gpu_host = {
    .prefix = "gpu-host", .count = count, .open = open_device, .close = close_device, .missing = missing};
