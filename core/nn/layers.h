/* Layers: functions that declare parameters and build nodes. Names follow the reference state dicts. */
#ifndef SL_NN_LAYERS_H
#define SL_NN_LAYERS_H

#include "nn/params.h"
#include "ops/ops.h"

/* Biases start at zero, but for weights of SL_INIT_FAN_IN_UNIFORM: then as torch's. */

/* act(x W^T + b), parameters "<name>.weight" [out, in] (init) and "<name>.bias" [out]. x […, in]. */
sl_value *sl_nn_linear(sl_builder *b, const char *name, sl_value *x, int64_t out, sl_act act, sl_init init);
/* Row `index` [N] of "<name>.weight" [rows, width] -> [N, width]. */
sl_value *sl_nn_embedding(sl_builder *b, const char *name, sl_value *index, int64_t rows, int64_t width, sl_init init);
/* Two linears around a SiLU on the sinusoidal embedding of t [N]: "<name>.0", "<name>.2" -> [N, width]. Source: DiT
 * models.py, TimestepEmbedder; guided-diffusion unet.py, time_embed. The sinusoids are named "t_freq". */
sl_value *sl_nn_timestep(sl_builder *b, const char *name, sl_value *t, int64_t frequencies, int64_t width,
                         sl_init init);
/* Cuts x [N,C,H,W] in patches p x p and projects each: "<name>.proj" as a convolution's weight [D,C,p,p] -> [N,
 * H/p*W/p, D]. */
sl_value *sl_nn_patch_embed(sl_builder *b, const char *name, sl_value *x, int64_t patch, int64_t width);
/* Multi-head self-attention on x [N,T,D]: "<name>.qkv", "<name>.proj". Source: timm's Attention, as DiT uses it. */
sl_value *sl_nn_self_attention(sl_builder *b, const char *name, sl_value *x, int heads);

/* Convolution of x [N,C,H,W] with a square kernel of odd side and padding side/2: "<name>.weight" [out,C,side,side]. */
sl_value *sl_nn_conv2d(sl_builder *b, const char *name, sl_value *x, int64_t out, int64_t side, int64_t stride,
                       sl_init init);
/* A convolution of side 1 over tokens x [N,T,C], as a product: "<name>.weight" [out,C,1] -> [N,T,out]. */
sl_value *sl_nn_pointwise(sl_builder *b, const char *name, sl_value *x, int64_t out, sl_init init);
/* GroupNorm of 32 groups, epsilon 1e-5, with "<name>.weight" (ones) and "<name>.bias" [C]; then * (1 + scale) + shift,
 * both [N,C] or NULL, the activation, and * mask (u8 [N,C] or NULL). Source: guided-diffusion nn.py, GroupNorm32. */
sl_value *sl_nn_group_norm(sl_builder *b, const char *name, sl_value *x, sl_value *scale, sl_value *shift, sl_act act,
                           sl_value *mask);
/* While training, drops with probability p, with the draws of `site`, a number of this use of it; else x itself. */
sl_value *sl_nn_dropout(sl_builder *b, sl_value *x, double p, int64_t site);

#endif
