/* Models: a description (an architecture and its routing) with parameters that come into being at first use, and the
 * programs compiled from it. The state dict's names are the reference projects' own. */
#ifndef SL_MODEL_MODEL_H
#define SL_MODEL_MODEL_H

#include "graph/program.h"
#include "nn/params.h"
#include "routing/routing.h"

/* What a program computes in, other than its model says. Not given: as the model says. */
typedef struct sl_precision {
  bool given;
  sl_dtype compute, residual; /* f32 and f32, or bf16 and either */
  bool tf32;                  /* with f32: sl_graph_allow_tf32 */
} sl_precision;
/* ARG, with `what` before it, for pairs that no model computes in. */
SL_MUST_USE sl_status sl_precision_check(const char *what, sl_precision p);

typedef struct sl_model sl_model;

/* What an architecture brings. */
typedef struct sl_model_kind {
  const char *name; /* "dit" */
  /* Builds one forward pass: x f32 [N,C,H,W], t f32 or i64 [N], y i64 [N] (null class already filled in; NULL for
   * models without classes). Declares parameters through b. */
  sl_value *(*forward)(sl_model *m, sl_builder *b, sl_value *x, sl_value *t, sl_value *y);
  void (*free)(sl_model *m);
  bool f32_residual;     /* blocks add in f32 whatever they compute in: residual bf16 is refused */
  const char *t_embed;   /* name of the timestep embedding after its MLP */
  const char *landmarks; /* names worth keeping, for messages: "c, tokens, blocks.0" */
} sl_model_kind;

/* What every architecture's configuration has. */
typedef struct sl_model_options {
  int64_t timesteps; /* rows of the mask tables */
  uint32_t seed;
  sl_dtype compute, residual; /* f32, or bf16 (then the residual stream f32 or bf16): see sl_builder */
  bool tf32;
  const sl_device *device; /* NULL: the CPU */
} sl_model_options;

/* What every architecture tells of itself. */
typedef struct sl_model_info {
  int64_t in_channels, out_channels, height, width;
  int64_t classes; /* 0: takes no y */
  bool null_class; /* row `classes` is the null class: guidance and y = NULL are possible */
  bool one_class;  /* classes = 1: y is NULL or zeros */
  double class_dropout;
  bool learn_sigma;
  int64_t timesteps; /* set by sl_model_create */
  int routed_blocks;
} sl_model_info;

struct sl_model {
  sl_context *ctx;
  int refs;
  const sl_model_kind *kind;
  void *config; /* of the kind */
  sl_model_info info;
  sl_params *params;
  sl_tensor *weights; /* flat; NULL until first use */
  bool ready;         /* initialised, loaded or trained */
  bool warned;
  uint32_t seed;
  const sl_device *device;    /* where its weights lie and its programs run */
  sl_dtype compute, residual; /* as in sl_builder */
  bool tf32;
  sl_routing *routing; /* NULL: none */
  sl_tensor **masks;   /* [routed block] u8 [timesteps, C]; equal tables are one tensor */
  sl_eager *programs;
};

/* For kinds: makes the common part, declares parameters by building once, evaluates routing for the routed blocks, of
 * channels[b] channels each. Takes over config (freed by kind->free, also on failure). routing is retained. ARG and
 * UNSUPPORTED name the option. */
SL_MUST_USE sl_status sl_model_create(sl_context *ctx, const sl_model_kind *kind, void *config,
                                      const sl_model_info *info, const sl_model_options *options, sl_routing *routing,
                                      const int64_t *channels, sl_model **out);
/* The mask rows u8 [N, C] of routed block `block` for t, or NULL without routing. A fractional t takes the nearest
 * integer's row, half to even. Rows of equal tables are gathered once per graph. */
sl_value *sl_model_mask(sl_model *m, sl_builder *b, int block, sl_value *t);

/* Names what a whole block gives, outside the block's own scope: "blocks.3". */
sl_value *sl_model_name_block(sl_value *v, const char *fmt, ...) SL_PRINTF(2, 3);

sl_model *sl_model_retain(sl_model *m);
void sl_model_release(sl_model *m);
/* Brings the weights into being (seed of the model) if they are not there. */
SL_MUST_USE sl_status sl_model_weights(sl_model *m, sl_tensor **borrowed);
/* Tells the log, once per model, when it is about to run with weights that nobody loaded, trained or initialised. */
void sl_model_warn_fresh(sl_model *m);
SL_MUST_USE sl_status sl_model_init(sl_model *m, uint32_t seed);
/* Moves the model: weights that exist are copied, trainers and samplers made of it before keep theirs. */
SL_MUST_USE sl_status sl_model_to(sl_model *m, const sl_device *dev);
/* One forward pass as nodes, for whoever builds bigger graphs (training, samplers). y as above. */
void sl_precision_use(sl_precision p, sl_builder *b); /* before sl_model_build */
sl_value *sl_model_build(sl_model *m, sl_builder *b, sl_value *x, sl_value *t, sl_value *y);
/* Guidance (2n rows: n conditional labels, then nulls; the first n of x are used twice): scale is a 0-d value; the
 * first `channels` output channels are guided, the others stay. Source: DiT models.py, forward_with_cfg; all channels:
 * the DTR repo. */
sl_value *sl_model_build_cfg(sl_model *m, sl_builder *b, sl_value *x, sl_value *t, sl_value *y, sl_value *scale,
                             int64_t channels);

/* Tensors may lie anywhere; results lie where x does.
 * x f32 [N,C,H,W]; t i64, i32 or f32 [N] or [1] or 0-d; y i64/i32 [N] or NULL. Labels and shapes are checked in words.
 * keep: names of values to return too ("c", "blocks.0"), kept[n_keep] owned by the caller. */
SL_MUST_USE sl_status sl_model_forward(sl_model *m, sl_tensor *x, sl_tensor *t, sl_tensor *y, int n_keep,
                                       const char *const *keep, sl_tensor **out, sl_tensor **kept);
SL_MUST_USE sl_status sl_model_forward_cfg(sl_model *m, sl_tensor *x, sl_tensor *t, sl_tensor *y, float scale,
                                           int64_t channels, sl_tensor **out);
/* d sum(output * upstream): by x, and by all trainable parameters as one flat array. */
SL_MUST_USE sl_status sl_model_gradients(sl_model *m, sl_tensor *x, sl_tensor *t, sl_tensor *y, sl_tensor *upstream,
                                         sl_tensor **dx, sl_tensor **flat);
/* The timestep embedding after its MLP, [N, hidden]. */
SL_MUST_USE sl_status sl_model_t_embed(sl_model *m, sl_tensor *t, sl_tensor **out);
SL_MUST_USE sl_status sl_model_macs(sl_model *m, int64_t batch, int64_t *macs); /* of one forward pass */
/* Trace mode of one forward pass: calls back per node. */
SL_MUST_USE sl_status sl_model_trace(sl_model *m, sl_tensor *x, sl_tensor *t, sl_tensor *y,
                                     bool (*trace)(void *user, const sl_trace *t), void *user);
SL_MUST_USE sl_status sl_model_dot(sl_model *m, int64_t batch, char **out);
/* Seconds per op of the last `runs` profiled forward passes are gathered by benchmarks through sl_program directly. */

/* t given as [N], [1] or 0-d becomes [n] of i64 or f32; y NULL becomes the null class, others are checked against the
 * classes. Results are owned by the caller. */
SL_MUST_USE sl_status sl_model_conditions(sl_model *m, int64_t n, sl_tensor *t, sl_tensor *y, sl_tensor **t_out,
                                          sl_tensor **y_out);

#endif
