#include "base/dtype.h"

#include <string.h>

static const struct {
  const char *name;
  size_t bytes;
} dtypes[] = {
#define X(e, name, bytes, st) [SL_##e] = {name, bytes},
    SL_DTYPE_LIST(X)
#undef X
};

/* numpy's and PyTorch's names. */
static const struct {
  const char *name;
  sl_dtype dtype;
} aliases[] = {{"float32", SL_F32}, {"float", SL_F32}, {"bfloat16", SL_BF16}, {"int32", SL_I32}, {"int64", SL_I64},
               {"long", SL_I64},    {"uint8", SL_U8},  {"float16", SL_F16},   {"half", SL_F16},  {"float64", SL_F64},
               {"double", SL_F64},  {"int8", SL_I8},   {"int16", SL_I16}};

size_t sl_dtype_size(sl_dtype d) { return (unsigned)d < SL_DTYPE_COUNT ? dtypes[d].bytes : 0; }

const char *sl_dtype_name(sl_dtype d) { return (unsigned)d < SL_DTYPE_COUNT ? dtypes[d].name : "?"; }

bool sl_dtype_is_float(sl_dtype d) { return d == SL_F32 || d == SL_BF16 || d == SL_F16 || d == SL_F64; }

bool sl_dtype_computes(sl_dtype d) { return d == SL_F32 || d == SL_BF16 || d == SL_I32 || d == SL_I64 || d == SL_U8; }

bool sl_dtype_from_name(const char *name, sl_dtype *out) {
  if (!name) return false;
  for (int d = 0; d < SL_DTYPE_COUNT; d++) {
    if (strcmp(name, dtypes[d].name) == 0) {
      *out = (sl_dtype)d;
      return true;
    }
  }
  for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++) {
    if (strcmp(name, aliases[i].name) == 0) {
      *out = aliases[i].dtype;
      return true;
    }
  }
  return false;
}
