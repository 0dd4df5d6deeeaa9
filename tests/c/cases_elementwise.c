#include <math.h>

#include "op_table.h"

#define UNARY(name, expr)                                                                                              \
  static void naive_##name(const op_run *r) {                                                                          \
    for (int64_t i = 0; i < sl_shape_numel(&r->out_shape[0]); i++) {                                                   \
      double x = r->in[0][i];                                                                                          \
      r->out[0][i] = (expr);                                                                                           \
    }                                                                                                                  \
  }
UNARY(neg, -x)
UNARY(abs, fabs(x))
UNARY(sign, (x > 0) - (x < 0))
UNARY(exp, exp(x))
UNARY(log, log(x))
UNARY(sqrt, sqrt(x))
UNARY(rsqrt, 1 / sqrt(x))
UNARY(square, x *x)
UNARY(sin, sin(x))
UNARY(cos, cos(x))
UNARY(tanh, tanh(x))
UNARY(sigmoid, 1 / (1 + exp(-x)))
UNARY(erf, erf(x))
UNARY(relu, x > 0 ? x : 0)
UNARY(silu, x / (1 + exp(-x)))
UNARY(gelu, x / 2 * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x))))
UNARY(gelu_erf, x / 2 * (1 + erf(x / sqrt(2))))
UNARY(round, rint(x))
UNARY(floor, floor(x))

static void naive_clamp(const op_run *r) {
  for (int64_t i = 0; i < sl_shape_numel(&r->out_shape[0]); i++)
    r->out[0][i] = fmin(fmax(r->in[0][i], r->attrs->f[0]), r->attrs->f[1]);
}

#define BINARY(name, expr)                                                                                             \
  static void naive_##name(const op_run *r) {                                                                          \
    int64_t index[SL_MAX_RANK];                                                                                        \
    for (int64_t i = 0; i < sl_shape_numel(&r->out_shape[0]); i++) {                                                   \
      op_unflatten(&r->out_shape[0], i, index);                                                                        \
      double a = r->in[0][op_broadcast_at(&r->in_shape[0], &r->out_shape[0], index)];                                  \
      double b = r->in[1][op_broadcast_at(&r->in_shape[1], &r->out_shape[0], index)];                                  \
      r->out[0][i] = (expr);                                                                                           \
    }                                                                                                                  \
  }
BINARY(add, a + b)
BINARY(sub, a - b)
BINARY(mul, a *b)
BINARY(div, a / b)
BINARY(pow, pow(a, b))
BINARY(maximum, a > b ? a : b)
BINARY(minimum, a < b ? a : b)
BINARY(lt, a < b)
BINARY(le, a <= b)
BINARY(gt, a > b)
BINARY(ge, a >= b)
BINARY(eq, a == b)
BINARY(ne, a != b)

static void naive_where(const op_run *r) {
  int64_t index[SL_MAX_RANK];
  for (int64_t i = 0; i < sl_shape_numel(&r->out_shape[0]); i++) {
    op_unflatten(&r->out_shape[0], i, index);
    double c = r->in[0][op_broadcast_at(&r->in_shape[0], &r->out_shape[0], index)];
    int k = c != 0 ? 1 : 2;
    r->out[0][i] = r->in[k][op_broadcast_at(&r->in_shape[k], &r->out_shape[0], index)];
  }
}

#define SMOOTH(name)                                                                                                   \
  {#name, "", naive_##name, CASE_BF16, 0, 0, 1, {F32(3, 5, 7)}}, {#name, "", naive_##name, 0, 0, 0, 1, {F32(2, 131)}}, \
  {                                                                                                                    \
#name, "", naive_##name, 0, 0, 0, 1, { SCALAR }                                                                    \
  }
#define KINKED(name, flags)                                                                                            \
  {                                                                                                                    \
#name, "", naive_##name, flags, 0, 0, 1, { APART(4, 9) }                                                           \
  }
#define POSITIVE(name)                                                                                                 \
  {                                                                                                                    \
#name, "", naive_##name, 0, 0, 0, 1, { POS(3, 1, 21) }                                                             \
  }
#define TWO(name)                                                                                                      \
  {#name, "", naive_##name, CASE_BF16, 0, 0, 2, {F32(2, 3, 5), F32(2, 3, 5)}},                                         \
      {#name, "", naive_##name, 0, 0, 0, 2, {F32(4, 1, 6), F32(3, 1)}}, {                                              \
#name, "", naive_##name, 0, 0, 0, 2, { F32(70), SCALAR }                                                           \
  }
#define COMPARED(name)                                                                                                 \
  {#name, "", naive_##name, CASE_NO_GRAD, 0, 0, 2, {INDEX(3, 4, 5), INDEX(3, 5)}}, {                                   \
#name, "", naive_##name, CASE_NO_GRAD, 0, 0, 2, { F32(3, 7), F32(3, 7) }                                           \
  }

const op_case cases_elementwise[] = {
    SMOOTH(neg),
    SMOOTH(exp),
    SMOOTH(square),
    SMOOTH(sin),
    SMOOTH(cos),
    SMOOTH(tanh),
    SMOOTH(sigmoid),
    SMOOTH(erf),
    SMOOTH(silu),
    SMOOTH(gelu),
    SMOOTH(gelu_erf),
    POSITIVE(log),
    POSITIVE(sqrt),
    POSITIVE(rsqrt),
    KINKED(abs, 0),
    KINKED(relu, 0),
    KINKED(sign, 0),
    {"round", "", naive_round, 0, 0, 0, 1, {APART(5, 8)}},
    {"floor", "", naive_floor, 0, 0, 0, 1, {APART(5, 8)}},
    {"clamp", "lo=-0.5 hi=0.61", naive_clamp, 0, 0, 0, 1, {APART(5, 6)}},
    TWO(add),
    TWO(sub),
    TWO(mul),
    {"div", "", naive_div, CASE_BF16, 0, 0, 2, {F32(3, 4), POS(3, 4)}},
    {"div", "", naive_div, 0, 0, 0, 2, {F32(2, 3, 4), POS(3, 1)}},
    {"div", "", naive_div, CASE_NO_GRAD, 0, 0, 2, {INDEX(9, 6), {SL_F32, GEN_POSITIVE, 1, {6}, 0}}},
    {"pow", "", naive_pow, 0, 0, 1e-5, 2, {POS(3, 4), F32(3, 4)}},
    {"pow", "", naive_pow, 0, 0, 1e-5, 2, {POS(2, 3, 4), F32(4)}},
    {"maximum", "", naive_maximum, 0, 0, 0, 2, {F32(4, 5), F32(4, 5)}},
    {"minimum", "", naive_minimum, 0, 0, 0, 2, {F32(4, 5), F32(5)}},
    COMPARED(lt),
    COMPARED(le),
    COMPARED(gt),
    COMPARED(ge),
    COMPARED(eq),
    COMPARED(ne),
    {"where", "", naive_where, CASE_BF16, 0, 0, 3, {MASK(4, 5), F32(4, 5), F32(4, 5)}},
    {"where", "", naive_where, 0, 0, 0, 3, {MASK(4, 1), F32(5), SCALAR}},
    {"add", "", naive_add, 0, 0, 0, 2, {F32(0, 3), F32(3)}},
};

#define WRONG_DTYPE(name)                                                                                              \
  {                                                                                                                    \
#name, "", #name, 1, {                                                                                             \
      { SL_F16, GEN_NORMAL, 1, {3}, 0 }                                                                                \
    }                                                                                                                  \
  }
#define NO_BROADCAST(name)                                                                                             \
  {                                                                                                                    \
#name, "", "[2,3]", 2, { F32(2, 3), F32(4) }                                                                       \
  }

const op_refusal refusals_elementwise[] = {
    WRONG_DTYPE(neg),      WRONG_DTYPE(abs),
    WRONG_DTYPE(sign),     WRONG_DTYPE(exp),
    WRONG_DTYPE(log),      WRONG_DTYPE(sqrt),
    WRONG_DTYPE(rsqrt),    WRONG_DTYPE(square),
    WRONG_DTYPE(sin),      WRONG_DTYPE(cos),
    WRONG_DTYPE(tanh),     WRONG_DTYPE(sigmoid),
    WRONG_DTYPE(erf),      WRONG_DTYPE(relu),
    WRONG_DTYPE(silu),     WRONG_DTYPE(gelu),
    WRONG_DTYPE(gelu_erf), WRONG_DTYPE(round),
    WRONG_DTYPE(floor),    {"clamp", "lo=1 hi=0", "clamp", 1, {F32(3)}},
    NO_BROADCAST(add),     NO_BROADCAST(sub),
    NO_BROADCAST(mul),     NO_BROADCAST(div),
    NO_BROADCAST(pow),     NO_BROADCAST(maximum),
    NO_BROADCAST(minimum), NO_BROADCAST(lt),
    NO_BROADCAST(le),      NO_BROADCAST(gt),
    NO_BROADCAST(ge),      NO_BROADCAST(eq),
    NO_BROADCAST(ne),      {"where", "", "where", 3, {MASK(2), F32(3), F32(3)}},
};
OP_FAMILY(elementwise);
