/* Recordings: the launches of a program's steps, kept by what they are bound to, and replayed as one. The first run
 * with some bindings launches the steps one by one (libraries make their choices then), the second is recorded. */
#include <stdio.h>
#include <string.h>

#include "graph/program_internal.h"

enum { LEAST_STEPS = 8 }; /* fewer are launched as quickly as they are replayed (single operations of the eager kind) */

static size_t bases_bytes(const sl_program *p) { return (size_t)p->plan.n_stores * sizeof *p->base; }

static sl_recording *find(sl_program *p) {
  for (int i = 0; i < SL_RECORDINGS; i++) {
    sl_recording *r = &p->recording[i];
    if (r->base && r->step == p->exec.step && !memcmp(r->base, p->base, bases_bytes(p))) return r;
  }
  return NULL;
}

static void clear(sl_program *p, sl_recording *r) {
  if (r->handle) p->exec.device->record_free(p->exec.device, r->handle);
  sl_free(p->exec.ctx, r->base);
  *r = (sl_recording){0};
}

/* The place of the bindings that were used longest ago. */
static sl_status remember(sl_program *p) {
  sl_recording *r = &p->recording[0];
  for (int i = 1; i < SL_RECORDINGS; i++)
    if (p->recording[i].tick < r->tick) r = &p->recording[i];
  clear(p, r);
  r->base = sl_alloc(p->exec.ctx, bases_bytes(p) + 1);
  if (!r->base) return SL_STATUS_OOM;
  memcpy(r->base, p->base, bases_bytes(p));
  r->step = p->exec.step;
  r->tick = ++p->tick;
  return SL_STATUS_OK;
}

static sl_status record(sl_program *p, const sl_run *run, sl_recording *r) {
  const sl_device *dev = p->exec.device;
  void *handle = NULL;
  if (dev->record_begin(dev) != SL_STATUS_OK) return SL_STATUS_UNSUPPORTED;
  dev->gpu->recording = true;
  sl_status ran = sl__run_steps(p, run);
  dev->gpu->recording = false;
  char why[512] = ""; /* what failed first; that the recording is then broken says less */
  if (ran != SL_STATUS_OK) snprintf(why, sizeof why, "%s", sl_error());
  sl_status ended = dev->record_end(dev, &handle);
  if (ran != SL_STATUS_OK) (void)sl_fail(ran, "%s", why);
  if (ran == SL_STATUS_OK && ended == SL_STATUS_OK) {
    r->handle = handle;
    return SL_STATUS_OK;
  }
  if (handle) dev->record_free(dev, handle);
  return ran == SL_STATUS_CANCELLED ? ran : SL_STATUS_UNSUPPORTED;
}

sl_status sl__recording_run(sl_program *p, const sl_run *run) {
  const sl_device *dev = p->exec.device;
  if (!dev->record_begin || p->unrecordable || dev->gpu->recording || p->plan.n_steps < LEAST_STEPS)
    return sl__run_steps(p, run);
  if (sl_context_cancelled(p->exec.ctx)) return sl_fail(SL_STATUS_CANCELLED, "stopped on request");
  sl_recording *r = find(p);
  if (!r) {
    SL_TRY(remember(p));
    return sl__run_steps(p, run);
  }
  r->tick = ++p->tick;
  if (!r->handle) {
    sl_status s = record(p, run, r);
    if (s == SL_STATUS_CANCELLED) return s;
    if (s != SL_STATUS_OK) { /* it works without, and was told why in the log */
      p->unrecordable = true;
      sl_context_log(p->exec.ctx, "steps cannot be recorded (%s); they are launched one by one", sl_error());
      return sl__run_steps(p, run);
    }
  }
  return dev->replay(dev, r->handle);
}

void sl__recording_free(sl_program *p) {
  for (int i = 0; i < SL_RECORDINGS; i++) clear(p, &p->recording[i]);
}
