/* Counts calls of a program's kernels, row by row of kernels.def. */
#ifndef SL_TESTS_KERNEL_COUNTS_H
#define SL_TESTS_KERNEL_COUNTS_H

#include "graph/program.h"

#ifdef __cplusplus
extern "C" {
#endif

/* From now on its runs count; all programs that are watched run on one device. */
void kernel_counts_watch(sl_program *p);
/* Prints the rows, and whether something ran them; false when a row was not run. */
bool kernel_counts_print(const char *device);

#ifdef __cplusplus
}
#endif

#endif
