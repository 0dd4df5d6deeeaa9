/* Models as JSON and back: what a checkpoint keeps of an architecture. Weights are not part of it. */
#ifndef SL_MODEL_MODEL_DESCRIPTION_H
#define SL_MODEL_MODEL_DESCRIPTION_H

#include "model/model.h"

/* {"kind": "dit", the fields of its kind, "timesteps", "seed", "precision", "residual", "routing": {…}}; *text is from
 * sl_alloc, the caller's. UNSUPPORTED: its kind has no fields; OOM. */
SL_MUST_USE sl_status sl_model_describe(const sl_model *m, char **text);
/* The model again, on the default device. tables: the n mask tables, one per routed block, of a routing that no formula
 * gives back; n 0: there are none. FORMAT names the field, also one that this version does not know; UNSUPPORTED: no
 * such architecture; what its constructor says. */
SL_MUST_USE sl_status sl_model_from_description(sl_context *ctx, const char *text, int n, sl_tensor *const *tables,
                                                sl_model **out);
/* The same for a kind that is not in the library's list. */
SL_MUST_USE sl_status sl_model_of_kind(sl_context *ctx, const sl_model_kind *kind, const char *text, int n,
                                       sl_tensor *const *tables, sl_model **out);

#endif
