/* DiT as a kind of model; see sluice/models.h. */
#ifndef SL_MODEL_DIT_H
#define SL_MODEL_DIT_H

#include "model/model.h"

extern const sl_model_kind sl_model_dit;

/* A block of the host's own in the place of DiT's: builds block `index` (from 0) out of z [N, tokens, hidden], already
 * masked by the routing, and the condition c [N, hidden]; what it returns, shaped as z, becomes (1-m) z + block(m z).
 * Parameters that it declares through b are named below "blocks.<index>". It is called once while parameters are
 * declared (N is then a number that no other size is) and again for every graph, and must build the same each time.
 * NULL: b->g holds the error. */
typedef sl_value *(*sl_dit_block_fn)(void *user, sl_builder *b, sl_value *z, sl_value *c, int index);

typedef struct sl_dit_block {
  sl_dit_block_fn build;
  void *user;
  void (*release)(void *user); /* when the model goes, or was not made; NULL: nothing to do */
  char name[48];               /* told by descriptions, so that one block is known from another */
} sl_dit_block;

/* As sl_dit_new; block NULL: DiT's own. */
SL_MUST_USE sl_status sl_dit_new_with_block(sl_context *ctx, const sl_dit_config *config, sl_routing *routing,
                                            const sl_dit_block *block, sl_model **out);

#endif
