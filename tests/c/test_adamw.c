/* AdamW with averages against the definition in double, and the sum of squares. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ops/adamw_math.h"

enum { N = 70001, STEPS = 7, EMAS = 3, ARRAYS = 4 + EMAS }; /* p g m v, then averages */

static sl_context *ctx;
static float *got[ARRAYS];
static double *want[ARRAYS];

static int setup(void **state) {
  (void)state;
  for (int i = 0; i < ARRAYS; i++) {
    got[i] = malloc(N * sizeof(float));
    want[i] = malloc(N * sizeof(double));
    if (!got[i] || !want[i]) return 1;
  }
  return sl_context_new(NULL, &ctx) != SL_STATUS_OK;
}

static int teardown(void **state) {
  (void)state;
  for (int i = 0; i < ARRAYS; i++) free(got[i]), free(want[i]);
  sl_context_free(ctx);
  return 0;
}

static float number(int64_t i, int k) { return (float)sin((double)i * 0.7 + k * 1.3) * (i % 11 == 0 ? 1e-3f : 1.0f); }

static sl_adamw step_of(int k) {
  sl_adamw a = {.lr = 1e-3 * k,
                .beta1 = 0.9,
                .beta2 = 0.999,
                .eps = 1e-8,
                .weight_decay = 0.02,
                .grad_scale = 0.25,
                .ema_decay = {0.5, 0.9999, 0.0}};
  a.correction1 = 1.0 - pow(a.beta1, k);
  a.correction2 = 1.0 - pow(a.beta2, k);
  return a;
}

static void start(void) {
  for (int i = 0; i < N; i++) {
    want[0][i] = got[0][i] = number(i, 0);
    for (int k = 2; k < ARRAYS; k++) want[k][i] = got[k][i] = k < 4 ? 0.0f : got[0][i];
  }
}

static void give_gradient(int k) {
  for (int i = 0; i < N; i++) want[1][i] = got[1][i] = number(i, k);
}

static void reference(const sl_adamw *a) {
  for (int i = 0; i < N; i++) {
    double g = want[1][i] * a->grad_scale, *p = &want[0][i], *m = &want[2][i], *v = &want[3][i];
    *p -= a->lr * a->weight_decay * *p;
    *m = a->beta1 * *m + (1.0 - a->beta1) * g;
    *v = a->beta2 * *v + (1.0 - a->beta2) * g * g;
    *p -= a->lr * (*m / a->correction1) / (sqrt(*v / a->correction2) + a->eps);
    for (int k = 0; k < EMAS; k++) want[4 + k][i] = a->ema_decay[k] * want[4 + k][i] + (1.0 - a->ema_decay[k]) * *p;
  }
}

static void run(int threads, bool with_reference) {
  sl_exec e = {.ctx = ctx};
  sl_context_set_threads(ctx, threads);
  start();
  for (int k = 1; k <= STEPS; k++) {
    sl_adamw a = step_of(k);
    sl_adamw_f32 rounded = sl_adamw_round(&a);
    give_gradient(k);
    if (with_reference) reference(&a);
    assert_int_equal(sl_cpu_adamw_ema(&e, &rounded, N, got[0], got[1], got[2], got[3], EMAS, &got[4], NULL, NULL, NULL),
                     SL_STATUS_OK);
  }
}

static void steps(void **state) {
  (void)state;
  for (int isa = SL_ISA_BASE; isa <= (int)sl_isa_machine(); isa++) {
    sl_context_set_isa(ctx, (sl_isa)isa);
    run(2, true);
    for (int i = 0; i < N; i++) {
      if (got[1][i] != 0.0f) fail_msg("gradient %d is %g, expected 0", i, (double)got[1][i]);
      for (int k = 0; k < ARRAYS; k++)
        if (k != 1 && !(fabs(got[k][i] - want[k][i]) <= 2e-6 * fmax(fabs(want[k][i]), k == 3   ? 0.01
                                                                                      : k == 2 ? 0.1
                                                                                               : 1.0)))
          fail_msg("%s: array %d [%d] is %.9g, expected %.9g", sl_isa_name((sl_isa)isa), k, i, (double)got[k][i],
                   want[k][i]);
    }
  }
}

/* Asked to leave them, it does all else the same. */
static void gradients_stay(void **state) {
  (void)state;
  sl_exec e = {.ctx = ctx};
  static float p[2][N], g[N];
  for (int isa = SL_ISA_BASE; isa <= (int)sl_isa_machine(); isa++) {
    sl_context_set_isa(ctx, (sl_isa)isa);
    for (int leave = 0; leave < 2; leave++) {
      sl_adamw a = step_of(1);
      a.leave_gradients = leave;
      sl_adamw_f32 rounded = sl_adamw_round(&a);
      start();
      give_gradient(1);
      memcpy(g, got[1], sizeof g);
      assert_int_equal(
          sl_cpu_adamw_ema(&e, &rounded, N, got[0], got[1], got[2], got[3], EMAS, &got[4], NULL, NULL, NULL),
          SL_STATUS_OK);
      memcpy(p[leave], got[0], sizeof g);
      if (leave) assert_memory_equal(g, got[1], sizeof g);
    }
    assert_memory_equal(p[0], p[1], sizeof g);
  }
}

static void threads(void **state) {
  (void)state;
  float *first[ARRAYS];
  run(1, false);
  for (int k = 0; k < ARRAYS; k++) {
    first[k] = malloc(N * sizeof(float));
    assert_non_null(first[k]);
    memcpy(first[k], got[k], N * sizeof(float));
  }
  for (int n = 2; n <= 4; n++) {
    run(n, false);
    for (int k = 0; k < ARRAYS; k++) assert_memory_equal(first[k], got[k], N * sizeof(float));
  }
  for (int k = 0; k < ARRAYS; k++) free(first[k]);
}

static void squares(void **state) {
  (void)state;
  sl_exec e = {.ctx = ctx};
  start();
  const int64_t sizes[] = {0, 1, 63, 64, 1000, 16384, N};
  for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
    double sum = 0.0, one = -1.0, three = -1.0;
    for (int64_t i = 0; i < sizes[s]; i++) sum += (double)got[0][i] * got[0][i];
    sl_context_set_threads(ctx, 1);
    assert_int_equal(sl_cpu_sum_of_squares(&e, sizes[s], got[0], &one), SL_STATUS_OK);
    sl_context_set_threads(ctx, 3);
    assert_int_equal(sl_cpu_sum_of_squares(&e, sizes[s], got[0], &three), SL_STATUS_OK);
    assert_true(one == three);
    assert_true(fabs(one - sum) <= 1e-13 * sum);
  }
  double sum = 0.0;
  got[0][N / 2] = NAN;
  assert_int_equal(sl_cpu_sum_of_squares(&e, N, got[0], &sum), SL_STATUS_OK);
  assert_true(isnan(sum));
  got[0][N / 2] = INFINITY;
  assert_int_equal(sl_cpu_sum_of_squares(&e, N, got[0], &sum), SL_STATUS_OK);
  assert_true(isinf(sum));
}

static void too_many(void **state) {
  (void)state;
  sl_exec e = {.ctx = ctx};
  sl_adamw a = step_of(1);
  sl_adamw_f32 rounded = sl_adamw_round(&a);
  assert_int_equal(sl_cpu_adamw_ema(&e, &rounded, 0, NULL, NULL, NULL, NULL, 5, NULL, NULL, NULL, NULL), SL_STATUS_ARG);
  assert_non_null(strstr(sl_error(), "5 averages"));
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(steps), cmocka_unit_test(gradients_stay),
                                     cmocka_unit_test(threads), cmocka_unit_test(squares), cmocka_unit_test(too_many)};
  return cmocka_run_group_tests(tests, setup, teardown);
}
