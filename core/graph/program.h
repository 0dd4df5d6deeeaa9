/* Programs: a graph planned for a device. After the first run, a run calls no allocator. */
#ifndef SL_GRAPH_PROGRAM_H
#define SL_GRAPH_PROGRAM_H

#include "graph/graph.h"

/* What changes from run to run besides tensors; small and, on devices, resident there. */
typedef struct sl_step {
  uint32_t seed;         /* of in-graph draws */
  uint32_t step;         /* counter word of in-graph draws */
  uint32_t first_sample; /* global index of row 0 of the batch: draws do not depend on micro-batches */
  float value[13];       /* fields read by sl_step_value */
} sl_step;

struct sl_kernels; /* ops/kernels.h */
/* What running code sees. */
struct sl_exec {
  sl_context *ctx;
  const sl_device *device;
  const struct sl_kernels *kernels;
  void *stream;
  bool tf32;           /* f32 products may round what they multiply; settled when they are planned */
  const sl_step *step; /* on a GPU: in its memory */
  /* On a GPU: 4 words that its kernels may write and the host reads after a synchronisation (device.h, sl_fault); else
   * NULL. */
  int64_t *fault;
};
/* The CPU's kernels; another device's table takes its place. Defined in ops/. */
const struct sl_kernels *sl_kernels_of(const sl_device *dev);
/* For those who call kernels outside programs; step is zeros. On a GPU, sl_device.use first. */
sl_exec sl_exec_on(sl_context *ctx, const sl_device *dev);

typedef struct sl_program sl_program;

typedef struct sl_compile_options {
  bool checked; /* redzones between blocks, dead intervals and fresh blocks filled with NaN, verified at every node.
                   Also on with SLUICE_CHECKED=1 in the environment, and always in sanitizer builds. */
} sl_compile_options;

/* Plans g (which must have no error) for its device; the program keeps a reference to g, which may not change any more.
 * OOM names the bytes needed when they exceed the context's limit. NULL options: defaults. */
SL_MUST_USE sl_status sl_graph_compile(sl_graph *g, const sl_compile_options *options, sl_program **out);
void sl_program_free(sl_program *p);
sl_graph *sl_program_graph(const sl_program *p);
int sl_program_input(const sl_program *p, const char *name); /* position, or -1 */
int sl_program_output(const sl_program *p, const char *name);
int sl_program_inputs(const sl_program *p);
int sl_program_outputs(const sl_program *p);
const sl_value *sl_program_input_value(const sl_program *p, int i); /* for its name (node->name), dtype and shape */
const sl_value *sl_program_output_value(const sl_program *p, int i);
const char *sl_program_output_name(const sl_program *p, int i);
bool sl_program_input_used(const sl_program *p, int i);

/* Bytes of the arena, known before the run; scratch of primitives included. */
uint64_t sl_program_arena_bytes(const sl_program *p);
/* The arena that g would need, without compiling it. *shadowed (may be NULL): it would read a bf16 copy of all its
 * parameters, too. */
SL_MUST_USE sl_status sl_graph_forecast(sl_graph *g, uint64_t *bytes, bool *shadowed);

/* For those who record more than one program's run (sl_device.record_begin): whether runs can be recorded at all; what
 * a run would bring before its launches, brought now; and whether it reads the parameters' bf16 copy, which whoever
 * writes parameters on the device can write along (sl_tensor_shadow). */
bool sl_program_recordable(const sl_program *p);
SL_MUST_USE sl_status sl_program_refresh(sl_program *p, sl_tensor *params);
bool sl_program_shadowed(const sl_program *p);

typedef struct sl_trace {
  const sl_node *node;
  int output;
  const char *name; /* of the node, or its op and number */
  double min, max, mean, rms;
  int64_t count, nonfinite;
} sl_trace;

/* Inputs and outputs of a GPU's program may lie there or on the CPU; then they are copied, and the run waits for the
 * outputs. Params and grads lie where the program runs. */
typedef struct sl_run {
  sl_tensor *const *inputs;   /* by position; dtype, shape and strides as declared */
  sl_tensor *const *outputs;  /* by position; dense, dtype and shape as declared */
  sl_tensor *params;          /* flat f32 array, if the graph has parameters */
  sl_tensor *grads;           /* flat f32 array, if it accumulates gradients; may be longer than the trainable part */
  const sl_step *step;        /* NULL: zeros */
  const sl_step *device_step; /* on a GPU, instead of step: it lies there already, at the same place from run to run */
  /* Trace mode: called after every node that computes; return false to stop (CANCELLED). */
  bool (*trace)(void *user, const sl_trace *t);
  void *user;
  bool profile; /* gather seconds per op, read by sl_program_profile */
} sl_run;

/* ARG/SHAPE/DTYPE when a binding does not fit, in words. CANCELLED when the context was told to stop. */
SL_MUST_USE sl_status sl_program_run(sl_program *p, const sl_run *run);
/* Of all nodes of one op: seconds and calls gathered by profiled runs since compile; and what one run asks of the
 * machine: multiply-adds, and bytes read and written, each operand counted once. */
typedef struct sl_op_cost {
  const char *op;
  double seconds, limit; /* limit: by sl_graph_costs alone */
  int64_t calls, nodes, macs, bytes;
} sl_op_cost;
bool sl_program_cost(const sl_program *p, int i, sl_op_cost *out); /* i from 0, false past the end */

/* What a machine reaches: FLOP/s of products of f32 and of bf16 operands, and bytes read and written in a second. */
typedef struct sl_rates {
  double f32, bf16, bytes;
} sl_rates;
/* Plans g for its device as sl_graph_compile would, allocates nothing there, and calls `each` for every op (seconds and
 * calls are 0). limit: seconds that its nodes take together on a machine of these rates, each by its products (2 FLOP a
 * multiply-add) or by its bytes, whichever takes longer. */
SL_MUST_USE sl_status sl_graph_costs(sl_graph *g, const sl_rates *rates, void (*each)(void *user, const sl_op_cost *c),
                                     void *user);

/* --- eager use: programs by key in a bounded least-recently-used cache --- */

typedef struct sl_eager sl_eager;
SL_MUST_USE sl_status sl_eager_new(sl_context *ctx, int capacity, sl_eager **out);
void sl_eager_free(sl_eager *e);
/* Calls run where their parameters lie or, without any, on the GPU that inputs lie on (all of them, but for 0-d
 * numbers: else DEVICE), else on the CPU; outputs lie there, too. */
/* Runs one op on concrete tensors. in[i] may be NULL for absent optional inputs; outputs (n_out of them asked for) are
 * new contiguous tensors owned by the caller. step as in sl_run. */
SL_MUST_USE sl_status sl_eager_apply(sl_eager *e, const sl_op *op, int n_in, sl_tensor *const *in,
                                     const sl_attrs *attrs, const sl_step *step, int n_out, sl_tensor **out);
/* Runs a function of tensors: `build` describes it on inputs made from in[] (names x0, x1, …) and gives its n_out
 * outputs (at most SL_MAX_CALL_OUTPUTS); the program is cached by (key bytes, shapes, dtypes, strides). run (NULL:
 * none) brings params, grads, step, trace and profile, and may bring outputs, which are then written (out NULL). Else
 * outputs as above. */
#define SL_MAX_CALL_OUTPUTS 96
typedef sl_status (*sl_build_fn)(void *user, sl_graph *g, int n_in, sl_value *const *in, int n_out, sl_value **out);
SL_MUST_USE sl_status sl_eager_call(sl_eager *e, const void *key, size_t key_size, sl_build_fn build, void *user,
                                    int n_in, sl_tensor *const *in, const sl_run *run, int n_out, sl_tensor **out);
/* Runs a compiled program with inputs, allocating its outputs; for callers who keep programs themselves. */
SL_MUST_USE sl_status sl_program_call(sl_program *p, const sl_run *run, int n_out, sl_tensor **out);

#endif
