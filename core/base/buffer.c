#include "base/buffer.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static sl_status grow(sl_buffer *b, size_t n) {
  if (b->room - b->size >= n) return SL_STATUS_OK;
  size_t room = (b->size + n) * 2;
  char *grown = sl_realloc(b->ctx, b->data, room);
  if (!grown) return SL_STATUS_OOM;
  b->data = grown;
  b->room = room;
  return SL_STATUS_OK;
}

sl_status sl_buffer_add(sl_buffer *b, const void *data, size_t n) {
  SL_TRY(grow(b, n));
  if (n) memcpy(b->data + b->size, data, n);
  b->size += n;
  return SL_STATUS_OK;
}

sl_status sl_buffer_add_integer(sl_buffer *b, uint64_t v, int bytes) {
  uint8_t le[8];
  for (int i = 0; i < bytes; i++) le[i] = (uint8_t)(v >> (8 * i));
  return sl_buffer_add(b, le, (size_t)bytes);
}

sl_status sl_buffer_add_format(sl_buffer *b, const char *fmt, ...) {
  va_list args, again;
  va_start(args, fmt);
  va_copy(again, args);
  int n = vsnprintf(NULL, 0, fmt, args);
  sl_status status = n < 0 ? SL_STATUS_INTERNAL : grow(b, (size_t)n + 1);
  if (status == SL_STATUS_OK) {
    vsnprintf(b->data + b->size, (size_t)n + 1, fmt, again);
    b->size += (size_t)n;
  }
  va_end(again);
  va_end(args);
  return status;
}
