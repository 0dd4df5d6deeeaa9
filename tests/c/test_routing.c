/* Routings and the tables over t: bad arguments, windows, equation 4, random masks, custom functions; respacing and
 * weights. */
#include "on_context.h"

#include <math.h>
#include <string.h>

#include "diffusion/respace.h"
#include "diffusion/weight.h"
#include "routing/routing.h"

static int64_t row_sum(const sl_tensor *table, int64_t t) {
  int64_t C = sl_tensor_shape(table)->dim[1], sum = 0;
  for (int64_t c = 0; c < C; c++) sum += ((const uint8_t *)sl_tensor_data(table))[t * C + c];
  return sum;
}

static bool same(const sl_tensor *a, const sl_tensor *b) {
  return !memcmp(sl_tensor_data(a), sl_tensor_data(b), (size_t)sl_tensor_numel(a));
}

static void test_bad_arguments(void **state) {
  (void)state;
  sl_routing *r;
  sl_tensor *t;
  FAILS(sl_routing_dtr(ctx, 4, 0, SL_ROUTING_REFERENCE, &r), ARG, "beta is 0");
  FAILS(sl_routing_dtr(ctx, 4, 1.01, SL_ROUTING_REFERENCE, &r), ARG, "beta is 1.01, expected above 0 and at most 1");
  FAILS(sl_routing_dtr(ctx, 4, (double)NAN, SL_ROUTING_REFERENCE, &r), ARG, "beta");
  FAILS(sl_routing_dtr(ctx, 0, 0.8, SL_ROUTING_REFERENCE, &r), ARG, "alpha is 0");
  FAILS(sl_routing_dtr(ctx, (double)INFINITY, 0.8, SL_ROUTING_REFERENCE, &r), ARG, "alpha is inf");
  FAILS(sl_routing_dtr(ctx, 4, 0.8, (sl_routing_variant)7, &r), ARG, "variant is 7");
  FAILS(sl_routing_random(ctx, -1, 0, &r), ARG, "routing.random: beta is -1");
  FAILS(sl_routing_custom(ctx, NULL, NULL, NULL, &r), ARG, "function is missing");
  assert_null(r);
  sl_routing_variant v;
  FAILS(sl_routing_variant_from_name("eq5", &v), ARG, "\"eq5\", expected \"reference\" or \"eq4\"");
  OK(sl_routing_variant_from_name("eq4", &v));
  assert_int_equal(v, SL_ROUTING_EQ4);

  OK(sl_routing_dtr(ctx, 4, 0.8, v, &r));
  assert_string_equal(sl_routing_kind_name(sl_routing_kind_of(r)), "dtr");
  assert_string_equal(sl_routing_variant_name(sl_routing_variant_of(r)), "eq4");
  assert_true(sl_routing_alpha(r) == 4 && sl_routing_beta(r) == 0.8 && sl_routing_is_formula(r) &&
              !sl_routing_is_none(r));
  FAILS(sl_routing_table(r, ctx, 0, 8, 0, 1, &t), ARG, "T is 0");
  FAILS(sl_routing_table(r, ctx, 10, 0, 0, 1, &t), ARG, "C is 0");
  FAILS(sl_routing_table(r, ctx, 10, 8, 2, 2, &t), ARG, "block is 3 of 2");
  FAILS(sl_routing_table(r, ctx, 10, 1, 0, 2, &t), ARG, "none of 1 channels");
  assert_null(t);
  sl_context_fail_after(ctx, 0);
  assert_int_equal(sl_routing_table(r, ctx, 10, 8, 0, 2, &t), SL_STATUS_OOM);
  sl_context_fail_after(ctx, -1);
  assert_ptr_equal(sl_routing_retain(r), r);
  sl_routing_release(r);
  sl_routing_release(r);
  sl_routing_release(NULL);
}

static void test_window_detection(void **state) {
  (void)state;
  const uint8_t yes[] = {0, 1, 1, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1};
  int64_t start[4], width[4];
  assert_true(sl_routing_windows(yes, 4, 4, start, width));
  const int64_t starts[] = {1, 0, 0, 3}, widths[] = {2, 4, 0, 1};
  assert_memory_equal(start, starts, sizeof starts);
  assert_memory_equal(width, widths, sizeof widths);
  const uint8_t no[] = {1, 1, 0, 0, 1, 0, 0, 1};
  start[0] = width[0] = 77;
  assert_false(sl_routing_windows(no, 2, 4, start, width));
  assert_true(start[0] == 77 && width[0] == 77);
  assert_true(sl_routing_windows(no, 1, 4, NULL, NULL));
}

static void test_dtr(void **state) {
  (void)state;
  sl_routing *reference, *eq4, *none;
  sl_tensor *a, *b, *c;
  int64_t start[1000], width[1000];
  OK(sl_routing_dtr(ctx, 4, 0.8, SL_ROUTING_REFERENCE, &reference));
  OK(sl_routing_dtr(ctx, 4, 0.8, SL_ROUTING_EQ4, &eq4));
  OK(sl_routing_none(ctx, &none));
  assert_true(sl_routing_is_none(none));
  OK(sl_routing_table(reference, ctx, 1000, 1024, 0, 3, &a));
  OK(sl_routing_table(reference, ctx, 1000, 1024, 2, 3, &b));
  OK(sl_routing_table(eq4, ctx, 1000, 1024, 0, 3, &c));
  assert_true(same(a, b));
  assert_true(sl_routing_windows(sl_tensor_data(a), 1000, 1024, start, width));
  for (int t = 0; t < 1000; t++) assert_int_equal(width[t], 819);
  assert_int_equal(start[0], 0);
  assert_int_equal(start[999], 1024 - 819);
  /* Equation 4's windows are wider by as much as they move: 205 channels in all, one at a time here. */
  assert_true(sl_routing_windows(sl_tensor_data(c), 1000, 1024, start, width));
  int wider = 0;
  for (int t = 0; t < 1000; t++) {
    assert_true(width[t] == 819 || width[t] == 820);
    wider += width[t] == 820;
  }
  assert_int_equal(wider, 205);
  assert_int_equal(start[999] + width[999], 1024);
  sl_tensor_release(a);
  sl_tensor_release(b);
  sl_tensor_release(c);

  OK(sl_routing_table(reference, ctx, 1, 10, 0, 1, &a)); /* one task: numpy's linspace gives 0 */
  assert_int_equal(row_sum(a, 0), 8);
  assert_int_equal(((uint8_t *)sl_tensor_data(a))[0], 1);
  sl_tensor_release(a);
  OK(sl_routing_table(none, ctx, 3, 5, 0, 1, &a));
  for (int t = 0; t < 3; t++) assert_int_equal(row_sum(a, t), 5);
  sl_tensor_release(a);
  sl_routing_release(reference);
  sl_routing_release(eq4);
  sl_routing_release(none);
}

static void test_random(void **state) {
  (void)state;
  sl_routing *r, *other;
  sl_tensor *a, *b, *c, *d, *e;
  OK(sl_routing_random(ctx, 0.6, 5, &r));
  OK(sl_routing_random(ctx, 0.6, 6, &other));
  assert_int_equal(sl_routing_seed(other), 6);
  OK(sl_routing_table(r, ctx, 50, 33, 1, 4, &a));
  OK(sl_routing_table(r, ctx, 50, 33, 1, 9, &b));
  OK(sl_routing_table(r, ctx, 50, 33, 2, 4, &c));
  OK(sl_routing_table(other, ctx, 50, 33, 1, 4, &d));
  OK(sl_routing_table(r, ctx, 20, 33, 1, 4, &e));
  assert_true(same(a, b) && !same(a, c) && !same(a, d) && same(e, a)); /* e: the first rows of a */
  for (int t = 0; t < 50; t++) assert_int_equal(row_sum(a, t), sl_routing_width(33, 0.6));
  assert_memory_not_equal(sl_tensor_data(a), (uint8_t *)sl_tensor_data(a) + 33, 33);
  assert_false(sl_routing_windows(sl_tensor_data(a), 50, 33, NULL, NULL));
  sl_tensor *all[] = {a, b, c, d, e};
  for (int i = 0; i < 5; i++) sl_tensor_release(all[i]);
  sl_routing_release(r);
  sl_routing_release(other);

  /* Of equals the first; -0 is 0; order within a row only. */
  const float u[] = {0.5f, 0.25f, 0.5f, 0.5f, 0.75f, 0.0f, -0.0f, 0.0f, 0.0f, 0.0f};
  uint8_t mask[10];
  OK(sl_routing_random_from_uniforms(ctx, u, 2, 5, 0.6, mask));
  const uint8_t expected[] = {1, 1, 1, 0, 0, 1, 1, 1, 0, 0};
  assert_memory_equal(mask, expected, sizeof expected);
  const float bad[] = {0.5f, (float)NAN};
  FAILS(sl_routing_random_from_uniforms(ctx, bad, 1, 2, 0.6, mask), ARG, "row 1, channel 2 is not a number");
}

static void test_table(void **state) {
  (void)state;
  uint8_t data[3 * 4] = {1, 0, 1}, wide[3 * 5] = {0, 1, 1};
  sl_tensor *t, *other, *cube, *floats, *out;
  sl_routing *r;
  OK(sl_tensor_from(ctx, SL_U8, 2, (int64_t[]){3, 4}, data, &t));
  OK(sl_tensor_from(ctx, SL_U8, 2, (int64_t[]){3, 5}, wide, &other)); /* blocks may differ in channels */
  OK(sl_tensor_from(ctx, SL_U8, 3, (int64_t[]){1, 3, 4}, data, &cube));
  OK(sl_tensor_zeros(ctx, NULL, SL_F32, sl_tensor_shape(t), &floats));
  FAILS(sl_routing_from_tables(ctx, 0, NULL, &r), ARG, "no tables");
  FAILS(sl_routing_from_tables(ctx, 2, (sl_tensor *[]){t, NULL}, &r), ARG, "block 2 is missing");
  FAILS(sl_routing_from_tables(ctx, 1, &cube, &r), SHAPE, "[1,3,4], expected [T,C]");
  FAILS(sl_routing_from_tables(ctx, 1, &floats, &r), DTYPE, "is f32");
  OK(sl_routing_from_tables(ctx, 2, (sl_tensor *[]){t, other}, &r));
  assert_false(sl_routing_is_formula(r));
  ((uint8_t *)sl_tensor_data(t))[11] = 9; /* the routing has its own copy */
  OK(sl_routing_table(r, ctx, 3, 4, 0, 2, &out));
  assert_memory_equal(sl_tensor_data(out), data, 12);
  sl_tensor_release(out);
  OK(sl_routing_table(r, ctx, 3, 5, 1, 0, &out)); /* number of blocks not known */
  assert_memory_equal(sl_tensor_data(out), wide, 15);
  sl_tensor_release(out);
  FAILS(sl_routing_table(r, ctx, 5, 4, 0, 2, &out), SHAPE, "block 1 is [3,4], expected [5,4]");
  FAILS(sl_routing_table(r, ctx, 3, 4, 1, 2, &out), SHAPE, "block 2 is [3,5], expected [3,4]");
  FAILS(sl_routing_table(r, ctx, 3, 4, 0, 3, &out), SHAPE, "2 blocks, expected 3");
  FAILS(sl_routing_table(r, ctx, 3, 4, 2, 0, &out), SHAPE, "2 blocks, expected 3");
  sl_routing_release(r);
  FAILS(sl_routing_from_tables(ctx, 2, (sl_tensor *[]){other, t}, &r), ARG,
        "block 2, t = 2, channel 4 is 9, expected 0 or 1");
  assert_null(r);
  sl_tensor *all[] = {t, other, cube, floats};
  for (int i = 0; i < 4; i++) sl_tensor_release(all[i]);
}

typedef struct counter {
  int calls, released, bad_at;
} counter;

static sl_status staircase(void *user, int64_t t, int64_t T, int64_t C, int block, int blocks, uint8_t *row) {
  counter *c = user;
  c->calls++;
  if (t == c->bad_at) return sl_fail(SL_STATUS_NUMERIC, "no mask at %d", (int)t);
  assert_true(t < T && block < blocks);
  row[(t + block) % C] = t == -c->bad_at ? 2 : 1;
  return SL_STATUS_OK;
}

static void released(void *user) { ((counter *)user)->released++; }

static void test_custom(void **state) {
  (void)state;
  counter c = {.bad_at = 1000};
  sl_routing *r;
  sl_tensor *t;
  OK(sl_routing_custom(ctx, staircase, &c, released, &r));
  OK(sl_routing_table(r, ctx, 6, 4, 1, 2, &t));
  assert_int_equal(c.calls, 6);
  int64_t start[6];
  assert_true(sl_routing_windows(sl_tensor_data(t), 6, 4, start, NULL));
  for (int i = 0; i < 6; i++) assert_int_equal(start[i], (i + 1) % 4);
  sl_tensor_release(t);
  c.bad_at = 3;
  FAILS(sl_routing_table(r, ctx, 6, 4, 1, 2, &t), NUMERIC, "no mask at 3");
  c.bad_at = -2;
  FAILS(sl_routing_table(r, ctx, 6, 4, 1, 2, &t), ARG, "block 2, t = 2, channel 4 is 2, expected 0 or 1");
  assert_null(t);
  assert_int_equal(c.released, 0);
  sl_routing_release(r);
  assert_int_equal(c.released, 1);
}

/* --- schedules, respacing, weights --- */

static void test_schedule(void **state) {
  (void)state;
  sl_schedule *s;
  FAILS(sl_schedule_named(ctx, "sine", 1000, &s), ARG, "\"sine\", expected \"linear\" or \"cosine\"");
  FAILS(sl_schedule_linear(ctx, 20, &s), ARG, "at least 21");
  FAILS(sl_schedule_cosine(ctx, 0, &s), ARG, "steps is 0");
  FAILS(sl_schedule_from_betas(ctx, (double[]){0.1, 1.0}, 2, &s), ARG,
        "beta at i = 1 is 1, expected above 0 and below 1");
  FAILS(sl_schedule_from_betas(ctx, (double[]){0.1, 0.0}, 2, &s), ARG, "beta at i = 1 is 0");
  FAILS(sl_schedule_from_betas(ctx, (double[]){(double)NAN}, 1, &s), ARG, "beta at i = 0");
  FAILS(sl_schedule_from_betas(ctx, (double[]){1e-20}, 1, &s), ARG, "rounds to 1");
  double large[20];
  for (int i = 0; i < 20; i++) large[i] = 0.999;
  FAILS(sl_schedule_from_betas(ctx, large, 20, &s), ARG, "falls to");
  assert_null(s);
  OK(sl_schedule_linear(ctx, 21, &s));
  sl_schedule_free(s);
  OK(sl_schedule_from_betas(ctx, (double[]){0.25}, 1, &s));
  assert_true(s->alphas_cumprod[0] == 0.75 && s->alphas_cumprod_prev[0] == 1 && s->alphas_cumprod_next[0] == 0);
  assert_true(s->snr[0] == 3 && s->posterior_log_variance_clipped[0] == log(0.25) && s->timestep_map[0] == 0);
  sl_schedule_free(s);
  for (int64_t n = 0; n < 3; n++) {
    sl_context_fail_after(ctx, n);
    assert_int_equal(sl_schedule_cosine(ctx, 10, &s), SL_STATUS_OOM);
  }
  sl_context_fail_after(ctx, -1);
}

static void test_respace(void **state) {
  (void)state;
  int64_t *steps, n;
  const char *const malformed[] = {"", "ten", "10,", ",10", "10,,20", "10;20", "-5", "ddim", "ddim5x", "1.5", "ddim-5"};
  for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++)
    FAILS(sl_respace_parse(ctx, malformed[i], 100, &steps, &n), ARG, "respacing is \"");
  FAILS(sl_respace_parse(ctx, "101", 100, &steps, &n), ARG,
        "section 1 of 1 holds 100 of 100 steps and cannot keep 101");
  FAILS(sl_respace_parse(ctx, "10,34", 67, &steps, &n), ARG, "section 2 of 2 holds 33 of 67 steps and cannot keep 34");
  FAILS(sl_respace_parse(ctx, "99999999999999999999", 100, &steps, &n), ARG, "cannot keep");
  FAILS(sl_respace_parse(ctx, "0,0", 100, &steps, &n), ARG, "keeps no step");
  FAILS(sl_respace_parse(ctx, "ddim60", 100, &steps, &n), ARG, "the nearest are 50 and 100");
  FAILS(sl_respace_parse(ctx, "ddim101", 100, &steps, &n), ARG, "expected 1 … 100");
  FAILS(sl_respace_sections(ctx, (int64_t[]){3, -1}, 2, 100, &steps, &n), ARG, "section 2 keeps -1");
  assert_null(steps);

  OK(sl_respace_parse(ctx, " 2 , 1", 5, &steps, &n)); /* sections 0-2 and 3-4 */
  assert_int_equal(n, 3);
  assert_memory_equal(steps, ((int64_t[]){0, 2, 3}), 3 * sizeof *steps);
  sl_free(ctx, steps);
  OK(sl_respace_parse(ctx, "3", 6, &steps, &n)); /* 2.5 goes to even */
  assert_memory_equal(steps, ((int64_t[]){0, 2, 5}), 3 * sizeof *steps);
  sl_free(ctx, steps);
  OK(sl_respace_parse(ctx, "ddim4", 10, &steps, &n));
  assert_memory_equal(steps, ((int64_t[]){0, 3, 6, 9}), 4 * sizeof *steps);

  sl_schedule *s, *half, *again;
  OK(sl_schedule_cosine(ctx, 10, &s));
  OK(sl_schedule_respace(s, steps, n, &half));
  sl_free(ctx, steps);
  for (int i = 0; i < 4; i++) assert_float_equal(half->alphas_cumprod[i], s->alphas_cumprod[3 * i], 1e-12);
  OK(sl_schedule_respace(half, (int64_t[]){1, 3}, 2,
                         &again)); /* a respaced one, respaced: the map leads to the first */
  assert_true(again->timestep_map[0] == 3 && again->timestep_map[1] == 9);
  sl_schedule *bad;
  FAILS(sl_schedule_respace(s, (int64_t[]){3, 3}, 2, &bad), ARG, "step 2 of the kept is 3");
  FAILS(sl_schedule_respace(s, (int64_t[]){3, 10}, 2, &bad), ARG, "ascending timesteps in 0 … 9");
  assert_null(bad);
  sl_schedule_free(again);
  sl_schedule_free(half);
  sl_schedule_free(s);
}

static sl_status ramp(void *user, int64_t t, double snr, sl_predict predict, double *weight) {
  (void)snr;
  (void)predict;
  *weight = *(double *)user * (double)t;
  return SL_STATUS_OK;
}

static void test_weight(void **state) {
  (void)state;
  sl_schedule *s;
  double w[3], scale = 2;
  OK(sl_schedule_from_betas(ctx, (double[]){0.1, 0.2, 0.3}, 3, &s));
  OK(sl_weight_table(&(sl_weight){.kind = SL_WEIGHT_MIN_SNR, .gamma = 5}, s, SL_PREDICT_EPS, w));
  assert_float_equal(w[0], 5.0 / 9.0, 1e-12); /* snr 9, 0.72/0.28, … */
  assert_float_equal(w[2], 1.0, 0);
  OK(sl_weight_table(&(sl_weight){.kind = SL_WEIGHT_MIN_SNR, .gamma = 5}, s, SL_PREDICT_X0, w));
  assert_float_equal(w[0], 5.0, 0);
  OK(sl_weight_table(&(sl_weight){.kind = SL_WEIGHT_MIN_SNR, .gamma = 5}, s, SL_PREDICT_V, w));
  assert_float_equal(w[0], 0.5, 1e-12);
  OK(sl_weight_table(&(sl_weight){.kind = SL_WEIGHT_P2, .gamma = 2, .k = 1}, s, SL_PREDICT_EPS, w));
  assert_float_equal(w[0], 0.01, 1e-12);
  OK(sl_weight_table(&(sl_weight){.kind = SL_WEIGHT_CUSTOM, .fn = ramp, .user = &scale}, s, SL_PREDICT_EPS, w));
  assert_true(w[0] == 0 && w[2] == 4);
  scale = -1;
  FAILS(sl_weight_table(&(sl_weight){.kind = SL_WEIGHT_CUSTOM, .fn = ramp, .user = &scale}, s, SL_PREDICT_EPS, w), ARG,
        "weight of t = 1 is -1");
  FAILS(sl_weight_table(&(sl_weight){.kind = SL_WEIGHT_CUSTOM}, s, SL_PREDICT_EPS, w), ARG, "function is missing");
  FAILS(sl_weight_table(&(sl_weight){.kind = SL_WEIGHT_MIN_SNR}, s, SL_PREDICT_EPS, w), ARG, "gamma is 0");
  FAILS(sl_weight_table(&(sl_weight){.kind = SL_WEIGHT_P2, .k = -1}, s, SL_PREDICT_EPS, w), ARG, "k is -1");
  sl_schedule_free(s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_bad_arguments, setup, teardown),
      cmocka_unit_test_setup_teardown(test_window_detection, setup, teardown),
      cmocka_unit_test_setup_teardown(test_dtr, setup, teardown),
      cmocka_unit_test_setup_teardown(test_random, setup, teardown),
      cmocka_unit_test_setup_teardown(test_table, setup, teardown),
      cmocka_unit_test_setup_teardown(test_custom, setup, teardown),
      cmocka_unit_test_setup_teardown(test_schedule, setup, teardown),
      cmocka_unit_test_setup_teardown(test_respace, setup, teardown),
      cmocka_unit_test_setup_teardown(test_weight, setup, teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
