/* Copies on CUDA: dense ones and rows by units, transposed ones by tiles in shared memory; sums into place; constants.
 */
#include <string.h>

#include "base/host_device.h"

#include "ops/elementwise.h"
#include "ops/map_cuda.h"

/* --- element by element --- */

/* Conversions by value: what of() gives is rounded into Y. */
template <class Y, class A>
struct cast_of : sl_gpu_function<Y, A> {
  enum { U = 4, BROADCASTS = true };
  template <class S>
  __device__ S of(S x) const {
    return x;
  }
};
struct cast_from_u8 : sl_gpu_function<float, uint8_t> {
  enum { U = 4 };
  __device__ float of(uint8_t x) const { return (float)x; }
};
struct cast_to_u8 : sl_gpu_function<uint8_t, float> {
  enum { U = 4 };
  __device__ uint8_t of(float x) const { return (uint8_t)sl_gpu_integer(x, 0, UINT8_MAX); }
};

static sl_status run_cast(sl_exec *e, sl_gpu_walk *w) {
  if (sl_gpu_map_fits<cast_of<sl_gpu_bf16, float>>(w)) return sl_gpu_map(e, w, cast_of<sl_gpu_bf16, float>());
  if (sl_gpu_map_fits<cast_of<float, sl_gpu_bf16>>(w)) return sl_gpu_map(e, w, cast_of<float, sl_gpu_bf16>());
  if (sl_gpu_map_fits<cast_from_u8>(w)) return sl_gpu_map(e, w, cast_from_u8());
  if (sl_gpu_map_fits<cast_to_u8>(w)) return sl_gpu_map(e, w, cast_to_u8());
  switch (w->v[1].dtype) {
    case SL_F32:
    case SL_BF16:
    case SL_F16: return sl_gpu_map_one(e, w, cast_of<sl_gpu_stored<float>, sl_gpu_stored<float>>());
    case SL_F64: return sl_gpu_map_one(e, w, cast_of<sl_gpu_stored<double>, sl_gpu_stored<double>>());
    default: return sl_gpu_map_one(e, w, cast_of<sl_gpu_stored<int64_t>, sl_gpu_stored<int64_t>>());
  }
}

/* Elements of one dtype, by the largest unit that fits. */
template <class T>
static sl_status run_same(sl_exec *e, sl_gpu_walk *w) {
  constexpr int most = 16 / sizeof(T);
  typedef cast_of<T, T> same;
  if (sl_gpu_walk_fits(w, most)) return sl_gpu_map_by<same, most>(e, w, same());
  if constexpr (most > 2)
    if (sl_gpu_walk_fits(w, most / 2)) return sl_gpu_map_by<same, most / 2>(e, w, same());
  if constexpr (most > 4)
    if (sl_gpu_walk_fits(w, most / 4)) return sl_gpu_map_by<same, most / 4>(e, w, same());
  return sl_gpu_map_one(e, w, same());
}

/* --- tiles --- */

namespace {

constexpr int THREADS = 256, LOG_TILE = 12, LOG_SIDE = 8; /* a tile has 4096 elements at most, 256 along a side */

/* Rows go on in x from one element to the next, columns in y. A tile has 2^log_rows rows of 2^log_columns. */
struct tile_args {
  sl_gpu_walk tiles; /* y, x, and the tile's first column and row as "offsets" of operands without memory */
  int64_t rows, columns, y_row, x_column; /* of the plane; strides */
  int log_rows, log_columns;
};

} // namespace

/* A line of a tile has 4 bytes more than its elements, so that rows and columns both spread over the banks. */
SL_HD int tile_line(int log_columns, int size) { return (1 << log_columns) + (size < 4 ? 4 / size : 1); }

/* Block b has tile b; a thread reads every so-many-th element of a row of x, writes such of a column of y. */
template <class T>
__global__ void __launch_bounds__(THREADS) copy_tiles_kernel(const tile_args a) {
  SL_SHARED_DYN(T, tile);
  const int line = tile_line(a.log_columns, sizeof(T)), me = (int)threadIdx.x;
  int64_t at[4];
  sl_gpu_walk_at(a.tiles, blockIdx.x, at);
  const int64_t rest_c = a.columns - at[2], rest_r = a.rows - at[3];
  const int columns = (int)(rest_c < 1 << a.log_columns ? rest_c : 1 << a.log_columns);
  const int rows = (int)(rest_r < 1 << a.log_rows ? rest_r : 1 << a.log_rows);

  int r = me & ((1 << a.log_rows) - 1), c = me >> a.log_rows, step = THREADS >> a.log_rows;
  const T *x = (const T *)a.tiles.v[1].p + at[1] + r + c * a.x_column;
  T *place = tile + r * line + c;
  const int end_c = r < rows ? columns : 0;
  SL_UNROLL_BY(8)
  for (; c < end_c; c += step, place += step, x += step * a.x_column) *place = *x;
  __syncthreads();

  c = me & ((1 << a.log_columns) - 1), r = me >> a.log_columns, step = THREADS >> a.log_columns;
  T *y = (T *)a.tiles.v[0].p + at[0] + c + r * a.y_row;
  place = tile + r * line + c;
  const int end_r = c < columns ? rows : 0;
  SL_UNROLL_BY(8)
  for (; r < end_r; r += step, place += step * line, y += step * a.y_row) *y = *place;
}

static int log_up(int64_t n) {
  int s = 0;
  while (((int64_t)1 << s) < n) s++;
  return s;
}

static int least(int a, int b, int c) { return a < b ? (a < c ? a : c) : (b < c ? b : c); }

/* Whether y is written along another dimension than x lies along, both long enough; then the tiles. */
static bool tiles_of(const sl_gpu_walk *w, tile_args *a) {
  int d = 0;
  while (d < w->rank && w->v[1].stride[d] != 1) d++;
  if (d == 0 || d == w->rank || w->v[0].stride[0] != 1 || w->v[1].stride[0] == 0) return false;
  a->columns = w->dim[0], a->rows = w->dim[d], a->y_row = w->v[0].stride[d], a->x_column = w->v[1].stride[0];
  const int across = log_up(a->columns), down = log_up(a->rows);
  if (across + down < LOG_SIDE) return false;
  a->log_columns = least(across, LOG_TILE / 2, LOG_SIDE);
  a->log_rows = least(down, LOG_TILE - a->log_columns, LOG_SIDE);
  a->log_columns = least(across, LOG_TILE - a->log_rows, LOG_SIDE);
  const int64_t wide = (int64_t)1 << a->log_columns, tall = (int64_t)1 << a->log_rows;
  sl_gpu_walk *t = &a->tiles;
  *t = *w;
  t->dim[0] = (a->columns + wide - 1) / wide, t->dim[d] = (a->rows + tall - 1) / tall;
  for (int k = 0; k < 2; k++) t->v[k].stride[0] *= wide, t->v[k].stride[d] *= tall;
  t->v[2].stride[0] = wide, t->v[3].stride[d] = tall;
  sl_gpu_walk_divisors(t);
  return true;
}

template <class T>
static sl_status run_same_or_tiles(sl_exec *e, sl_gpu_walk *w) {
  tile_args a = {};
  if (w->count == 0 || !tiles_of(w, &a)) return run_same<T>(e, w);
  const size_t bytes = ((size_t)tile_line(a.log_columns, sizeof(T)) << a.log_rows) * sizeof(T);
  return SL_LAUNCH(copy_tiles_kernel<T>, dim3((unsigned)a.tiles.count), THREADS, bytes, e->stream, a);
}

/* --- kernels --- */

extern "C" sl_status sl_cuda_copy(sl_exec *e, const sl_view *y, const sl_view *x) {
  if (y->data == x->data && y->dtype == x->dtype &&
      memcmp(y->stride, x->stride, (size_t)y->shape.rank * sizeof *y->stride) == 0)
    return SL_STATUS_OK;
  const sl_view *const views[] = {y, x};
  sl_gpu_walk w = sl_gpu_walk_of(2, views);
  if (y->dtype != x->dtype) return run_cast(e, &w);
  switch (w.v[0].size) {
    case 1: return run_same_or_tiles<uint8_t>(e, &w);
    case 2: return run_same_or_tiles<uint16_t>(e, &w);
    case 4: return run_same_or_tiles<uint32_t>(e, &w);
    default: return run_same_or_tiles<uint64_t>(e, &w);
  }
}

extern "C" sl_status sl_cuda_accumulate(sl_exec *e, const sl_view *y, const sl_view *x) {
  return sl_cuda_binary(e, SL_BINARY_add, y, y, x);
}

template <class T>
struct fill_of : sl_gpu_function<T> {
  T value;
  __device__ T of() const { return value; }
};

template <class T>
static sl_status run_fill(sl_exec *e, sl_gpu_walk *w, const void *element) {
  fill_of<T> f;
  memcpy(&f.value, element, sizeof f.value);
  return sl_gpu_walk_fits(w, f.V) ? sl_gpu_map(e, w, f) : sl_gpu_map_one(e, w, f);
}

extern "C" sl_status sl_cuda_fill(sl_exec *e, const sl_view *y, double value) {
  uint64_t element;
  sl_element_set(y->dtype, &element, value);
  sl_gpu_walk w = sl_gpu_walk_of(1, &y);
  switch (w.v[0].size) {
    case 1: return run_fill<uint8_t>(e, &w, &element);
    case 2: return run_fill<uint16_t>(e, &w, &element);
    case 4: return run_fill<uint32_t>(e, &w, &element);
    default: return run_fill<uint64_t>(e, &w, &element);
  }
}
