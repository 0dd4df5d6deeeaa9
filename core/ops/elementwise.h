/* Names of elementwise functions, as kernels take them. */
#ifndef SL_OPS_ELEMENTWISE_H
#define SL_OPS_ELEMENTWISE_H

/* X(row's name): sl_<name>_f and its derivative sl_<name>_d stand in elementwise_math.h */
#define SL_UNARY_LIST(X)                                                                                               \
  X(neg)                                                                                                               \
  X(abs)                                                                                                               \
  X(sign)                                                                                                              \
  X(exp)                                                                                                               \
  X(log)                                                                                                               \
  X(sqrt)                                                                                                              \
  X(rsqrt)                                                                                                             \
  X(square)                                                                                                            \
  X(sin)                                                                                                               \
  X(cos)                                                                                                               \
  X(tanh)                                                                                                              \
  X(sigmoid)                                                                                                           \
  X(erf)                                                                                                               \
  X(relu)                                                                                                              \
  X(silu)                                                                                                              \
  X(gelu)                                                                                                              \
  X(gelu_erf)                                                                                                          \
  X(round)                                                                                                             \
  X(floor)
#define SL_BINARY_LIST(X) X(add) X(sub) X(mul) X(div) X(pow) X(maximum) X(minimum)
/* X(row's name, operator) */
#define SL_COMPARE_LIST(X) X(lt, <) X(le, <=) X(gt, >) X(ge, >=) X(eq, ==) X(ne, !=)

#define X(name) SL_UNARY_##name,
typedef enum sl_unary { SL_UNARY_LIST(X) SL_UNARY_COUNT } sl_unary;
#undef X
#define X(name) SL_BINARY_##name,
typedef enum sl_binary { SL_BINARY_LIST(X) SL_BINARY_COUNT } sl_binary;
#undef X
#define X(name, operator) SL_COMPARE_##name,
typedef enum sl_compare { SL_COMPARE_LIST(X) SL_COMPARE_COUNT } sl_compare;
#undef X

#endif
