/* Status codes and the thread-local error text.
 * A function that can fail returns sl_status; its results leave by the last pointers, which are left NULL on failure.
 * The text is written once, where the error begins, and names the argument, what it was and what was expected. */
#ifndef SLUICE_ERRORS_H
#define SLUICE_ERRORS_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One list makes the enum, the names and the codes that Lua sees. */
#define SL_STATUS_LIST(X)                                                                                              \
  X(OK, "ok")                                                                                                          \
  X(ARG, "bad argument")                                                                                               \
  X(SHAPE, "shapes do not fit")                                                                                        \
  X(DTYPE, "dtype does not fit")                                                                                       \
  X(DEVICE, "device error")                                                                                            \
  X(OOM, "out of memory")                                                                                              \
  X(IO, "input or output failed")                                                                                      \
  X(FORMAT, "malformed file")                                                                                          \
  X(UNSUPPORTED, "not supported")                                                                                      \
  X(NUMERIC, "not a finite number")                                                                                    \
  X(CANCELLED, "cancelled")                                                                                            \
  X(INTERNAL, "internal error")

/* SL_STATUS_OK (0), SL_STATUS_ARG and so on. */
typedef enum sl_status {
#define X(code, text) SL_STATUS_##code,
  SL_STATUS_LIST(X)
#undef X
} sl_status;

#define SL_MUST_USE __attribute__((warn_unused_result))
#define SL_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/* This thread's last error text; "" before the first error. Valid until the thread's next error. */
const char *sl_error(void);
/* "SHAPE" and the like. */
const char *sl_status_name(sl_status s);
/* Sets the error text and returns s: for callbacks that fail. */
sl_status sl_fail(sl_status s, const char *fmt, ...) SL_PRINTF(2, 3);
/* Puts "prefix: " before this thread's error text and returns s; for callers who know more. */
sl_status sl_fail_context(sl_status s, const char *fmt, ...) SL_PRINTF(2, 3);

#ifdef __cplusplus
}
#endif

#endif
