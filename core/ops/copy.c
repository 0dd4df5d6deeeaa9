/* Copies: dense, of another dtype, side by side, padded, placed, turned round. */
#include <inttypes.h>

#include "ops/rules.h"

enum { PAD_BEFORE = 0, PAD_AFTER = SL_ATTR_LIST };
enum { PLACE_SHAPE = 0, PLACE_DIM = SL_ATTR_LIST, PLACE_FIRST, PLACE_STEP };

static sl_status run_copy(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                          void *workspace) {
  (void)n, (void)state, (void)workspace;
  return e->kernels->copy(e, &out[0], &in[0]);
}

/* --- contiguous, cast --- */

static sl_status infer_contiguous(sl_node *n) {
  n->out[0].dtype = n->in[0]->dtype;
  n->out[0].shape = n->in[0]->shape;
  return SL_STATUS_OK;
}

static sl_status grad_contiguous(sl_grad_args *a) {
  a->dx[0] = a->dy[0];
  return SL_STATUS_OK;
}

static sl_status infer_cast(sl_node *n) {
  int64_t to = n->attrs.i[0];
  SL_REQUIRE(to >= 0 && to < SL_DTYPE_COUNT, ARG, "cast: dtype is %" PRId64 ", expected one of the dtypes", to);
  n->out[0].dtype = (sl_dtype)to;
  n->out[0].shape = n->in[0]->shape;
  return SL_STATUS_OK;
}

static sl_status grad_cast(sl_grad_args *a) {
  if (sl_dtype_is_float(a->in[0]->dtype)) a->dx[0] = sl_cast(a->dy[0], a->in[0]->dtype);
  return SL_STATUS_OK;
}

/* --- cat, stack --- */

static sl_status canon_cat(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  const sl_value *x = in[0];
  SL_TRY(sl__resolve_dim("cat", x, &a->i[0]));
  bool same = true;
  for (int k = 1; k < n; k++) {
    const sl_value *y = in[k];
    bool fits = y->shape.rank == x->shape.rank;
    for (int i = 0; fits && i < x->shape.rank; i++) fits = i == a->i[0] || x->shape.dim[i] == y->shape.dim[i];
    SL_REQUIRE(fits, SHAPE, "cat: input %d is %s, which does not fit input 1, %s, along dimension %" PRId64, k + 1,
               sl_value_text(y), sl_value_text(x), sl__told(a->i[0]));
    same = same && y->dtype == x->dtype;
  }
  return same ? SL_STATUS_OK : sl__promote_inputs(g, "cat", n, in);
}

static sl_status infer_cat(sl_node *n) {
  int64_t dim = n->attrs.i[0], sum = 0;
  for (int k = 0; k < n->n_in; k++) sum += n->in[k]->shape.dim[dim];
  n->out[0].dtype = n->in[0]->dtype;
  n->out[0].shape = n->in[0]->shape;
  n->out[0].shape.dim[dim] = sum;
  return SL_STATUS_OK;
}

static sl_status run_cat(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                         void *workspace) {
  (void)state, (void)workspace;
  return e->kernels->cat(e, &out[0], n->attrs.i[0], n->n_in, in);
}

/* A gradient's own: inputs fit, and may be of any float dtype. */
static sl_status infer_join(sl_node *n) {
  SL_TRY(infer_cat(n));
  n->out[0].dtype = (sl_dtype)n->attrs.i[1];
  return SL_STATUS_OK;
}

static sl_status grad_cat(sl_grad_args *a) {
  int64_t dim = a->node->attrs.i[0], at = 0;
  for (int k = 0; k < a->node->n_in; k++) {
    int64_t length = a->in[k]->shape.dim[dim];
    if (a->need[k] && length > 0) a->dx[k] = sl_slice(a->dy[0], (int)dim, at, at + length - 1, 1);
    at += length;
  }
  return SL_STATUS_OK;
}

static sl_status canon_stack(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  const sl_value *x = in[0];
  int rank = x->shape.rank + 1;
  SL_REQUIRE(rank <= SL_MAX_RANK, SHAPE, "stack: x is %s, which has %d dimensions already", sl_value_text(x),
             SL_MAX_RANK);
  SL_REQUIRE(a->i[0] >= -rank && a->i[0] < rank, ARG, "stack: dim is %" PRId64 ", expected 1 to %d or -%d to -1",
             sl__told(a->i[0]), rank, rank);
  if (a->i[0] < 0) a->i[0] += rank;
  bool same = true;
  for (int k = 1; k < n; k++) {
    SL_REQUIRE(sl_shape_equal(&x->shape, &in[k]->shape), SHAPE,
               "stack: input %d is %s, expected the shape of input 1, %s", k + 1, sl_value_text(in[k]),
               sl_value_text(x));
    same = same && in[k]->dtype == x->dtype;
  }
  return same ? SL_STATUS_OK : sl__promote_inputs(g, "stack", n, in);
}

static sl_value *compose_stack(sl_graph *g, int n, sl_value **in, const sl_attrs *a) {
  (void)g;
  sl_value *part[SL_MAX_INPUTS];
  sl_shape to = {.rank = in[0]->shape.rank + 1};
  for (int i = 0; i < to.rank; i++)
    to.dim[i] = i < a->i[0] ? in[0]->shape.dim[i] : i == a->i[0] ? 1 : in[0]->shape.dim[i - 1];
  for (int k = 0; k < n; k++) part[k] = sl_reshape(in[k], to.rank, to.dim);
  return sl_cat(n, part, (int)a->i[0]);
}

/* --- pad, place --- */

static sl_status infer_pad(sl_node *n) {
  const int64_t *before = n->attrs.i + PAD_BEFORE, *after = n->attrs.i + PAD_AFTER;
  const sl_value *x = n->in[0];
  SL_REQUIRE(before[0] == x->shape.rank && after[0] == x->shape.rank, ARG,
             "pad: before and after have %" PRId64 " and %" PRId64 " entries, expected %d, as x is %s", before[0],
             after[0], x->shape.rank, sl_value_text(x));
  n->out[0].dtype = x->dtype;
  n->out[0].shape = x->shape;
  for (int i = 0; i < x->shape.rank; i++) {
    SL_REQUIRE(before[1 + i] >= 0 && after[1 + i] >= 0, ARG,
               "pad: %" PRId64 " and %" PRId64 " for dimension %d, expected 0 or more", before[1 + i], after[1 + i],
               i + 1);
    n->out[0].shape.dim[i] += before[1 + i] + after[1 + i];
  }
  return SL_STATUS_OK;
}

static sl_status run_pad(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                         void *workspace) {
  (void)state, (void)workspace;
  SL_TRY(e->kernels->fill(e, &out[0], n->attrs.f[0]));
  sl_view inner = out[0];
  if (sl_shape_numel(&in[0].shape) == 0) return SL_STATUS_OK;
  for (int i = 0; i < inner.shape.rank; i++)
    inner = sl_view_part(&inner, i, n->attrs.i[PAD_BEFORE + 1 + i], in[0].shape.dim[i], 1);
  return e->kernels->copy(e, &inner, &in[0]);
}

static sl_status grad_pad(sl_grad_args *a) {
  const sl_shape *s = &a->in[0]->shape;
  sl_value *d = a->dy[0];
  if (sl_shape_numel(s) == 0) return SL_STATUS_OK;
  for (int i = 0; i < s->rank; i++) {
    int64_t first = a->node->attrs.i[PAD_BEFORE + 1 + i];
    if (d && d->shape.dim[i] != s->dim[i]) d = sl_slice(d, i, first, first + s->dim[i] - 1, 1);
  }
  a->dx[0] = d;
  return SL_STATUS_OK;
}

static sl_status infer_place(sl_node *n) {
  const int64_t *a = n->attrs.i;
  const sl_shape *x = &n->in[0]->shape;
  sl_shape to = sl__list_shape(a + PLACE_SHAPE);
  int64_t dim = a[PLACE_DIM], last = 0;
  bool fits = a[0] == x->rank && dim >= 0 && dim < x->rank && a[PLACE_FIRST] >= 0 && a[PLACE_STEP] >= 1;
  for (int i = 0; fits && i < x->rank; i++) fits = i == dim || x->dim[i] == to.dim[i];
  if (fits) last = a[PLACE_FIRST] + (x->dim[dim] - 1) * a[PLACE_STEP];
  SL_REQUIRE(fits && last < to.dim[dim], SHAPE,
             "place: x is %s, does not fit into %s along dimension %" PRId64 " from %" PRId64 " in steps of %" PRId64,
             sl_value_text(n->in[0]), sl_shape_text(&to), dim, a[PLACE_FIRST], a[PLACE_STEP]);
  n->out[0].dtype = n->in[0]->dtype;
  n->out[0].shape = to;
  return SL_STATUS_OK;
}

static sl_status run_place(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                           void *workspace) {
  (void)state, (void)workspace;
  const int64_t *a = n->attrs.i, dim = a[PLACE_DIM], length = in[0].shape.dim[dim];
  if (length != out[0].shape.dim[dim]) SL_TRY(e->kernels->fill(e, &out[0], 0.0));
  if (sl_shape_numel(&in[0].shape) == 0) return SL_STATUS_OK;
  sl_view part = sl_view_part(&out[0], dim, a[PLACE_FIRST], length, a[PLACE_STEP]);
  return e->kernels->copy(e, &part, &in[0]);
}

static sl_status grad_place(sl_grad_args *a) {
  const int64_t *p = a->node->attrs.i, length = a->in[0]->shape.dim[p[PLACE_DIM]];
  if (length > 0) {
    int64_t last = p[PLACE_FIRST] + (length - 1) * p[PLACE_STEP];
    a->dx[0] = sl_slice(a->dy[0], (int)p[PLACE_DIM], p[PLACE_FIRST], last, p[PLACE_STEP]);
  }
  return SL_STATUS_OK;
}

/* --- flip --- */

static sl_status canon_flip(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)g, (void)n;
  return sl__resolve_dim("flip", in[0], &a->i[0]);
}

static sl_status run_flip(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                          void *workspace) {
  (void)state, (void)workspace;
  int64_t dim = n->attrs.i[0], length = in[0].shape.dim[dim];
  sl_view back = sl_view_part(&in[0], dim, length - 1, length, -1);
  return e->kernels->copy(e, &out[0], &back);
}

static sl_status grad_flip(sl_grad_args *a) {
  a->dx[0] = sl_op1(SL_OP_flip, a->dy[0], &a->node->attrs);
  return SL_STATUS_OK;
}

const sl_op_rules sl_rules_contiguous = {.infer = infer_contiguous, .grad = grad_contiguous, .run = run_copy};
const sl_op_rules sl_rules_cast = {.infer = infer_cast, .grad = grad_cast, .run = run_copy};
const sl_op_rules sl_rules_cat = {.canon = canon_cat, .infer = infer_cat, .grad = grad_cat, .run = run_cat};
const sl_op_rules sl_rules_join = {.infer = infer_join, .run = run_cat};
const sl_op_rules sl_rules_stack = {.canon = canon_stack, .compose = compose_stack};
const sl_op_rules sl_rules_pad = {.infer = infer_pad, .grad = grad_pad, .run = run_pad};
const sl_op_rules sl_rules_place = {.infer = infer_place, .grad = grad_place, .run = run_place};
const sl_op_rules sl_rules_flip = {.canon = canon_flip, .infer = infer_contiguous, .grad = grad_flip, .run = run_flip};

/* --- for those who build graphs in C --- */

sl_value *sl_contiguous(sl_value *x) { return !x || sl_value_is_dense(x) ? x : sl_op1(SL_OP_contiguous, x, NULL); }

sl_value *sl_cast(sl_value *x, sl_dtype dtype) {
  return !x || x->dtype == dtype ? x : sl_op1(SL_OP_cast, x, &(sl_attrs){.i = {dtype}});
}

sl_value *sl_cat(int n, sl_value *const *x, int dim) {
  for (int i = 0; i < n; i++)
    if (!x[i]) return NULL;
  return sl_opn(SL_OP_cat, n, x, &(sl_attrs){.i = {dim}});
}

sl_value *sl_stack(int n, sl_value *const *x, int dim) {
  for (int i = 0; i < n; i++)
    if (!x[i]) return NULL;
  return sl_opn(SL_OP_stack, n, x, &(sl_attrs){.i = {dim}});
}

sl_value *sl_pad(sl_value *x, int rank, const int64_t *before, const int64_t *after, double value) {
  sl_attrs a = {.f = {value}};
  a.i[PAD_BEFORE] = a.i[PAD_AFTER] = rank;
  for (int i = 0; i < rank && i < SL_MAX_RANK; i++) {
    a.i[PAD_BEFORE + 1 + i] = before[i];
    a.i[PAD_AFTER + 1 + i] = after[i];
  }
  return sl_op1(SL_OP_pad, x, &a);
}
