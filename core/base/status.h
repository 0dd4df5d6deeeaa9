/* How the library fails: macros over sluice/errors.h. */
#ifndef SL_BASE_STATUS_H
#define SL_BASE_STATUS_H

#include "sluice/errors.h"

#ifdef __cplusplus
extern "C" {
#endif

/* sl_fail with a list of arguments. */
sl_status sl_fail_va(sl_status s, const char *fmt, va_list args);

#define SL_REQUIRE(cond, status, ...)                                                                                  \
  do {                                                                                                                 \
    if (!(cond)) return sl_fail(SL_STATUS_##status, __VA_ARGS__);                                                      \
  } while (0)
#define SL_TRY(expr)                                                                                                   \
  do {                                                                                                                 \
    sl_status sl_try_status_ = (expr);                                                                                 \
    if (sl_try_status_ != SL_STATUS_OK) return sl_try_status_;                                                         \
  } while (0)
/* For functions that own something: `status` and the label `done` must exist. */
#define SL_GOTO(expr)                                                                                                  \
  do {                                                                                                                 \
    status = (expr);                                                                                                   \
    if (status != SL_STATUS_OK) goto done;                                                                             \
  } while (0)
/* Broken internal invariants only; never reachable from user input. */
#define SL_ASSERT(cond) ((cond) ? (void)0 : sl_assert_failed(#cond, __FILE__, __LINE__))
__attribute__((noreturn)) void sl_assert_failed(const char *cond, const char *file, int line);

#ifdef __cplusplus
}
#endif

#endif
