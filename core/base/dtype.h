/* Element types. Compute types are f32 and bf16, i32, i64 and u8; the others are stored, cast and read. */
#ifndef SL_BASE_DTYPE_H
#define SL_BASE_DTYPE_H

#include "base/status.h"

/* X(enum, Lua name, bytes, safetensors name) */
#define SL_DTYPE_LIST(X)                                                                                               \
  X(F32, "f32", 4, "F32")                                                                                              \
  X(BF16, "bf16", 2, "BF16")                                                                                           \
  X(I32, "i32", 4, "I32")                                                                                              \
  X(I64, "i64", 8, "I64")                                                                                              \
  X(U8, "u8", 1, "U8")                                                                                                 \
  X(F16, "f16", 2, "F16")                                                                                              \
  X(F64, "f64", 8, "F64")                                                                                              \
  X(BOOL, "bool", 1, "BOOL")                                                                                           \
  X(I8, "i8", 1, "I8")                                                                                                 \
  X(I16, "i16", 2, "I16")

typedef enum sl_dtype {
#define X(e, name, bytes, st) SL_##e,
  SL_DTYPE_LIST(X)
#undef X
      SL_DTYPE_COUNT
} sl_dtype;

size_t sl_dtype_size(sl_dtype d);
const char *sl_dtype_name(sl_dtype d);
bool sl_dtype_is_float(sl_dtype d);                       /* f32, bf16, f16, f64 */
bool sl_dtype_computes(sl_dtype d);                       /* has arithmetic: f32, bf16, i32, i64, u8 */
bool sl_dtype_from_name(const char *name, sl_dtype *out); /* "f32", and "float32", "bfloat16" … */

#endif
