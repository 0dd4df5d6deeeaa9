/* Devices as a table of services. The CPU is always there; a GPU brings a driver (below), which makes its table. */
#ifndef SL_TENSOR_DEVICE_H
#define SL_TENSOR_DEVICE_H

#include "gpu/gpu_runtime.h"
#include "sluice/tensors.h"
#include "tensor/fault.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum sl_device_kind { SL_DEVICE_CPU, SL_DEVICE_CUDA, SL_DEVICE_GPU_HOST } sl_device_kind;

/* Bytes: that could still be taken, that the device has, that this process took and took at most. */
typedef struct sl_device_memory {
  uint64_t available, total, used, peak;
} sl_device_memory;

struct sl_view;
struct sl_device {
  sl_device_kind kind;
  const char *name; /* "cpu", "cuda:0", "gpu-host" */
  sl_gpu *gpu;      /* NULL: the CPU */
  /* NULL on failure, with the error text set. Blocks are aligned to 64 bytes (256 on GPUs); freeing waits, if it must,
   * for what was launched before. */
  void *(*alloc)(const sl_device *, sl_context *, size_t bytes);
  void (*free)(const sl_device *, sl_context *, void *p);
  /* Between host memory and this device, or within it; after all that was launched before. Complete when they return,
   * unless stream is given: then host memory must not be touched before the next sync. */
  sl_status (*copy_in)(const sl_device *, void *dst, const void *host, size_t bytes, void *stream);
  sl_status (*copy_out)(const sl_device *, void *host, const void *src, size_t bytes, void *stream);
  sl_status (*copy)(const sl_device *, void *dst, const void *src, size_t bytes, void *stream);
  sl_status (*fill)(const sl_device *, void *dst, int byte, size_t bytes, void *stream);
  /* Waits for all that was launched. Errors of kernels come out here: DEVICE, or what a kernel noted (fault.h). */
  sl_status (*sync)(const sl_device *, void *stream);

  /* --- GPUs only; NULL on the CPU --- */
  int64_t *fault;                      /* what kernels note; read and cleared by sync */
  const sl_device *host;               /* kind CPU: memory from which copies run beside the host ("pinned") */
  sl_status (*use)(const sl_device *); /* makes it the calling thread's: before anything is launched */
  sl_status (*memory)(const sl_device *, sl_device_memory *out);
  /* What is launched between begin and end is recorded instead of run, and replayed as one. A failed end gives NULL. */
  sl_status (*record_begin)(const sl_device *);
  sl_status (*record_end)(const sl_device *, void **recording);
  sl_status (*replay)(const sl_device *, void *recording);
  void (*record_free)(const sl_device *, void *recording);
  /* Time stamps among what is launched: two of them, some work apart, give seconds after a sync. */
  sl_status (*stamp_new)(const sl_device *, void **stamp);
  sl_status (*stamp)(const sl_device *, void *stamp);
  sl_status (*stamp_seconds)(const sl_device *, void *from, void *to, double *seconds);
  void (*stamp_free)(const sl_device *, void *stamp);
};

extern const sl_device sl_device_cpu;

/* What a kind of GPU brings; the symbols are there where it is built in. */
typedef struct sl_device_driver {
  const char *prefix;                                                   /* "cuda": devices are cuda:0, cuda:1, … */
  int (*count)(void);                                                   /* devices there; 0 without a driver */
  sl_status (*open)(sl_context *ctx, int index, const sl_device **out); /* closed by close */
  void (*close)(sl_context *ctx, const sl_device *dev);
  const char *(*missing)(void); /* why count is 0, in words; "" otherwise */
  /* Tells of driver, devices and libraries, line by line: for people. */
  void (*describe)(void (*line)(void *user, const char *text), void *user);
} sl_device_driver;
extern const sl_device_driver sl_driver_cuda __attribute__((weak)), sl_driver_gpu_host __attribute__((weak));

/* dst = src, views of one device's memory, as sl_view_copy does it on the host. ops/ defines it where GPUs are built
 * in. */
extern sl_status sl_device_copy_views(const sl_device *dev, sl_context *ctx, const struct sl_view *dst,
                                      const struct sl_view *src) __attribute__((weak));
/* Bytes of the host's, at most SL_PUT_BYTES, to dev's memory, in its order: `from` may go when this returns, and
 * nothing is waited for. Defined with it. */
enum { SL_PUT_BYTES = 256 };
extern sl_status sl_device_put(const sl_device *dev, sl_context *ctx, void *to, const void *from, size_t bytes)
    __attribute__((weak));
bool sl_device_built(const sl_device_driver *driver); /* whether the driver is in this build */
/* The sync's part that all GPUs share: makes a status of what kernels noted, and clears it. */
SL_MUST_USE sl_status sl_device_take_fault(const sl_device *dev);

#ifdef __cplusplus
}
#endif

#endif
