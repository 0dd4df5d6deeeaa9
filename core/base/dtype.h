/* Questions about element types; see sluice/dtypes.h. */
#ifndef SL_BASE_DTYPE_H
#define SL_BASE_DTYPE_H

#include "base/status.h"
#include "sluice/dtypes.h"

bool sl_dtype_is_float(sl_dtype d); /* f32, bf16, f16, f64 */
bool sl_dtype_computes(sl_dtype d); /* has arithmetic: f32, bf16, i32, i64, u8 */

#endif
