/* device_ops DEVICE: every row of ops.def against its cases on a GPU, or on the stand-in for one; every row of
 * kernels.def must be run. Exit status 77: the device is not here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "kernel_counts.h"
#include "op_table.h"

static sl_context *ctx;
static const sl_device *device;

#define X(name)                                                                                                        \
  static void test_##name(void **state) {                                                                              \
    (void)state;                                                                                                       \
    for (int i = 0; i < n_cases_##name; i++) op_check_case(ctx, &cases_##name[i]);                                     \
  }
OP_FAMILIES(X)
#undef X

static void test_no_hole(void **state) {
  (void)state;
  assert_true(kernel_counts_print(device->name));
}

static int setup(void **state) {
  (void)state;
  op_use_device(device, kernel_counts_watch);
  return 0;
}

static int teardown(void **state) {
  (void)state;
  return 0;
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {
#define X(name) cmocka_unit_test(test_##name),
      OP_FAMILIES(X)
#undef X
          cmocka_unit_test(test_no_hole),
  };
  if (argc != 2) {
    fprintf(stderr, "usage: device_ops DEVICE\n");
    return 2;
  }
  if (sl_context_new(&(sl_context_options){.threads = 2}, &ctx) != SL_STATUS_OK) return 1;
  if (sl_device_find(ctx, argv[1], &device) != SL_STATUS_OK) {
    printf("skipped: %s\n", sl_error());
    sl_context_free(ctx);
    return 77;
  }
  int failed = cmocka_run_group_tests(tests, setup, teardown);
  sl_context_free(ctx);
  return failed ? 1 : 0;
}
