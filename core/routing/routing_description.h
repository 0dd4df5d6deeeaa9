/* Routings as JSON and back, for checkpoints. */
#ifndef SL_ROUTING_ROUTING_DESCRIPTION_H
#define SL_ROUTING_ROUTING_DESCRIPTION_H

#include "base/description.h"
#include "routing/routing.h"

/* Adds "kind" and the kind's numbers to the object; NULL: none. OOM. */
SL_MUST_USE sl_status sl_routing_describe(const sl_routing *r, struct cJSON *to);
/* Takes them out of the object, all of it. A kind that no formula gives back has its tables: n of them, one per routed
 * block; 0: none are there. *out is NULL for kind none. FORMAT names the field; UNSUPPORTED: no such kind. */
SL_MUST_USE sl_status sl_routing_from_description(sl_context *ctx, struct cJSON *from, int n, sl_tensor *const *tables,
                                                  sl_routing **out);

#endif
