/* Parameters by name, in and out of tensor files. */
#ifndef SL_IO_MODEL_STATE_H
#define SL_IO_MODEL_STATE_H

#include "io/tensor_file.h"
#include "model/model.h"

/* Copies the tensors "<prefix><parameter>" of the file into a flat array of the model's. strict: every trainable
 * parameter is there. SHAPE and ARG name the parameter; ARG: none is there. */
SL_MUST_USE sl_status sl_state_read(const sl_model *m, const sl_tensor_file *file, const char *prefix, bool strict,
                                    sl_tensor *flat);
/* The same into a new array, where what is missing is 0; the caller owns it. */
SL_MUST_USE sl_status sl_state_flatten(const sl_model *m, const sl_tensor_file *file, const char *prefix,
                                       sl_tensor **flat);
/* The same into the model's weights, which are as they were after a failure. strict: names that begin with prefix match
 * the model's one to one, but for the reference's buffers of its routing. */
SL_MUST_USE sl_status sl_state_load(sl_model *m, const sl_tensor_file *file, const char *prefix, bool strict);

#endif
