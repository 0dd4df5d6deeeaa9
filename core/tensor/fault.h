/* Errors that only a kernel can see: it leaves a note, and the next synchronisation makes an error text of it. */
#ifndef SL_TENSOR_FAULT_H
#define SL_TENSOR_FAULT_H

/* Words of sl_exec.fault. Several threads may write; any one of their notes will do, so no atomics are needed: value
 * and limit first, then the code. */
enum { SL_FAULT_CODE, SL_FAULT_VALUE, SL_FAULT_LIMIT, SL_FAULT_WORDS = 4 };
/* Codes. */
enum { SL_FAULT_NONE, SL_FAULT_INDEX /* value is outside 0 … limit-1 */ };

#endif
