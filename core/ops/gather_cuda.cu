/* Rows by number, and the embedding of timesteps, on CUDA. A number outside the table leaves a note (tensor/fault.h);
 * its row is zeros in gather, and is left out in scatter_add. */
#include "gpu/gpu.h"

#include "ops/kernels.h"
#include "tensor/fault.h"

namespace {

constexpr int THREADS = 256, WARPS = THREADS / 32;
constexpr int SAMPLES = 8; /* of one frequency, by a thread */

struct numbers {
  const void *p;
  bool wide; /* i64, else i32 */
  int64_t n;
};

struct gather_args {
  numbers index;
  const void *from;
  void *to;
  int64_t rows, width; /* of the table; width in units */
  int64_t lanes;       /* threads of a row, a power of two up to 32 */
  int64_t *fault;
};

struct scatter_args {
  numbers index;
  const void *from;
  float *to;
  bool bf16;
  int64_t rows, width;
  int64_t *fault;
};

} // namespace

SL_DEVICE int64_t number(const numbers &index, int64_t k) {
  return index.wide ? ((const int64_t *)index.p)[k] : ((const int32_t *)index.p)[k];
}

SL_DEVICE void note(int64_t *fault, int64_t value, int64_t rows) {
  if (!fault) return;
  fault[SL_FAULT_VALUE] = value;
  fault[SL_FAULT_LIMIT] = rows;
  fault[SL_FAULT_CODE] = SL_FAULT_INDEX;
}

/* --- gather --- */

/* `lanes` threads have a row, of units U. */
template <class U>
__global__ void gather_kernel(const gather_args a) {
  const int64_t at_once = THREADS / a.lanes, lane = threadIdx.x % a.lanes;
  for (int64_t k = blockIdx.x * at_once + threadIdx.x / a.lanes; k < a.index.n; k += gridDim.x * at_once) {
    const int64_t row = number(a.index, k);
    const bool known = row >= 0 && row < a.rows;
    if (!known && lane == 0) note(a.fault, row, a.rows);
    const U *from = (const U *)a.from + (known ? row : 0) * a.width, zero = {};
    U *to = (U *)a.to + k * a.width;
    for (int64_t i = lane; i < a.width; i += a.lanes) to[i] = known ? from[i] : zero;
  }
}

template <class U>
static sl_status launch_gather(sl_exec *e, gather_args a, int64_t bytes) {
  a.width = bytes / (int64_t)sizeof(U), a.lanes = 1;
  while (a.lanes < 32 && a.lanes < a.width) a.lanes *= 2;
  const int64_t at_once = THREADS / a.lanes, blocks = (a.index.n + at_once - 1) / at_once;
  const dim3 grid((unsigned)(blocks < (1 << 30) ? blocks : 1 << 30));
  return SL_LAUNCH(gather_kernel<U>, grid, THREADS, 0, e->stream, a);
}

static numbers numbers_of(const sl_view *index) {
  return {index->data, index->dtype == SL_I64, sl_shape_numel(&index->shape)};
}

extern "C" sl_status sl_cuda_gather(sl_exec *e, const sl_view *y, const sl_view *table, const sl_view *index,
                                    int64_t width) {
  const int64_t bytes = width * (int64_t)sl_dtype_size(table->dtype);
  const gather_args a = {numbers_of(index), table->data, y->data, table->shape.dim[0], 0, 0, e->fault};
  if (a.index.n == 0) return SL_STATUS_OK;
  const uintptr_t any = (uintptr_t)a.from | (uintptr_t)a.to | (uintptr_t)bytes;
  if (any % 16 == 0) return launch_gather<sl_pack<uint32_t, 4>>(e, a, bytes);
  if (any % 4 == 0) return launch_gather<uint32_t>(e, a, bytes);
  return any % 2 == 0 ? launch_gather<uint16_t>(e, a, bytes) : launch_gather<uint8_t>(e, a, bytes);
}

/* --- scatter_add --- */

/* Bit i of word w: whether the number at `begin` + 32 w + i is `row`. */
SL_DEVICE void mark(const scatter_args &a, int64_t row, int64_t begin, unsigned *words) {
  const int64_t k = begin + threadIdx.x, value = k < a.index.n ? number(a.index, k) : row;
  const unsigned lane = threadIdx.x % 32;
  if (blockIdx.x == 0 && blockIdx.y == 0 && k < a.index.n && (value < 0 || value >= a.rows))
    note(a.fault, value, a.rows);
  const unsigned word = __ballot_sync(0xffffffffu, k < a.index.n && value == row);
  __syncthreads(); /* words may still be read from the numbers before */
  if (lane == 0) words[threadIdx.x / 32] = word;
  __syncthreads();
}

/* Block (r, i) has row r of the table, and V THREADS columns from i V THREADS: a thread has V columns. The numbers are
 * compared to r by all threads together, then the rows that match are added in order. */
template <int V>
__global__ void scatter_add_kernel(const scatter_args a) {
  SL_SHARED(unsigned, words, WARPS);
  const int64_t row = blockIdx.x, step = (int64_t)gridDim.y * THREADS * V;
  for (int64_t base = (int64_t)blockIdx.y * THREADS * V; base == 0 || base < a.width; base += step) {
    const int64_t c = base + (int64_t)threadIdx.x * V;
    const bool real = row < a.rows && c < a.width;
    sl_pack<float, V> sum;
    for (int i = 0; i < V; i++) sum.v[i] = 0.0f;
    for (int64_t begin = 0; begin < a.index.n; begin += THREADS) {
      mark(a, row, begin, words);
      for (int w = 0; w < WARPS && real; w++)
        for (unsigned rest = words[w]; rest; rest &= rest - 1) {
          const int64_t k = begin + 32 * w + __ffs((int)rest) - 1;
          const sl_pack<float, V> x = sl_load<V>(a.from, a.bf16, k * a.width + c);
          for (int i = 0; i < V; i++) sum.v[i] += x.v[i];
        }
    }
    if (real) sl_store<V>(a.to, false, row * a.width + c, sum);
  }
}

template <int V>
static sl_status launch_scatter(sl_exec *e, const scatter_args &a) {
  const int64_t strips = (a.width + THREADS * V - 1) / (THREADS * V);
  const unsigned y = (unsigned)(strips < 1 ? 1 : strips < 65535 ? strips : 65535);
  const dim3 grid((unsigned)(a.rows > 0 ? a.rows : 1), y);
  return SL_LAUNCH(scatter_add_kernel<V>, grid, THREADS, 0, e->stream, a);
}

extern "C" sl_status sl_cuda_scatter_add(sl_exec *e, const sl_view *dtable, const sl_view *dy, const sl_view *index,
                                         int64_t width) {
  const scatter_args a = {
      numbers_of(index), dy->data, (float *)dtable->data, dy->dtype == SL_BF16, dtable->shape.dim[0], width, e->fault};
  SL_REQUIRE(a.rows <= 0x7fffffff, UNSUPPORTED,
             "scatter_add: a table of %lld rows, expected at most 2147483647 on a GPU", (long long)a.rows);
  const bool four = width % 4 == 0 && ((uintptr_t)a.from | (uintptr_t)a.to) % 16 == 0;
  return four ? launch_scatter<4>(e, a) : launch_scatter<1>(e, a);
}

/* --- timesteps --- */

/* A thread has one frequency, of SAMPLES samples from blockIdx.y SAMPLES. exp is taken in double, as t f multiplies the
 * error of f. */
__global__ void timestep_embedding_kernel(const float *t, float *y, int64_t n, int64_t dim, float log_period) {
  const int64_t half = dim / 2, i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  const float exponent = __fmul_rn(-log_period, (float)i) / (float)half, f = (float)exp((double)exponent);
  for (int64_t begin = (int64_t)blockIdx.y * SAMPLES; begin < n; begin += (int64_t)gridDim.y * SAMPLES)
    for (int64_t k = begin; k < begin + SAMPLES && k < n; k++) {
      float *row = y + k * dim;
      const float angle = __fmul_rn(t[k], f);
      if (i < half) row[i] = cosf(angle), row[half + i] = sinf(angle);
      else if (2 * i < dim) row[dim - 1] = 0.0f;
    }
}

extern "C" sl_status sl_cuda_timestep_embedding(sl_exec *e, const sl_view *y, const sl_view *t, double max_period) {
  const int64_t n = y->shape.dim[0], dim = y->shape.dim[1], parts = (n + SAMPLES - 1) / SAMPLES;
  if (n * dim == 0) return SL_STATUS_OK;
  const dim3 grid((unsigned)(((dim + 1) / 2 + 127) / 128), (unsigned)(parts < 65535 ? parts : 65535));
  return SL_LAUNCH(timestep_embedding_kernel, grid, 128, 0, e->stream, (const float *)t->data, (float *)y->data, n, dim,
                   (float)log(max_period));
}
