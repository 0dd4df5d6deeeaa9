/* bfloat16 and float16 as storage: conversions, rounding to nearest even. */
#ifndef SL_BASE_BF16_H
#define SL_BASE_BF16_H

#include <stdint.h>
#include <string.h>

typedef uint16_t sl_bf16;
typedef uint16_t sl_f16;

static inline float sl_bf16_to_f32(sl_bf16 h) {
  uint32_t u = (uint32_t)h << 16;
  float f;
  memcpy(&f, &u, sizeof f);
  return f;
}

static inline sl_bf16 sl_bf16_from_f32(float f) {
  uint32_t u;
  memcpy(&u, &f, sizeof u);
  if ((u & 0x7fffffffu) > 0x7f800000u) return (sl_bf16)((u >> 16) | 0x40u); /* quiet NaN, sign kept */
  return (sl_bf16)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

float sl_f16_to_f32(sl_f16 h);
sl_f16 sl_f16_from_f32(float f);

#endif
