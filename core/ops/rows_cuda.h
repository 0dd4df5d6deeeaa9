/* Tensors as the CUDA kernels of adaLN, the gated residual and both in one take them. */
#ifndef SL_OPS_ROWS_CUDA_H
#define SL_OPS_ROWS_CUDA_H

#include "gpu/gpu.h"

#include "tensor/tensor.h"

/* [N,T,C] dense, or [N,C] with `stride` elements from one sample to the next; p NULL: absent. */
struct sl_gpu_rows {
  void *p;
  bool bf16;
  int64_t stride;
};

static inline sl_gpu_rows sl_gpu_rows_of(const sl_view *v) {
  return {v->data, v->dtype == SL_BF16, v->data ? v->stride[0] : 0};
}

/* Whether `by` neighbours may be read as one everywhere. */
static inline bool sl_gpu_rows_fit(int by, int64_t C, const sl_gpu_rows *r, int n) {
  bool fits = C % by == 0;
  for (int i = 0; i < n; i++) fits &= r[i].stride % by == 0 && (uintptr_t)r[i].p % 16 == 0;
  return fits;
}

static inline bool sl_gpu_by_four(int64_t C, const sl_gpu_rows *r, int n) { return sl_gpu_rows_fit(4, C, r, n); }

/* Whether those that are there are all bf16, or none is. */
static inline bool sl_gpu_rows_all(bool bf16, const sl_gpu_rows *r, int n) {
  bool all = true;
  for (int i = 0; i < n; i++) all &= !r[i].p || r[i].bf16 == bf16;
  return all;
}

/* --- packs of a dtype that is known: no branch stands between loads --- */

template <class T, int V>
SL_DEVICE sl_pack<T, V> sl_read(const void *p, int64_t at) {
  return *(const sl_pack<T, V> *)((const T *)p + at);
}

template <class T, int V>
SL_DEVICE void sl_write(void *p, int64_t at, const sl_pack<T, V> &x) {
  *(sl_pack<T, V> *)((T *)p + at) = x;
}

SL_DEVICE float sl_float_of(float v) { return v; }
SL_DEVICE float sl_float_of(uint8_t v) { return (float)v; }
SL_DEVICE float sl_float_of(uint16_t v) { return sl_gpu_from_bf16(v); }

template <class T, int V>
SL_DEVICE sl_pack<float, V> sl_floats(const sl_pack<T, V> &x) {
  sl_pack<float, V> r;
  for (int i = 0; i < V; i++) r.v[i] = sl_float_of(x.v[i]);
  return r;
}

/* Rounded to T: float or, as bits, bf16. */
template <class T, int V>
SL_DEVICE sl_pack<T, V> sl_rounded(const sl_pack<float, V> &x) {
  if constexpr (sizeof(T) == sizeof(float)) {
    return x;
  } else {
    sl_pack<T, V> h;
    for (int i = 0; i < V; i += 2) {
      const uint32_t pair = sl_gpu_to_bf16_pair(x.v[i], x.v[i + 1]);
      memcpy(&h.v[i], &pair, sizeof pair);
    }
    return h;
  }
}

#endif
