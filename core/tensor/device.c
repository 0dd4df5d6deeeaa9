#include "tensor/device.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- the CPU --- */

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

/* --- what is built in --- */

enum { MOST_NAMES = 64 };

static const sl_device_driver *driver_at(int i) {
  const sl_device_driver *built[2];
  int n = 0;
  if (&sl_driver_cuda) built[n++] = &sl_driver_cuda;
  if (&sl_driver_gpu_host) built[n++] = &sl_driver_gpu_host;
  return i < n ? built[i] : NULL;
}

bool sl_device_built(const sl_device_driver *driver) {
  for (int i = 0; driver_at(i); i++)
    if (driver_at(i) == driver) return true;
  return false;
}

/* "cuda:0" of driver and number; one device of its kind needs no number. */
static void put_name(char *out, size_t size, const sl_device_driver *d, int index) {
  if (d->count() > 1 || !strcmp(d->prefix, "cuda")) snprintf(out, size, "%s:%d", d->prefix, index);
  else snprintf(out, size, "%s", d->prefix);
}

const char *sl_device_name(int i) {
  static _Thread_local char name[32];
  if (i == 0) return sl_device_cpu.name;
  i--;
  for (int k = 0; driver_at(k); k++) {
    const sl_device_driver *d = driver_at(k);
    int n = d->count();
    if (i < n) {
      put_name(name, sizeof name, d, i);
      return name;
    }
    i -= n;
  }
  return NULL;
}

/* --- opened devices --- */

typedef struct opened {
  const sl_device_driver *driver;
  const sl_device *device;
} opened;

static void close_device(sl_context *ctx, void *what) {
  opened *o = what;
  o->driver->close(ctx, o->device);
  sl_free(ctx, o);
}

/* One key for each place of a name: addresses that nothing else uses. */
static const char keys[2][MOST_NAMES];

static sl_status open_device(sl_context *ctx, int k, int index, const sl_device **out) {
  opened *o = sl_context_attached(ctx, &keys[k][index]);
  if (!o) {
    o = sl_alloc(ctx, sizeof *o);
    if (!o) return SL_STATUS_OOM;
    *o = (opened){driver_at(k), NULL};
    sl_status s = o->driver->open(ctx, index, &o->device);
    if (s == SL_STATUS_OK) {
      s = sl_context_attach(ctx, &keys[k][index], o, close_device);
      if (s != SL_STATUS_OK) o->driver->close(ctx, o->device);
    }
    if (s != SL_STATUS_OK) {
      sl_free(ctx, o);
      return s;
    }
  }
  *out = o->device;
  return SL_STATUS_OK;
}

static sl_status unknown(const char *name) {
  char list[256] = "";
  for (int i = 0; sl_device_name(i); i++)
    snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "", sl_device_name(i));
  bool cuda = !strncmp(name, "cuda", 4), built = sl_device_built(&sl_driver_cuda);
  const char *why = !cuda                         ? ""
                    : !built                      ? "; it was built without CUDA"
                    : sl_driver_cuda.count() == 0 ? sl_driver_cuda.missing()
                                                  : "";
  return sl_fail(SL_STATUS_DEVICE, "device: \"%s\" is not here; there is: %s%s%s", name, list,
                 cuda && built && *why ? "; " : "", why);
}

sl_status sl_device_find(sl_context *ctx, const char *name, const sl_device **out) {
  *out = NULL;
  SL_REQUIRE(name, ARG, "device: name is NULL");
  if (!strcmp(name, "auto")) return sl_device_default(ctx, out);
  if (!strcmp(name, sl_device_cpu.name)) {
    *out = &sl_device_cpu;
    return SL_STATUS_OK;
  }
  for (int k = 0; driver_at(k); k++) {
    const sl_device_driver *d = driver_at(k);
    size_t n = strlen(d->prefix);
    if (strncmp(name, d->prefix, n) || (name[n] && name[n] != ':')) continue;
    char *end = NULL;
    long index = name[n] ? strtol(name + n + 1, &end, 10) : 0;
    bool number = !name[n] || (end && end != name + n + 1 && !*end);
    if (number && index >= 0 && index < d->count() && index < MOST_NAMES) return open_device(ctx, k, (int)index, out);
  }
  return unknown(name);
}

sl_status sl_device_default(sl_context *ctx, const sl_device **out) {
  static const char told;
  const char *want = getenv("SLUICE_DEVICE");
  if (want && *want && strcmp(want, "auto")) return sl_device_find(ctx, want, out);
  *out = &sl_device_cpu;
  if (!sl_device_built(&sl_driver_cuda)) return SL_STATUS_OK;
  if (sl_driver_cuda.count() > 0) return sl_device_find(ctx, "cuda:0", out);
  if (!sl_context_attached(ctx, &told)) { /* a note that keeps nothing but itself */
    SL_TRY(sl_context_attach(ctx, &told, sl_alloc(ctx, 1), sl_free));
    sl_context_log(ctx, "no GPU: %s; running on the CPU", sl_driver_cuda.missing());
  }
  return SL_STATUS_OK;
}

sl_status sl_device_take_fault(const sl_device *dev) {
  if (!dev->fault || dev->fault[SL_FAULT_CODE] == SL_FAULT_NONE) return SL_STATUS_OK;
  int64_t value = dev->fault[SL_FAULT_VALUE], limit = dev->fault[SL_FAULT_LIMIT];
  dev->fault[SL_FAULT_CODE] = SL_FAULT_NONE;
  return sl_fail(SL_STATUS_ARG, "index %" PRId64 " is outside 0 … %" PRId64, value, limit - 1);
}
