/* Models: a description (an architecture and its routing) with parameters that come into being at first use, and the
 * programs compiled from it. The state dict's names are the reference projects' own. */
#ifndef SL_MODEL_MODEL_H
#define SL_MODEL_MODEL_H

#include "base/description.h"
#include "graph/program.h"
#include "nn/params.h"
#include "routing/routing.h"
#include "sluice/models.h"

/* ARG, with `what` before it, for pairs that no model computes in. */
SL_MUST_USE sl_status sl_precision_check(const char *what, sl_precision p);

/* What an architecture brings. */
typedef struct sl_model_kind {
  const char *name; /* "dit" */
  /* Builds one forward pass: x f32 [N,C,H,W], t f32 or i64 [N], y i64 [N] (null class already filled in; NULL for
   * models without classes). Declares parameters through b. */
  sl_value *(*forward)(sl_model *m, sl_builder *b, sl_value *x, sl_value *t, sl_value *y);
  void (*free)(sl_model *m);
  /* Images of the pass that declares parameters; NULL: 1. Another number shows mistakes of hosts' functions, which
   * broadcasting hides at 1. */
  int64_t (*trial)(const sl_model *m);
  bool f32_residual;     /* blocks add in f32 whatever they compute in: residual bf16 is refused */
  const char *t_embed;   /* name of the timestep embedding after its MLP */
  const char *landmarks; /* names worth keeping, for messages: "c, tokens, blocks.0" */
  /* What checkpoints keep: the fields of its configuration, under the names of Lua's options. */
  const sl_field *fields;
  size_t config_bytes, options; /* of the configuration; where in it its sl_model_options lie */
  void (*defaults)(void *config);
  sl_status (*make)(sl_context *ctx, const void *config, sl_routing *routing, sl_model **out);
} sl_model_kind;

struct sl_model {
  sl_context *ctx;
  int refs;
  const sl_model_kind *kind;
  void *config; /* of the kind; begins with its configuration */
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
  /* Of diffusion/sample_images.h: what its checkpoint stores for sampling, or NULL. */
  void *sample;
  void (*free_sample)(sl_context *ctx, void *sample);
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

/* Tells the log, once per model, when it is about to run with weights that nobody loaded, trained or initialised. */
void sl_model_warn_fresh(sl_model *m);
/* One forward pass as nodes, for whoever builds bigger graphs (training, samplers). y as above. */
void sl_precision_use(sl_precision p, sl_builder *b); /* before sl_model_build */
sl_value *sl_model_build(sl_model *m, sl_builder *b, sl_value *x, sl_value *t, sl_value *y);
/* Guidance (2n rows: n conditional labels, then nulls; the first n of x are used twice): scale is a 0-d value; the
 * first `channels` output channels are guided, the others stay. Source: DiT models.py, forward_with_cfg; all channels:
 * the DTR repo. */
sl_value *sl_model_build_cfg(sl_model *m, sl_builder *b, sl_value *x, sl_value *t, sl_value *y, sl_value *scale,
                             int64_t channels);

/* d sum(output * upstream): by x, and by all trainable parameters as one flat array. */
SL_MUST_USE sl_status sl_model_gradients(sl_model *m, sl_tensor *x, sl_tensor *t, sl_tensor *y, sl_tensor *upstream,
                                         sl_tensor **dx, sl_tensor **flat);
/* The timestep embedding after its MLP, [N, hidden]. */
SL_MUST_USE sl_status sl_model_t_embed(sl_model *m, sl_tensor *t, sl_tensor **out);
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
