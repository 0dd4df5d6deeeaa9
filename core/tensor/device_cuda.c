/* CUDA devices: memory, copies, recording. One stream for each device of a context; everything runs in its order. */
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/blas.h"
#include "gpu/dnn.h"
#include "gpu/gpu_libraries.h"
#include "tensor/device.h"

enum { LEAST_SM = 80 };

typedef struct cuda_device {
  sl_device table, host;
  sl_gpu gpu;
  char name[32];
  cudaMemPool_t pool;
} cuda_device;

static cuda_device *of(const sl_device *dev) { return (cuda_device *)((uintptr_t)dev - offsetof(cuda_device, table)); }
static cudaStream_t stream_of(const sl_device *dev) { return (cudaStream_t)dev->gpu->stream; }

static sl_status failed(const sl_device *dev, const char *what, cudaError_t error) {
  (void)cudaGetLastError(); /* a launch error is told once */
  return sl_fail(error == cudaErrorMemoryAllocation ? SL_STATUS_OOM : SL_STATUS_DEVICE, "%s: %s: %s", dev->name, what,
                 cudaGetErrorString(error));
}

#define CUDA(dev, what, call)                                                                                          \
  do {                                                                                                                 \
    cudaError_t cuda_error_ = (call);                                                                                  \
    if (cuda_error_ != cudaSuccess) return failed(dev, what, cuda_error_);                                             \
  } while (0)

static sl_status use(const sl_device *dev) {
  CUDA(dev, "choosing the device", cudaSetDevice(dev->gpu->index));
  return SL_STATUS_OK;
}

/* --- memory --- */

static sl_status pool_value(const sl_device *dev, enum cudaMemPoolAttr what, uint64_t *out) {
  CUDA(dev, "asking for its pool", cudaMemPoolGetAttribute(of(dev)->pool, what, out));
  return SL_STATUS_OK;
}

static sl_status memory(const sl_device *dev, sl_device_memory *out) {
  size_t unused, all;
  uint64_t reserved;
  SL_TRY(use(dev));
  CUDA(dev, "asking for its memory", cudaMemGetInfo(&unused, &all));
  SL_TRY(pool_value(dev, cudaMemPoolAttrReservedMemCurrent, &reserved));
  SL_TRY(pool_value(dev, cudaMemPoolAttrUsedMemCurrent, &out->used));
  SL_TRY(pool_value(dev, cudaMemPoolAttrUsedMemHigh, &out->peak));
  out->available = unused + (reserved - out->used);
  out->total = all;
  return SL_STATUS_OK;
}

static double mib(uint64_t bytes) { return (double)bytes / 1048576.0; }

static void tell_exhausted(const sl_device *dev, size_t bytes) {
  sl_device_memory m;
  if (memory(dev, &m) != SL_STATUS_OK) return;
  (void)sl_fail(SL_STATUS_OOM,
                "%s is out of memory: %.1f MiB asked for, %.1f of %.1f MiB free, %.1f MiB taken by this process",
                dev->name, mib(bytes), mib(m.available), mib(m.total), mib(m.used));
}

static void *try_alloc(const sl_device *dev, size_t bytes, cudaError_t *error) {
  void *p = NULL;
  *error = cudaMallocAsync(&p, bytes ? bytes : 1, stream_of(dev));
  if (*error == cudaSuccess) return p;
  (void)cudaGetLastError();
  return NULL;
}

static void *cuda_alloc(const sl_device *dev, sl_context *ctx, size_t bytes) {
  cudaError_t error;
  if (use(dev) != SL_STATUS_OK) return NULL;
  void *p = try_alloc(dev, bytes, &error);
  if (!p && error == cudaErrorMemoryAllocation) { /* what is cached, and what a collector could free */
    sl_context_pressure(ctx);
    cudaStreamSynchronize(stream_of(dev));
    cudaMemPoolTrimTo(of(dev)->pool, 0);
    p = try_alloc(dev, bytes, &error);
  }
  if (p) return p;
  if (error == cudaErrorMemoryAllocation) tell_exhausted(dev, bytes);
  else (void)failed(dev, "taking memory", error);
  return NULL;
}

static void cuda_free(const sl_device *dev, sl_context *ctx, void *p) {
  (void)ctx;
  if (!p || use(dev) != SL_STATUS_OK) return;
  cudaFreeAsync(p, stream_of(dev));
}

/* --- copies --- */

static sl_status sync(const sl_device *dev, void *stream) {
  (void)stream;
  SL_TRY(use(dev));
  CUDA(dev, "what ran before failed (SLUICE_CUDA_SYNC=1 tells which operation)", cudaStreamSynchronize(stream_of(dev)));
  return sl_device_take_fault(dev);
}

static sl_status move(const sl_device *dev, void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind,
                      bool wait) {
  if (!bytes) return SL_STATUS_OK;
  SL_TRY(use(dev));
  CUDA(dev, "copying", cudaMemcpyAsync(dst, src, bytes, kind, stream_of(dev)));
  return wait ? sync(dev, NULL) : SL_STATUS_OK;
}

static sl_status copy_in(const sl_device *dev, void *dst, const void *host, size_t bytes, void *stream) {
  return move(dev, dst, host, bytes, cudaMemcpyHostToDevice, !stream);
}

static sl_status copy_out(const sl_device *dev, void *host, const void *src, size_t bytes, void *stream) {
  return move(dev, host, src, bytes, cudaMemcpyDeviceToHost, !stream);
}

static sl_status copy(const sl_device *dev, void *dst, const void *src, size_t bytes, void *stream) {
  (void)stream; /* nobody else sees the device's memory: order is enough */
  return move(dev, dst, src, bytes, cudaMemcpyDeviceToDevice, false);
}

static sl_status fill(const sl_device *dev, void *dst, int byte, size_t bytes, void *stream) {
  (void)stream;
  if (!bytes) return SL_STATUS_OK;
  SL_TRY(use(dev));
  CUDA(dev, "filling", cudaMemsetAsync(dst, byte, bytes, stream_of(dev)));
  return SL_STATUS_OK;
}

/* --- recording --- */

static sl_status record_begin(const sl_device *dev) {
  SL_TRY(use(dev));
  CUDA(dev, "recording", cudaStreamBeginCapture(stream_of(dev), cudaStreamCaptureModeThreadLocal));
  return SL_STATUS_OK;
}

static sl_status record_end(const sl_device *dev, void **recording) {
  cudaGraph_t graph = NULL;
  cudaGraphExec_t ready = NULL;
  *recording = NULL;
  CUDA(dev, "ending a recording", cudaStreamEndCapture(stream_of(dev), &graph));
  cudaError_t error = cudaGraphInstantiateWithFlags(&ready, graph, 0);
  cudaGraphDestroy(graph);
  if (error != cudaSuccess) return failed(dev, "making a recording ready", error);
  *recording = ready;
  return SL_STATUS_OK;
}

static sl_status replay(const sl_device *dev, void *recording) {
  CUDA(dev, "replaying", cudaGraphLaunch((cudaGraphExec_t)recording, stream_of(dev)));
  return SL_STATUS_OK;
}

static void record_free(const sl_device *dev, void *recording) {
  if (!recording || use(dev) != SL_STATUS_OK) return;
  cudaStreamSynchronize(stream_of(dev)); /* it may still run */
  cudaGraphExecDestroy((cudaGraphExec_t)recording);
}

/* --- time stamps --- */

static sl_status stamp_new(const sl_device *dev, void **stamp) {
  SL_TRY(use(dev));
  CUDA(dev, "making a time stamp", cudaEventCreate((cudaEvent_t *)stamp));
  return SL_STATUS_OK;
}

static sl_status stamp(const sl_device *dev, void *s) {
  CUDA(dev, "stamping", cudaEventRecord((cudaEvent_t)s, stream_of(dev)));
  return SL_STATUS_OK;
}

static sl_status stamp_seconds(const sl_device *dev, void *from, void *to, double *seconds) {
  float ms = 0;
  CUDA(dev, "reading time stamps", cudaEventElapsedTime(&ms, (cudaEvent_t)from, (cudaEvent_t)to));
  *seconds = (double)ms * 1e-3;
  return SL_STATUS_OK;
}

static void stamp_free(const sl_device *dev, void *s) {
  if (s && use(dev) == SL_STATUS_OK) cudaEventDestroy((cudaEvent_t)s);
}

/* --- pinned host memory --- */

static void *pinned_alloc(const sl_device *host, sl_context *ctx, size_t bytes) {
  void *p = NULL;
  (void)ctx;
  cudaError_t error = cudaHostAlloc(&p, bytes ? bytes : 1, cudaHostAllocPortable);
  if (error == cudaSuccess) return p;
  (void)failed(host, "taking pinned host memory", error);
  return NULL;
}

static void pinned_free(const sl_device *host, sl_context *ctx, void *p) {
  (void)host, (void)ctx;
  if (p) cudaFreeHost(p);
}

/* --- the driver --- */

static char missing_text[256];

static int count(void) {
  int n = 0;
  cudaError_t error = cudaGetDeviceCount(&n);
  if (error == cudaSuccess && n > 0) return n;
  (void)cudaGetLastError();
  int driver = 0;
  if (error == cudaErrorInsufficientDriver && cudaDriverGetVersion(&driver) == cudaSuccess && driver)
    snprintf(missing_text, sizeof missing_text, "the NVIDIA driver knows CUDA %d.%d, this build needs %d.%d",
             driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
  else if (error == cudaErrorInsufficientDriver)
    snprintf(missing_text, sizeof missing_text, "there is no NVIDIA driver (libcuda.so.1)");
  else
    snprintf(missing_text, sizeof missing_text, "%s", error == cudaSuccess ? "no device" : cudaGetErrorString(error));
  return 0;
}

static const char *missing(void) { return missing_text; }

static sl_status look_at(cuda_device *c) {
  const sl_device *dev = &c->table;
  int major, minor;
  CUDA(dev, "asking for it", cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, c->gpu.index));
  CUDA(dev, "asking for it", cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, c->gpu.index));
  CUDA(dev, "asking for it",
       cudaDeviceGetAttribute(&c->gpu.multiprocessors, cudaDevAttrMultiProcessorCount, c->gpu.index));
  c->gpu.sm = 10 * major + minor;
  SL_REQUIRE(c->gpu.sm >= LEAST_SM, UNSUPPORTED, "%s: its compute capability is %d.%d, expected at least %d.%d",
             c->name, major, minor, LEAST_SM / 10, LEAST_SM % 10);
  return SL_STATUS_OK;
}

static sl_status make(cuda_device *c) {
  const sl_device *dev = &c->table;
  uint64_t keep = UINT64_MAX; /* freed memory stays with the pool */
  cudaStream_t stream = NULL;
  void *words = NULL;
  SL_TRY(use(dev));
  SL_TRY(look_at(c));
  CUDA(dev, "making a stream", cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  c->gpu.stream = stream;
  CUDA(dev, "asking for its pool", cudaDeviceGetDefaultMemPool(&c->pool, c->gpu.index));
  CUDA(dev, "setting its pool", cudaMemPoolSetAttribute(c->pool, cudaMemPoolAttrReleaseThreshold, &keep));
  CUDA(dev, "taking pinned host memory", cudaHostAlloc(&words, SL_FAULT_WORDS * sizeof(int64_t), cudaHostAllocMapped));
  memset(words, 0, SL_FAULT_WORDS * sizeof(int64_t));
  c->table.fault = words;
  return SL_STATUS_OK;
}

static void close_device(sl_context *ctx, const sl_device *dev) {
  cuda_device *c = of(dev);
  bool works = use(dev) == SL_STATUS_OK; /* not after a fault that broke the process's CUDA */
  if (works && c->gpu.stream) cudaStreamSynchronize(stream_of(dev));
  sl_blas_close(&c->gpu);
  sl_dnn_close(&c->gpu);
  if (works && c->table.fault) cudaFreeHost(c->table.fault);
  if (works && c->gpu.stream) cudaStreamDestroy(stream_of(dev));
  sl_free(ctx, c);
}

/* A switch of the environment: 0 unless it is set to another number. */
static int number_of(const char *name) {
  const char *value = getenv(name);
  return value ? atoi(value) : 0;
}

static sl_status open_device(sl_context *ctx, int index, const sl_device **out) {
  *out = NULL;
  cuda_device *c = sl_alloc_zero(ctx, sizeof *c);
  if (!c) return SL_STATUS_OOM;
  snprintf(c->name, sizeof c->name, "cuda:%d", index);
  c->gpu =
      (sl_gpu){.ctx = ctx, .index = index, .tf32 = number_of("SLUICE_TF32") != 0, .tune = number_of("SLUICE_TUNE")};
  c->host = sl_device_cpu;
  c->host.alloc = pinned_alloc;
  c->host.free = pinned_free;
  c->table = (sl_device){.kind = SL_DEVICE_CUDA,
                         .name = c->name,
                         .gpu = &c->gpu,
                         .alloc = cuda_alloc,
                         .free = cuda_free,
                         .copy_in = copy_in,
                         .copy_out = copy_out,
                         .copy = copy,
                         .fill = fill,
                         .sync = sync,
                         .host = &c->host,
                         .use = use,
                         .memory = memory,
                         .record_begin = record_begin,
                         .record_end = record_end,
                         .replay = replay,
                         .record_free = record_free,
                         .stamp_new = stamp_new,
                         .stamp = stamp,
                         .stamp_seconds = stamp_seconds,
                         .stamp_free = stamp_free};
  sl_status s = make(c);
  if (s == SL_STATUS_OK) *out = &c->table;
  else close_device(ctx, &c->table);
  return s;
}

/* --- for people --- */

typedef struct teller {
  void (*line)(void *user, const char *text);
  void *user;
} teller;

static void tell(const teller *t, const char *fmt, ...) SL_PRINTF(2, 3);
static void tell(const teller *t, const char *fmt, ...) {
  char text[4096];
  va_list args;
  va_start(args, fmt);
  vsnprintf(text, sizeof text, fmt, args);
  va_end(args);
  t->line(t->user, text);
}

static void tell_device(const teller *t, int i) {
  struct cudaDeviceProp p;
  size_t unused = 0, all = 0;
  if (cudaGetDeviceProperties(&p, i) != cudaSuccess || cudaSetDevice(i) != cudaSuccess ||
      cudaMemGetInfo(&unused, &all) != cudaSuccess) {
    tell(t, "cuda:%d       does not answer: %s", i, cudaGetErrorString(cudaGetLastError()));
    return;
  }
  tell(t, "cuda:%d       %s, compute capability %d.%d%s, %d multiprocessors, %.1f of %.1f GiB free", i, p.name, p.major,
       p.minor, 10 * p.major + p.minor < LEAST_SM ? " (too old)" : "", p.multiProcessorCount,
       (double)unused / 1073741824.0, (double)all / 1073741824.0);
}

static void tell_library(const teller *t, sl_gpu_library_id id, const char *without) {
  const sl_gpu_library *l = sl_gpu_library_find(id);
  int v = l->version;
  if (!l->handle) tell(t, "%-12s not found; %s. %s", l->name, without, l->text);
  else if (v) tell(t, "%-12s %d.%d.%d, %s", l->name, v / 10000, v % 10000 / 100, v % 100, l->path);
  else tell(t, "%-12s %s", l->name, l->path);
}

static void describe(void (*line)(void *user, const char *text), void *user) {
  teller t = {line, user};
  int driver = sl_gpu_driver_version(), n = count();
  tell(&t, "CUDA         built with %d.%d", CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
  if (driver) tell(&t, "driver       knows CUDA %d.%d", driver / 1000, driver % 1000 / 10);
  else tell(&t, "driver       not found (libcuda.so.1)");
  if (n == 0) tell(&t, "GPU          none: %s; everything runs on the CPU", missing());
  for (int i = 0; i < n; i++) tell_device(&t, i);
  tell_library(&t, SL_GPU_CUBLASLT, "own kernels, far slower, compute products");
  tell_library(&t, SL_GPU_CUDNN, "own kernels, slower, compute attention and convolutions");
}

const sl_device_driver sl_driver_cuda = {.prefix = "cuda",
                                         .count = count,
                                         .open = open_device,
                                         .close = close_device,
                                         .missing = missing,
                                         .describe = describe};
