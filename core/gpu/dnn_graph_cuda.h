/* Inside core/gpu/dnn*.c: cuDNN's calls, graphs of operations while they are built, and plans. */
#ifndef SL_GPU_DNN_GRAPH_CUDA_H
#define SL_GPU_DNN_GRAPH_CUDA_H

#include <cudnn.h>

#include "gpu/dnn.h"

#define SL_DNN_CALLS(X)                                                                                                \
  X(GetVersion)                                                                                                        \
  X(GetErrorString)                                                                                                    \
  X(GetLastErrorString)                                                                                                \
  X(Create)                                                                                                            \
  X(Destroy)                                                                                                           \
  X(SetStream)                                                                                                         \
  X(BackendCreateDescriptor)                                                                                           \
  X(BackendDestroyDescriptor)                                                                                          \
  X(BackendFinalize)                                                                                                   \
  X(BackendSetAttribute)                                                                                               \
  X(BackendGetAttribute)                                                                                               \
  X(BackendExecute)

typedef cudnnBackendDescriptor_t sl_dnn_desc;

typedef struct sl_dnn_shared sl_dnn_shared; /* dnn_cuda.c */

typedef struct sl_dnn { /* gpu->dnn */
  sl_context *ctx;
  cudnnHandle_t handle; /* NULL: there is only `device`, a description */
  sl_dnn_desc device;
  void *stream;
  sl_dnn_shared *shared; /* the latest asked for first */
#define X(name) __typeof__(&cudnn##name) name;
  SL_DNN_CALLS(X)
#undef X
} sl_dnn;

sl_status sl__dnn_of(sl_gpu *gpu, sl_dnn **out); /* opened at first use; NULL where there is no library */
sl_status sl__dnn_load(sl_dnn *d);               /* fills in the calls */
sl_status sl__dnn_status(const sl_dnn *d, cudnnStatus_t s, const char *what);

/* --- what a family asks for --- */

enum { SL_DNN_ATTENTION, SL_DNN_CONV }; /* the first word of a key */
enum { SL_DNN_SLOTS = 16, SL_DNN_KEY = 40 };

struct sl_dnn_graph;
typedef struct sl_dnn_recipe {
  int64_t key[SL_DNN_KEY]; /* equal keys, equal plans */
  int n_key;
  union {
    sl_dnn_attention attention;
    sl_dnn_conv conv;
  } of;
  void (*build)(struct sl_dnn_graph *g, const struct sl_dnn_recipe *r);
  bool strict;   /* no engine may round what it multiplies */
  int n_tensors; /* not virtual; their uids are 1 to n_tensors, at most SL_DNN_SLOTS */
  int n_values;  /* the last of them, given by value: */
  float value[2];
  size_t own_bytes; /* workspace before the engine's; a multiple of 256 */
} sl_dnn_recipe;

/* --- building; the first refusal sticks, and later steps do nothing --- */

enum { SL_DNN_MADE = 128, SL_DNN_OPS = 24 };

typedef struct sl_dnn_graph {
  const sl_dnn *dnn;
  sl_dnn_desc made[SL_DNN_MADE], op[SL_DNN_OPS], whole;
  int n_made, n_ops;
  bool strict;
  char refusal[256];
} sl_dnn_graph;

typedef struct sl_dnn_shape {
  int64_t dim[4], stride[4];
} sl_dnn_shape;

enum { SL_DNN_VIRTUAL = 0 }; /* as uid: a value between operations, in no memory */

sl_dnn_desc sl__dnn_make(sl_dnn_graph *g, cudnnBackendDescriptorType_t type);
void sl__dnn_set(sl_dnn_graph *g, sl_dnn_desc d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                 int64_t count, const void *values);
void sl__dnn_link(sl_dnn_graph *g, sl_dnn_desc d, cudnnBackendAttributeName_t name, sl_dnn_desc other);
void sl__dnn_seal(sl_dnn_graph *g, sl_dnn_desc d, const char *what);
void sl__dnn_add(sl_dnn_graph *g, sl_dnn_desc op, const char *what); /* seals an operation */
sl_dnn_desc sl__dnn_tensor(sl_dnn_graph *g, int64_t uid, cudnnDataType_t type, sl_dnn_shape s);
sl_dnn_desc sl__dnn_scalar(sl_dnn_graph *g, int64_t uid); /* f32 by value, [1,1,1,1] */
/* y = mode(x, b), in f32; b NULL: mode(x). */
sl_dnn_desc sl__dnn_pointwise(sl_dnn_graph *g, cudnnPointwiseMode_t mode, sl_dnn_desc x, sl_dnn_desc b, sl_dnn_desc y);

void sl__dnn_graph_build(sl_dnn_graph *g, const sl_dnn *d, const sl_dnn_recipe *r);
void sl__dnn_graph_free(sl_dnn_graph *g);

/* --- the search --- */

/* A configuration of an engine, made ready to run. */
typedef struct sl_dnn_engine {
  sl_dnn_desc exec, config; /* NULL: none */
  size_t bytes;
} sl_dnn_engine;

void sl__dnn_engine_free(const sl_dnn *d, sl_dnn_engine *e);
/* Up to `most` engines that may be used and need at most `room` bytes, the heuristic's best first; their number. Where
 * there is none, g->refusal may tell why. */
int sl__dnn_search(sl_dnn_graph *g, int most, size_t room, sl_dnn_engine *out);

/* --- plans --- */

sl_status sl__dnn_plan(sl_gpu *gpu, const sl_dnn_recipe *r, sl_dnn_plan **out);
/* data: the pointers of the tensors that are not values, by uid. */
sl_status sl__dnn_run(sl_dnn_plan *p, void *const *data, void *workspace);
sl_status sl__dnn_check(sl_context *ctx, const char *device_json, const sl_dnn_recipe *r, sl_dnn_report *out);

#endif
