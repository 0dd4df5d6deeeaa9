/* The CUDA kernels, run by the host launch layer, against the CPU's. */
#include "on_context.h"

#include "fused_case.h"
#include "gpu/gpu_host_control.h"
#include "ops/adamw_math.h"

/* gpu_host_probe.cpp */
sl_status probe_divergent_barrier(void), probe_divergent_shuffle(void), probe_two_barriers(void),
    probe_two_shuffles(void), probe_some_lanes(void), probe_odd_block(void), probe_idle(void), probe_nested(void),
    probe_too_much_shared(void), probe_overrun(int at);
sl_status probe_unwritten_shared(float *out), probe_block_sum(int threads, double *out), probe_lanes(float *out),
    probe_race(int which, bool wait, float *out), probe_shuffles(int64_t *out), probe_votes(int *out),
    probe_maxima(float *out), probe_atomics(int *i, unsigned *u, unsigned long long *w),
    probe_numbers(int *wrong, const float *three), probe_values(float *out),
    probe_copy(int v, void *out, bool out_bf16, const void *in, bool in_bf16), probe_room(size_t bytes, int *out),
    probe_scale(float *x, float by, float plus);
enum { ASCENDING, DESCENDING, SHUFFLED };

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
  sl_exec cpu = {.ctx = ctx, .device = &sl_device_cpu}, gpu = {.ctx = ctx, .device = &sl_device_cpu};
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
  sl_exec cpu = {.ctx = ctx, .device = &sl_device_cpu}, gpu = {.ctx = ctx, .device = &sl_device_cpu};
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
  sl_exec e = {.ctx = ctx, .device = &sl_device_cpu};
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

static void adamw_beside_cpu(bool leave) {
  enum { n = 1003 };
  sl_exec e = {.ctx = ctx, .device = &sl_device_cpu};
  sl_adamw k = {.lr = 1e-2,
                .beta1 = 0.9,
                .beta2 = 0.999,
                .eps = 1e-8,
                .weight_decay = 0.1,
                .correction1 = 0.1,
                .correction2 = 0.001,
                .grad_scale = 0.5,
                .ema_decay = {0.9, 0.9999},
                .leave_gradients = leave};
  const sl_adamw_f32 rounded = sl_adamw_round(&k);
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
  assert_int_equal(
      sl_cuda_adamw_ema(&e, &rounded, n, a[0], a[1], a[2], a[3], 2, (float *[]){a[4], a[5]}, NULL, gpu_squares, NULL),
      SL_STATUS_OK);
  assert_int_equal(
      sl_cpu_adamw_ema(&e, &rounded, n, b[0], b[1], b[2], b[3], 2, (float *[]){b[4], b[5]}, NULL, &squares, NULL),
      SL_STATUS_OK);
  for (int i = 0; i < 6; i++)
    for (int j = 0; j < n; j++) assert_true(fabsf(a[i][j] - b[i][j]) <= 1e-5f * fmaxf(1.0f, fabsf(b[i][j])));
  for (int i = 0; i < 6; i++) free(a[i]), free(b[i]);
}

static void adamw(void **state) {
  (void)state;
  adamw_beside_cpu(false);
  adamw_beside_cpu(true);
}

static void device(void **state) {
  (void)state;
  const sl_device *dev = NULL;
  sl_tensor *t = NULL, *there = NULL, *back = NULL;
  assert_int_equal(sl_tensor_from(ctx, SL_F32, 1, (int64_t[]){3}, (float[]){1, 2, 3}, &t), SL_STATUS_OK);
  assert_int_equal(sl_device_find(ctx, "gpu-host", &dev), SL_STATUS_OK);
  assert_int_equal(sl_tensor_to(t, SL_F32, dev, &there), SL_STATUS_OK);
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

/* What the layer asks for beyond what happens to run. */
static void strict(void **state) {
  (void)state;
  float value[128];
  refused(probe_two_barriers(), "divergent barrier in block (0,0,0): threads wait at lines ");
  refused(probe_two_shuffles(), "divergent shuffle");
  refused(probe_some_lanes(), "a shuffle with mask 0000ffff");
  refused(probe_nested(), "idle_kernel: launched by a kernel");
#if !defined(__SANITIZE_ADDRESS__) && !SLUICE_CHECKED
  refused(probe_overrun(40), "past its shared memory");
  refused(probe_overrun(-1), "past its shared memory");
#endif
  assert_int_equal(probe_overrun(39), SL_STATUS_OK);
  assert_int_equal(probe_values(value), SL_STATUS_OK);
  for (int i = 0; i < 64; i++) assert_true(value[i] == (float)(1000 + i + (i < 32 ? 200 : 1)));
}

/* Whether some order of the threads changes what a kernel makes. */
static bool depends_on_order(int which, bool wait) {
  float first[128], value[128];
  bool differs = false;
  for (int order = 0; order < 6; order++) {
    memset(value, 0xff, sizeof value);
    sl_gpu_host_order(order < SHUFFLED ? order : SHUFFLED, (uint64_t)order);
    assert_int_equal(probe_race(which, wait, value), SL_STATUS_OK);
    if (order == ASCENDING) memcpy(first, value, sizeof first);
    differs |= memcmp(first, value, sizeof first) != 0;
  }
  sl_gpu_host_order(ASCENDING, 0);
  return differs;
}

static void races(void **state) {
  (void)state;
  for (int which = 0; which < 4; which++) {
    if (depends_on_order(which, true)) fail_msg("kernel %d has no race, and depends on the order", which);
    if (!depends_on_order(which, false)) fail_msg("the orders do not show kernel %d's race", which);
  }
}

/* A seed repeats its order; another has another. */
static void seeds(void **state) {
  (void)state;
  float a[128], b[128], c[128];
  sl_gpu_host_order(SHUFFLED, 5);
  assert_int_equal(probe_race(0, false, a), SL_STATUS_OK);
  assert_int_equal(probe_race(0, false, b), SL_STATUS_OK);
  sl_gpu_host_order(SHUFFLED, 6);
  assert_int_equal(probe_race(0, false, c), SL_STATUS_OK);
  sl_gpu_host_order(ASCENDING, 0);
  assert_memory_equal(a, b, sizeof a);
  assert_true(memcmp(a, c, sizeof a) != 0);
}

static int entered, left;
static void enter(void) { entered++; }
static void leave(void) {
  left++;
  assert_int_equal(entered, left);
}

static void hooks(void **state) {
  (void)state;
  sl_gpu_host_hooks(enter, leave);
  assert_int_equal(probe_idle(), SL_STATUS_OK);
  assert_int_equal(left, 1);
  refused(probe_divergent_shuffle(), "divergent");
  assert_int_equal(left, 2);
  refused(probe_odd_block(), "multiple of 32");
  assert_int_equal(entered, 2);
  sl_gpu_host_hooks(NULL, NULL);
  assert_int_equal(probe_idle(), SL_STATUS_OK);
  assert_int_equal(left, 2);
}

/* 128 bytes of the kernel are fixed. */
static void room(void **state) {
  (void)state;
  static const size_t fit[] = {128, 47 << 10, (48 << 10) - 128, (48 << 10) + 4, 100000, (227 << 10) - 128};
  static const size_t too_much[] = {(48 << 10) - 124, 48 << 10, (227 << 10) - 124, 227 << 10, 228 << 10};
  int last;
  for (int i = 0; i < 6; i++) {
    assert_int_equal(probe_room(fit[i], &last), SL_STATUS_OK);
    assert_int_equal(last, (int)(fit[i] / sizeof(int)) - 1);
  }
  for (int i = 0; i < 5; i++) refused(probe_room(too_much[i], &last), "shared memory, expected at most");
}

static void exchanges(void **state) {
  (void)state;
  int64_t got[64 * 8];
  int votes[96];
  assert_int_equal(probe_shuffles(got), SL_STATUS_OK);
  for (int t = 0; t < 64; t++) {
    const int lane = t % 32, base = t - lane;
    const uint32_t thirds = base ? 0x92492492u : 0x49249249u;
    const int64_t expected[8] = {(int64_t)(lane < 3 ? t : t - 3) << 40,
                                 lane + 4 < 32 ? t + 4 : t,
                                 base + (lane ^ 9),
                                 t / 8 * 8 + 2,
                                 lane % 16 ? t - 1 : t,
                                 lane % 4 < 3 ? t + 1 : t,
                                 thirds,
                                 base ? 3 : 0};
    for (int k = 0; k < 8; k++)
      if (got[8 * t + k] != expected[k])
        fail_msg("thread %d, %d: %lld, expected %lld", t, k, (long long)got[8 * t + k], (long long)expected[k]);
  }
  assert_int_equal(probe_votes(votes), SL_STATUS_OK);
  for (int t = 0; t < 96; t++) assert_int_equal(votes[t], 20 * 16 + 4 + 2);
}

static void functions(void **state) {
  (void)state;
  float most[2 * 96], three = 3.0f;
  int wrong = 0, i[3] = {0};
  unsigned u[5] = {0};
  unsigned long long w[2] = {0};
  assert_int_equal(probe_maxima(most), SL_STATUS_OK);
  for (int t = 0; t < 96; t++) assert_true(most[2 * t] == 95.0f && isnan(most[2 * t + 1]));
  assert_int_equal(probe_numbers(&wrong, &three), SL_STATUS_OK);
  assert_int_equal(wrong, 0);
  assert_int_equal(probe_atomics(i, u, w), SL_STATUS_OK);
  assert_true(i[0] == 192 * 191 / 2 && i[1] == 191 && i[2] == -191);
  assert_true(u[0] == 0x80000000u + 191 && u[1] == 7 && u[2] == 1 && u[3] == 9 && u[4] == 1);
  assert_true(w[0] == 192ull << 33 && w[1] == ~0ull);
}

/* Packs of 1, 4 and 8, at addresses that are multiples of 16 and not of 32. */
static void packs(void **state) {
  (void)state;
  static const float special[] = {0.0f, -0.0f, 1e-40f, 3.4e38f, INFINITY, -INFINITY, 1.00390625f, 1.01171875f};
  _Alignas(32) float in[4 + 256], out[4 + 256];
  _Alignas(32) uint16_t half[8 + 256];
  uint64_t seed = 9;
  for (int i = 0; i < 256; i++) in[4 + i] = i < 8 ? special[i] : (float)fused_random(&seed);
  for (int v = 1; v <= 8; v = v == 1 ? 4 : 2 * v) {
    memset(out, 0xff, sizeof out);
    assert_int_equal(probe_copy(v, out + 4, false, in + 4, false), SL_STATUS_OK);
    assert_memory_equal(out + 4, in + 4, 256 * sizeof(float));
    assert_int_equal(probe_copy(v, half + 8, true, in + 4, false), SL_STATUS_OK);
    for (int i = 0; i < 256; i++) assert_int_equal(half[8 + i], sl_bf16_from_f32(in[4 + i]));
    assert_int_equal(probe_copy(v, out + 4, false, half + 8, true), SL_STATUS_OK);
    for (int i = 0; i < 256; i++) assert_true(out[4 + i] == sl_bf16_to_f32(half[8 + i]));
  }
}

static sl_status add_one(void *job) {
  float *x = *(float **)job;
  x[0] += 1.0f;
  return SL_STATUS_OK;
}

/* Launches and jobs keep their arguments' values of the time of recording, and run in order when replayed. */
static void recordings(void **state) {
  (void)state;
  float x[32] = {0}, *job = x, by = 10.0f;
  void *recording = NULL;
  assert_int_equal(sl_gpu_host_do(add_one, &job, sizeof job), SL_STATUS_OK);
  assert_true(x[0] == 1.0f);
  assert_int_equal(sl_gpu_host_record_begin(), SL_STATUS_OK);
  refused(sl_gpu_host_record_begin(), "already recording");
  assert_int_equal(probe_scale(x, by, 5.0f), SL_STATUS_OK);
  refused(probe_odd_block(), "multiple of 32");
  assert_int_equal(sl_gpu_host_do(add_one, &job, sizeof job), SL_STATUS_OK);
  by = 0.0f, job = NULL;
  assert_int_equal(sl_gpu_host_record_end(&recording), SL_STATUS_OK);
  assert_true(x[0] == 1.0f);
  assert_int_equal(sl_gpu_host_replay(recording), SL_STATUS_OK);
  assert_true(x[0] == 16.0f && x[1] == 5.0f);
  assert_int_equal(sl_gpu_host_replay(recording), SL_STATUS_OK);
  assert_true(x[0] == 166.0f && x[1] == 55.0f);
  sl_gpu_host_record_free(recording);
  refused(sl_gpu_host_record_end(&recording), "not recording");
  assert_null(recording);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(adaln),     cmocka_unit_test(residual), cmocka_unit_test(absent),
      cmocka_unit_test(adamw),     cmocka_unit_test(device),   cmocka_unit_test(layer),
      cmocka_unit_test(strict),    cmocka_unit_test(races),    cmocka_unit_test(seeds),
      cmocka_unit_test(hooks),     cmocka_unit_test(room),     cmocka_unit_test(exchanges),
      cmocka_unit_test(functions), cmocka_unit_test(packs),    cmocka_unit_test(recordings),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
