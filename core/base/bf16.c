#include "base/bf16.h"

float sl_f16_to_f32(sl_f16 h) {
  uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = (h >> 10) & 31u, mantissa = h & 0x3ffu, u;
  if (exponent == 31) {
    u = sign | 0x7f800000u | mantissa << 13;
  } else if (exponent) {
    u = sign | (exponent + 112) << 23 | mantissa << 13;
  } else {
    float f = (float)mantissa * 0x1p-24f; /* subnormal or zero: exact */
    return sign ? -f : f;
  }
  float f;
  memcpy(&f, &u, sizeof f);
  return f;
}

sl_f16 sl_f16_from_f32(float f) {
  uint32_t u;
  memcpy(&u, &f, sizeof u);
  uint32_t sign = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
  if (a > 0x7f800000u) return (sl_f16)(sign | 0x7e00u | ((a >> 13) & 0x3ffu));
  if (a >= 0x477ff000u) return (sl_f16)(sign | 0x7c00u); /* 65520 and above round to infinity */
  if (a < 0x38800000u) {                                 /* below 2^-14: the sum's ulp is 2^-24, so it rounds for us */
    float magnitude;
    memcpy(&magnitude, &a, sizeof magnitude);
    magnitude += 0.5f;
    memcpy(&a, &magnitude, sizeof a);
    return (sl_f16)(sign | (a - 0x3f000000u));
  }
  a += 0xfffu + ((a >> 13) & 1u);
  return (sl_f16)(sign | (a - 0x38000000u) >> 13);
}
