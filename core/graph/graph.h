/* Graphs: describe → differentiate → plan → run. This header describes and differentiates; program.h plans and runs.
 *
 * Values and nodes belong to the graph. An op given NULL, or inputs that do not fit, records the first error in the
 * graph and returns NULL; whoever builds checks once, with sl_graph_status or when the graph is compiled. */
#ifndef SL_GRAPH_GRAPH_H
#define SL_GRAPH_GRAPH_H

#include "graph/op.h"
#include "sluice/recompute.h"

/* One output of a node: a tensor to be. */
struct sl_value {
  sl_node *node;
  int index; /* among the node's outputs */
  int id;    /* among the graph's values */
  sl_dtype dtype;
  sl_shape shape;
  int64_t stride[SL_MAX_RANK]; /* elements */
  sl_value *base;              /* the value whose storage this one sees; itself unless a view */
  int64_t offset;              /* elements from the base's first */
};

typedef enum sl_leaf { SL_LEAF_NONE, SL_LEAF_INPUT, SL_LEAF_PARAM, SL_LEAF_TABLE, SL_LEAF_CONST, SL_LEAF_STEP } sl_leaf;

struct sl_node {
  sl_graph *graph;
  const sl_op *op;
  int id;      /* order of creation, which is an order of execution */
  int segment; /* recompute segment, 0: none */
  sl_leaf leaf;
  int slot;             /* input, parameter or step field number */
  int64_t param_offset; /* parameters and `accumulate`: elements into the flat array */
  sl_tensor *table;
  double constant;
  union {
    float f32;
    uint16_t u16;
    int32_t i32;
    int64_t i64;
    uint8_t u8;
    double f64;
  } constant_bits;
  int n_in, n_out;
  sl_value *in[SL_MAX_INPUTS]; /* NULL: absent optional input */
  sl_value *out;
  sl_attrs attrs;
  const char *name;  /* given by sl_name, with its scopes; or NULL */
  const char *scope; /* "blocks.3.attn", or "" */
  const char *place; /* as sl_graph_place told; or NULL */
};

SL_MUST_USE sl_status sl_graph_new(sl_context *ctx, sl_graph **out);
sl_graph *sl_graph_retain(sl_graph *g);
void sl_graph_release(sl_graph *g); /* NULL is allowed */
sl_context *sl_graph_context(const sl_graph *g);
/* The device that will run it, the CPU unless set; before the first node: some layouts depend on it. */
void sl_graph_set_device(sl_graph *g, const sl_device *dev);
const sl_device *sl_graph_device(const sl_graph *g);
/* The first error recorded while building, its text put back as this thread's error text; OK if none. */
SL_MUST_USE sl_status sl_graph_status(sl_graph *g);
/* Records an error (its text is the thread's) unless there is one already; returns NULL. */
sl_value *sl_graph_fail(sl_graph *g, sl_status s);

/* --- leaves --- */

/* Given at every run, by name. Names are unique in a graph. Dense unless strides are given (inputs as the eager caller
 * has them). */
sl_value *sl_input(sl_graph *g, const char *name, sl_dtype dtype, const sl_shape *shape);
sl_value *sl_input_strided(sl_graph *g, const char *name, sl_dtype dtype, const sl_shape *shape, const int64_t *stride);
/* A parameter: `offset` elements into the flat f32 array that each run binds; number `index` in its list. */
sl_value *sl_param_value(sl_graph *g, int index, int64_t offset, const char *name, const sl_shape *shape);
/* A named buffer, read where it lies at each run; the graph holds a reference. Contents may change between runs. */
sl_value *sl_table(sl_graph *g, const char *name, sl_tensor *t);
sl_value *sl_scalar(sl_graph *g, double v, sl_dtype dtype); /* 0-d */
/* Field `field` of the step block (program.h), 0-d f32. */
sl_value *sl_step_value(sl_graph *g, int field);

/* --- nodes --- */

/* The one way to add a node; the functions of ops.h are thin over it. Returns output 0. */
sl_value *sl_apply(sl_graph *g, const sl_op *op, int n_in, sl_value *const *in, const sl_attrs *attrs);
sl_value *sl_output(sl_value *v, int index); /* another output of v's node; NULL for NULL */
/* Names v's node: "<scopes>.<name>", as in "blocks.3.attn.qkv". Returns v; NULL for NULL. */
sl_value *sl_name(sl_value *v, const char *fmt, ...) SL_PRINTF(2, 3);
void sl_scope_push(sl_graph *g, const char *fmt, ...) SL_PRINTF(2, 3);
void sl_scope_pop(sl_graph *g);
/* Where the host's code describes what is built from now on ("my.lua:12"), for messages about nodes; NULL: it is not
 * the host's. A gradient has the place of its node. Neither hashed nor compared. */
void sl_graph_place(sl_graph *g, const char *place);
const char *sl_graph_scope(const sl_graph *g); /* "blocks.3.attn", or "" */
bool sl_graph_broken(const sl_graph *g);       /* an error is recorded */
/* The value of that full name (the latest), or NULL. */
sl_value *sl_graph_find(sl_graph *g, const char *name);
int sl_graph_node_count(const sl_graph *g);
sl_node *sl_graph_node(const sl_graph *g, int i);
bool sl_value_is_dense(const sl_value *v);
const char *sl_value_text(const sl_value *v); /* "f32 [2,3]" for messages; per-thread buffers */
/* For view ops' shape rules: out sees in's storage. */
void sl_value_view(sl_value *out, sl_value *in, const sl_shape *shape, const int64_t *stride, int64_t extra_offset);

/* Nodes built between begin and end form a segment that backward may run again instead of keeping ("checkpointing"). */
void sl_segment_begin(sl_graph *g);
void sl_segment_end(sl_graph *g);

/* Lets f32 products and convolutions round what they multiply to TF32 (10 bits, on GPUs that have it); without, they do
 * so only if the device's do in any case (SLUICE_TF32). */
void sl_graph_allow_tf32(sl_graph *g);

/* --- outputs and gradients --- */

/* Declares output `name`; written to the tensor bound at each run. */
void sl_graph_output(sl_graph *g, const char *name, sl_value *v);
/* dout[i] = d loss / d wrt[i], as new nodes. seed NULL: loss must be 0-d and the seed is 1; else seed is like loss.
 * Values that loss does not depend on get zeros. */
SL_MUST_USE sl_status sl_grad(sl_graph *g, sl_value *loss, sl_value *seed, int n, sl_value *const *wrt,
                              sl_recompute recompute, sl_value **dout);
/* *out: whether v is computed from one of n values, over floats all the way, so that it has a gradient by it. */
SL_MUST_USE sl_status sl_graph_depends(const sl_graph *g, const sl_value *v, int n, sl_value *const *on, bool *out);
/* At each run, adds v into the flat gradient array at the parameter's place. param: a value made by sl_param_value. */
void sl_graph_accumulate(sl_graph *g, sl_value *param, sl_value *v);
/* A run writes v there instead of adding it: for gradients that are those of one run. */
void sl_graph_fresh_gradients(sl_graph *g);

/* Values that a caller can compute beforehand: they depend on none of the inputs `varying` (NULL among them: none), on
 * no step value and on no draw, products went into them, and nodes that do vary read them or views of them. In order of
 * reading: the same function builds the same list at any batch size. *n_out may exceed max; out holds the first max. */
SL_MUST_USE sl_status sl_graph_frontier(sl_graph *g, int n_varying, sl_value *const *varying, int max, sl_value **out,
                                        int *n_out);
/* Whoever reads v, or a view of it, reads `with` instead, which is made before v's readers and is dense like v, of its
 * dtype and shape. What computes v then drops out, unless something else needs it. */
void sl_graph_replace(sl_graph *g, sl_value *v, sl_value *with);

/* Multiply-adds of all nodes of the graph that its outputs need. */
int64_t sl_graph_macs(sl_graph *g);
/* Structure hash: ops, attributes, edges, dtypes, shapes, outputs; not the tables' contents. */
uint64_t sl_graph_hash(sl_graph *g);
/* Graphviz text, from sl_alloc of the graph's context; the caller frees it. */
SL_MUST_USE sl_status sl_graph_dot(sl_graph *g, char **out);

#endif
