/* For a test program whose tests share one context: the context, calls that must succeed or fail, and a teardown that
 * refuses a test group that did not give back all it took. */
#ifndef ON_CONTEXT_H
#define ON_CONTEXT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include <string.h>

#include "base/context.h"

static sl_context *ctx;

static inline void ok_at(sl_status s, int line) {
  if (s != SL_STATUS_OK) fail_msg("line %d: %s: %s", line, sl_status_name(s), sl_error());
}
/* Succeeds; says why if it does not. */
#define OK(expr) ok_at((expr), __LINE__)
/* Fails with this status and a text that holds this. */
#define FAILS(expr, status, text)                                                                                      \
  do {                                                                                                                 \
    assert_int_equal((expr), SL_STATUS_##status);                                                                      \
    if (!strstr(sl_error(), (text))) fail_msg("line %d: \"%s\" does not say \"%s\"", __LINE__, sl_error(), (text));    \
  } while (0)

static int setup(void **state) {
  (void)state;
  return sl_context_new(NULL, &ctx) != SL_STATUS_OK;
}

static int teardown(void **state) {
  (void)state;
  uint64_t blocks = sl_context_memory(ctx).blocks;
  sl_context_free(ctx);
  return blocks != 0;
}

#endif
