/* Checkpoints: one .safetensors file that holds weights, averages and tables, and in its metadata what is needed to
 * make the model again: its architecture, its diffusion, its sampling settings and a digest of the whole file. */
#ifndef SLUICE_CHECKPOINTS_H
#define SLUICE_CHECKPOINTS_H

#include "sluice/sampling.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sl_checkpoint sl_checkpoint;

/* path: a checkpoint's file, or a run's folder, of which the newest checkpoint that is whole is taken (damaged ones are
 * named in the log). The caller owns *out. IO: it is not there; FORMAT: it is damaged or no checkpoint; UNSUPPORTED: an
 * export, which has weights only (make its model and use sl_model_load_state), another format, or an architecture that
 * is not known here. */
SL_MUST_USE sl_status sl_checkpoint_load(sl_context *ctx, const char *path, sl_checkpoint **out);
/* NULL is allowed. What was retained lives on. */
void sl_checkpoint_free(sl_checkpoint *c);
/* The model, on the default device (sl_device_default), with what sl_sample needs; borrowed. */
sl_model *sl_checkpoint_model(const sl_checkpoint *c);
sl_diffusion *sl_checkpoint_diffusion(const sl_checkpoint *c); /* borrowed */
int64_t sl_checkpoint_step(const sl_checkpoint *c);            /* steps of training that it has behind it */
sl_dtype sl_checkpoint_dtype(const sl_checkpoint *c);          /* of the weights in the file */
const char *sl_checkpoint_path(const sl_checkpoint *c);        /* of the file that was read */
/* A text of its metadata: "digest" ("xxh3:…"), "architecture", "diffusion", "sample", "parameters" and "settings"
 * (JSON), "recipe" (Lua, inert), "version", "seed"; NULL: it has none. Lives with the checkpoint. */
const char *sl_checkpoint_meta(const sl_checkpoint *c, const char *key);

/* sl_checkpoint_load for its model alone: the caller owns one reference. It keeps the settings, diffusion and averages
 * that sl_sample takes by default. */
SL_MUST_USE sl_status sl_model_load(sl_context *ctx, const char *path, sl_model **out);
/* Copies the parameters of a checkpoint, a run or an export (a .safetensors or .npz file under the names of the
 * reference's state dict) into the model. strict: names match one to one; else what is missing stays as it was and
 * strangers are passed over. A failure leaves the model as it was. ARG names the parameter, SHAPE its sizes too. */
SL_MUST_USE sl_status sl_model_load_state(sl_model *m, const char *path, bool strict);
/* Writes the parameters as an export, f32. The file appears whole or not at all. IO. */
SL_MUST_USE sl_status sl_model_save(sl_model *m, const char *path);

#ifdef __cplusplus
}
#endif

#endif
