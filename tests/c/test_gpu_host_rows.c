/* The CUDA kernels of the gated residual with adaLN after it, run by the host launch layer, against the CPU's. */
#include "on_context.h"

#include "fused_case.h"

/* Gradients go by way of r's, as a bf16 stream holds it: where the means' last bits differ, that may be one unit of its
 * last place apart, and what is made of it more than one. */
static void near_of_rounded(const char *what, int number, const sl_view *a, const double *b, int64_t n) {
  double top = 0.0;
  for (int64_t i = 0; i < n; i++) top = fmax(top, fabs(b[i]));
  for (int64_t i = 0; i < n; i++)
    if (!(fabs(fused_at(a, i) - b[i]) <= top / 128.0))
      fail_msg("case %d: %s[%lld] is %.9g, expected %.9g", number, what, (long long)i, fused_at(a, i), b[i]);
}

static void compare(int number, const fused_data *gpu, const fused_data *cpu) {
  static const char *const names[] = {"r", "h", "mean", "rstd", "dx", "dy", "dgate", "dskip", "dshift", "dscale"};
  for (int k = 0; k < FUSED_JOINED_OUT; k++) {
    if (!cpu->out[k].data) continue;
    const int64_t n = fused_count(&cpu->out[k]);
    const bool rounded = cpu->out[SL_RA_R].dtype == SL_BF16 && k >= 4 && k - 4 < SL_RAB_DSHIFT;
    double *expected = fused_buffer((size_t)n * sizeof *expected);
    for (int64_t i = 0; i < n; i++) expected[i] = fused_at(&cpu->out[k], i);
    (rounded ? near_of_rounded : fused_near)(names[k], number, &gpu->out[k], expected, n);
    free(expected);
  }
}

static void joined(void **state) {
  (void)state;
  sl_exec e = {.ctx = ctx, .device = &sl_device_cpu};
  for (int i = 0; i < FUSED_CASES * FUSED_VARIANTS; i++) {
    fused_case c = fused_cases[i / FUSED_VARIANTS];
    c.joined = (unsigned)i % FUSED_VARIANTS;
    if (!fused_joined_is(&c)) continue;
    fused_data a = fused_joined(&sl_kernels_cuda, &e, &c), b = fused_joined(&sl_kernels_cpu, &e, &c);
    compare(i, &a, &b);
    fused_free(&a);
    fused_free(&b);
  }
}

/* Outputs that nobody uses are absent. */
static void absent(void **state) {
  (void)state;
  sl_exec e = {.ctx = ctx, .device = &sl_device_cpu};
  for (int i = 0; i < FUSED_CASES; i++) {
    fused_data f = fused_joined(&sl_kernels_cuda, &e, &fused_cases[i]);
    const sl_view *back = f.in + SL_RA_INPUTS;
    for (int used = 0; used < FUSED_JOINED_OUT; used++) {
      sl_view out[FUSED_JOINED_OUT];
      for (int k = 0; k < FUSED_JOINED_OUT; k++) {
        out[k] = f.out[k];
        if (k != used) out[k].data = NULL;
      }
      const sl_status s =
          used < 4 ? sl_cuda_residual_adaln(&e, out, f.in, 1e-6)
                   : sl_cuda_residual_adaln_backward(&e, out + 4, back, (int)fused_share(&fused_cases[i]), f.workspace);
      assert_int_equal(s, SL_STATUS_OK);
    }
    fused_data again = fused_joined(&sl_kernels_cpu, &e, &fused_cases[i]);
    compare(i, &f, &again);
    fused_free(&f);
    fused_free(&again);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(joined), cmocka_unit_test(absent)};
  return cmocka_run_group_tests(tests, setup, teardown);
}
