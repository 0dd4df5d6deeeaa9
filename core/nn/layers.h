/* Layers: functions that declare parameters and build nodes. Names follow the reference state dicts. */
#ifndef SL_NN_LAYERS_H
#define SL_NN_LAYERS_H

#include "nn/params.h"
#include "ops/ops.h"

/* act(x W^T + b), parameters "<name>.weight" [out, in] (init) and "<name>.bias" [out] (zeros). x […, in]. */
sl_value *sl_nn_linear(sl_builder *b, const char *name, sl_value *x, int64_t out, sl_act act, sl_init init);
/* Row `index` [N] of "<name>.weight" [rows, width] -> [N, width]. */
sl_value *sl_nn_embedding(sl_builder *b, const char *name, sl_value *index, int64_t rows, int64_t width, sl_init init);
/* Two linears around a SiLU on the sinusoidal embedding of t [N]: "<name>.mlp.0", "<name>.mlp.2" -> [N, width].
 * Source: DiT models.py, TimestepEmbedder (frequencies 256). The sinusoids are named "t_freq". */
sl_value *sl_nn_timestep(sl_builder *b, const char *name, sl_value *t, int64_t frequencies, int64_t width);
/* Cuts x [N,C,H,W] in patches p x p and projects each: "<name>.proj" as a convolution's weight [D,C,p,p] -> [N,
 * H/p*W/p, D]. */
sl_value *sl_nn_patch_embed(sl_builder *b, const char *name, sl_value *x, int64_t patch, int64_t width);
/* Multi-head self-attention on x [N,T,D]: "<name>.qkv", "<name>.proj". Source: timm's Attention, as DiT uses it. */
sl_value *sl_nn_self_attention(sl_builder *b, const char *name, sl_value *x, int heads);

#endif
