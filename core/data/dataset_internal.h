/* What the makers of data sets share; only core/data includes this. */
#ifndef SL_DATA_DATASET_INTERNAL_H
#define SL_DATA_DATASET_INTERNAL_H

#include "data/dataset.h"
#include "data/source.h"

/* Takes over the caller's reference to s, also on failure. skip: reads all once, and leaves out what cannot be read. */
sl_status sl_dataset_from_source(sl_source *s, bool skip, sl_dataset **out);
/* Sets s->classes from s->labels if names do not say more. */
void sl_source_count_classes(sl_source *s);
const char *sl_pack_note(const sl_source *s); /* "" for other kinds */

#endif
