#include "ops/strided_rows.h"

#include <string.h>

const sl_elementwise_loops *sl__elementwise_loops(sl_context *ctx) { return SL_LOOPS_OF(ctx, sl__elementwise); }

/* --- planning --- */

static bool merges(const sl_walk *w, const sl_view *const *views, int dim) {
  int last = w->rank - 1;
  if (last < 0) return false;
  for (int k = 0; k < w->n_operands; k++)
    if (w->operand[k].stride[last] != views[k]->stride[dim] * views[k]->shape.dim[dim]) return false;
  return true;
}

/* Dimensions from the largest stride of the first operand (the result) to the smallest: memory order. */
static void memory_order(const sl_view *v, int *order) {
  for (int i = 0; i < v->shape.rank; i++) {
    int k = i;
    for (; k > 0 && v->stride[order[k - 1]] < v->stride[i]; k--) order[k] = order[k - 1];
    order[k] = i;
  }
}

static void collapse(sl_walk *w, const sl_view *const *views) {
  int order[SL_MAX_RANK];
  memory_order(views[0], order);
  for (int d = 0; d < views[0]->shape.rank; d++) {
    int i = order[d];
    int64_t n = views[0]->shape.dim[i];
    if (n == 1) continue;
    bool merge = merges(w, views, i);
    int at = merge ? w->rank - 1 : w->rank++;
    w->dim[at] = merge ? w->dim[at] * n : n;
    for (int k = 0; k < w->n_operands; k++) w->operand[k].stride[at] = views[k]->stride[i];
  }
  if (w->rank > 0) return;
  w->dim[w->rank++] = 1;
  for (int k = 0; k < w->n_operands; k++) w->operand[k].stride[0] = 1;
}

static void describe(const sl_walk *w, sl_operand *o) {
  int64_t want = 1;
  o->dense = o->one = true;
  for (int i = w->rank; i-- > 0;) {
    o->dense &= o->stride[i] == want;
    o->one &= o->stride[i] == 0;
    want *= w->dim[i];
  }
}

sl_walk sl__walk_of(sl_context *ctx, int n, const sl_view *const *views) {
  sl_walk w = {.loops = sl__elementwise_loops(ctx), .n_operands = n};
  for (int k = 0; k < n; k++) {
    SL_ASSERT(sl_shape_equal(&views[k]->shape, &views[0]->shape));
    w.operand[k].data = views[k]->data;
    w.operand[k].dtype = views[k]->dtype;
    w.operand[k].size = (int64_t)sl_dtype_size(views[k]->dtype);
  }
  if (sl_shape_numel(&views[0]->shape) == 0) return w; /* no units */
  collapse(&w, views);
  for (int k = 0; k < n; k++) describe(&w, &w.operand[k]);
  w.inner = w.dim[w.rank - 1];
  w.outer = 1;
  for (int i = 0; i + 1 < w.rank; i++) w.outer *= w.dim[i];
  w.pieces = (w.inner + SL_ROW - 1) / SL_ROW;
  w.rows = w.inner <= SL_ROW / 2 ? SL_ROW / w.inner : 1;
  w.units = w.rows > 1 ? (w.outer + w.rows - 1) / w.rows : w.outer * w.pieces;
  return w;
}

sl_unit sl__walk_unit(const sl_walk *w, int64_t index) {
  if (w->rows > 1) {
    int64_t row = index * w->rows, rows = w->outer - row < w->rows ? w->outer - row : w->rows;
    return (sl_unit){row, 0, rows, rows * w->inner};
  }
  int64_t column = index % w->pieces * SL_ROW, n = w->inner - column < SL_ROW ? w->inner - column : SL_ROW;
  return (sl_unit){index / w->pieces, column, 1, n};
}

/* --- reading and writing --- */

/* Elements from an operand's first to the start of a row; index[] becomes the row's place in the outer dimensions. */
static int64_t row_offset(const sl_walk *w, const int64_t *stride, int64_t row, int64_t *index) {
  int64_t at = 0;
  for (int i = w->rank - 1; i-- > 0;) {
    index[i] = row % w->dim[i];
    row /= w->dim[i];
    at += index[i] * stride[i];
  }
  return at;
}

static int64_t next_row(const sl_walk *w, const int64_t *stride, int64_t at, int64_t *index) {
  for (int i = w->rank - 1; i-- > 0;) {
    at += stride[i];
    if (++index[i] < w->dim[i]) break;
    index[i] = 0;
    at -= w->dim[i] * stride[i];
  }
  return at;
}

/* n elements between places `to` and `from` elements apart. */
static void move_row(char *to, int64_t ts, const char *from, int64_t fs, int64_t size, int64_t n) {
#define MOVE(T)                                                                                                        \
  for (int64_t i = 0; i < n; i++) ((T *)(void *)to)[i * ts] = ((const T *)(const void *)from)[i * fs]
  switch (size) {
    case 1: MOVE(uint8_t); break;
    case 2: MOVE(uint16_t); break;
    case 4: MOVE(uint32_t); break;
    default: MOVE(uint64_t); break;
  }
#undef MOVE
}

/* Between the unit's elements of an operand and a row without gaps. */
static void move_unit(const sl_walk *w, const sl_unit *t, const sl_operand *o, char *row, bool out) {
  int64_t index[SL_MAX_RANK], step = o->stride[w->rank - 1], n = t->rows > 1 ? w->inner : t->n;
  int64_t at = row_offset(w, o->stride, t->row, index) + t->column * step;
  for (int64_t r = 0; r < t->rows; r++) {
    char *place = o->data + at * o->size, *part = row + r * n * o->size;
    if (out) move_row(place, step, part, 1, o->size, n);
    else move_row(part, 1, place, step, o->size, n);
    at = next_row(w, o->stride, at, index);
  }
}

/* Where the unit's elements lie next to each other, or NULL. */
static char *in_place(const sl_walk *w, const sl_unit *t, const sl_operand *o) {
  int64_t index[SL_MAX_RANK];
  if (o->dense) return o->data + (t->row * w->inner + t->column) * o->size;
  if (t->rows > 1 || (o->stride[w->rank - 1] != 1 && t->n > 1)) return NULL;
  return o->data + (row_offset(w, o->stride, t->row, index) + t->column * o->stride[w->rank - 1]) * o->size;
}

const void *sl__walk_read(const sl_walk *w, const sl_unit *t, int k, sl_row_buffer *buffer, int *stride) {
  const sl_operand *o = &w->operand[k];
  int64_t index[SL_MAX_RANK];
  *stride = 0;
  if (o->one) return o->data;
  if (t->rows == 1 && o->stride[w->rank - 1] == 0) return o->data + row_offset(w, o->stride, t->row, index) * o->size;
  *stride = 1;
  const char *p = in_place(w, t, o);
  if (p) return p;
  move_unit(w, t, o, (char *)buffer, false);
  return buffer;
}

const float *sl__walk_read_float(const sl_walk *w, const sl_unit *t, int k, sl_row_buffer *buffer, int *stride) {
  if (w->operand[k].dtype == SL_F32) return sl__walk_read(w, t, k, buffer, stride);
  sl_row_buffer gathered;
  const uint16_t *h = sl__walk_read(w, t, k, &gathered, stride);
  w->loops->from_bf16(buffer->f, h, *stride ? t->n : 1);
  return buffer->f;
}

const float *sl__walk_read_floats(const sl_walk *w, const sl_unit *t, int k, sl_row_buffer *buffer) {
  int stride;
  const float *x = sl__walk_read_float(w, t, k, buffer, &stride);
  if (stride) return x;
  float v = *x;
  for (int64_t i = 0; i < t->n; i++) buffer->f[i] = v;
  return buffer->f;
}

void *sl__walk_target(const sl_walk *w, const sl_unit *t, sl_row_buffer *buffer) {
  const sl_operand *o = &w->operand[0];
  char *p = o->dtype == SL_BF16 ? NULL : in_place(w, t, o);
  return p ? p : (void *)buffer;
}

void sl__walk_done(const sl_walk *w, const sl_unit *t, const void *written) {
  const sl_operand *o = &w->operand[0];
  char *p = in_place(w, t, o);
  if (o->dtype == SL_BF16) {
    uint16_t half[SL_ROW];
    w->loops->to_bf16(p ? (uint16_t *)(void *)p : half, written, t->n);
    if (!p) move_unit(w, t, o, (char *)half, true);
  } else if (p != written) {
    move_unit(w, t, o, (char *)(uintptr_t)written, true);
  }
}
