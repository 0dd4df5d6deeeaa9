/* Every row of ops.def against its cases, on every path of our own kernels that this machine has. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "op_table.h"

static sl_context *ctx;

#define X(name)                                                                                                        \
  static void test_##name(void **state) {                                                                              \
    (void)state;                                                                                                       \
    for (int i = 0; i < n_cases_##name; i++) op_check_case(ctx, &cases_##name[i]);                                     \
    for (int i = 0; i < n_refusals_##name; i++) op_check_refusal(ctx, &refusals_##name[i]);                            \
  }
OP_FAMILIES(X)
#undef X

static void test_no_hole(void **state) {
  (void)state;
  assert_true(op_print_table());
}

static int setup(void **state) {
  (void)state;
  printf("kernels' paths:");
  for (int isa = SL_ISA_BASE; isa <= SL_ISA_AVX512; isa++)
    printf(" %s%s", sl_isa_name((sl_isa)isa), isa <= (int)sl_isa_machine() ? "" : " (not on this machine: not run)");
  const char *dnnl = getenv("DNNL_MAX_CPU_ISA");
  printf("; oneDNN: %s\n", dnnl ? dnnl : "all that the machine has");
  return sl_context_new(&(sl_context_options){.threads = 2}, &ctx) == SL_STATUS_OK ? 0 : -1;
}

static int teardown(void **state) {
  (void)state;
  bool clean = sl_context_memory(ctx).blocks == 0;
  sl_context_free(ctx);
  return clean ? 0 : -1;
}

int main(void) {
  const struct CMUnitTest tests[] = {
#define X(name) cmocka_unit_test(test_##name),
      OP_FAMILIES(X)
#undef X
          cmocka_unit_test(test_no_hole),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
