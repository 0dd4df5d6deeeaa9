/* The CUDA kernels, run by the host launch layer, against the CPU's. */
#include "fused_case.h"
#include "gpu_host_device.h"
#include "ops/adamw_math.h"

/* gpu_host_probe.cpp */
sl_status probe_divergent_barrier(void), probe_divergent_shuffle(void), probe_odd_block(void),
    probe_too_much_shared(void);
sl_status probe_unwritten_shared(float *out), probe_block_sum(int threads, double *out), probe_lanes(float *out);

static sl_context *ctx;

static int setup(void **state) {
  (void)state;
  return sl_context_new(NULL, &ctx) != SL_STATUS_OK;
}

static int teardown(void **state) {
  (void)state;
  sl_context_free(ctx);
  return 0;
}

static void compare(const char *const *names, int number, const fused_data *gpu, const fused_data *cpu) {
  for (int k = 0; k < 6; k++) {
    if (!cpu->out[k].data) continue;
    const int64_t n = fused_count(&cpu->out[k]);
    double *expected = fused_buffer((size_t)n * sizeof *expected);
    for (int64_t i = 0; i < n; i++) expected[i] = fused_at(&cpu->out[k], i);
    fused_near(names[k], number, &gpu->out[k], expected, n);
    free(expected);
  }
}

static void adaln(void **state) {
  static const char *const names[] = {"y", "mean", "rstd", "dx", "dshift", "dscale"};
  (void)state;
  sl_exec cpu = {.ctx = ctx, .device = &sl_device_cpu}, gpu = {.ctx = ctx, .device = &gpu_host_device};
  const sl_kernels host = {.adaln = sl_cpu_adaln, .adaln_backward = sl_cpu_adaln_backward};
  for (int i = 0; i < FUSED_CASES; i++) {
    fused_data a = fused_adaln(&sl_kernels_cuda, &gpu, &fused_cases[i]), b = fused_adaln(&host, &cpu, &fused_cases[i]);
    compare(names, i, &a, &b);
    fused_free(&a);
    fused_free(&b);
  }
}

static void residual(void **state) {
  static const char *const names[] = {"out", "dx", "dy", "dgate", "dskip", ""};
  (void)state;
  sl_exec cpu = {.ctx = ctx, .device = &sl_device_cpu}, gpu = {.ctx = ctx, .device = &gpu_host_device};
  const sl_kernels host = {.gated_residual = sl_cpu_gated_residual,
                           .gated_residual_backward = sl_cpu_gated_residual_backward};
  for (int i = 0; i < FUSED_CASES; i++) {
    fused_data a = fused_residual(&sl_kernels_cuda, &gpu, &fused_cases[i]),
               b = fused_residual(&host, &cpu, &fused_cases[i]);
    compare(names, i, &a, &b);
    fused_free(&a);
    fused_free(&b);
  }
}

/* Outputs that nobody uses are absent. */
static void absent(void **state) {
  (void)state;
  sl_exec e = {.ctx = ctx, .device = &gpu_host_device};
  const fused_case *c = &fused_cases[1];
  sl_view none = {.dtype = SL_F32};
  fused_data f = fused_adaln(&sl_kernels_cuda, &e, c);
  sl_view *in = f.in, *out = f.out;
  assert_int_equal(sl_cuda_adaln(&e, &out[0], &none, &none, &in[0], &in[1], &in[2], &in[3], 1e-6), SL_STATUS_OK);
  assert_int_equal(sl_cuda_adaln_backward(&e, &none, &none, &out[5], &in[4], &in[0], &in[2], &in[3], &out[1], &out[2],
                                          &none, f.workspace),
                   SL_STATUS_OK);
  fused_free(&f);
  f = fused_residual(&sl_kernels_cuda, &e, c);
  assert_int_equal(
      sl_cuda_gated_residual_backward(&e, &none, &none, &none, &none, &f.in[4], &f.in[1], &f.in[2], &f.in[3], NULL),
      SL_STATUS_OK);
  fused_free(&f);
}

static void adamw(void **state) {
  enum { n = 1003 };
  (void)state;
  sl_exec e = {.ctx = ctx, .device = &gpu_host_device};
  sl_adamw k = {.lr = 1e-2,
                .beta1 = 0.9,
                .beta2 = 0.999,
                .eps = 1e-8,
                .weight_decay = 0.1,
                .correction1 = 0.1,
                .correction2 = 0.001,
                .grad_scale = 0.5,
                .ema_decay = {0.9, 0.9999}};
  float *a[6], *b[6];
  uint64_t seed = 3;
  for (int i = 0; i < 6; i++) {
    a[i] = fused_buffer(n * sizeof(float)), b[i] = fused_buffer(n * sizeof(float));
    for (int j = 0; j < n; j++) a[i][j] = b[i][j] = (float)(i == 3 ? fabs(fused_random(&seed)) : fused_random(&seed));
  }
  double gpu_squares[1 + SL_SQUARES_BLOCKS], squares;
  assert_int_equal(sl_cuda_sum_of_squares(&e, n, a[1], gpu_squares), SL_STATUS_OK);
  assert_int_equal(sl_cpu_sum_of_squares(&e, n, a[1], &squares), SL_STATUS_OK);
  assert_true(fabs(gpu_squares[0] - squares) <= 1e-12 * squares);
  assert_int_equal(sl_cuda_adamw_ema(&e, &k, n, a[0], a[1], a[2], a[3], 2, (float *[]){a[4], a[5]}), SL_STATUS_OK);
  assert_int_equal(sl_cpu_adamw_ema(&e, &k, n, b[0], b[1], b[2], b[3], 2, (float *[]){b[4], b[5]}), SL_STATUS_OK);
  for (int i = 0; i < 6; i++)
    for (int j = 0; j < n; j++) assert_true(fabsf(a[i][j] - b[i][j]) <= 1e-5f * fmaxf(1.0f, fabsf(b[i][j])));
  for (int i = 0; i < 6; i++) free(a[i]), free(b[i]);
}

static void device(void **state) {
  (void)state;
  sl_tensor *t = NULL, *there = NULL, *back = NULL;
  assert_int_equal(sl_tensor_from(ctx, SL_F32, 1, (int64_t[]){3}, (float[]){1, 2, 3}, &t), SL_STATUS_OK);
  assert_int_equal(sl_tensor_to(t, SL_F32, &gpu_host_device, &there), SL_STATUS_OK);
  assert_string_equal(sl_tensor_device(there)->name, "gpu-host");
  assert_int_equal(sl_tensor_to(there, SL_F32, &sl_device_cpu, &back), SL_STATUS_OK);
  assert_true(sl_tensor_at(back, 2) == 3.0);
  sl_tensor_release(t), sl_tensor_release(there), sl_tensor_release(back);
}

static void refused(sl_status s, const char *text) {
  assert_int_equal(s, SL_STATUS_DEVICE);
  if (!strstr(sl_error(), text)) fail_msg("\"%s\" does not hold \"%s\"", sl_error(), text);
}

/* The launch layer itself: what a wrong kernel is told, and that the next launch works. */
static void layer(void **state) {
  (void)state;
  double sum[3];
  float value[64];
  refused(probe_divergent_barrier(), "divergent_barrier_kernel: divergent barrier in block (1,0,0)");
  refused(probe_divergent_shuffle(), "divergent shuffle");
  refused(probe_odd_block(), "multiple of 32");
  refused(probe_too_much_shared(), "shared memory");
  for (int threads = 32; threads <= 1024; threads += 160) {
    assert_int_equal(probe_block_sum(threads, sum), SL_STATUS_OK);
    for (int b = 0; b < 3; b++) assert_true(sum[b] == (b + 1) * threads * (threads - 1) / 2.0);
  }
  assert_int_equal(probe_unwritten_shared(value), SL_STATUS_OK);
  for (int i = 0; i < 4; i++) assert_true(isnan(value[i]));
  assert_int_equal(probe_lanes(value), SL_STATUS_OK);
  for (int i = 0; i < 64; i++) assert_true(value[i] == (float)(i / 32 * 32 + 5));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(adaln), cmocka_unit_test(residual), cmocka_unit_test(absent),
      cmocka_unit_test(adamw), cmocka_unit_test(device),   cmocka_unit_test(layer),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
