/* Checked runs: redzones around arena blocks and NaN in fresh and dead ones, since one arena would hide overruns. */
#include <string.h>

#include "graph/program_internal.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer) && !defined(__SANITIZE_ADDRESS__)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#define POISON(p, n) ASAN_POISON_MEMORY_REGION((p), (n))
#define UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION((p), (n))
#else
#define POISON(p, n) ((void)(p), (void)(n))
#define UNPOISON(p, n) ((void)(p), (void)(n))
#endif

#define RED_BYTE 0xA5
#define NAN_BYTE 0xFF /* a NaN in f32, bf16 and f64 */

static uint64_t room(const sl_program *p, const sl_storage *s) {
  uint64_t align = sl__redzone(&p->plan);
  return s->bytes ? (s->bytes + align - 1) / align * align : align;
}

/* The device's memory as the sanitizer sees it: only the host's can be poisoned. */
static bool on_host(const sl_program *p) { return p->exec.device->kind != SL_DEVICE_CUDA; }

static void poison(const sl_program *p, uint8_t *at, uint64_t n) {
  if (on_host(p)) POISON(at, n);
  else (void)at, (void)n;
}

static void unpoison(const sl_program *p, uint8_t *at, uint64_t n) {
  if (on_host(p)) UNPOISON(at, n);
  else (void)at, (void)n;
}

static void put(const sl_program *p, uint8_t *at, int byte, uint64_t n) {
  sl_status s = p->exec.device->fill(p->exec.device, at, byte, n, NULL);
  (void)s; /* a device that fails here fails at the step, too */
}

static bool holds(const sl_program *p, const uint8_t *at, int byte, uint64_t n) {
  uint8_t part[512];
  bool good = true;
  for (uint64_t k = 0; k < n; k += sizeof part) {
    uint64_t m = n - k < sizeof part ? n - k : sizeof part;
    if (p->exec.device->copy_out(p->exec.device, part, at + k, m, NULL) != SL_STATUS_OK) return false;
    for (uint64_t i = 0; i < m; i++) good &= part[i] == byte;
  }
  return good;
}

static void open_block(sl_program *p, int store, int step) {
  const sl_storage *s = store < 0 ? NULL : &p->plan.stores[store];
  if (!s || s->kind != STORE_ARENA || s->first != step) return;
  uint64_t red = sl__redzone(&p->plan), after = room(p, s) - s->bytes + red;
  uint8_t *at = p->arena + s->offset;
  unpoison(p, at - red, s->bytes + red + after);
  put(p, at - red, RED_BYTE, red);
  put(p, at, NAN_BYTE, s->bytes);
  put(p, at + s->bytes, RED_BYTE, after);
  poison(p, at - red, red);
  poison(p, at + s->bytes, after);
}

static void close_block(sl_program *p, int store, int step) {
  const sl_storage *s = store < 0 ? NULL : &p->plan.stores[store];
  if (!s || s->kind != STORE_ARENA || s->last != step) return;
  uint64_t red = sl__redzone(&p->plan);
  uint8_t *at = p->arena + s->offset;
  unpoison(p, at - red, room(p, s) + 2 * red);
  put(p, at, NAN_BYTE, s->bytes);
  poison(p, at - red, room(p, s) + 2 * red);
}

static bool intact(sl_program *p, int store) {
  const sl_storage *s = store < 0 ? NULL : &p->plan.stores[store];
  if (!s || s->kind != STORE_ARENA) return true;
  uint64_t red = sl__redzone(&p->plan), after = room(p, s) - s->bytes + red;
  uint8_t *at = p->arena + s->offset;
  unpoison(p, at - red, red);
  unpoison(p, at + s->bytes, after);
  bool good = holds(p, at - red, RED_BYTE, red) && holds(p, at + s->bytes, RED_BYTE, after);
  poison(p, at - red, red);
  poison(p, at + s->bytes, after);
  return good;
}

void sl__check_start(sl_program *p) { poison(p, p->arena, p->plan.arena_bytes); }

void sl__check_end(sl_program *p) { unpoison(p, p->arena, p->plan.arena_bytes); }

void sl__check_before(sl_program *p, int step) {
  const sl_plan_step *s = &p->plan.steps[step];
  for (int k = 0; k < s->node->n_out; k++) open_block(p, s->out_store[k], step);
  open_block(p, s->workspace, step);
}

sl_status sl__check_after(sl_program *p, int step) {
  const sl_plan_step *s = &p->plan.steps[step];
  for (int k = 0; k < s->node->n_out; k++)
    SL_REQUIRE(intact(p, s->out_store[k]), INTERNAL, "%s wrote outside its output %d", sl__node_label(s->node), k);
  for (int k = 0; k < s->node->n_in; k++)
    SL_REQUIRE(intact(p, s->in_store[k]), INTERNAL, "%s wrote outside its input %d", sl__node_label(s->node), k);
  SL_REQUIRE(intact(p, s->workspace), INTERNAL, "%s wrote outside its workspace", sl__node_label(s->node));
  for (int k = 0; k < s->node->n_in; k++) close_block(p, s->in_store[k], step);
  for (int k = 0; k < s->node->n_out; k++) close_block(p, s->out_store[k], step);
  close_block(p, s->workspace, step);
  return SL_STATUS_OK;
}
