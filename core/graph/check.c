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

static uint64_t room(const sl_storage *s) { return s->bytes ? (s->bytes + 63) / 64 * 64 : 64; }

static void open_block(sl_program *p, int store, int step) {
  const sl_storage *s = store < 0 ? NULL : &p->plan.stores[store];
  if (!s || s->kind != STORE_ARENA || s->first != step) return;
  uint8_t *at = p->arena + s->offset;
  UNPOISON(at - SL_REDZONE, room(s) + 2 * SL_REDZONE);
  memset(at - SL_REDZONE, RED_BYTE, SL_REDZONE);
  memset(at, NAN_BYTE, s->bytes);
  memset(at + s->bytes, RED_BYTE, room(s) - s->bytes + SL_REDZONE);
  POISON(at - SL_REDZONE, SL_REDZONE);
  POISON(at + s->bytes, room(s) - s->bytes + SL_REDZONE);
}

static void close_block(sl_program *p, int store, int step) {
  const sl_storage *s = store < 0 ? NULL : &p->plan.stores[store];
  if (!s || s->kind != STORE_ARENA || s->last != step) return;
  uint8_t *at = p->arena + s->offset;
  UNPOISON(at - SL_REDZONE, room(s) + 2 * SL_REDZONE);
  memset(at, NAN_BYTE, s->bytes);
  POISON(at - SL_REDZONE, room(s) + 2 * SL_REDZONE);
}

static bool intact(sl_program *p, int store) {
  const sl_storage *s = store < 0 ? NULL : &p->plan.stores[store];
  if (!s || s->kind != STORE_ARENA) return true;
  uint8_t *at = p->arena + s->offset;
  uint64_t after = room(s) - s->bytes + SL_REDZONE;
  UNPOISON(at - SL_REDZONE, SL_REDZONE);
  UNPOISON(at + s->bytes, after);
  bool good = true;
  for (int i = 0; i < SL_REDZONE; i++) good &= at[i - SL_REDZONE] == RED_BYTE;
  for (uint64_t i = 0; i < after; i++) good &= at[s->bytes + i] == RED_BYTE;
  POISON(at - SL_REDZONE, SL_REDZONE);
  POISON(at + s->bytes, after);
  return good;
}

void sl__check_start(sl_program *p) { POISON(p->arena, p->plan.arena_bytes); }

void sl__check_end(sl_program *p) { UNPOISON(p->arena, p->plan.arena_bytes); }

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
