/* Element types and shapes. Compute types are f32 and bf16, i32, i64 and u8; the others are stored, cast and read. */
#ifndef SLUICE_DTYPES_H
#define SLUICE_DTYPES_H

#include "sluice/errors.h"

#ifdef __cplusplus
extern "C" {
#endif

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

/* SL_F32 (0), SL_BF16 and so on. */
typedef enum sl_dtype {
#define X(e, name, bytes, st) SL_##e,
  SL_DTYPE_LIST(X)
#undef X
      SL_DTYPE_COUNT
} sl_dtype;

/* Bytes of an element; 0: there is no such type. */
size_t sl_dtype_size(sl_dtype d);
/* "f32"; "?": there is no such type. */
const char *sl_dtype_name(sl_dtype d);
/* "f32", and "float32", "bfloat16" …; false: there is no such type. */
bool sl_dtype_from_name(const char *name, sl_dtype *out);

#define SL_MAX_RANK 8

/* Row-major: dim[0] is outermost. */
typedef struct sl_shape {
  int rank; /* 0: a scalar, one element */
  int64_t dim[SL_MAX_RANK];
} sl_shape;

#ifndef __cplusplus
/* A shape in place, an lvalue: f(&SL_SHAPE(n, 3)). */
#define SL_SHAPE(...)                                                                                                  \
  ((sl_shape){.rank = (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), .dim = {__VA_ARGS__}})
#endif
/* The same from dim[rank], in C++ too. A rank that is too large is kept, for whoever takes the shape to refuse. */
sl_shape sl_shape_of(int rank, const int64_t *dim);
/* How many elements: the product of its sizes. */
int64_t sl_shape_numel(const sl_shape *s);
bool sl_shape_equal(const sl_shape *a, const sl_shape *b);
/* "[2,3]"; one of 8 per-thread buffers, so that several fit into one message. */
const char *sl_shape_text(const sl_shape *s);

#ifdef __cplusplus
}
#endif

#endif
