/* The table of operation cases: each holds a naive forward in double, the definition; the driver checks values,
 * gradients and refusals of every row of ops.def against it. */
#ifndef SL_TESTS_OP_TABLE_H
#define SL_TESTS_OP_TABLE_H

#include "graph/program.h"
#include "ops/ops.h"

enum { OP_MOST_INPUTS = 8 };

/* How an input's values are drawn. */
typedef enum op_gen {
  GEN_NORMAL,   /* around 0, within about 2 */
  GEN_POSITIVE, /* 0.3 … 1.8 */
  GEN_APART,    /* distinct values at least 0.05 apart and as far from 0: no ties, no kinks */
  GEN_INDEX,    /* integers 0 … below-1 */
  GEN_MASK,     /* 0 and 1 */
} op_gen;

typedef struct op_in {
  sl_dtype dtype;
  op_gen gen;
  int rank; /* -1: absent optional input */
  int64_t dim[5];
  int64_t below;
} op_in;

#define SHAPE_(...)                                                                                                    \
  (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), { __VA_ARGS__ }
#define F32(...)                                                                                                       \
  { SL_F32, GEN_NORMAL, SHAPE_(__VA_ARGS__), 0 }
#define POS(...)                                                                                                       \
  { SL_F32, GEN_POSITIVE, SHAPE_(__VA_ARGS__), 0 }
#define APART(...)                                                                                                     \
  { SL_F32, GEN_APART, SHAPE_(__VA_ARGS__), 0 }
#define INDEX(n, ...)                                                                                                  \
  { SL_I64, GEN_INDEX, SHAPE_(__VA_ARGS__), n }
#define MASK(...)                                                                                                      \
  { SL_U8, GEN_MASK, SHAPE_(__VA_ARGS__), 0 }
#define SCALAR                                                                                                         \
  { SL_F32, GEN_NORMAL, 0, {0}, 0 }
#define ABSENT                                                                                                         \
  { SL_F32, GEN_NORMAL, -1, {0}, 0 }

/* What a naive function reads and writes: dense doubles. */
typedef struct op_run {
  const sl_attrs *attrs;
  int n_in, n_out;
  sl_shape in_shape[OP_MOST_INPUTS], out_shape[SL_MAX_OUTPUTS];
  double *in[OP_MOST_INPUTS], *out[SL_MAX_OUTPUTS]; /* in[k] NULL: absent */
} op_run;

enum {
  CASE_NO_GRAD = 1,
  CASE_BF16 = 2,   /* also run with bf16 in place of f32 */
  CASE_RANDOM = 4, /* no definition: naive checks the drawn values themselves, given as out[0], and fails by NaN */
};

typedef struct op_case {
  const char *op, *attrs; /* "dim=1 keepdim=1 dims={0,2} act=gelu" */
  void (*naive)(const op_run *r);
  unsigned flags;
  unsigned outs;    /* outputs compared and differentiated, bit by bit; 0: the first */
  double tolerance; /* of values, relative to the norm; 0: 2e-6 */
  int n_in;
  op_in in[OP_MOST_INPUTS];
} op_case;

/* Building it must fail with these words. */
typedef struct op_refusal {
  const char *op, *attrs, *words;
  int n_in;
  op_in in[OP_MOST_INPUTS];
} op_refusal;

#define OP_FAMILIES(X) X(elementwise) X(shape) X(reduce) X(rows) X(product) X(norm) X(image) X(loss) X(sampling)
#define X(name)                                                                                                        \
  extern const op_case cases_##name[];                                                                                 \
  extern const int n_cases_##name;                                                                                     \
  extern const op_refusal refusals_##name[];                                                                           \
  extern const int n_refusals_##name;
OP_FAMILIES(X)
#undef X
#define OP_FAMILY(name)                                                                                                \
  const int n_cases_##name = (int)(sizeof cases_##name / sizeof *cases_##name);                                        \
  const int n_refusals_##name = (int)(sizeof refusals_##name / sizeof *refusals_##name)

/* --- for naive functions --- */

/* Row-major position `flat` of shape s, as indices. */
void op_unflatten(const sl_shape *s, int64_t flat, int64_t *index);
/* The flat position of out's index in a shape that broadcasts to it. */
int64_t op_broadcast_at(const sl_shape *s, const sl_shape *out, const int64_t *index);

/* --- the driver --- */

/* Runs cases on a device of ctx instead of the CPU; made (NULL: nothing) sees every program before it runs. */
void op_use_device(const sl_device *dev, void (*made)(sl_program *p));
void op_check_case(sl_context *ctx, const op_case *c);
void op_check_refusal(sl_context *ctx, const op_refusal *r);
/* Prints rows x {forward, gradient, refusal}; false when there is a hole. */
bool op_print_table(void);

#endif
