/* Draws on CUDA, the same bits as the CPU's: a thread has one Philox counter, four draws of a sample. Compile the host
 * stand-in with -ffp-contract=off (random_math.h). */
#include "gpu/gpu.h"

#include "base/random.h"
#include "base/random_math.h"
#include "ops/kernels.h"

namespace {

constexpr int THREADS = 128;

/* y [samples, per] in row-major order; the values of e->step are read on the device. */
struct draw_args {
  float *y;
  const sl_step *step;
  uint32_t stream;
  int64_t samples, per;
};

struct dropout_args {
  void *y;
  const void *x;
  const sl_step *step;
  int64_t samples, per;
  int64_t C, plane; /* channels-last images: channels, pixels */
  uint64_t offset;  /* first element of the draw: dropout's sites follow one another */
  float p, scale;
};

} // namespace

SL_DEVICE void draw_block(const sl_step *step, uint32_t stream, int64_t sample, uint64_t block, uint32_t bits[4]) {
  sl_rng_block(step->seed, stream, block, step->first_sample + (uint32_t)sample, step->step, bits);
}

/* The first n of four floats; as one where they lie so. */
SL_DEVICE void store_up_to_four(float *to, const sl_pack<float, 4> &v, int64_t n) {
  if (n >= 4 && (uintptr_t)to % 16 == 0) {
    *(sl_pack<float, 4> *)to = v;
    return;
  }
  for (int i = 0; i < 4; i++)
    if (i < n) to[i] = v.v[i];
}

/* Block (i, j): counters from i THREADS on of the samples j, j + gridDim.y, … */
template <bool NORMAL>
__global__ void draw_kernel(const draw_args a) {
  const int64_t block = (int64_t)blockIdx.x * THREADS + threadIdx.x, at = 4 * block;
  if (at >= a.per) return;
  for (int64_t sample = blockIdx.y; sample < a.samples; sample += gridDim.y) {
    uint32_t bits[4];
    sl_pack<float, 4> v;
    draw_block(a.step, a.stream, sample, (uint64_t)block, bits);
    for (int i = 0; i < 4; i += 2) {
      if (NORMAL) sl_rng_normal_pair(bits[i], bits[i + 1], &v.v[i], &v.v[i + 1]);
      else v.v[i] = sl_rng_uniform(bits[i]), v.v[i + 1] = sl_rng_uniform(bits[i + 1]);
    }
    store_up_to_four(a.y + sample * a.per + at, v, a.per - at);
  }
}

static dim3 grid_of(int64_t threads, int64_t samples) {
  return dim3((unsigned)((threads + THREADS - 1) / THREADS), (unsigned)(samples < 65535 ? samples : 65535));
}

static void samples_of(const sl_view *y, int64_t *samples, int64_t *per) {
  *samples = y->shape.rank ? y->shape.dim[0] : 1;
  *per = 1;
  for (int i = 1; i < y->shape.rank; i++) *per *= y->shape.dim[i];
}

extern "C" sl_status sl_cuda_normal(sl_exec *e, const sl_view *y, int stream) {
  draw_args a = {(float *)y->data, e->step, (uint32_t)stream, 0, 0};
  samples_of(y, &a.samples, &a.per);
  if (a.samples * a.per == 0) return SL_STATUS_OK;
  return SL_LAUNCH(draw_kernel<true>, grid_of((a.per + 3) / 4, a.samples), THREADS, 0, e->stream, a);
}

extern "C" sl_status sl_cuda_uniform(sl_exec *e, const sl_view *y, int stream) {
  draw_args a = {(float *)y->data, e->step, (uint32_t)stream, 0, 0};
  samples_of(y, &a.samples, &a.per);
  if (a.samples * a.per == 0) return SL_STATUS_OK;
  return SL_LAUNCH(draw_kernel<false>, grid_of((a.per + 3) / 4, a.samples), THREADS, 0, e->stream, a);
}

/* --- dropout --- */

SL_DEVICE float kept(const dropout_args &a, uint32_t bits, float x) {
  return sl_rng_uniform(bits) < a.p ? 0.0f : SL_RN_MUL(x, a.scale);
}

/* Block (i, j): counters from i THREADS on of the samples j, j + gridDim.y, …; y may be x. */
template <bool BF16>
__global__ void dropout_kernel(const dropout_args a) {
  const int64_t block = (int64_t)blockIdx.x * THREADS + threadIdx.x, first = 4 * block;
  if (first >= a.per) return;
  for (int64_t sample = blockIdx.y; sample < a.samples; sample += gridDim.y) {
    const int64_t at = sample * a.per + first, n = a.per - first;
    uint32_t bits[4];
    draw_block(a.step, SL_STREAM_DROPOUT, sample, a.offset / 4 + (uint64_t)block, bits);
    /* Every sample's part may lie differently. */
    const uintptr_t size = BF16 ? 2 : 4, either = (uintptr_t)a.x | (uintptr_t)a.y;
    if (n >= 4 && (either | (uintptr_t)at * size) % (4 * size) == 0) {
      sl_pack<float, 4> v = sl_load<4>(a.x, BF16, at);
      for (int i = 0; i < 4; i++) v.v[i] = kept(a, bits[i], v.v[i]);
      sl_store<4>(a.y, BF16, at, v);
      continue;
    }
    for (int i = 0; i < 4; i++) {
      if (i >= n) break;
      sl_pack<float, 1> v = sl_load<1>(a.x, BF16, at + i);
      v.v[0] = kept(a, bits[i], v.v[0]);
      sl_store<1>(a.y, BF16, at + i, v);
    }
  }
}

/* Channels-last images. A thread has four pixels of a channel: one counter, where planes are whole counters. Block
 * (i, j): threads from i THREADS on, neighbours in channels, of the samples j, j + gridDim.y, … */
__global__ void dropout_last_kernel(const dropout_args a) {
  const int64_t thread = (int64_t)blockIdx.x * THREADS + threadIdx.x, first = thread / a.C * 4, c = thread % a.C;
  if (first >= a.plane) return;
  for (int64_t sample = blockIdx.y; sample < a.samples; sample += gridDim.y) {
    const float *x = (const float *)a.x + sample * a.per + c;
    float *y = (float *)a.y + sample * a.per + c, v[4];
    uint64_t draw = a.offset + (uint64_t)(c * a.plane + first);
    uint32_t bits[4];
    draw_block(a.step, SL_STREAM_DROPOUT, sample, draw / 4, bits);
    for (int i = 0; i < 4; i++) v[i] = first + i < a.plane ? x[(first + i) * a.C] : 0.0f;
    for (int i = 0; i < 4; i++, draw++) {
      if (i > 0 && draw % 4 == 0) draw_block(a.step, SL_STREAM_DROPOUT, sample, draw / 4, bits);
      const uint32_t k = (uint32_t)draw % 4, word = k == 0 ? bits[0] : k == 1 ? bits[1] : k == 2 ? bits[2] : bits[3];
      if (first + i < a.plane) y[(first + i) * a.C] = kept(a, word, v[i]);
    }
  }
}

extern "C" sl_status sl_cuda_dropout(sl_exec *e, const sl_view *y, const sl_view *x, double p, int64_t site) {
  dropout_args a = {y->data, x->data, e->step, 0, 0, 0, 0, (uint64_t)site << 40, (float)p, (float)(1 / (1 - p))};
  samples_of(y, &a.samples, &a.per);
  if (a.samples * a.per == 0) return SL_STATUS_OK;
  const sl_shape *s = &y->shape;
  if (s->rank == 4 && y->stride[1] == 1 && y->stride[3] == s->dim[1] && s->dim[1] > 1) {
    a.C = s->dim[1], a.plane = s->dim[2] * s->dim[3];
    const dim3 grid = grid_of((a.plane + 3) / 4 * a.C, a.samples);
    return SL_LAUNCH(dropout_last_kernel, grid, THREADS, 0, e->stream, a);
  }
  const dim3 grid = grid_of((a.per + 3) / 4, a.samples);
  if (y->dtype == SL_BF16) return SL_LAUNCH(dropout_kernel<true>, grid, THREADS, 0, e->stream, a);
  return SL_LAUNCH(dropout_kernel<false>, grid, THREADS, 0, e->stream, a);
}
