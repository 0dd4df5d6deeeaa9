/* What matmul.c and linear.c share. */
#ifndef SL_OPS_PRODUCT_H
#define SL_OPS_PRODUCT_H

#include "graph/program.h"

/* A value's dtype, shape and strides, without data. */
sl_view sl_value_as_view(const sl_value *v);
/* f32 or bf16 and nothing else; of two different ones the bf16 is cast to f32. The names are for the error text. */
sl_status sl_products_canon(const char *op, const char *first, sl_value **a, const char *second, sl_value **b);
void sl_product_release(sl_exec *e, void *state);

#endif
