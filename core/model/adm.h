/* ADM as a kind of model; see sluice/models.h. */
#ifndef SL_MODEL_ADM_H
#define SL_MODEL_ADM_H

#include "model/model.h"

extern const sl_model_kind sl_model_adm;
const char *sl_adm_mask_name(sl_adm_mask mask);

#endif
