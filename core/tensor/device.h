/* Devices as a table of services. CPU here; CUDA adds its own table. */
#ifndef SL_TENSOR_DEVICE_H
#define SL_TENSOR_DEVICE_H

#include "base/context.h"

typedef enum sl_device_kind { SL_DEVICE_CPU, SL_DEVICE_CUDA, SL_DEVICE_GPU_HOST } sl_device_kind;

typedef struct sl_device {
  sl_device_kind kind;
  const char *name; /* "cpu", "cuda:0", "gpu-host" */
  /* NULL on failure, with the error text set. Blocks are aligned to 64 bytes (256 on CUDA). */
  void *(*alloc)(const struct sl_device *, sl_context *, size_t bytes);
  void (*free)(const struct sl_device *, sl_context *, void *p);
  /* Between host memory and this device, or within it; synchronous unless stream is given. */
  sl_status (*copy_in)(const struct sl_device *, void *dst, const void *host, size_t bytes, void *stream);
  sl_status (*copy_out)(const struct sl_device *, void *host, const void *src, size_t bytes, void *stream);
  sl_status (*copy)(const struct sl_device *, void *dst, const void *src, size_t bytes, void *stream);
  sl_status (*fill)(const struct sl_device *, void *dst, int byte, size_t bytes, void *stream);
  sl_status (*sync)(const struct sl_device *, void *stream);
} sl_device;

extern const sl_device sl_device_cpu;
/* "cpu"; others as they are built in. DEVICE error names what there is. */
SL_MUST_USE sl_status sl_device_find(sl_context *ctx, const char *name, const sl_device **out);

#endif
