/* Mask tables, schedules, respacing and loss weights against the golden data (tests/golden/README.md, sections 3 and
 * 7). */
#include "on_context.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "diffusion/respace.h"
#include "diffusion/weight.h"
#include "routing/routing.h"

#ifndef SLUICE_TEST_GOLDEN_DIR
#define SLUICE_TEST_GOLDEN_DIR "tests/golden"
#endif

/* --- the file: read here by hand, so that the numbers do not hang on the library's own reader --- */

typedef struct golden {
  char *bytes;
  const char *data;
  cJSON *header, *config;
} golden;

static const char *golden_folder(void) {
  const char *given = getenv("SLUICE_GOLDEN");
  return given && *given ? given : SLUICE_TEST_GOLDEN_DIR;
}

static golden golden_open(const char *name) {
  golden g = {0};
  char path[4096];
  size_t size;
  uint64_t length;
  void *bytes;
  snprintf(path, sizeof path, "%s/%s.safetensors", golden_folder(), name);
  OK(sl_file_read(ctx, path, &bytes, &size));
  assert_true(size > 8);
  memcpy(&length, bytes, 8);
  assert_true(length <= size - 8);
  g.bytes = bytes;
  g.data = g.bytes + 8 + length;
  g.header = cJSON_ParseWithLength(g.bytes + 8, length);
  assert_non_null(g.header);
  const cJSON *meta = cJSON_GetObjectItemCaseSensitive(g.header, "__metadata__");
  const char *config = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(meta, "config"));
  assert_non_null(config);
  g.config = cJSON_Parse(config);
  assert_non_null(g.config);
  return g;
}

static void golden_close(golden *g) {
  cJSON_Delete(g->header);
  cJSON_Delete(g->config);
  sl_free(ctx, g->bytes);
}

static double number_at(const cJSON *list, int i) {
  const cJSON *item = cJSON_GetArrayItem(list, i);
  assert_true(cJSON_IsNumber(item));
  return item->valuedouble;
}

/* The elements of a tensor, which must be `dtype` and have n of them (n < 0: any number). */
static const void *elements(const golden *g, const char *name, const char *dtype, int64_t n) {
  const cJSON *item = cJSON_GetObjectItemCaseSensitive(g->header, name);
  if (!item) fail_msg("%s is not in the file", name);
  assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "dtype")), dtype);
  int64_t have = 1;
  const cJSON *dim;
  cJSON_ArrayForEach(dim, cJSON_GetObjectItemCaseSensitive(item, "shape")) have *= (int64_t)dim->valuedouble;
  if (n >= 0 && have != n) fail_msg("%s has %lld elements, expected %lld", name, (long long)have, (long long)n);
  return g->data + (size_t)number_at(cJSON_GetObjectItemCaseSensitive(item, "data_offsets"), 0);
}

static int64_t i64_at(const void *p, int64_t i) {
  int64_t v;
  memcpy(&v, (const char *)p + 8 * i, 8);
  return v;
}

static float f32_at(const void *p, int64_t i) {
  float v;
  memcpy(&v, (const char *)p + 4 * i, 4);
  return v;
}

/* Each element within 2e-7 relative. */
static void close_to(const golden *g, const char *name, const double *ours, int64_t n) {
  const void *ref = elements(g, name, "F32", n);
  for (int64_t i = 0; i < n; i++) {
    double r = (double)f32_at(ref, i);
    if (!(fabs(ours[i] - r) <= 2e-7 * fabs(r)))
      fail_msg("%s[%lld] is %.9g, expected %.9g", name, (long long)i, ours[i], r);
  }
}

/* --- masks --- */

typedef struct mask_case {
  int64_t T, C;
  double beta, alpha;
} mask_case;

/* "….T1000.C48.beta0.6.alpha4"; betas are followed by a dot, so that they cannot be left to scanf. */
static mask_case mask_case_of(const char *name) {
  mask_case m = {0};
  const char *T = strstr(name, ".T"), *C = strstr(name, ".C"), *beta = strstr(name, ".beta"),
             *alpha = strstr(name, ".alpha");
  if (T) m.T = atoll(T + 2);
  assert_true(C && beta);
  m.C = atoll(C + 2);
  char text[32] = "";
  size_t n = alpha ? (size_t)(alpha - beta) - 5 : strlen(beta + 5);
  assert_true(n < sizeof text);
  memcpy(text, beta + 5, n);
  m.beta = atof(text);
  if (alpha) m.alpha = atof(alpha + 6);
  return m;
}

static sl_tensor *dtr_table(mask_case m, sl_routing_variant variant) {
  sl_routing *r;
  sl_tensor *table;
  OK(sl_routing_dtr(ctx, m.alpha, m.beta, variant, &r));
  OK(sl_routing_table(r, ctx, m.T, m.C, 0, 1, &table));
  sl_routing_release(r);
  return table;
}

static void windows(mask_case m, sl_routing_variant variant, int64_t *start, int64_t *width) {
  sl_tensor *table = dtr_table(m, variant);
  assert_true(sl_routing_windows(sl_tensor_data(table), m.T, m.C, start, width));
  sl_tensor_release(table);
}

static void test_windows(void **state) {
  (void)state;
  golden g = golden_open("masks");
  int dtr = 0, eq4 = 0, widths = 0;
  const cJSON *item;
  cJSON_ArrayForEach(item, g.header) {
    const char *name = item->string;
    if (!strncmp(name, "width.", 6)) {
      mask_case m = mask_case_of(name);
      assert_int_equal(sl_routing_width(m.C, m.beta), i64_at(elements(&g, name, "I64", 1), 0));
      widths++;
    }
    bool is_dtr = !strncmp(name, "dtr.start.", 10);
    if (!is_dtr && strncmp(name, "eq4.start.", 10)) continue;
    mask_case m = mask_case_of(name);
    int64_t *start = sl_alloc(ctx, (size_t)m.T * sizeof *start), *width = sl_alloc(ctx, (size_t)m.T * sizeof *width);
    assert_true(start && width);
    windows(m, is_dtr ? SL_ROUTING_REFERENCE : SL_ROUTING_EQ4, start, width);
    const void *starts = elements(&g, name, "I64", m.T), *ends = NULL;
    char end_name[128];
    if (!is_dtr) {
      snprintf(end_name, sizeof end_name, "eq4.end.%s", name + 10);
      ends = elements(&g, end_name, "I64", m.T);
    }
    for (int64_t t = 0; t < m.T; t++) {
      int64_t expected = ends ? i64_at(ends, t) - i64_at(starts, t) : sl_routing_width(m.C, m.beta);
      if (start[t] != i64_at(starts, t) || width[t] != expected)
        fail_msg("%s: t = %lld: window %lld + %lld, expected %lld + %lld", name, (long long)t, (long long)start[t],
                 (long long)width[t], (long long)i64_at(starts, t), (long long)expected);
    }
    sl_free(ctx, start);
    sl_free(ctx, width);
    dtr += is_dtr;
    eq4 += !is_dtr;
  }
  print_message("%d windows of dtr, %d of eq4, %d widths\n", dtr, eq4, widths);
  assert_true(dtr > 0 && eq4 > 0 && widths > 0);
  golden_close(&g);
}

static void same_mask(const golden *g, const char *name, const uint8_t *mask, int64_t n) {
  const void *ref = elements(g, name, "F32", n);
  for (int64_t i = 0; i < n; i++)
    if ((float)mask[i] != f32_at(ref, i)) fail_msg("%s[%lld] is %d", name, (long long)i, (int)mask[i]);
}

static void test_full_masks(void **state) {
  (void)state;
  golden g = golden_open("masks");
  int n = 0;
  const cJSON *item;
  cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(g.config, "full")) {
    mask_case m = {(int64_t)number_at(item, 0), (int64_t)number_at(item, 1), number_at(item, 2), number_at(item, 3)};
    for (int v = 0; v < SL_ROUTING_VARIANT_COUNT; v++) {
      char name[128];
      snprintf(name, sizeof name, "full.%s.%s", item->string, v == SL_ROUTING_EQ4 ? "eq4" : "dtr");
      sl_tensor *table = dtr_table(m, (sl_routing_variant)v);
      same_mask(&g, name, sl_tensor_data(table), m.T * m.C);
      sl_tensor_release(table);
      n++;
    }
  }
  assert_true(n > 0);
  golden_close(&g);
}

static void test_random_mask(void **state) {
  (void)state;
  golden g = golden_open("masks");
  const cJSON *random = cJSON_GetObjectItemCaseSensitive(g.config, "random");
  int64_t T = (int64_t)number_at(random, 0), C = (int64_t)number_at(random, 1);
  const void *ref = elements(&g, "random.uniform", "F32", T * C);
  float *uniforms = sl_alloc(ctx, (size_t)(T * C) * sizeof *uniforms);
  uint8_t *mask = sl_alloc(ctx, (size_t)(T * C));
  memcpy(uniforms, ref, (size_t)(T * C) * sizeof *uniforms);
  OK(sl_routing_random_from_uniforms(ctx, uniforms, T, C, number_at(random, 2), mask));
  same_mask(&g, "random.mask", mask, T * C);
  sl_free(ctx, uniforms);
  sl_free(ctx, mask);
  golden_close(&g);
}

/* --- schedules --- */

static sl_schedule *schedule_of(const golden *g, const char *name) {
  char tensor[128];
  snprintf(tensor, sizeof tensor, "%s.betas", name);
  const cJSON *item = cJSON_GetObjectItemCaseSensitive(g->header, tensor);
  assert_non_null(item);
  sl_schedule *s;
  OK(sl_schedule_named(ctx, name, (int64_t)number_at(cJSON_GetObjectItemCaseSensitive(item, "shape"), 0), &s));
  return s;
}

static void close_fields(const golden *g, const char *prefix, const sl_schedule *s, bool all) {
  const struct {
    const char *name;
    const double *ours;
    bool always;
  } fields[] = {{"betas", s->betas, true},
                {"alphas_cumprod", s->alphas_cumprod, true},
                {"posterior_log_variance_clipped", s->posterior_log_variance_clipped, true},
                {"alphas_cumprod_prev", s->alphas_cumprod_prev, false},
                {"posterior_variance", s->posterior_variance, false},
                {"posterior_mean_coef1", s->posterior_mean_coef1, false},
                {"posterior_mean_coef2", s->posterior_mean_coef2, false}};
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
    char name[160];
    snprintf(name, sizeof name, "%s.%s", prefix, fields[i].name);
    if (all || fields[i].always) close_to(g, name, fields[i].ours, s->T);
  }
}

static void test_schedules(void **state) {
  (void)state;
  golden g = golden_open("diffusion");
  const cJSON *schedules = cJSON_GetObjectItemCaseSensitive(g.config, "schedules"), *name, *spec;
  assert_true(cJSON_GetArraySize(schedules) > 0);
  cJSON_ArrayForEach(name, schedules) {
    sl_schedule *s = schedule_of(&g, name->valuestring), *r;
    close_fields(&g, name->valuestring, s, true);
    cJSON_ArrayForEach(spec, cJSON_GetObjectItemCaseSensitive(g.config, "respace")) {
      char prefix[128], map[160];
      snprintf(prefix, sizeof prefix, "%s.respace.%s", name->valuestring, spec->valuestring);
      snprintf(map, sizeof map, "%s.map", prefix);
      OK(sl_schedule_respace_spec(s, spec->valuestring, &r));
      const void *ref = elements(&g, map, "I64", r->T);
      for (int64_t i = 0; i < r->T; i++)
        if (r->timestep_map[i] != i64_at(ref, i)) fail_msg("%s[%lld] differs", map, (long long)i);
      close_fields(&g, prefix, r, false);
      sl_schedule_free(r);
    }
    sl_schedule_free(s);
  }
  golden_close(&g);
}

static sl_weight weight_of(const char *name) {
  sl_weight w = {.kind = SL_WEIGHT_CONSTANT};
  if (sscanf(name, "min_snr_%lf", &w.gamma) == 1) {
    w.kind = SL_WEIGHT_MIN_SNR;
  } else if (sscanf(name, "p2weight_%lf_%lf", &w.gamma, &w.k) == 2) {
    w.kind = SL_WEIGHT_P2;
  } else {
    assert_string_equal(name, "constant");
  }
  return w;
}

static void test_weights(void **state) {
  (void)state;
  golden g = golden_open("diffusion");
  const cJSON *schedule, *weight, *weights = cJSON_GetObjectItemCaseSensitive(g.config, "weights");
  assert_true(cJSON_GetArraySize(weights) > 0);
  cJSON_ArrayForEach(schedule, cJSON_GetObjectItemCaseSensitive(g.config, "schedules")) {
    sl_schedule *s = schedule_of(&g, schedule->valuestring);
    double *ours = sl_alloc(ctx, (size_t)s->T * sizeof *ours);
    cJSON_ArrayForEach(weight, weights) {
      char name[128];
      snprintf(name, sizeof name, "%s.weight.%s", schedule->valuestring, weight->valuestring);
      sl_weight w = weight_of(weight->valuestring);
      OK(sl_weight_table(&w, s, SL_PREDICT_EPS, ours));
      if (w.kind == SL_WEIGHT_CONSTANT) { /* has no table in the file */
        for (int64_t i = 0; i < s->T; i++) assert_true(ours[i] == 1.0);
        continue;
      }
      const void *ref = elements(&g, name, "F32", s->T);
      for (int64_t i = 0; i < s->T; i++) {
        double r = (double)f32_at(ref, i);
        if (!(fabs(ours[i] - r) <= 1e-5 * r)) fail_msg("%s[%lld] is %g, expected %g", name, (long long)i, ours[i], r);
      }
    }
    sl_free(ctx, ours);
    sl_schedule_free(s);
  }
  golden_close(&g);
}

int main(void) {
  print_message("golden data: %s\n", golden_folder());
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_windows, setup, teardown),
      cmocka_unit_test_setup_teardown(test_full_masks, setup, teardown),
      cmocka_unit_test_setup_teardown(test_random_mask, setup, teardown),
      cmocka_unit_test_setup_teardown(test_schedules, setup, teardown),
      cmocka_unit_test_setup_teardown(test_weights, setup, teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
