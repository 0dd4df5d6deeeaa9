/* Views and copies. */
#include "op_table.h"

static int64_t flat_of(const sl_shape *s, const int64_t *index) {
  int64_t at = 0;
  for (int d = 0; d < s->rank; d++) at = at * s->dim[d] + index[d];
  return at;
}

static void naive_same(const op_run *r) {
  for (int64_t i = 0; i < sl_shape_numel(&r->out_shape[0]); i++) r->out[0][i] = r->in[0][i];
}

static void naive_to_int(const op_run *r) {
  for (int64_t i = 0; i < sl_shape_numel(&r->out_shape[0]); i++) r->out[0][i] = (double)(int64_t)r->in[0][i];
}

static void naive_permute(const op_run *r) {
  int64_t index[SL_MAX_RANK], from[SL_MAX_RANK];
  int rank = r->in_shape[0].rank;
  for (int64_t i = 0; i < sl_shape_numel(&r->out_shape[0]); i++) {
    op_unflatten(&r->out_shape[0], i, index);
    for (int d = 0; d < rank; d++) from[(r->attrs->i[1 + d] + rank) % rank] = index[d];
    r->out[0][i] = r->in[0][flat_of(&r->in_shape[0], from)];
  }
}

/* Attributes dim, first, last, step. */
static void naive_slice(const op_run *r) {
  int64_t index[SL_MAX_RANK], rank = r->in_shape[0].rank, dim = (r->attrs->i[0] + rank) % rank;
  int64_t size = r->in_shape[0].dim[dim], first = (r->attrs->i[1] + size) % size;
  for (int64_t i = 0; i < sl_shape_numel(&r->out_shape[0]); i++) {
    op_unflatten(&r->out_shape[0], i, index);
    index[dim] = first + index[dim] * r->attrs->i[3];
    r->out[0][i] = r->in[0][flat_of(&r->in_shape[0], index)];
  }
}

static void naive_expand(const op_run *r) {
  int64_t index[SL_MAX_RANK];
  for (int64_t i = 0; i < sl_shape_numel(&r->out_shape[0]); i++) {
    op_unflatten(&r->out_shape[0], i, index);
    r->out[0][i] = r->in[0][op_broadcast_at(&r->in_shape[0], &r->out_shape[0], index)];
  }
}

static void naive_chunk(const op_run *r) {
  int64_t index[SL_MAX_RANK], rank = r->in_shape[0].rank, dim = (r->attrs->i[1] + rank) % rank;
  for (int k = 0; k < r->n_out; k++)
    for (int64_t i = 0; i < sl_shape_numel(&r->out_shape[k]); i++) {
      op_unflatten(&r->out_shape[k], i, index);
      index[dim] += k * r->out_shape[k].dim[dim];
      r->out[k][i] = r->in[0][flat_of(&r->in_shape[0], index)];
    }
}

static void naive_cat(const op_run *r) {
  int64_t index[SL_MAX_RANK], rank = r->in_shape[0].rank, dim = (r->attrs->i[0] + rank) % rank;
  for (int64_t i = 0; i < sl_shape_numel(&r->out_shape[0]); i++) {
    op_unflatten(&r->out_shape[0], i, index);
    int k = 0;
    while (index[dim] >= r->in_shape[k].dim[dim]) index[dim] -= r->in_shape[k++].dim[dim];
    r->out[0][i] = r->in[k][flat_of(&r->in_shape[k], index)];
  }
}

static void naive_stack(const op_run *r) {
  int64_t index[SL_MAX_RANK], from[SL_MAX_RANK], rank = r->out_shape[0].rank, dim = (r->attrs->i[0] + rank) % rank;
  for (int64_t i = 0; i < sl_shape_numel(&r->out_shape[0]); i++) {
    op_unflatten(&r->out_shape[0], i, index);
    for (int64_t d = 0, k = 0; d < rank; d++)
      if (d != dim) from[k++] = index[d];
    r->out[0][i] = r->in[index[dim]][flat_of(&r->in_shape[0], from)];
  }
}

static void naive_pad(const op_run *r) {
  int64_t index[SL_MAX_RANK];
  for (int64_t i = 0; i < sl_shape_numel(&r->out_shape[0]); i++) {
    op_unflatten(&r->out_shape[0], i, index);
    bool inside = true;
    for (int d = 0; d < r->out_shape[0].rank; d++) {
      index[d] -= r->attrs->i[1 + d];
      inside &= index[d] >= 0 && index[d] < r->in_shape[0].dim[d];
    }
    r->out[0][i] = inside ? r->in[0][flat_of(&r->in_shape[0], index)] : r->attrs->f[0];
  }
}

static void naive_flip(const op_run *r) {
  int64_t index[SL_MAX_RANK], rank = r->in_shape[0].rank, dim = (r->attrs->i[0] + rank) % rank;
  for (int64_t i = 0; i < sl_shape_numel(&r->out_shape[0]); i++) {
    op_unflatten(&r->out_shape[0], i, index);
    index[dim] = r->in_shape[0].dim[dim] - 1 - index[dim];
    r->out[0][i] = r->in[0][flat_of(&r->in_shape[0], index)];
  }
}

const op_case cases_shape[] = {
    {"reshape", "shape={6,-1}", naive_same, CASE_BF16, 0, 0, 1, {F32(2, 3, 5)}},
    {"reshape", "shape={30}", naive_same, 0, 0, 0, 1, {F32(2, 3, 5)}},
    {"permute", "dims={2,0,1}", naive_permute, CASE_BF16, 0, 0, 1, {F32(2, 3, 5)}},
    {"permute", "dims={-1,1,0,2}", naive_permute, 0, 0, 0, 1, {F32(2, 3, 4, 3)}},
    {"slice", "dim=1 first=1 last=3", naive_slice, CASE_BF16, 0, 0, 1, {F32(2, 5, 3)}},
    {"slice", "dim=-1 first=1 last=-1 step=3", naive_slice, 0, 0, 0, 1, {F32(3, 11)}},
    {"expand", "shape={4,3,5}", naive_expand, 0, 0, 0, 1, {F32(3, 1)}},
    {"chunk", "count=3 dim=-1", naive_chunk, 0, 7, 0, 1, {F32(2, 12)}},
    {"chunk", "count=2 dim=0", naive_chunk, CASE_BF16, 2, 0, 1, {F32(4, 3)}},
    {"contiguous", "", naive_same, CASE_BF16, 0, 0, 1, {F32(3, 4, 5)}},
    {"cast", "dtype=i32", naive_to_int, CASE_NO_GRAD, 0, 0, 1, {F32(4, 6)}},
    {"cast", "dtype=bf16", naive_same, 0, 0, 4e-3, 1, {F32(4, 6)}},
    {"cast", "dtype=f32", naive_same, CASE_NO_GRAD, 0, 0, 1, {MASK(4, 6)}},
    {"detach", "", naive_same, CASE_NO_GRAD, 0, 0, 1, {F32(4, 6)}},
    {"cat", "dim=1", naive_cat, CASE_BF16, 0, 0, 3, {F32(2, 3, 4), F32(2, 1, 4), F32(2, 5, 4)}},
    {"cat", "dim=1", naive_cat, 0, 0, 0, 3, {F32(3, 8), F32(3, 16), F32(3, 8)}},
    {"cat", "dim=2", naive_cat, CASE_BF16, 0, 0, 2, {F32(2, 3, 4), F32(2, 3, 8)}},
    {"join", "dim=1 dtype=bf16", naive_cat, CASE_NO_GRAD, 0, 4e-3, 3, {F32(5, 8), F32(5, 16), F32(5, 8)}},
    {"join", "dim=1 dtype=bf16", naive_cat, CASE_NO_GRAD, 0, 4e-3, 2, {F32(3, 4), F32(3, 12)}},
    {"join", "dim=0 dtype=f32", naive_cat, CASE_NO_GRAD | CASE_BF16, 0, 0, 2, {F32(2, 3, 4), F32(1, 3, 4)}},
    {"join", "dim=1 dtype=bf16", naive_cat, CASE_NO_GRAD, 0, 4e-3, 3, {F32(2, 3, 5), F32(2, 1, 5), F32(2, 2, 5)}},
    {"cat", "dim=-1", naive_cat, 0, 0, 0, 2, {F32(3, 7), F32(3, 2)}},
    {"stack", "dim=1", naive_stack, 0, 0, 0, 3, {F32(2, 3), F32(2, 3), F32(2, 3)}},
    {"stack", "dim=-1", naive_stack, CASE_BF16, 0, 0, 2, {F32(2, 3), F32(2, 3)}},
    {"pad", "before={0,1,2} after={1,0,3} value=0.5", naive_pad, 0, 0, 0, 1, {F32(2, 3, 4)}},
    {"flip", "dim=0", naive_flip, 0, 0, 0, 1, {F32(3, 4)}},
    {"flip", "", naive_flip, CASE_BF16, 0, 0, 1, {F32(3, 4)}},
};

const op_refusal refusals_shape[] = {
    {"reshape", "shape={4,2}", "[2,3]", 1, {F32(2, 3)}},
    {"permute", "dims={0,0}", "permute", 1, {F32(2, 3)}},
    {"slice", "dim=5 first=0", "slice", 1, {F32(2, 3)}},
    {"slice", "dim=1 first=2 last=7", "slice", 1, {F32(2, 3)}},
    {"expand", "shape={4,5}", "[2,3]", 1, {F32(2, 3)}},
    {"chunk", "count=2 dim=1", "chunk", 1, {F32(2, 3)}},
    {"cat", "dim=0", "cat", 2, {F32(2, 3), F32(2, 4)}},
    {"stack", "dim=0", "stack", 2, {F32(2, 3), F32(3, 2)}},
    {"pad", "before={1} after={1}", "pad", 1, {F32(2, 3)}},
    {"flip", "dim=3", "flip", 1, {F32(2, 3)}},
    {"contiguous", "", "contiguous", 0, {ABSENT}},
    {"cast", "dtype=f32", "cast", 0, {ABSENT}},
    {"detach", "", "detach", 0, {ABSENT}},
};
OP_FAMILY(shape);
