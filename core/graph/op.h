/* What an operation is to the graph: a row of names and rules. The rows are listed in ops/ops.def; each family's file
 * defines the rules of its ops (shape rule, gradient, multiply-adds, running) next to each other. */
#ifndef SL_GRAPH_OP_H
#define SL_GRAPH_OP_H

#include "tensor/tensor.h"

typedef struct sl_graph sl_graph;
typedef struct sl_node sl_node;
typedef struct sl_value sl_value;
typedef struct sl_exec sl_exec;

#define SL_MAX_INPUTS 16 /* of a node; `cat` and `stack` take at most this many */
#define SL_MAX_OUTPUTS 8
#define SL_ATTR_INTS 40
#define SL_ATTR_LIST 9 /* slots of a list attribute: count, then up to 8 values */
#define SL_ATTR_FLOATS 4

/* Attribute values, in the order of the row's attribute string: kinds i, d, p, b, e, t take the next slot of i, kinds l
 * and L the next SL_ATTR_LIST slots, kind f the next slot of f. Each family names its slots in an enum. */
typedef struct sl_attrs {
  int64_t i[SL_ATTR_INTS];
  double f[SL_ATTR_FLOATS];
} sl_attrs;

/* What a gradient function is given and fills. in[] and out[] are the node's values (or their recomputed twins: never
 * go through node->in). dy[k] is NULL where no gradient arrives. For each i with need[i], set dx[i] (NULL: zero).
 * prior[i] is the gradient of in[i] gathered so far or NULL: an op that can add it for free sets dx[i] to the sum and
 * folded[i]. */
typedef struct sl_grad_args {
  sl_graph *graph;
  const sl_node *node;
  sl_value *const *in, *const *out, *const *dy, *const *prior;
  const bool *need;
  sl_value **dx;
  bool *folded;
} sl_grad_args;

typedef struct sl_op_rules {
  /* Optional: builds the op out of others instead of adding a node (after canon); the other rules are then not used. */
  sl_value *(*compose)(sl_graph *g, int n, sl_value **in, const sl_attrs *a);
  /* Optional: replaces inputs before the shape rule (broadcast, dtype promotion, made dense) and fills in defaults. */
  sl_status (*canon)(sl_graph *g, int n, sl_value **in, sl_attrs *a);
  /* Checks inputs and attributes; sets out[k].dtype and .shape (for views also .stride, .offset by sl_value_view). */
  sl_status (*infer)(sl_node *n);
  sl_status (*grad)(sl_grad_args *a); /* NULL: not differentiable */
  /* Optional: output k once more, from values that are kept in any case and without products; NULL: not so. Backward
   * may read that instead of the output, which then need not be kept (SL_RECOMPUTE_LIGHT). */
  sl_value *(*again)(sl_graph *g, const sl_node *n, int k);
  int64_t (*macs)(const sl_node *n); /* multiply-adds of one run; NULL: none worth counting */
  /* Optional: bytes of workspace for one run. The exec tells the device and its kernels; nothing is run. */
  sl_status (*workspace)(sl_exec *e, const sl_node *n, size_t *bytes);
  /* Optional: makes what every run of this node shares (oneDNN primitives); freed by release. */
  sl_status (*prepare)(sl_exec *e, const sl_node *n, void **state);
  void (*release)(sl_exec *e, void *state);
  /* Runs the node. out[k].data is NULL for an output that nobody uses; in[i].data is NULL for an absent optional input.
   */
  sl_status (*run)(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state, void *workspace);
} sl_op_rules;

enum {
  SL_OP_STRIDED = 1,        /* run takes inputs of any strides; else they are made dense */
  SL_OP_VIEW = 2,           /* no run: the output is the input's storage seen otherwise */
  SL_OP_ACCUMULATES = 4,    /* run honours out[0].accumulate */
  SL_OP_INPLACE = 8,        /* out[0] may be in[0]'s memory when both are dense, equal in size, and in[0] dies here */
  SL_OP_PRIVATE = 16,       /* not offered to Lua (gradients' own ops) */
  SL_OP_KEEPS_ORDER = 64,   /* outputs lie in memory in the order of dimensions of the first input that has its own */
  SL_OP_KEEP = 32,          /* never dropped as dead code */
  SL_OP_DETACHES = 256,     /* no gradient passes */
  SL_OP_RESULT_FIRST = 128, /* outputs after the first serve the gradient: Lua is given the first alone */
};

typedef struct sl_op {
  const char *name;
  const char *inputs; /* "x w b?": names; ? optional; "x*": any number, at least 1 */
  const char
      *attrs; /* "dim:d=-1 eps:f=1e-6 act:e(none|gelu|silu)=none shape:l"; kinds i int, d dimension, b bool, f float,
                 p position (0-based in C, from 1 in Lua, negative from the end), l list of ints, L list of dimensions
                 (lists: shape:l={1,1}), e one of the names (its position), t dtype; no = : required */
  int outputs;
  unsigned flags;
  const sl_op_rules *rules;
} sl_op;

extern const sl_op sl_ops[];
extern const int sl_op_count;
const sl_op *sl_op_find(const char *name); /* NULL if there is none */

/* Descriptions of an op's inputs and attributes, parsed from its row. */
typedef struct sl_op_attr {
  char name[24], kind; /* kind as above */
  int slot;
  bool required;
  double number;       /* default of i, d, p, b, f, e, t */
  int n_list, list[8]; /* default of l, L */
  char choices[96];    /* kind e: "none|gelu|silu" */
} sl_op_attr;
typedef struct sl_op_signature {
  int n_inputs, n_required, n_attrs; /* n_required: up to the last input that must be given */
  bool variadic, optional[SL_MAX_INPUTS];
  char input[SL_MAX_INPUTS][16];
  sl_op_attr attr[12];
} sl_op_signature;
void sl_op_describe(const sl_op *op, sl_op_signature *out);
/* Attributes with every default filled in. */
sl_attrs sl_op_defaults(const sl_op *op);

#endif
