/* DiT as a kind of model; see sluice/models.h. */
#ifndef SL_MODEL_DIT_H
#define SL_MODEL_DIT_H

#include "model/model.h"

extern const sl_model_kind sl_model_dit;

#endif
