/* ADM as its definition reads, in double, one image at a time: what the real one is tested against. */
#ifndef NAIVE_ADM_H
#define NAIVE_ADM_H

#include "model/adm.h"

/* params: the flat array of m's weights in double; x [C,S,S] of one image -> out [out_channels,S,S]. */
void naive_adm(const sl_model *m, const double *params, const double *x, int64_t t, int64_t y, double *out);

#endif
