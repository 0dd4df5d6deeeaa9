/* Reductions on CUDA, of views of any strides. A group of threads has an output, or some outputs that lie side by side;
 * there is no workspace, so no output is shared by blocks: a sum of everything to one number runs on one block. Sums of
 * floats are taken in short float runs and gathered in double, in an order fixed by the shape. */
#include "ops/reduce.h"

#include <type_traits>

#include "ops/elementwise_math.h"
#include "ops/views_cuda.h"

namespace {

constexpr int THREADS = 256;             /* of a block with several groups; a group of more than a warp has its own */
constexpr int64_t FEW_LOADS = 4;         /* that are worth a thread */
constexpr int64_t RESIDENT = 132 * 2048; /* threads that a large GPU runs at once */
constexpr int64_t ENOUGH = 264;          /* groups that keep it busy if they are large */

/* Threads of the largest block, and loads that each of them has under way; of columns, that have more totals. */
constexpr int LARGEST = 1024, LARGEST_OF_COLUMNS = 512, LOADS = 4, LOADS_OF_COLUMNS = 8;

struct reduce_args {
  sl_gpu_walk kept, reduced; /* kept: x, y; reduced: x */
  int64_t groups, n_reduced; /* n_reduced: in elements */
  int32_t lanes, threads;    /* of a group, powers of two: lanes have outputs, threads / lanes share each of them */
  int32_t fn;
  int64_t y_step; /* from one of V outputs to the next */
};

/* What elements are worked on as: float, or int64_t. */
template <class T>
struct element {
  typedef int64_t type;
  SL_DEVICE int64_t of(T v) { return v; }
};
template <>
struct element<float> {
  typedef float type;
  SL_DEVICE float of(float v) { return v; }
};
template <>
struct element<uint16_t> {
  typedef float type;
  SL_DEVICE float of(uint16_t v) { return sl_gpu_from_bf16(v); }
};

/* FN is SL_REDUCE_SUM (for the mean, too), _MAX or _MIN. */
template <class T, int FN>
using total_type = std::conditional_t<FN == SL_REDUCE_SUM && std::is_same_v<typename element<T>::type, float>, double,
                                      typename element<T>::type>;

} // namespace

/* --- combining --- */

template <int FN, class R>
SL_DEVICE R nothing() {
  constexpr bool is_float = std::is_floating_point_v<R>;
  if constexpr (FN == SL_REDUCE_SUM) return R(0);
  else if constexpr (is_float) return FN == SL_REDUCE_MAX ? -INFINITY : INFINITY;
  else return FN == SL_REDUCE_MAX ? INT64_MIN : INT64_MAX;
}

template <int FN>
SL_DEVICE float join(float a, float b) {
  if constexpr (FN == SL_REDUCE_SUM) return a + b;
  else return FN == SL_REDUCE_MAX ? sl_maximum_f(a, b) : sl_minimum_f(a, b);
}

template <int FN>
SL_DEVICE double join(double a, double b) {
  return a + b; /* sums alone are taken in double */
}

template <int FN>
SL_DEVICE int64_t join(int64_t a, int64_t b) {
  if constexpr (FN == SL_REDUCE_SUM) return (int64_t)((uint64_t)a + (uint64_t)b);
  else return (FN == SL_REDUCE_MAX ? a > b : a < b) ? a : b;
}

/* --- a thread's part --- */

/* R units, `step` apart, that are loaded before any is used. COLUMNS: their V elements belong to V outputs. */
template <class T, int FN, int V, bool COLUMNS, int R>
SL_DEVICE void add_units(const reduce_args &a, const T *x, int64_t unit, int64_t step, total_type<T, FN> *total) {
  typedef typename element<T>::type value;
  sl_pack<T, V> loaded[R];
  for (int k = 0; k < R; k++) {
    int64_t at[1];
    sl_gpu_walk_at<1>(a.reduced, unit + k * step, at);
    loaded[k] = *(const sl_pack<T, V> *)(x + at[0]);
  }
  value run[V];
  for (int i = 0; i < V; i++) {
    run[i] = element<T>::of(loaded[0].v[i]);
    for (int k = 1; k < R; k++) run[i] = join<FN>(run[i], element<T>::of(loaded[k].v[i]));
  }
  if constexpr (COLUMNS) {
    for (int i = 0; i < V; i++) total[i] = join<FN>(total[i], (total_type<T, FN>)run[i]);
  } else {
    for (int i = 1; i < V; i++) run[0] = join<FN>(run[0], run[i]);
    total[0] = join<FN>(total[0], (total_type<T, FN>)run[0]);
  }
}

/* The last units, fewer than 2 R from `unit` on. */
template <class T, int FN, int V, bool COLUMNS, int R>
SL_DEVICE void add_rest(const reduce_args &a, const T *x, int64_t unit, int64_t step, total_type<T, FN> *total) {
  if (unit + (R - 1) * step < a.reduced.count) {
    add_units<T, FN, V, COLUMNS, R>(a, x, unit, step, total);
    unit += R * step;
  }
  if constexpr (R > 1) add_rest<T, FN, V, COLUMNS, R / 2>(a, x, unit, step, total);
}

/* Units slot, slot + slots … of the output whose elements start at x. */
template <class T, int FN, int V, bool COLUMNS>
SL_DEVICE void reduce_part(const reduce_args &a, const T *x, int64_t slot, int64_t slots, total_type<T, FN> *total) {
  constexpr int R = COLUMNS ? LOADS_OF_COLUMNS : LOADS;
  int64_t unit = slot;
  for (; unit + (R - 1) * slots < a.reduced.count; unit += R * slots)
    add_units<T, FN, V, COLUMNS, R>(a, x, unit, slots, total);
  add_rest<T, FN, V, COLUMNS, R / 2>(a, x, unit, slots, total);
}

/* --- a group's --- */

/* Joins the N totals of the threads of a group that have the same lane; the first `lanes` threads get them. A group of
 * more than a warp is a block, and has `parts` for all its warps. */
template <int FN, int N, class R>
SL_DEVICE void join_group(const reduce_args &a, R *total, R *parts) {
  const int lane = (int)(threadIdx.x % 32), warp = (int)(threadIdx.x / 32), width = a.lanes * N;
  for (int m = a.threads < 32 ? a.threads / 2 : 16; m >= a.lanes; m >>= 1)
    for (int i = 0; i < N; i++) total[i] = join<FN>(total[i], __shfl_xor_sync(0xffffffffu, total[i], m));
  if (a.threads <= 32) return;
  __syncthreads(); /* parts may still be read from the group before */
  for (int i = 0; i < N && lane < a.lanes; i++) parts[warp * width + lane * N + i] = total[i];
  __syncthreads();
  for (int i = 0; i < N && (int)threadIdx.x < a.lanes; i++) {
    total[i] = parts[lane * N + i];
    for (int k = 1; k < a.threads / 32; k++) total[i] = join<FN>(total[i], parts[k * width + lane * N + i]);
  }
}

template <class R>
SL_DEVICE void put(const reduce_args &a, int64_t at, R total) {
  const sl_gpu_view &y = a.kept.v[1];
  if constexpr (std::is_same_v<R, double>)
    if (a.fn == SL_REDUCE_MEAN) total /= (double)a.n_reduced;
  sl_gpu_set(y.p, y.dtype, at, total);
}

/* `threads` threads have a group of outputs: `lanes` units of the walk over outputs. COLUMNS: such a unit is V outputs;
 * else it is one, of elements that are read V at a time. */
template <class T, int FN, int V, bool COLUMNS>
__global__ void __launch_bounds__(COLUMNS ? LARGEST_OF_COLUMNS : LARGEST) reduce_kernel(const reduce_args a) {
  typedef total_type<T, FN> R;
  constexpr int N = COLUMNS ? V : 1;
  SL_SHARED_DYN(R, parts);
  const int64_t at_once = blockDim.x / a.threads, lane = threadIdx.x % a.lanes;
  const int64_t slot = threadIdx.x % a.threads / a.lanes, slots = a.threads / a.lanes;
  for (int64_t base = blockIdx.x * at_once; base < a.groups; base += gridDim.x * at_once) {
    const int64_t unit = (base + threadIdx.x / a.threads) * a.lanes + lane;
    const bool real = unit < a.kept.count;
    int64_t at[2] = {0, 0};
    R total[N];
    for (int i = 0; i < N; i++) total[i] = nothing<FN, R>();
    if (real) {
      sl_gpu_walk_at<2>(a.kept, unit, at);
      reduce_part<T, FN, V, COLUMNS>(a, (const T *)a.kept.v[0].p + at[0], slot, slots, total);
    }
    join_group<FN, N>(a, total, parts);
    for (int i = 0; i < N && real && slot == 0; i++) put(a, at[1] + i * a.y_step, total[i]);
  }
}

/* --- argmax: the first of the largest; NaN is larger than any number --- */

template <class R>
struct place {
  R value;
  int64_t at;
};

template <class R>
SL_DEVICE bool is_before(const place<R> &a, const place<R> &b) {
  if constexpr (std::is_floating_point_v<R>) {
    if ((a.value != a.value) != (b.value != b.value)) return a.value != a.value;
    if (a.value != a.value) return a.at < b.at;
  }
  return a.value > b.value || (a.value == b.value && a.at < b.at);
}

template <class R>
SL_DEVICE void join_places(const reduce_args &a, place<R> &best, place<R> *parts) {
  const int lane = (int)(threadIdx.x % 32), warp = (int)(threadIdx.x / 32);
  for (int m = a.threads < 32 ? a.threads / 2 : 16; m >= a.lanes; m >>= 1) {
    const place<R> other = {__shfl_xor_sync(0xffffffffu, best.value, m), __shfl_xor_sync(0xffffffffu, best.at, m)};
    if (is_before(other, best)) best = other;
  }
  if (a.threads <= 32) return;
  __syncthreads(); /* parts may still be read from the group before */
  if (lane < a.lanes) parts[warp * a.lanes + lane] = best;
  __syncthreads();
  for (int k = 0; k < a.threads / 32 && (int)threadIdx.x < a.lanes; k++)
    if (is_before(parts[k * a.lanes + lane], best)) best = parts[k * a.lanes + lane];
}

/* As in reduce_kernel; R is float or int64_t. The walk over reduced elements has one dimension: a unit is a position.
 */
template <class R>
__global__ void __launch_bounds__(LARGEST) argmax_kernel(const reduce_args a) {
  SL_SHARED_DYN(place<R>, parts);
  const int64_t at_once = blockDim.x / a.threads, lane = threadIdx.x % a.lanes;
  const int64_t slot = threadIdx.x % a.threads / a.lanes, slots = a.threads / a.lanes;
  for (int64_t base = blockIdx.x * at_once; base < a.groups; base += gridDim.x * at_once) {
    const int64_t unit = (base + threadIdx.x / a.threads) * a.lanes + lane;
    const bool real = unit < a.kept.count;
    int64_t at[2] = {0, 0};
    place<R> best = {nothing<SL_REDUCE_MAX, R>(), INT64_MAX};
    if (real) sl_gpu_walk_at<2>(a.kept, unit, at);
    for (int64_t i = slot; real && i < a.reduced.count; i += slots) {
      const sl_gpu_view &x = a.kept.v[0];
      const place<R> next = {sl_gpu_get<R>(x.p, x.dtype, at[0] + i * a.reduced.v[0].stride[0]), i};
      if (is_before(next, best)) best = next;
    }
    join_places(a, best, parts);
    if (real && slot == 0) ((int64_t *)a.kept.v[1].p)[at[1]] = best.at;
  }
}

/* --- planning --- */

static reduce_args args_of(int fn, const sl_view *y, const sl_view *x) {
  sl_view kept = *x, reduced = *x;
  reduce_args a = {};
  a.fn = fn, a.n_reduced = 1;
  for (int i = 0; i < x->shape.rank; i++) {
    const bool keeps = y->shape.dim[i] == x->shape.dim[i];
    if (!keeps) a.n_reduced *= x->shape.dim[i];
    (keeps ? reduced : kept).shape.dim[i] = 1;
  }
  const sl_view *outer[] = {&kept, y}, *inner[] = {&reduced};
  a.kept = sl_gpu_walk_of(2, outer);
  a.reduced = sl_gpu_walk_of(1, inner);
  return a;
}

static int64_t size_of(int64_t v) { return v < 0 ? -v : v; }

/* Whether outputs lie closer together in x than the elements of one of them. */
static bool by_columns(const reduce_args *a) {
  const int64_t kept = size_of(a->kept.v[0].stride[0]), reduced = size_of(a->reduced.v[0].stride[0]);
  return a->kept.count > 1 && a->reduced.count > 1 && kept > 0 && kept < reduced;
}

static bool are_multiples(const sl_gpu_walk *w, int from, int v) {
  bool fits = true;
  for (int i = from; i < w->rank; i++) fits &= w->dim[i] == 1 || w->v[0].stride[i] % v == 0;
  return fits;
}

/* Whether v elements that lie side by side can be read as one, along the dimension that lies densest. */
static bool fits_vector(const reduce_args *a, bool columns, int v) {
  const sl_gpu_walk *dense = columns ? &a->kept : &a->reduced, *other = columns ? &a->reduced : &a->kept;
  return dense->v[0].stride[0] == 1 && dense->dim[0] % v == 0 && (uintptr_t)a->kept.v[0].p % 16 == 0 &&
         are_multiples(dense, 1, v) && are_multiples(other, 0, v);
}

/* Groups: 128 bytes of columns, fewer where that gives too few groups; then as many threads as have FEW_LOADS units
 * each, fewer where all of them would be more than run at once. */
static void arrange(reduce_args *a, bool columns) {
  const int64_t bytes = (int64_t)a->kept.v[0].size * a->kept.vector, units = a->kept.count;
  int64_t lanes = 1, slots = 1;
  while (columns && lanes < 32 && lanes < units && lanes * bytes < 128) lanes *= 2;
  while (lanes > 1 && lanes * bytes > 32 && (units + lanes - 1) / lanes < ENOUGH) lanes /= 2;
  a->groups = (units + lanes - 1) / lanes;
  while (slots * lanes < (columns ? LARGEST_OF_COLUMNS : LARGEST) && slots * 2 * FEW_LOADS <= a->reduced.count)
    slots *= 2;
  while (slots * lanes > 32 && a->groups * slots * lanes > 2 * RESIDENT) slots /= 2;
  a->lanes = (int32_t)lanes, a->threads = (int32_t)(lanes * slots);
}

/* Small blocks where large ones would leave multiprocessors without one. */
static int block_of(const reduce_args *a) {
  int threads = a->threads > 32 ? a->threads : THREADS;
  while (a->threads <= 32 && threads > 64 && a->groups * a->threads < ENOUGH * threads) threads /= 2;
  return threads;
}

static dim3 grid_of(const reduce_args *a) {
  const int64_t at_once = block_of(a) / a->threads, blocks = (a->groups + at_once - 1) / at_once;
  return dim3((unsigned)(blocks < (1 << 30) ? blocks : 1 << 30));
}

/* Bytes of shared memory for totals of `size` bytes, n to a lane. */
static size_t shared_of(const reduce_args *a, size_t size, int n) {
  return a->threads > 32 ? (size_t)(a->threads / 32 * a->lanes * n) * size : 0;
}

/* --- launches --- */

template <class T, int FN, int V, bool COLUMNS>
static sl_status launch_planned(sl_exec *e, const reduce_args &a) {
  const size_t bytes = shared_of(&a, sizeof(total_type<T, FN>), COLUMNS ? V : 1);
  return SL_LAUNCH((reduce_kernel<T, FN, V, COLUMNS>), grid_of(&a), (unsigned)block_of(&a), bytes, e->stream, a);
}

template <class T, int FN>
static sl_status launch_as(sl_exec *e, reduce_args a) {
  const bool columns = by_columns(&a);
  if constexpr (std::is_same_v<typename element<T>::type, float>) {
    constexpr int V = 16 / sizeof(T);
    if (fits_vector(&a, columns, V)) {
      a.y_step = columns ? a.kept.v[1].stride[0] : 0;
      sl_gpu_walk_by(columns ? &a.kept : &a.reduced, V);
      arrange(&a, columns);
      return columns ? launch_planned<T, FN, V, true>(e, a) : launch_planned<T, FN, V, false>(e, a);
    }
  }
  arrange(&a, columns);
  return launch_planned<T, FN, 1, false>(e, a);
}

template <class T>
static sl_status launch(sl_exec *e, const reduce_args &a) {
  if (a.fn == SL_REDUCE_MAX) return launch_as<T, SL_REDUCE_MAX>(e, a);
  return a.fn == SL_REDUCE_MIN ? launch_as<T, SL_REDUCE_MIN>(e, a) : launch_as<T, SL_REDUCE_SUM>(e, a);
}

extern "C" sl_status sl_cuda_reduce(sl_exec *e, int fn, const sl_view *y, const sl_view *x) {
  const reduce_args a = args_of(fn, y, x);
  if (a.kept.count == 0) return SL_STATUS_OK;
  switch (x->dtype) {
    case SL_F32: return launch<float>(e, a);
    case SL_BF16: return launch<uint16_t>(e, a);
    case SL_I32: return launch<int32_t>(e, a);
    case SL_I64: return launch<int64_t>(e, a);
    case SL_U8: return launch<uint8_t>(e, a);
    default: return sl_fail(SL_STATUS_DTYPE, "reduce: x is %s, which has no arithmetic", sl_dtype_name(x->dtype));
  }
}

extern "C" sl_status sl_cuda_argmax(sl_exec *e, int dim, const sl_view *y, const sl_view *x) {
  (void)dim; /* the one that y does not have */
  reduce_args a = args_of(SL_REDUCE_MAX, y, x);
  if (a.kept.count == 0) return SL_STATUS_OK;
  arrange(&a, by_columns(&a));
  const bool is_float = x->dtype == SL_F32 || x->dtype == SL_BF16;
  const size_t bytes = shared_of(&a, sizeof(place<int64_t>), 1);
  if (is_float) return SL_LAUNCH(argmax_kernel<float>, grid_of(&a), (unsigned)block_of(&a), bytes, e->stream, a);
  return SL_LAUNCH(argmax_kernel<int64_t>, grid_of(&a), (unsigned)block_of(&a), bytes, e->stream, a);
}
