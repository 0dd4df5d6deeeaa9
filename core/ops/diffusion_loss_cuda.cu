/* The diffusion's loss on CUDA: a block per part of a sample. */
#include "gpu/gpu.h"

#include "ops/diffusion_loss_math.h"
#include "ops/kernels.h"

namespace {

constexpr int THREADS = 256;
constexpr int GRID = 65535; /* samples of a grid; the rest in further rounds */

enum { OUT, X0, XT, NOISE, ROWS, WEIGHT, DMSE, DVB };
enum { LOSS, MSE, VB, ERROR };
enum { DOUT, DX0, DXT, DNOISE };

/* A number per sample; p NULL: absent. */
struct numbers {
  const float *p;
  int64_t stride;
};

struct loss_args {
  int64_t N, M, parts; /* M: elements of a sample's x0 */
  bool learned, bf16;  /* bf16: out and its gradient */
  const void *out;
  const float *x0, *xt, *noise;
  const double *rows;
  numbers weight, dmse, dvb;
  double *partial; /* [N, parts, 2] */
  float *result[4];
  void *dout;
  float *dx0, *dxt, *dnoise;
};

template <int V>
struct unit {
  sl_pack<float, V> p, s, x0, xt, noise;
};

} // namespace

SL_DEVICE const float *number_of(const numbers &v, int64_t n) { return v.p ? v.p + n * v.stride : nullptr; }

/* Where sample n's element i is in out; the variance's lies M further. */
SL_DEVICE int64_t place_in_out(const loss_args &a, int64_t n, int64_t i) { return n * (a.learned ? 2 * a.M : a.M) + i; }

template <int V>
SL_DEVICE unit<V> load_unit(const loss_args &a, int64_t n, int64_t i) {
  const int64_t at = n * a.M + i, out = place_in_out(a, n, i);
  unit<V> u;
  u.p = u.s = sl_load<V>(a.out, a.bf16, out);
  if (a.learned) u.s = sl_load<V>(a.out, a.bf16, out + a.M);
  u.x0 = sl_load<V>(a.x0, false, at), u.xt = sl_load<V>(a.xt, false, at), u.noise = sl_load<V>(a.noise, false, at);
  return u;
}

template <int V>
SL_DEVICE sl_loss_point point_of(const unit<V> &u, int v) {
  return {u.p.v[v], u.s.v[v], u.x0.v[v], u.xt.v[v], u.noise.v[v]};
}

/* --- forward --- */

/* One thread's. */
SL_DEVICE void finish_sample(const loss_args &a, int64_t n, double squares, double bound) {
  const sl_loss_result r = sl_loss_finish(squares, bound, a.M, number_of(a.weight, n), a.learned);
  if (a.result[LOSS]) a.result[LOSS][n] = r.loss;
  if (a.result[MSE]) a.result[MSE][n] = r.mse;
  if (a.result[VB]) a.result[VB][n] = r.vb;
  if (a.result[ERROR]) a.result[ERROR][n] = r.error;
}

/* Block (k, n) has part k of sample n, a thread V elements of every THREADS V. A sample of one part is finished here.
 */
template <int V>
__global__ void __launch_bounds__(THREADS) loss_kernel(const loss_args a) {
  const int64_t begin = (int64_t)blockIdx.x * SL_LOSS_PART;
  const int64_t end = begin + SL_LOSS_PART < a.M ? begin + SL_LOSS_PART : a.M;
  for (int64_t n = blockIdx.y; n < a.N; n += gridDim.y) {
    const sl_loss_row k = sl_loss_row_of(a.rows + n * SL_LOSS_COLUMNS);
    double sums[2] = {0.0, 0.0};
    for (int64_t i = begin + threadIdx.x * V; i < end; i += THREADS * V) {
      const unit<V> u = load_unit<V>(a, n, i);
      float squares = 0.0f, bound = 0.0f;
      for (int v = 0; v < V; v++) {
        const float miss = sl_loss_miss(&k, point_of(u, v));
        squares += miss * miss;
        if (a.learned && !k.first) bound += sl_loss_kl(&k, point_of(u, v));
        else if (a.learned) bound += sl_loss_nll(&k, point_of(u, v));
      }
      sums[0] += squares, sums[1] += bound;
    }
    sl_block_sums(sums);
    if (threadIdx.x == 0 && a.parts == 1) finish_sample(a, n, sums[0], sums[1]);
    double *partial = a.partial + 2 * (n * a.parts + blockIdx.x);
    if (threadIdx.x == 0 && a.parts > 1) partial[0] = sums[0], partial[1] = sums[1];
  }
}

/* A thread has a sample, whose parts it adds in order. */
__global__ void finish_kernel(const loss_args a) {
  const int64_t n = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  double squares = 0.0, bound = 0.0;
  for (int64_t k = 0; k < a.parts && n < a.N; k++) {
    const double *partial = a.partial + 2 * (n * a.parts + k);
    squares += partial[0], bound += partial[1];
  }
  if (n < a.N) finish_sample(a, n, squares, bound);
}

/* --- backward --- */

/* An array from element `first` on. What an index adds to that comes later: with one sum for both, nvcc stores a pack's
 * elements one by one. */
SL_DEVICE void *from_element(void *p, bool bf16, int64_t first) { return (char *)p + first * (bf16 ? 2 : 4); }

template <int V>
SL_DEVICE void store_unit(const loss_args &a, int64_t n, int64_t i, const unit<V> &d) {
  const int64_t out = place_in_out(a, n, 0);
  if (a.dout) sl_store<V>(from_element(a.dout, a.bf16, out), a.bf16, i, d.p);
  if (a.dout && a.learned) sl_store<V>(from_element(a.dout, a.bf16, out + a.M), a.bf16, i, d.s);
  if (a.dx0) sl_store<V>(from_element(a.dx0, false, n * a.M), false, i, d.x0);
  if (a.dxt) sl_store<V>(from_element(a.dxt, false, n * a.M), false, i, d.xt);
  if (a.dnoise) sl_store<V>(from_element(a.dnoise, false, n * a.M), false, i, d.noise);
}

/* As in loss_kernel. */
template <int V>
__global__ void __launch_bounds__(THREADS) loss_backward_kernel(const loss_args a) {
  const int64_t begin = (int64_t)blockIdx.x * SL_LOSS_PART;
  const int64_t end = begin + SL_LOSS_PART < a.M ? begin + SL_LOSS_PART : a.M;
  const bool bound = a.learned && a.dvb.p;
  for (int64_t n = blockIdx.y; n < a.N; n += gridDim.y) {
    const sl_loss_row k = sl_loss_row_of(a.rows + n * SL_LOSS_COLUMNS);
    const sl_loss_scale g = sl_loss_scale_of(number_of(a.dmse, n), number_of(a.dvb, n), number_of(a.weight, n), a.M);
    for (int64_t i = begin + threadIdx.x * V; i < end; i += THREADS * V) {
      const unit<V> u = load_unit<V>(a, n, i);
      unit<V> d;
      for (int v = 0; v < V; v++) {
        const sl_loss_point x = point_of(u, v);
        sl_loss_point r = sl_loss_square_d(&k, x, g.square);
        if (bound && !k.first) r = sl_loss_kl_d(&k, x, g.bound, r);
        else if (bound) r = sl_loss_nll_d(&k, x, g.bound, r);
        d.p.v[v] = r.p, d.s.v[v] = r.s, d.x0.v[v] = r.x0, d.xt.v[v] = r.xt, d.noise.v[v] = r.noise;
      }
      store_unit<V>(a, n, i, d);
    }
  }
}

/* --- launches --- */

static numbers numbers_of(const sl_view *v) { return {(const float *)v->data, v->data ? v->stride[0] : 0}; }

static loss_args args_of(const sl_view *in, bool learned) {
  const sl_shape *x0 = &in[X0].shape;
  loss_args a = {};
  a.N = x0->dim[0], a.M = 1;
  for (int i = 1; i < x0->rank; i++) a.M *= x0->dim[i];
  a.parts = sl_loss_parts(a.M);
  a.learned = learned, a.bf16 = in[OUT].dtype == SL_BF16;
  a.out = in[OUT].data, a.x0 = (const float *)in[X0].data, a.xt = (const float *)in[XT].data;
  a.noise = (const float *)in[NOISE].data, a.rows = (const double *)in[ROWS].data;
  a.weight = numbers_of(&in[WEIGHT]);
  return a;
}

/* Whether four neighbours may be read and written as one everywhere; a part's begin is a multiple of four. */
static bool by_four(const loss_args *a) {
  const uintptr_t out = (uintptr_t)a->out | (uintptr_t)a->dout;
  const uintptr_t all = (uintptr_t)a->x0 | (uintptr_t)a->xt | (uintptr_t)a->noise | (uintptr_t)a->dx0 |
                        (uintptr_t)a->dxt | (uintptr_t)a->dnoise;
  return a->M % 4 == 0 && all % 16 == 0 && out % (a->bf16 ? 8 : 16) == 0;
}

static dim3 grid_of(const loss_args *a) { return dim3((unsigned)a->parts, (unsigned)(a->N < GRID ? a->N : GRID)); }

extern "C" sl_status sl_cuda_diffusion_loss(sl_exec *e, const sl_view *out, const sl_view *in, bool learned,
                                            void *workspace) {
  loss_args a = args_of(in, learned);
  if (a.N == 0) return SL_STATUS_OK;
  a.partial = (double *)workspace;
  for (int k = LOSS; k <= ERROR; k++) a.result[k] = (float *)out[k].data;
  if (by_four(&a)) SL_TRY(SL_LAUNCH(loss_kernel<4>, grid_of(&a), THREADS, 0, e->stream, a));
  else SL_TRY(SL_LAUNCH(loss_kernel<1>, grid_of(&a), THREADS, 0, e->stream, a));
  if (a.parts == 1) return SL_STATUS_OK;
  return SL_LAUNCH(finish_kernel, dim3((unsigned)((a.N + 127) / 128)), 128, 0, e->stream, a);
}

extern "C" sl_status sl_cuda_diffusion_loss_backward(sl_exec *e, const sl_view *out, const sl_view *in, bool learned) {
  loss_args a = args_of(in, learned);
  if (a.N == 0) return SL_STATUS_OK;
  a.dmse = numbers_of(&in[DMSE]), a.dvb = numbers_of(&in[DVB]);
  a.dout = out[DOUT].data;
  a.dx0 = (float *)out[DX0].data, a.dxt = (float *)out[DXT].data, a.dnoise = (float *)out[DNOISE].data;
  if (by_four(&a)) return SL_LAUNCH(loss_backward_kernel<4>, grid_of(&a), THREADS, 0, e->stream, a);
  return SL_LAUNCH(loss_backward_kernel<1>, grid_of(&a), THREADS, 0, e->stream, a);
}
