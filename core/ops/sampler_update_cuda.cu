/* A sampling step's update on CUDA: a thread has V neighbours of an image. */
#include "gpu/gpu.h"

#include "ops/kernels.h"
#include "ops/sampler_update_math.h"

namespace {

constexpr int THREADS = 256;
constexpr int GRID = 65535; /* samples of a grid; the rest in further rounds */

enum { OUT, X, ROWS, NOISE, SCALE };
enum { NEXT, X0 };

struct update_args {
  int64_t N, M, guided, out_row; /* elements of an image; those that guidance leads; of a row of out */
  bool learned, clip;
  const float *out, *x, *noise, *scale;
  const double *rows;
  float *next, *x0;
};

} // namespace

template <int V>
SL_DEVICE void update_at(const update_args &a, const sl_update_row &k, int64_t n, int64_t i, float scale) {
  const float *out = a.out + n * a.out_row;
  sl_pack<float, V> p = sl_load<V>(out, false, i), x = sl_load<V>(a.x + n * a.M, false, i), v = {}, noise = {}, x0,
                    next;
  if (i < a.guided) {
    const sl_pack<float, V> without = sl_load<V>(out + a.N * a.out_row, false, i);
    for (int j = 0; j < V; j++) p.v[j] = sl_update_guide(p.v[j], without.v[j], scale);
  }
  if (a.noise) noise = sl_load<V>(a.noise + n * a.M, false, i);
  if (a.noise && a.learned) v = sl_load<V>(out + a.M, false, i);
  for (int j = 0; j < V; j++) {
    const float deviation = a.noise && a.learned ? sl_update_deviation(&k, v.v[j]) : k.sigma;
    x0.v[j] = sl_update_x0(&k, p.v[j], x.v[j], a.clip);
    next.v[j] = sl_update_next(&k, x0.v[j], x.v[j], deviation, noise.v[j]);
  }
  if (a.x0) sl_store<V>(a.x0 + n * a.M, false, i, x0);
  if (a.next) sl_store<V>(a.next + n * a.M, false, i, next);
}

/* Block (b, n) has the b-th THREADS V elements of sample n. */
template <int V>
__global__ void __launch_bounds__(THREADS) update_kernel(const update_args a) {
  const int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * V;
  const float scale = a.scale ? *a.scale : 1.0f;
  for (int64_t n = blockIdx.y; n < a.N && i < a.M; n += gridDim.y)
    update_at<V>(a, sl_update_row_of(a.rows + n * SL_UPDATE_COLUMNS), n, i, scale);
}

/* Whether four neighbours may be read and written as one everywhere, and are guided alike. */
static bool by_four(const update_args *a) {
  const uintptr_t all =
      (uintptr_t)a->out | (uintptr_t)a->x | (uintptr_t)a->noise | (uintptr_t)a->next | (uintptr_t)a->x0;
  return a->M % 4 == 0 && a->guided % 4 == 0 && all % 16 == 0;
}

template <int V>
static sl_status launch(sl_exec *e, const update_args &a) {
  const int64_t blocks = (a.M + THREADS * V - 1) / (THREADS * V);
  const dim3 grid((unsigned)blocks, (unsigned)(a.N < GRID ? a.N : GRID));
  return SL_LAUNCH(update_kernel<V>, grid, THREADS, 0, e->stream, a);
}

extern "C" sl_status sl_cuda_sampler_update(sl_exec *e, const sl_view *out, const sl_view *in, bool learned, bool clip,
                                            int64_t channels) {
  const sl_shape *s = &in[X].shape;
  update_args a = {};
  a.N = s->dim[0], a.M = 1, a.learned = learned, a.clip = clip;
  for (int i = 2; i < s->rank; i++) a.M *= s->dim[i];
  a.guided = in[SCALE].data ? channels * a.M : 0;
  a.out_row = in[OUT].shape.dim[1] * a.M;
  a.M *= s->dim[1];
  if (a.N == 0 || a.M == 0) return SL_STATUS_OK;
  a.out = (const float *)in[OUT].data, a.x = (const float *)in[X].data, a.noise = (const float *)in[NOISE].data;
  a.scale = (const float *)in[SCALE].data, a.rows = (const double *)in[ROWS].data;
  a.next = (float *)out[NEXT].data, a.x0 = (float *)out[X0].data;
  return by_four(&a) ? launch<4>(e, a) : launch<1>(e, a);
}
