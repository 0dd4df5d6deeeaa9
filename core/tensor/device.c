#include "tensor/device.h"

#include <string.h>

static void *cpu_alloc(const sl_device *dev, sl_context *ctx, size_t bytes) {
  (void)dev;
  return sl_alloc(ctx, bytes);
}

static void cpu_free(const sl_device *dev, sl_context *ctx, void *p) {
  (void)dev;
  sl_free(ctx, p);
}

static sl_status cpu_copy(const sl_device *dev, void *dst, const void *src, size_t bytes, void *stream) {
  (void)dev;
  (void)stream;
  if (bytes) memmove(dst, src, bytes);
  return SL_STATUS_OK;
}

static sl_status cpu_fill(const sl_device *dev, void *dst, int byte, size_t bytes, void *stream) {
  (void)dev;
  (void)stream;
  if (bytes) memset(dst, byte, bytes);
  return SL_STATUS_OK;
}

static sl_status cpu_sync(const sl_device *dev, void *stream) {
  (void)dev;
  (void)stream;
  return SL_STATUS_OK;
}

const sl_device sl_device_cpu = {
    .kind = SL_DEVICE_CPU,
    .name = "cpu",
    .alloc = cpu_alloc,
    .free = cpu_free,
    .copy_in = cpu_copy,
    .copy_out = cpu_copy,
    .copy = cpu_copy,
    .fill = cpu_fill,
    .sync = cpu_sync,
};

sl_status sl_device_find(sl_context *ctx, const char *name, const sl_device **out) {
  (void)ctx;
  *out = NULL;
  bool cpu = strcmp(name, sl_device_cpu.name) == 0;
  SL_REQUIRE(cpu, DEVICE, "device: \"%s\" is not in this build, which has: cpu", name);
  *out = &sl_device_cpu;
  return SL_STATUS_OK;
}
