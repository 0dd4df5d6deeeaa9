/* What a GPU's products make of an f32 operand where they may round it: TF32, 10 bits, ties away from 0. */
#ifndef GPU_HOST_TF32_H
#define GPU_HOST_TF32_H

#include <stdint.h>
#include <string.h>

static inline float tf32_of(float x) {
  uint32_t u;
  memcpy(&u, &x, sizeof u);
  if ((u & 0x7f800000u) != 0x7f800000u) u = (u + 0x1000u) & 0xffffe000u;
  memcpy(&x, &u, sizeof x);
  return x;
}

#endif
