/* The menu of operations: thin functions over sl_apply, for those who build graphs in C. Inputs are borrowed, results
 * belong to the graph; NULL in gives NULL out, the first error stays in the graph. Shapes in comments; N batch, T
 * tokens, C channels. Dimensions count from 0 (in Lua from 1), negative from the end. float: f32 or bf16. A prototype's
 * comment, after it or above it, is also what Lua's reference and sluice.help say of the operation; "Outputs:" names
 * what is returned: in C the first, from which sl_output(v, k) gives the others; in Lua all of them. */
#ifndef SL_OPS_OPS_H
#define SL_OPS_OPS_H

#include "graph/graph.h"
#include "ops/window.h"

#define SL_OP(name, inputs, attrs, outputs, flags) SL_OP_##name,
typedef enum sl_op_id {
#include "ops/ops.def"
  SL_OP_ID_COUNT
} sl_op_id;
#undef SL_OP

/* sl_apply by number; the functions below are written with it. in[] may hold NULL for absent optional inputs only where
 * the function's comment says [opt]; the graph is taken from the first input. */
sl_value *sl_op1(sl_op_id op, sl_value *x, const sl_attrs *a);
sl_value *sl_op2(sl_op_id op, sl_value *x, sl_value *y, const sl_attrs *a);
sl_value *sl_opn(sl_op_id op, int n, sl_value *const *in, const sl_attrs *a); /* in[0] must not be NULL */

/* --- views: same storage, no copy (reshape copies where strides cannot express it) --- */
/* The elements in another shape; one size may be -1: what is left. */
sl_value *sl_reshape(sl_value *x, int rank, const int64_t *dim);
#define SL_RESHAPE(x, ...)                                                                                             \
  sl_reshape((x), (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[]){__VA_ARGS__})
/* The dimensions in another order: number k of the result is dims[k] of x. */
sl_value *sl_permute(sl_value *x, int rank, const int *dims);
#define SL_PERMUTE(x, ...)                                                                                             \
  sl_permute((x), (int)(sizeof((int[]){__VA_ARGS__}) / sizeof(int)), (const int[]){__VA_ARGS__})
/* Of dim the positions first to last, both included, every step-th. */
sl_value *sl_slice(sl_value *x, int dim, int64_t first, int64_t last, int64_t step);
sl_value *sl_select(sl_value *x, int dim, int64_t index); /* drops dim */
/* Sizes of 1 repeated to the shape, as numpy's broadcast_to. */
sl_value *sl_expand(sl_value *x, const sl_shape *shape);
/* Equal parts along dim, as many as count, at most 8; in C part i is sl_output(v, i). */
sl_value *sl_chunk(sl_value *x, int count, int dim);
sl_value *sl_detach(sl_value *x); /* x, but no gradient passes */
/* --- copies --- */
sl_value *sl_contiguous(sl_value *x); /* elements one after the other in memory; x itself if they are so */
/* Another dtype; x itself if of that dtype; floats become integers by dropping their fraction, brought into what u8 and
 * i32 hold. */
sl_value *sl_cast(sl_value *x, sl_dtype dtype);
/* One after the other along dim; other dimensions are equal. */
sl_value *sl_cat(int n, sl_value *const *x, int dim);
/* One after the other along a new dimension dim; shapes are equal. */
sl_value *sl_stack(int n, sl_value *const *x, int dim);
/* x with value around it: before[k] elements before dimension k, after[k] after it. */
sl_value *sl_pad(sl_value *x, int rank, const int64_t *before, const int64_t *after, double value);

/* --- elementwise; operands broadcast as numpy's; dtypes promote u8 < i32 < i64 < bf16 < f32 --- */
sl_value *sl_neg(sl_value *x);    /* -x */
sl_value *sl_abs(sl_value *x);    /* the absolute value */
sl_value *sl_exp(sl_value *x);    /* e to the power of x */
sl_value *sl_log(sl_value *x);    /* the natural logarithm */
sl_value *sl_sqrt(sl_value *x);   /* the square root */
sl_value *sl_square(sl_value *x); /* x * x */
sl_value *sl_sin(sl_value *x);    /* the sine of x in radians */
sl_value *sl_cos(sl_value *x);    /* the cosine of x in radians */
sl_value *sl_tanh(sl_value *x);   /* the hyperbolic tangent */
sl_value *sl_silu(sl_value *x);   /* x * sigmoid(x) */
sl_value *sl_gelu(sl_value *x);   /* 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): GELU in its tanh form */
sl_value *sl_round(sl_value *x);  /* the nearest integer, ties to even */
/* x brought into lo … hi; the gradient is 1 inside, both ends included, else 0. */
sl_value *sl_clamp(sl_value *x, double lo, double hi);
sl_value *sl_add(sl_value *a, sl_value *b);     /* a + b */
sl_value *sl_sub(sl_value *a, sl_value *b);     /* a - b */
sl_value *sl_mul(sl_value *a, sl_value *b);     /* a * b */
sl_value *sl_div(sl_value *a, sl_value *b);     /* a / b; of integers a float result */
sl_value *sl_pow(sl_value *a, sl_value *b);     /* a to the power of b */
sl_value *sl_maximum(sl_value *a, sl_value *b); /* the larger of a and b, element by element */
sl_value *sl_minimum(sl_value *a, sl_value *b); /* the smaller of a and b, element by element */
sl_value *sl_add_scalar(sl_value *a, double b);
sl_value *sl_mul_scalar(sl_value *a, double b);
sl_value *sl_lt(sl_value *a, sl_value *b);                 /* u8: 1 where a < b, else 0 */
sl_value *sl_gt(sl_value *a, sl_value *b);                 /* u8: 1 where a > b, else 0 */
sl_value *sl_eq(sl_value *a, sl_value *b);                 /* u8: 1 where a equals b, else 0 */
sl_value *sl_where(sl_value *c, sl_value *a, sl_value *b); /* a where c (of any dtype) is not 0, else b */

/* --- reductions: over dims (n 0: all); result keeps 1s if keepdim, else drops them --- */
sl_value *sl_sum(sl_value *x, int n, const int *dims, bool keepdim);  /* the sum of the elements */
sl_value *sl_mean(sl_value *x, int n, const int *dims, bool keepdim); /* the mean of the elements */
sl_value *sl_mean_rest(sl_value *x); /* [N, …] -> [N]: mean over everything but dim 0 */
/* The largest element; the gradient is shared equally among ties. */
sl_value *sl_max(sl_value *x, int n, const int *dims, bool keepdim);
sl_value *sl_softmax(sl_value *x, int dim); /* exp(x) / sum(exp(x)) along dim */

/* --- rows --- */
/* Rows of a table by their numbers: table [R, …], index i32 or i64 [M…] -> [M…, …]. Numbers count from 0; one outside
 * 0 … R-1 is an error. */
sl_value *sl_gather(sl_value *table, sl_value *index);
/* Timesteps t [N] (f32, or integers) as waves, f32 [N, dim]: cos(t f_i) then sin(t f_i), f_i = exp(-ln(max_period) i /
 * (dim/2)); a zero column for odd dim. Source: DiT models.py, TimestepEmbedder; guided-diffusion nn.py. */
sl_value *sl_timestep_embedding(sl_value *t, int64_t dim);

/* --- random: dim 0 is the sample; the step block gives seed and step (program.h) --- */
/* Normal deviates of mean 0 and variance 1. */
/* Normal deviates of mean 0 and variance 1, f32, other ones for each stream; in a trace of training they are drawn anew
 * at each step. Called from Lua they go by the next of sluice.seed's count. */
sl_value *sl_normal(sl_graph *g, const sl_shape *shape, int stream);
/* Uniform deviates in (0, 1), f32, as normal draws them. */
sl_value *sl_uniform(sl_graph *g, const sl_shape *shape, int stream);
/* Each element with probability p 0, else x / (1 - p). */
/* Each element is 0 with probability p, else x / (1 - p); site tells the dropouts of a network apart. */
sl_value *sl_dropout(sl_value *x, double p, int64_t site);

/* --- products --- */
/* The matrix product: a […, M, K], b […, K, P] -> […, M, P]; leading dimensions broadcast, operands of one dimension
 * are taken as numpy's matmul takes them. */
sl_value *sl_matmul(sl_value *a, sl_value *b);
typedef enum sl_act { SL_ACT_NONE, SL_ACT_GELU, SL_ACT_GELU_ERF, SL_ACT_SILU } sl_act;
/* A layer, act(x w^T + b): x […, K], w [P, K], b [P] [opt] -> […, P]. Outputs: y, before (what the activation was
 * given).
 */
sl_value *sl_linear(sl_value *x, sl_value *w, sl_value *b, sl_act act);
/* Attention, softmax(q k^T scale) v for each head: q [N,Tq,H,D], k and v [N,Tk,H,D], any strides; scale 0: 1/sqrt(D);
 * mask u8 [N,Tk] [opt], 0 hides a key (a row with no visible key gives zeros); causal: query i sees keys 0 … i + Tk -
 * Tq, counted from 0. Outputs: out, lse: [N,Tq,H,D], and the scores' log-sum-exp f32 [N,H,Tq]. Tq x Tk is never held.
 */
sl_value *sl_attention(sl_value *q, sl_value *k, sl_value *v, sl_value *mask, double scale, bool causal);
/* Attention of packed queries, keys and values, qkv [N,T,3,H,D], without a mask: the same numbers as attention's, and
 * one packed gradient. Outputs: out, lse: [N,T,H,D] and f32 [N,H,T]. */
sl_value *sl_attention_qkv(sl_value *qkv, double scale);

/* --- norms --- */
/* Layer normalization over the last dimension C, with the biased variance, then * w + b (both [C] [opt]). Outputs: y,
 * mean, rstd. */
sl_value *sl_layer_norm(sl_value *x, sl_value *w, sl_value *b, double eps);
/* DiT's modulated layer normalization: that of mask*x, then * (1 + scale) + shift: x [N,T,C], shift and scale [N,C],
 * mask u8 [N,C] [opt]. Outputs: y, mean, rstd; the latter two are [N,T]. Source: DiT models.py modulate(); DTR
 * models.py, the routed block. */
sl_value *sl_adaln(sl_value *x, sl_value *shift, sl_value *scale, sl_value *mask, double eps);
/* A block's result added to the stream: x, y, skip [N,T,C], gate [N,C], mask u8 [N,C]. Without skip: mask*x + gate*y;
 * with skip: x + gate*y + (1-mask)*skip; without mask: x + gate*y. Source: DTR's block, r + gate*branch and r +
 * (1-m)*z. */
sl_value *sl_gated_residual(sl_value *x, sl_value *y, sl_value *gate, sl_value *mask, sl_value *skip);
/* gated_residual and the adaln after it in one pass, which reads and writes the stream once: r = gated_residual(x, y,
 * gate, mask, skip), then h, mean, rstd = adaln(r, shift, scale, next_mask, eps), the same numbers. x, y [N,T,C]; mask,
 * skip and next_mask may be absent. Outputs: r, h, mean, rstd: h [N,T,C] in shift's dtype, mean and rstd [N,T]. */
typedef struct sl_residual_adaln_parts {
  sl_value *gate, *mask, *skip, *shift, *scale, *next_mask;
} sl_residual_adaln_parts;
sl_value *sl_residual_adaln(sl_value *x, sl_value *y, const sl_residual_adaln_parts *p, double eps);

/* --- images, [N,C,H,W]; computed in f32 (bf16 is cast) --- */
/* Group normalization: x [N,C,…] in groups of channels, with the biased variance, then * w + b (both [C]), times
 * 1 + scale, plus shift (both [N,C]), SiLU if asked, times mask (u8 [N,C]). Each of these may be absent; in C p NULL:
 * all are. Source: guided-diffusion unet.py, ResBlock; DTR's mask after the first norm and SiLU. */
typedef struct sl_group_norm_parts {
  sl_value *w, *b, *scale, *shift, *mask;
} sl_group_norm_parts;
sl_value *sl_group_norm(sl_value *x, const sl_group_norm_parts *p, int64_t groups, double eps, sl_act act);
/* Convolution: x [N,C,H,W], w [K,C/groups,rows,columns], b [K] [opt] -> f32 [N,K,OH,OW]. Stride and dilation are of
 * rows and columns, or one number; padding is of top, bottom, left and right, or rows and columns, or one number (in C
 * all in s, whose kernel is w's). compute bf16: products of x and w rounded to bf16, summed in f32, as are the
 * gradients'; in f32 where the machine has no such instructions. */
sl_value *sl_conv2d(sl_value *x, sl_value *w, sl_value *b, const sl_window *s, int64_t groups, sl_dtype compute);
/* The largest of each kernel's window: x [N,C,H,W]; stride defaults to the kernel, padding as in conv2d. */
sl_value *sl_max_pool2d(sl_value *x, const sl_window *w);
/* The mean of each kernel's window, as max_pool2d; count_pad: padding counts as zeros in the mean, as torch's default.
 */
sl_value *sl_avg_pool2d(sl_value *x, const sl_window *w, bool count_pad);
sl_value *sl_upsample(sl_value *x, int64_t scale);   /* x [N,C,H,W]: each pixel repeated scale x scale */
sl_value *sl_downsample(sl_value *x, int64_t scale); /* x [N,C,H,W]: means of scale x scale pixels */

/* --- the loss of denoised images --- */
/* Per-sample losses f32 [N] of a network that was given xt: weight times the mean squared error of what it predicts
 * and, with learned variance, the variational bound in bits per dimension, whose mean's gradient by out is stopped. x0,
 * xt, noise f32 [N,C,…]; out like x0, or (learned) [N,2C,…]: the prediction, then the variance; rows f64
 * [N,SL_LOSS_COLUMNS]: those of the schedule's table for each sample's timestep (diffusion_loss.h); weight f32 [N]
 * [opt]. Outputs: loss = mse + vb; 1: mse; 2: vb (0 unless learned); 3: mse without weight. Source: Nichol and Dhariwal
 * 2021, L_hybrid. */
sl_value *sl_diffusion_loss(sl_value *out, sl_value *x0, sl_value *xt, sl_value *noise, sl_value *rows,
                            sl_value *weight, bool learned);

/* --- sampling --- */
/* The image that a step makes of x [N,C,…] and the network's output: [N,C,…], or [N,2C,…] with the variance beside the
 * prediction (read if learned). scale [opt], 0-d: out has 2N rows, those with labels before those without, and its
 * first `channels` channels (0: all C) are guided. rows f64 [N,SL_UPDATE_COLUMNS] (sampler_update.h); noise like x
 * [opt: 0]; clip: the x0 predicted lies in [-1, 1]. Outputs f32: the next image; 1: the x0 predicted. Not
 * differentiable: sl_p_sample and sl_ddim_sample (diffusion/process.h) are. Source: Ho et al. 2020, algorithm 2;
 * Song et al. 2021, eq. 12; Ho and Salimans 2022. */
sl_value *sl_sampler_update(sl_value *out, sl_value *x, sl_value *rows, sl_value *noise, sl_value *scale,
                            int64_t channels, bool learned, bool clip);

#endif
