/* Parameters: a list of names and shapes over flat f32 arrays. Weights, gradients, moments and averages are arrays of
 * the same layout: trainable parameters in reverse order of declaration (about the order in which backward finishes
 * them), then frozen ones; each starts on 64 bytes. */
#ifndef SL_NN_PARAMS_H
#define SL_NN_PARAMS_H

#include "base/random.h"
#include "graph/graph.h"

typedef enum sl_init_kind {
  SL_INIT_ZERO,
  SL_INIT_ONE,
  SL_INIT_NORMAL,         /* standard deviation a */
  SL_INIT_XAVIER_UNIFORM, /* +-sqrt(6 / (fan_in + fan_out)), fans from the shape seen as [dim 0, rest] */
  SL_INIT_FAN_IN_UNIFORM, /* +-1 / sqrt(fan_in), as torch's linear and convolution layers; of a layer: its bias too */
  SL_INIT_UNIFORM,        /* +-a */
  SL_INIT_FIXED,          /* values given by fill(); not trained */
} sl_init_kind;

typedef struct sl_init {
  sl_init_kind kind;
  float a;
  void (*fill)(const void *user, const sl_shape *shape, float *out); /* SL_INIT_FIXED */
  const void *user;
} sl_init;

typedef struct sl_param {
  char *name;
  sl_shape shape;
  sl_init init;
  bool trainable;
  int64_t offset; /* elements, after commit */
} sl_param;

typedef struct sl_params sl_params;

SL_MUST_USE sl_status sl_params_new(sl_context *ctx, sl_params **out);
/* Where arrays are made from now on: the CPU unless set. */
void sl_params_set_device(sl_params *p, const sl_device *dev);
void sl_params_free(sl_params *p);
/* Declares one; its number. ARG when the name is taken with another shape; -1 on errors. Declaring again is a look-up.
 */
SL_MUST_USE sl_status sl_params_declare(sl_params *p, const char *name, const sl_shape *shape, sl_init init,
                                        int *index);
void sl_params_commit(sl_params *p); /* lays out; no declaring after */
int sl_params_count(const sl_params *p);
const sl_param *sl_params_get(const sl_params *p, int i);
int sl_params_find(const sl_params *p, const char *name); /* -1: none */
int64_t sl_params_elements(const sl_params *p);           /* length of the flat arrays */
int64_t sl_params_trainable_elements(const sl_params *p); /* the trainable part stands first; padding included */
/* Parameters proper, without padding: all of them, and those trained. */
void sl_params_numel(const sl_params *p, int64_t *all, int64_t *trainable);
/* A new flat array; zeros. The caller owns it. */
SL_MUST_USE sl_status sl_params_array(const sl_params *p, sl_tensor **out);
/* The part of a flat array that is parameter i, in its shape: a view, owned by the caller. */
SL_MUST_USE sl_status sl_params_part(const sl_params *p, int i, sl_tensor *flat, sl_tensor **out);
/* Draws all weights: stream INIT of seed, sample = parameter number. The same on every device. */
SL_MUST_USE sl_status sl_params_init(const sl_params *p, uint32_t seed, sl_tensor *flat);

/* --- building with parameters --- */

/* What layer functions build with. A first pass over a scratch graph declares (declaring = true), later ones look up.
 */
typedef struct sl_builder {
  sl_graph *g;
  sl_params *params;
  bool declaring, training;
  bool recompute; /* mark blocks as segments */
  /* f32, or bf16: products and what lies between them; parameters stay f32 and are cast where they are used. residual
   * is the dtype of the stream that blocks add to. */
  sl_dtype compute, residual;
  bool tf32;          /* of f32: sl_graph_allow_tf32 */
  bool own_precision; /* these three hold; else the model's are taken */
  sl_value **values;  /* [parameter] its leaf in g, NULL until used */
  int n_values;
} sl_builder;

SL_MUST_USE sl_status sl_builder_init(sl_builder *b, sl_graph *g, sl_params *params, bool declaring);
void sl_builder_clear(sl_builder *b);
/* Parameter "<scopes>.<name>" as a value of b->g; NULL once something failed. */
sl_value *sl_builder_param(sl_builder *b, const char *name, const sl_shape *shape, sl_init init);

#endif
