/* Views: the same storage under other shapes and strides. */
#include <inttypes.h>
#include <string.h>

#include "ops/rules.h"

enum { SLICE_DIM, SLICE_FIRST, SLICE_LAST, SLICE_STEP };
enum { CHUNK_COUNT, CHUNK_DIM };

/* --- reshape, view_as --- */

/* Strides that see x under `to` without a copy; false if there are none. Source: numpy, _attempt_nocopy_reshape. */
static bool view_strides(const sl_value *x, const sl_shape *to, int64_t *stride) {
  int64_t dim[SL_MAX_RANK], step[SL_MAX_RANK];
  int rank = 0;
  sl_shape_strides(to, stride);
  if (sl_shape_numel(to) == 0) return true;
  for (int i = 0; i < x->shape.rank; i++) {
    if (x->shape.dim[i] == 1) continue;
    dim[rank] = x->shape.dim[i];
    step[rank++] = x->stride[i];
  }
  for (int i = 0, o = 0; i < rank && o < to->rank;) {
    int i_end = i + 1, o_end = o + 1;
    int64_t have = dim[i], want = to->dim[o];
    while (have != want) {
      if (want < have) want *= to->dim[o_end++];
      else have *= dim[i_end++];
    }
    for (int k = i; k + 1 < i_end; k++)
      if (step[k] != step[k + 1] * dim[k + 1]) return false;
    int64_t s = step[i_end - 1];
    for (int k = o_end; k-- > o;) {
      stride[k] = s;
      s *= to->dim[k];
    }
    i = i_end;
    o = o_end;
  }
  return true;
}

static sl_status canon_reshape(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)g, (void)n;
  const sl_value *x = in[0];
  SL_REQUIRE(a->i[0] >= 0 && a->i[0] <= SL_MAX_RANK, SHAPE,
             "reshape: shape has %" PRId64 " dimensions, expected at most %d", a->i[0], SL_MAX_RANK);
  sl_shape to = sl__list_shape(a->i);
  int64_t have = sl_shape_numel(&x->shape), known = 1;
  int open = -1;
  for (int i = 0; i < to.rank; i++) {
    if (to.dim[i] == -1) {
      SL_REQUIRE(open < 0, SHAPE, "reshape: shape %s has more than one -1", sl_shape_text(&to));
      open = i;
      continue;
    }
    SL_REQUIRE(to.dim[i] >= 0 && !__builtin_mul_overflow(known, to.dim[i], &known), SHAPE,
               "reshape: shape %s is not a shape", sl_shape_text(&to));
  }
  bool fits = open < 0 ? known == have : known > 0 && have % known == 0;
  SL_REQUIRE(fits, SHAPE, "reshape: x is %s, %" PRId64 " elements, cannot become %s", sl_shape_text(&x->shape), have,
             sl_shape_text(&to));
  if (open >= 0) a->i[1 + open] = have / known;
  return SL_STATUS_OK;
}

static sl_value *compose_reshape(sl_graph *g, int n, sl_value **in, const sl_attrs *a) {
  (void)g, (void)n;
  sl_shape to = sl__list_shape(a->i);
  int64_t stride[SL_MAX_RANK];
  sl_value *x = view_strides(in[0], &to, stride) ? in[0] : sl_contiguous(in[0]);
  return sl_op1(SL_OP_view_as, x, a);
}

static sl_status infer_view_as(sl_node *n) {
  const sl_value *x = n->in[0];
  sl_shape to = sl__list_shape(n->attrs.i);
  int64_t stride[SL_MAX_RANK];
  SL_REQUIRE(n->attrs.i[0] >= 0 && n->attrs.i[0] <= SL_MAX_RANK && sl_shape_numel(&to) == sl_shape_numel(&x->shape),
             SHAPE, "view_as: x is %s, cannot become %s", sl_value_text(x), sl_shape_text(&to));
  SL_REQUIRE(view_strides(x, &to, stride), SHAPE, "view_as: x is %s, not dense enough to be seen as %s",
             sl_value_text(x), sl_shape_text(&to));
  sl_value_view(&n->out[0], n->in[0], &to, stride, 0);
  return SL_STATUS_OK;
}

static sl_status grad_reshape(sl_grad_args *a) {
  const sl_shape *s = &a->in[0]->shape;
  a->dx[0] = sl_reshape(a->dy[0], s->rank, s->dim);
  return SL_STATUS_OK;
}

/* --- permute --- */

static sl_status canon_permute(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)g, (void)n;
  const sl_value *x = in[0];
  bool seen[SL_MAX_RANK] = {false};
  SL_REQUIRE(a->i[0] == x->shape.rank, ARG, "permute: dims has %" PRId64 " entries, expected %d, as x is %s", a->i[0],
             x->shape.rank, sl_value_text(x));
  for (int i = 0; i < x->shape.rank; i++) {
    SL_TRY(sl__resolve_dim("permute", x, &a->i[1 + i]));
    SL_REQUIRE(!seen[a->i[1 + i]], ARG, "permute: dims names dimension %" PRId64 " twice", sl__told(a->i[1 + i]));
    seen[a->i[1 + i]] = true;
  }
  return SL_STATUS_OK;
}

static sl_status infer_permute(sl_node *n) {
  const sl_value *x = n->in[0];
  sl_shape to = {.rank = x->shape.rank};
  int64_t stride[SL_MAX_RANK] = {0};
  for (int i = 0; i < to.rank; i++) {
    to.dim[i] = x->shape.dim[n->attrs.i[1 + i]];
    stride[i] = x->stride[n->attrs.i[1 + i]];
  }
  sl_value_view(&n->out[0], n->in[0], &to, stride, 0);
  return SL_STATUS_OK;
}

static sl_status grad_permute(sl_grad_args *a) {
  int inverse[SL_MAX_RANK], rank = a->in[0]->shape.rank;
  for (int i = 0; i < rank; i++) inverse[a->node->attrs.i[1 + i]] = i;
  a->dx[0] = sl_permute(a->dy[0], rank, inverse);
  return SL_STATUS_OK;
}

/* --- slice --- */

static sl_status canon_slice(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)g, (void)n;
  const sl_value *x = in[0];
  SL_TRY(sl__resolve_dim("slice", x, &a->i[SLICE_DIM]));
  int64_t size = x->shape.dim[a->i[SLICE_DIM]], given[2] = {a->i[SLICE_FIRST], a->i[SLICE_LAST]};
  SL_REQUIRE(a->i[SLICE_STEP] >= 1, ARG, "slice: step is %" PRId64 ", expected at least 1", a->i[SLICE_STEP]);
  for (int k = SLICE_FIRST; k <= SLICE_LAST; k++)
    if (a->i[k] < 0) a->i[k] += size;
  int64_t first = a->i[SLICE_FIRST], last = a->i[SLICE_LAST];
  bool empty = last == first - 1;
  SL_REQUIRE(first >= 0 && last < size && (last >= first || empty), ARG,
             "slice: positions %" PRId64 " to %" PRId64 " (the last included) of dimension %" PRId64
             " leave x, which is %s",
             sl__told(given[0]), sl__told(given[1]), sl__told(a->i[SLICE_DIM]), sl_value_text(x));
  return SL_STATUS_OK;
}

static sl_status infer_slice(sl_node *n) {
  const int64_t *a = n->attrs.i;
  sl_shape to = n->in[0]->shape;
  int64_t stride[SL_MAX_RANK], d = a[SLICE_DIM], length = a[SLICE_LAST] - a[SLICE_FIRST];
  memcpy(stride, n->in[0]->stride, sizeof stride);
  to.dim[d] = length < 0 ? 0 : length / a[SLICE_STEP] + 1;
  stride[d] *= a[SLICE_STEP];
  int64_t offset = to.dim[d] ? a[SLICE_FIRST] * n->in[0]->stride[d] : 0;
  sl_value_view(&n->out[0], n->in[0], &to, stride, offset);
  return SL_STATUS_OK;
}

static sl_status grad_slice(sl_grad_args *a) {
  const int64_t *s = a->node->attrs.i;
  sl_attrs p = {{0}, {0}};
  sl__shape_list(p.i, &a->in[0]->shape);
  p.i[SL_ATTR_LIST] = s[SLICE_DIM];
  p.i[SL_ATTR_LIST + 1] = s[SLICE_FIRST];
  p.i[SL_ATTR_LIST + 2] = s[SLICE_STEP];
  a->dx[0] = sl_op1(SL_OP_place, a->dy[0], &p);
  return SL_STATUS_OK;
}

/* --- expand --- */

static sl_status canon_expand(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)g, (void)n;
  const sl_value *x = in[0];
  int more = (int)a->i[0] - x->shape.rank;
  SL_REQUIRE(a->i[0] >= 0 && a->i[0] <= SL_MAX_RANK, SHAPE,
             "expand: shape has %" PRId64 " dimensions, expected at most %d", a->i[0], SL_MAX_RANK);
  for (int i = 0; i < a->i[0]; i++) /* -1: as it is */
    if (a->i[1 + i] == -1 && i >= more) a->i[1 + i] = x->shape.dim[i - more];
  sl_shape to = sl__list_shape(a->i), both;
  bool fits = more >= 0 && sl_shape_broadcast(&x->shape, &to, &both) && sl_shape_equal(&to, &both);
  SL_REQUIRE(fits, SHAPE, "expand: x is %s, cannot be repeated to %s", sl_value_text(x), sl_shape_text(&to));
  return SL_STATUS_OK;
}

static sl_status infer_expand(sl_node *n) {
  const sl_value *x = n->in[0];
  sl_shape to = sl__list_shape(n->attrs.i);
  int64_t stride[SL_MAX_RANK] = {0};
  int more = to.rank - x->shape.rank;
  for (int i = more; i < to.rank; i++) stride[i] = x->shape.dim[i - more] == to.dim[i] ? x->stride[i - more] : 0;
  sl_value_view(&n->out[0], n->in[0], &to, stride, 0);
  return SL_STATUS_OK;
}

static sl_status grad_expand(sl_grad_args *a) {
  const sl_value *x = a->in[0], *dy = a->dy[0];
  int dims[SL_MAX_RANK], n = 0, more = dy->shape.rank - x->shape.rank;
  for (int i = 0; i < dy->shape.rank; i++)
    if (i < more || (x->shape.dim[i - more] == 1 && dy->shape.dim[i] != 1)) dims[n++] = i;
  sl_value *sum = n ? sl_sum(a->dy[0], n, dims, true) : a->dy[0];
  a->dx[0] = more ? sl_reshape(sum, x->shape.rank, x->shape.dim) : sum;
  return SL_STATUS_OK;
}

/* --- chunk --- */

static sl_status canon_chunk(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)g, (void)n;
  int64_t count = a->i[CHUNK_COUNT];
  SL_TRY(sl__resolve_dim("chunk", in[0], &a->i[CHUNK_DIM]));
  SL_REQUIRE(count >= 1 && count <= SL_MAX_OUTPUTS, ARG, "chunk: count is %" PRId64 ", expected 1 to %d", count,
             SL_MAX_OUTPUTS);
  SL_REQUIRE(in[0]->shape.dim[a->i[CHUNK_DIM]] % count == 0, SHAPE,
             "chunk: x is %s, and its dimension %" PRId64 " does not divide into %" PRId64 " equal parts",
             sl_value_text(in[0]), sl__told(a->i[CHUNK_DIM]), count);
  return SL_STATUS_OK;
}

static sl_status infer_chunk(sl_node *n) {
  int64_t dim = n->attrs.i[CHUNK_DIM];
  sl_shape to = n->in[0]->shape;
  n->n_out = (int)n->attrs.i[CHUNK_COUNT];
  to.dim[dim] /= n->n_out;
  for (int k = 0; k < n->n_out; k++)
    sl_value_view(&n->out[k], n->in[0], &to, n->in[0]->stride, k * to.dim[dim] * n->in[0]->stride[dim]);
  return SL_STATUS_OK;
}

static sl_status grad_chunk(sl_grad_args *a) {
  sl_value *part[SL_MAX_OUTPUTS];
  for (int k = 0; k < a->node->n_out; k++) part[k] = a->dy[k] ? a->dy[k] : sl__filled(a->graph, 0.0, a->out[k]);
  const sl_attrs how = {.i = {a->node->attrs.i[CHUNK_DIM], a->in[0]->dtype}};
  a->dx[0] = sl_opn(SL_OP_join, a->node->n_out, part, &how);
  return SL_STATUS_OK;
}

const sl_op_rules sl_rules_reshape = {.canon = canon_reshape, .compose = compose_reshape};
const sl_op_rules sl_rules_view_as = {.infer = infer_view_as, .grad = grad_reshape};
const sl_op_rules sl_rules_permute = {.canon = canon_permute, .infer = infer_permute, .grad = grad_permute};
const sl_op_rules sl_rules_slice = {.canon = canon_slice, .infer = infer_slice, .grad = grad_slice};
const sl_op_rules sl_rules_expand = {.canon = canon_expand, .infer = infer_expand, .grad = grad_expand};
const sl_op_rules sl_rules_chunk = {.canon = canon_chunk, .infer = infer_chunk, .grad = grad_chunk};

/* --- for those who build graphs in C --- */

sl_value *sl_reshape(sl_value *x, int rank, const int64_t *dim) {
  sl_attrs a = {{0}, {0}};
  sl_shape to = sl_shape_of(rank, dim);
  sl__shape_list(a.i, &to);
  return sl_op1(SL_OP_reshape, x, &a);
}

sl_value *sl_permute(sl_value *x, int rank, const int *dims) {
  sl_attrs a = {.i = {rank}};
  for (int i = 0; i < rank && i < SL_MAX_RANK; i++) a.i[1 + i] = dims[i];
  return sl_op1(SL_OP_permute, x, &a);
}

sl_value *sl_slice(sl_value *x, int dim, int64_t first, int64_t last, int64_t step) {
  return sl_op1(SL_OP_slice, x, &(sl_attrs){.i = {dim, first, last, step}});
}

sl_value *sl_select(sl_value *x, int dim, int64_t index) {
  sl_value *one = sl_slice(x, dim, index, index, 1);
  if (!one) return NULL;
  int64_t to[SL_MAX_RANK];
  int rank = 0, drop = dim < 0 ? dim + one->shape.rank : dim;
  for (int i = 0; i < one->shape.rank; i++)
    if (i != drop) to[rank++] = one->shape.dim[i];
  return sl_reshape(one, rank, to);
}

sl_value *sl_expand(sl_value *x, const sl_shape *shape) {
  sl_attrs a = {{0}, {0}};
  sl__shape_list(a.i, shape);
  return sl_op1(SL_OP_expand, x, &a);
}

sl_value *sl_chunk(sl_value *x, int count, int dim) { return sl_op1(SL_OP_chunk, x, &(sl_attrs){.i = {count, dim}}); }
