/* Bytes that grow at their end. */
#ifndef SL_BASE_BUFFER_H
#define SL_BASE_BUFFER_H

#include "base/context.h"

typedef struct sl_buffer { /* {.ctx = ctx}: empty; the owner frees data with sl_free */
  sl_context *ctx;
  char *data;
  size_t size, room;
} sl_buffer;

SL_MUST_USE sl_status sl_buffer_add(sl_buffer *b, const void *data, size_t n);                  /* OOM */
SL_MUST_USE sl_status sl_buffer_add_integer(sl_buffer *b, uint64_t v, int bytes);               /* little-endian. OOM */
SL_MUST_USE sl_status sl_buffer_add_format(sl_buffer *b, const char *fmt, ...) SL_PRINTF(2, 3); /* OOM */

#endif
