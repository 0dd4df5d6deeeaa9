/* Reductions and softmax. */
#include <math.h>

#include "op_table.h"

/* Where element `flat` of x goes in the result with kept dimensions. */
static int64_t place_of(const op_run *r, int64_t flat) {
  int64_t index[SL_MAX_RANK], at = 0;
  const sl_shape *s = &r->in_shape[0];
  op_unflatten(s, flat, index);
  for (int d = 0; d < s->rank; d++) {
    bool gone = r->attrs->i[0] == 0;
    for (int k = 0; k < r->attrs->i[0]; k++) gone |= (r->attrs->i[1 + k] + s->rank) % s->rank == d;
    if (!gone) at = at * s->dim[d] + index[d];
  }
  return at;
}

/* y from `start`, one x after another; then what is left to do with the count of them. */
#define REDUCTION(name, start, step, end)                                                                              \
  static void naive_##name(const op_run *r) {                                                                          \
    int64_t n = sl_shape_numel(&r->in_shape[0]), m = sl_shape_numel(&r->out_shape[0]);                                 \
    for (int64_t i = 0; i < m; i++) r->out[0][i] = (start);                                                            \
    for (int64_t i = 0; i < n; i++) {                                                                                  \
      double x = r->in[0][i], y = r->out[0][place_of(r, i)];                                                           \
      r->out[0][place_of(r, i)] = (step);                                                                              \
    }                                                                                                                  \
    for (int64_t i = 0; i < m; i++) {                                                                                  \
      double y = r->out[0][i], count = m ? (double)n / (double)m : 1;                                                  \
      r->out[0][i] = count > 0 ? (end) : y;                                                                            \
    }                                                                                                                  \
  }
REDUCTION(sum, 0, y + x, y)
REDUCTION(mean, 0, y + x, y / count)
REDUCTION(max, -INFINITY, fmax(x, y), y)
REDUCTION(min, INFINITY, fmin(x, y), y)
REDUCTION(norm, 0, y + x * x, sqrt(y))

typedef struct line {
  int64_t outer, n, inner;
} line;

static line line_of(const op_run *r) {
  const sl_shape *s = &r->in_shape[0];
  int dim = (int)((r->attrs->i[0] + s->rank) % s->rank);
  line l = {1, s->dim[dim], 1};
  for (int d = 0; d < dim; d++) l.outer *= s->dim[d];
  for (int d = dim + 1; d < s->rank; d++) l.inner *= s->dim[d];
  return l;
}

static void naive_argmax(const op_run *r) {
  line l = line_of(r);
  for (int64_t o = 0; o < l.outer; o++)
    for (int64_t k = 0; k < l.inner; k++) {
      const double *x = r->in[0] + o * l.n * l.inner + k;
      int64_t best = 0;
      for (int64_t i = 1; i < l.n; i++)
        if (x[i * l.inner] > x[best * l.inner]) best = i;
      r->out[0][o * l.inner + k] = (double)best;
    }
}

static void any_softmax(const op_run *r, bool logarithm) {
  line l = line_of(r);
  for (int64_t o = 0; o < l.outer; o++)
    for (int64_t k = 0; k < l.inner; k++) {
      const double *x = r->in[0] + o * l.n * l.inner + k;
      double *y = r->out[0] + o * l.n * l.inner + k, sum = 0;
      for (int64_t i = 0; i < l.n; i++) sum += exp(x[i * l.inner]);
      for (int64_t i = 0; i < l.n; i++)
        y[i * l.inner] = logarithm ? x[i * l.inner] - log(sum) : exp(x[i * l.inner]) / sum;
    }
}
static void naive_softmax(const op_run *r) { any_softmax(r, false); }
static void naive_log_softmax(const op_run *r) { any_softmax(r, true); }

#define REDUCED(name, make, flags)                                                                                     \
  {#name, "", naive_##name, flags, 0, 0, 1, {make(3, 5, 7)}},                                                          \
      {#name, "dims={1}", naive_##name, 0, 0, 0, 1, {make(3, 5, 7)}},                                                  \
      {#name, "dims={0,2} keepdim=1", naive_##name, 0, 0, 0, 1, {make(4, 2, 9)}}, {                                    \
#name, "dims={-1}", naive_##name, 0, 0, 0, 1, { make(2, 37) }                                                      \
  }

const op_case cases_reduce[] = {
    REDUCED(sum, F32, CASE_BF16),
    REDUCED(mean, F32, CASE_BF16),
    REDUCED(max, APART, 0),
    REDUCED(min, APART, 0),
    REDUCED(norm, F32, CASE_BF16),
    {"sum", "", naive_sum, CASE_NO_GRAD, 0, 0, 1, {INDEX(50, 9, 11)}},
    {"sum", "", naive_sum, 0, 0, 0, 1, {F32(3, 50000)}},
    {"argmax", "dim=1", naive_argmax, CASE_NO_GRAD, 0, 0, 1, {APART(3, 6, 4)}},
    {"argmax", "", naive_argmax, CASE_NO_GRAD, 0, 0, 1, {APART(4, 9)}},
    {"softmax", "dim=-1", naive_softmax, CASE_BF16, 0, 0, 1, {F32(3, 19)}},
    {"softmax", "dim=1", naive_softmax, 0, 0, 0, 1, {F32(2, 5, 3)}},
    {"log_softmax", "dim=-1", naive_log_softmax, CASE_BF16, 0, 0, 1, {F32(3, 19)}},
    {"log_softmax", "dim=0", naive_log_softmax, 0, 0, 0, 1, {F32(4, 3)}},
};

#define NO_SUCH_DIM(name)                                                                                              \
  {                                                                                                                    \
#name, "dims={4}", #name, 1, { F32(2, 3) }                                                                         \
  }
const op_refusal refusals_reduce[] = {
    NO_SUCH_DIM(sum),
    NO_SUCH_DIM(mean),
    NO_SUCH_DIM(max),
    NO_SUCH_DIM(min),
    NO_SUCH_DIM(norm),
    {"argmax", "dim=2", "argmax", 1, {F32(2, 3)}},
    {"softmax", "dim=2", "softmax", 1, {F32(2, 3)}},
    {"log_softmax", "dim=-3", "log_softmax", 1, {F32(2, 3)}},
};
OP_FAMILY(reduce);
