/* Tensors side by side on CUDA: in one launch where they lie as the result does, else copied one by one. */
#include "gpu/gpu.h"

#include "ops/kernels.h"

namespace {

constexpr int THREADS = 256, MOST = 16;

/* Rows of `row` elements, of which piece k has those from begin[k] on: its own rows lie one after the other. */
struct cat_args {
  void *y;
  const void *x[MOST];
  int64_t begin[MOST + 1];
  bool y_bf16, x_bf16[MOST];
  int n;
  uint32_t row, units; /* V elements each: of a row, of all */
};

} // namespace

template <int V>
__global__ void __launch_bounds__(THREADS) cat_kernel(const cat_args a) {
  for (uint32_t i = blockIdx.x * THREADS + threadIdx.x; i < a.units; i += gridDim.x * THREADS) {
    const uint32_t r = i / a.row;
    const int64_t c = (int64_t)(i - r * a.row) * V;
    for (int k = 0; k < a.n; k++) {
      if (c < a.begin[k] || c >= a.begin[k + 1]) continue;
      const int64_t at = r * (a.begin[k + 1] - a.begin[k]) + c - a.begin[k];
      sl_store<V>(a.y, a.y_bf16, (int64_t)i * V, sl_load<V>(a.x[k], a.x_bf16[k], at));
    }
  }
}

/* Whether v, which is `length` long along dim, has no gaps and lies as y does. */
static bool lies_as(const sl_view *v, const sl_view *y, int64_t dim) {
  const int64_t inner = y->stride[dim], length = v->shape.dim[dim], whole = y->shape.dim[dim] * inner;
  for (int i = 0; i < y->shape.rank; i++) {
    if (v->shape.dim[i] == 1) continue;
    const int64_t want = y->stride[i] > inner ? y->stride[i] / whole * (length * inner) : y->stride[i];
    if (v->stride[i] != want) return false;
  }
  return true;
}

static bool is_dense(const sl_view *v) {
  int64_t last = 0;
  for (int i = 0; i < v->shape.rank; i++) last += (v->shape.dim[i] - 1) * v->stride[i];
  return last + 1 == sl_shape_numel(&v->shape);
}

static bool takes(sl_dtype d) { return d == SL_F32 || d == SL_BF16; }

/* *by: elements that may be read and written as one everywhere. */
static bool args_of(const sl_view *y, int64_t dim, int n, const sl_view *x, cat_args *a, int *by) {
  if (n > MOST || !takes(y->dtype) || y->shape.dim[dim] < 2 || !is_dense(y)) return false;
  const int64_t inner = y->stride[dim];
  a->y = y->data, a->y_bf16 = y->dtype == SL_BF16, a->n = n;
  bool eight = (uintptr_t)y->data % 16 == 0, four = eight;
  for (int k = 0; k < n; k++) {
    if (!takes(x[k].dtype) || (x[k].shape.dim[dim] > 0 && !lies_as(&x[k], y, dim))) return false;
    a->x[k] = x[k].data, a->x_bf16[k] = x[k].dtype == SL_BF16;
    a->begin[k + 1] = a->begin[k] + x[k].shape.dim[dim] * inner;
    eight &= a->begin[k + 1] % 8 == 0 && (uintptr_t)x[k].data % 16 == 0;
    four &= a->begin[k + 1] % 4 == 0 && (uintptr_t)x[k].data % 16 == 0;
  }
  *by = eight ? 8 : four ? 4 : 1;
  const int64_t units = sl_shape_numel(&y->shape) / *by;
  if (units > INT32_MAX) return false;
  a->row = (uint32_t)(a->begin[n] / *by), a->units = (uint32_t)units;
  return units > 0;
}

static sl_status copy_each(sl_exec *e, const sl_view *y, int64_t dim, int n, const sl_view *x) {
  for (int64_t k = 0, at = 0; k < n; at += x[k++].shape.dim[dim]) {
    const sl_view part = sl_view_part(y, dim, at, x[k].shape.dim[dim], 1);
    if (part.shape.dim[dim] > 0) SL_TRY(e->kernels->copy(e, &part, &x[k]));
  }
  return SL_STATUS_OK;
}

extern "C" sl_status sl_cuda_cat(sl_exec *e, const sl_view *y, int64_t dim, int n, const sl_view *x) {
  cat_args a = {};
  int by = 1;
  if (!args_of(y, dim, n, x, &a, &by)) return copy_each(e, y, dim, n, x);
  const uint32_t blocks = (a.units + THREADS - 1) / THREADS;
  const dim3 grid(blocks < 65535 ? blocks : 65535);
  if (by == 8) return SL_LAUNCH(cat_kernel<8>, grid, THREADS, 0, e->stream, a);
  if (by == 4) return SL_LAUNCH(cat_kernel<4>, grid, THREADS, 0, e->stream, a);
  return SL_LAUNCH(cat_kernel<1>, grid, THREADS, 0, e->stream, a);
}
