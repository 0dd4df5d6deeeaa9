#include "base/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ERROR_BYTES = 1024 };
static _Thread_local char error_text[ERROR_BYTES];

const char *sl_error(void) { return error_text; }

const char *sl_status_name(sl_status s) {
  static const char *const names[] = {
#define X(code, text) #code,
      SL_STATUS_LIST(X)
#undef X
  };
  return (unsigned)s < sizeof names / sizeof *names ? names[s] : "?";
}

sl_status sl_fail_va(sl_status s, const char *fmt, va_list args) {
  char text[ERROR_BYTES]; /* the arguments may point into error_text */
  vsnprintf(text, sizeof text, fmt, args);
  memcpy(error_text, text, sizeof text);
  return s;
}

sl_status sl_fail(sl_status s, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  sl_fail_va(s, fmt, args);
  va_end(args);
  return s;
}

sl_status sl_fail_context(sl_status s, const char *fmt, ...) {
  char text[ERROR_BYTES];
  va_list args;
  va_start(args, fmt);
  int n = vsnprintf(text, sizeof text, fmt, args);
  va_end(args);
  size_t used = n < 0 ? 0 : (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
  for (const char *p = ": "; *p && used + 1 < sizeof text; p++) text[used++] = *p;
  for (const char *p = error_text; *p && used + 1 < sizeof text; p++) text[used++] = *p;
  text[used] = 0;
  memcpy(error_text, text, sizeof text);
  return s;
}

void sl_assert_failed(const char *cond, const char *file, int line) {
  fprintf(stderr, "sluice: broken invariant: %s (%s:%d)\n", cond, file, line);
  abort();
}
