/* Task routing: which channels of a block are active at which timestep, as tables of zeros and ones over t.
 * Source: Park et al. 2024, "Denoising Task Routing for Diffusion Models"; byeongjun-park/DTR, models.py.
 * Timesteps, channels and blocks count from 0 here. */
#ifndef SLUICE_ROUTINGS_H
#define SLUICE_ROUTINGS_H

#include "sluice/tensors.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sl_routing sl_routing; /* a description, never changed after it is made */

/* X(enum, name) */
#define SL_ROUTING_KINDS(X)                                                                                            \
  X(NONE, "none")                                                                                                      \
  X(DTR, "dtr")                                                                                                        \
  X(RANDOM, "random")                                                                                                  \
  X(TABLE, "table")                                                                                                    \
  X(CUSTOM, "custom")

typedef enum sl_routing_kind {
#define X(e, name) SL_ROUTING_##e,
  SL_ROUTING_KINDS(X)
#undef X
      SL_ROUTING_KIND_COUNT
} sl_routing_kind;

/* With W = sl_routing_width(C, beta) and 0-based task i of T:
 * reference: start = rint((i/(T-1))^alpha (C-W)), always W channels (the released code; start 0 if T is 1);
 * eq4: from rint((C-W) (i/T)^alpha) up to, not including, rint((C-W) ((i+1)/T)^alpha) + W (the paper's equation 4).
 * Both in double, ties to even. */
typedef enum sl_routing_variant { SL_ROUTING_REFERENCE, SL_ROUTING_EQ4, SL_ROUTING_VARIANT_COUNT } sl_routing_variant;

/* Fills row [C] with 0 and 1 for timestep t of T in block `block` of `blocks`; row comes zeroed. A status other than OK
 * ends the evaluation and is handed on. */
typedef sl_status (*sl_routing_fn)(void *user, int64_t t, int64_t T, int64_t C, int block, int blocks, uint8_t *row);

/* Constructors: the caller owns one reference. ARG names the argument. */
SL_MUST_USE sl_status sl_routing_none(sl_context *ctx, sl_routing **out);
/* alpha > 0, finite; 0 < beta <= 1. */
SL_MUST_USE sl_status sl_routing_dtr(sl_context *ctx, double alpha, double beta, sl_routing_variant variant,
                                     sl_routing **out);
/* Each row of each block has its own W active channels, drawn by (seed, block, t): those with the W smallest of C
 * uniforms. 0 < beta <= 1. */
SL_MUST_USE sl_status sl_routing_random(sl_context *ctx, double beta, uint32_t seed, sl_routing **out);
/* One table per block, tables[blocks]: u8 or bool [T, C] of zeros and ones, copied; blocks may differ in C. ARG, SHAPE,
 * DTYPE, OOM. */
SL_MUST_USE sl_status sl_routing_from_tables(sl_context *ctx, int blocks, sl_tensor *const *tables, sl_routing **out);
/* release(user) is called when the routing goes (NULL: nothing to do), not when this function fails. */
SL_MUST_USE sl_status sl_routing_custom(sl_context *ctx, sl_routing_fn fn, void *user, void (*release)(void *user),
                                        sl_routing **out);
/* One reference more; returns r. */
sl_routing *sl_routing_retain(sl_routing *r);
/* One reference less. NULL is allowed. */
void sl_routing_release(sl_routing *r);

/* The description; numbers that a kind does not have are 0. */
sl_routing_kind sl_routing_kind_of(const sl_routing *r);
const char *sl_routing_kind_name(sl_routing_kind kind); /* "none", "dtr" …; "?": there is no such kind */
double sl_routing_alpha(const sl_routing *r);
double sl_routing_beta(const sl_routing *r);
uint32_t sl_routing_seed(const sl_routing *r);
sl_routing_variant sl_routing_variant_of(const sl_routing *r);
const char *sl_routing_variant_name(sl_routing_variant variant); /* "reference", "eq4" */
/* ARG lists the names. */
SL_MUST_USE sl_status sl_routing_variant_from_name(const char *name, sl_routing_variant *out);
bool sl_routing_is_none(const sl_routing *r);
bool sl_routing_is_formula(const sl_routing *r); /* kind and numbers alone give the tables back: none, dtr, random */

/* Active channels of C: (int)(C beta), the truncated product in double; 0 where that is no number of channels. */
int64_t sl_routing_width(int64_t C, double beta);
/* The table u8 [T, C] of one block, new, on the CPU, owned by the caller; kind none gives ones. blocks 0: not known,
 * taken as block + 1, and a table's number of blocks is not compared. A custom function is called T times, in order of
 * t. ARG, SHAPE, OOM, or what the custom function returned. */
SL_MUST_USE sl_status sl_routing_table(const sl_routing *r, sl_context *ctx, int64_t T, int64_t C, int block,
                                       int blocks, sl_tensor **out);

#ifdef __cplusplus
}
#endif

#endif
