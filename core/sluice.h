/* Sluice for embedders: everything that a host program in C or C++ uses. docs/guide/embed.md is the guide,
 * examples/embed/ holds whole programs.
 *
 * A host makes a context, loads or makes a model, samples or trains, and frees in any order but the context last:
 *
 *   sl_context *ctx;  sl_model *model;  sl_tensor *images;
 *   if (sl_context_new(NULL, &ctx) || sl_model_load(ctx, "digits.safetensors", &model) ||
 *       sl_sample(model, NULL, &images) || sl_png_write("digits.png", images, 0))
 *     puts(sl_error());
 *
 * The library never prints, exits or aborts for what it is given; every failure is a status with a text (sl_error).
 * Pointers must be valid; a name, a path or options that are NULL where they must be given are an ARG error. */
#ifndef SLUICE_SLUICE_H
#define SLUICE_SLUICE_H

#include "sluice/checkpoints.h"
#include "sluice/contexts.h"
#include "sluice/datasets.h"
#include "sluice/dtypes.h"
#include "sluice/errors.h"
#include "sluice/models.h"
#include "sluice/pictures.h"
#include "sluice/processes.h"
#include "sluice/recompute.h"
#include "sluice/routings.h"
#include "sluice/sampling.h"
#include "sluice/tensors.h"
#include "sluice/training.h"
#include "sluice/version.h"

#endif
