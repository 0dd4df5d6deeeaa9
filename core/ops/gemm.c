#include "ops/gemm.h"

#include <string.h>

bool sl_matmul_strides_fit(const sl_shape *shape, const int64_t *stride) {
  int64_t dim[SL_MAX_RANK], step[SL_MAX_RANK];
  int n = 0, rank = shape->rank;
  if (rank == 0) return false;
  for (int i = 0; i < rank; i++) { /* sorted by stride; broadcast and single dimensions do not count */
    if (shape->dim[i] == 1) continue;
    if (stride[i] <= 0 && !(stride[i] == 0 && i < rank - 2)) return false;
    if (stride[i] == 0) continue;
    int at = n++;
    for (; at > 0 && step[at - 1] > stride[i]; at--) dim[at] = dim[at - 1], step[at] = step[at - 1];
    dim[at] = shape->dim[i], step[at] = stride[i];
  }
  for (int i = 1; i < n; i++)
    if (step[i] < step[i - 1] * dim[i - 1]) return false;
  bool unit = shape->dim[rank - 1] == 1 || stride[rank - 1] == 1;
  return unit || (rank > 1 && (shape->dim[rank - 2] == 1 || stride[rank - 2] == 1));
}

/* The matrix strides as gemm.h wants them: a unit stride, also where a dimension has one element. */
static void matrix_strides(int64_t rows, int64_t cols, int64_t *row, int64_t *col) {
  if (cols == 1 && *row != 1) *col = 1;
  if (rows == 1 && *col != 1) *row = 1;
  if (rows == 1 && *col == 1) *row = cols;
}

static void batch_of(const sl_gemm *g, const sl_view *v, int matrix_dims, int64_t *out) {
  int lead = v->shape.rank - matrix_dims, skip = g->rank - lead;
  for (int i = 0; i < g->rank; i++) out[i] = i < skip || v->shape.dim[i - skip] == 1 ? 0 : v->stride[i - skip];
}

static void drop_batch(sl_gemm *g, int at) {
  for (int i = at; i + 1 < g->rank; i++) {
    g->batch[i] = g->batch[i + 1];
    g->a_batch[i] = g->a_batch[i + 1];
    g->b_batch[i] = g->b_batch[i + 1];
    g->c_batch[i] = g->c_batch[i + 1];
  }
  g->rank--;
}

/* Fewer, larger products: single batch dimensions go, those that only A has become rows of it, neighbours become one.
 */
static void fold(sl_gemm *g) {
  for (int i = g->rank; i-- > 0;)
    if (g->batch[i] == 1) drop_batch(g, i);
  while (g->rank > 0 && g->b_batch[g->rank - 1] == 0 && g->a_col == 1 && g->a_batch[g->rank - 1] == g->a_row * g->m) {
    g->m *= g->batch[g->rank - 1];
    drop_batch(g, g->rank - 1);
  }
  for (int i = g->rank - 1; i-- > 0;) {
    int64_t n = g->batch[i + 1];
    if (g->a_batch[i] != g->a_batch[i + 1] * n || g->b_batch[i] != g->b_batch[i + 1] * n) continue;
    g->a_batch[i] = g->a_batch[i + 1], g->b_batch[i] = g->b_batch[i + 1], g->c_batch[i] = g->c_batch[i + 1];
    g->batch[i] *= n;
    drop_batch(g, i + 1);
  }
}

sl_gemm sl_gemm_of(const sl_view *c, const sl_view *a, const sl_view *b) {
  sl_gemm g = {.ab = a->dtype, .c = c->dtype};
  int ra = a->shape.rank, rb = b->shape.rank;
  g.k = a->shape.dim[ra - 1];
  g.a_col = a->stride[ra - 1];
  g.m = ra > 1 ? a->shape.dim[ra - 2] : 1;
  g.a_row = ra > 1 ? a->stride[ra - 2] : g.k;
  g.n = rb > 1 ? b->shape.dim[rb - 1] : 1;
  g.b_col = rb > 1 ? b->stride[rb - 1] : 1;
  g.b_row = rb > 1 ? b->stride[rb - 2] : b->stride[0];
  matrix_strides(g.m, g.k, &g.a_row, &g.a_col);
  matrix_strides(g.k, g.n, &g.b_row, &g.b_col);
  g.c_row = g.n;
  int la = ra > 2 ? ra - 2 : 0, lb = rb > 2 ? rb - 2 : 0;
  g.rank = la > lb ? la : lb;
  int64_t far = g.m * g.n;
  for (int i = g.rank; i-- > 0;) {
    int64_t da = i - (g.rank - la) >= 0 ? a->shape.dim[i - (g.rank - la)] : 1;
    int64_t db = i - (g.rank - lb) >= 0 ? b->shape.dim[i - (g.rank - lb)] : 1;
    g.batch[i] = da == 1 ? db : da;
    g.c_batch[i] = far;
    far *= g.batch[i];
  }
  batch_of(&g, a, ra - la, g.a_batch);
  batch_of(&g, b, rb - lb, g.b_batch);
  fold(&g);
  return g;
}
