/* Where checkpoints lie; what hosts do with them stands in sluice/checkpoints.h. */
#ifndef SL_IO_CHECKPOINT_H
#define SL_IO_CHECKPOINT_H

#include "io/tensor_file.h"
#include "sluice/checkpoints.h"

/* A checkpoint's, export's or other tensor file; FORMAT, too, where it says that it is a checkpoint and lost its
 * digest, which reading would have checked. */
SL_MUST_USE sl_status sl_checkpoint_read(sl_context *ctx, const char *path, sl_tensor_file **out);
/* Calls read(user, file) for path, or, if path is a run's folder, for its checkpoints, the newest first, until one can
 * be read; each that cannot is told to the log. IO, FORMAT: none can be read; what read says. */
SL_MUST_USE sl_status sl_checkpoint_newest(sl_context *ctx, const char *path,
                                           sl_status (*read)(void *user, const char *file), void *user);

/* Makes the model of a checkpoint with this metadata, in the place of sl_model_from_description: where its blocks are
 * the host's own. UNSUPPORTED ends the search of a run's folder. */
typedef sl_status (*sl_checkpoint_model_fn)(void *user, const sl_tensor_file *meta, sl_model **out);
/* sl_checkpoint_load with it; make_model may be NULL. */
SL_MUST_USE sl_status sl_checkpoint_load_with(sl_context *ctx, const char *path, sl_checkpoint_model_fn make_model,
                                              void *user, sl_checkpoint **out);

/* All of its metadata; borrowed. */
const sl_tensor_file *sl_checkpoint_metadata(const sl_checkpoint *c);

#endif
