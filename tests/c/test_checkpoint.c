/* Checkpoints and sl_sample as a host sees them: what is loaded, what is refused and in which words, and that every
 * failed allocation comes back as a status and leaks nothing. */
#include <math.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/checkpoint.h"
#include "io/tensor_file.h"
#include "on_context.h"
#include "sluice.h"

#define DIGITS "models/digits.safetensors"

static char folder[] = "/tmp/sluice-checkpoint-XXXXXX";

static const char *at(const char *name) {
  static char path[4][128];
  static int next;
  char *to = path[next++ % 4];
  snprintf(to, sizeof path[0], "%s/%s", folder, name);
  return to;
}

static int setup_folder(void **state) { return mkdtemp(folder) ? setup(state) : -1; }
static int teardown_folder(void **state) {
  char command[64];
  snprintf(command, sizeof command, "rm -r %s", folder);
  return system(command) | teardown(state);
}

/* The digits with other metadata, or, all NULL, as they are; tensors: how many of them are kept. */
static void write_variant(const char *path, const char *key, const char *value, int64_t tensors) {
  sl_tensor_file *from, *to;
  OK(sl_tensor_file_load(ctx, DIGITS, &from));
  OK(sl_tensor_file_new(ctx, &to));
  for (int64_t i = 0; i < sl_tensor_file_count(from) && i < tensors; i++)
    OK(sl_tensor_file_add(to, sl_tensor_file_name(from, i), sl_tensor_file_tensor(from, i)));
  for (int64_t i = 0; i < sl_tensor_file_meta_count(from); i++)
    OK(sl_tensor_file_set_meta(to, sl_tensor_file_meta_key(from, i), sl_tensor_file_meta_value(from, i)));
  if (key) OK(sl_tensor_file_set_meta(to, key, value));
  OK(sl_tensor_file_save(path, to));
  sl_tensor_file_free(from);
  sl_tensor_file_free(to);
}

static void test_a_checkpoint_tells_what_it_is(void **state) {
  (void)state;
  sl_checkpoint *c;
  OK(sl_checkpoint_load(ctx, DIGITS, &c));
  sl_model *m = sl_checkpoint_model(c);
  const sl_dit_config *dit = sl_dit_config_of(m);
  assert_non_null(dit);
  assert_int_equal(dit->hidden, 128);
  assert_int_equal(sl_model_info_of(m).classes, 10);
  assert_string_equal(sl_model_kind_name(m), "dit");
  assert_int_equal(sl_diffusion_steps(sl_checkpoint_diffusion(c)), 1000);
  assert_int_equal(sl_checkpoint_step(c), 50000);
  assert_int_equal(sl_checkpoint_dtype(c), SL_BF16);
  assert_non_null(strstr(sl_checkpoint_meta(c, "digest"), "xxh3:"));
  assert_null(sl_checkpoint_meta(c, "nothing"));
  sl_sample_options o = sl_sample_defaults(m);
  assert_int_equal(o.n, 200);
  assert_true(o.labels == SL_LABELS_BALANCED && o.cfg == 3 && o.cfg_lo == 200 && o.cfg_hi == 800 && o.clip);
  assert_string_equal(o.sampler, "ddim");
  assert_int_equal(o.steps, 50);
  assert_int_equal(sl_sample_averages(m), 0);
  sl_model_retain(m);
  sl_checkpoint_free(c);
  assert_int_equal(sl_sample_defaults(m).n, 200); /* lives on with the model */
  sl_model_release(m);
}

static void test_what_is_no_checkpoint_is_refused(void **state) {
  (void)state;
  sl_model *m;
  FAILS(sl_model_load(ctx, "/no/such", &m), IO, "/no/such");
  assert_null(m);
  FAILS(sl_model_load(ctx, folder, &m), IO, "no run.json");
  FAILS(sl_model_load(ctx, NULL, &m), ARG, "path is NULL");
  OK(sl_model_load(ctx, DIGITS, &m));
  OK(sl_model_save(m, at("export.safetensors")));
  sl_model *none;
  FAILS(sl_model_load(ctx, at("export.safetensors"), &none), UNSUPPORTED, "an export");
  OK(sl_model_load_state(m, at("export.safetensors"), true));
  OK(sl_model_load_state(m, DIGITS, true));
  write_variant(at("x"), "format", "sluice-checkpoint-9", 1000);
  FAILS(sl_model_load(ctx, at("x"), &none), UNSUPPORTED, "has format sluice-checkpoint-9, this version reads");
  write_variant(at("x"), "architecture", "{\"kind\":\"cnn\"}", 1000);
  FAILS(sl_model_load(ctx, at("x"), &none), UNSUPPORTED, "the architecture is cnn");
  write_variant(at("x"), "architecture", "{\"kind\":\"dit\",\"input\":[1,28,28],\"block\":\"mine\"}", 1000);
  FAILS(sl_model_load(ctx, at("x"), &none), UNSUPPORTED, "its blocks are Lua functions (\"mine\")");
  write_variant(at("x"), "architecture", "{\"kind\":\"dit\",\"hidden\":\"wide\"}", 1000);
  FAILS(sl_model_load(ctx, at("x"), &none), FORMAT, "hidden is \"wide\", expected an integer");
  write_variant(at("x"), "architecture", "{\"kind\":\"dit\",\"routing\":{\"kind\":\"table\"}}", 1000);
  FAILS(sl_model_load(ctx, at("x"), &none), UNSUPPORTED, "there is no routing table");
  write_variant(at("x"), "architecture", "[", 1000);
  FAILS(sl_model_load(ctx, at("x"), &none), FORMAT, "the architecture is no JSON object");
  write_variant(at("x"), "diffusion", "{\"schedule\":\"steep\"}", 1000);
  FAILS(sl_model_load(ctx, at("x"), &none), ARG, "schedule is \"steep\"");
  write_variant(at("x"), "sample", "{\"labels\":1.5}", 1000);
  FAILS(sl_model_load(ctx, at("x"), &none), FORMAT, "labels are neither a list, a class");
  write_variant(at("x"), "sample", "{\"labels\":[1,2],\"n\":3}", 1000);
  FAILS(sl_model_load(ctx, at("x"), &none), FORMAT, "2 labels for n = 3");
  write_variant(at("x"), "ema", "[\"0.5\"]", 1000);
  FAILS(sl_model_load(ctx, at("x"), &none), ARG, "is missing");
  write_variant(at("x"), NULL, NULL, 5);
  FAILS(sl_model_load(ctx, at("x"), &none), ARG, "is missing");
  sl_model_release(m);
}

static void damage(const char *path) {
  FILE *f = fopen(path, "r+b");
  fseek(f, 200000, SEEK_SET);
  int c = fgetc(f);
  fseek(f, 200000, SEEK_SET);
  fputc(c ^ 1, f);
  fclose(f);
}

static void test_a_run_gives_its_newest_whole_checkpoint(void **state) {
  (void)state;
  sl_checkpoint *c;
  assert_int_equal(mkdir(at("run"), 0777) | mkdir(at("run/checkpoints"), 0777), 0);
  fclose(fopen(at("run/run.json"), "w"));
  FAILS(sl_checkpoint_load(ctx, at("run"), &c), IO, "has no checkpoint yet");
  write_variant(at("run/checkpoints/step-0000009.safetensors"), "step", "9", 1000);
  write_variant(at("run/checkpoints/step-0000010.safetensors"), "step", "10", 1000);
  fclose(fopen(at("run/checkpoints/step-0000011.safetensors.tmp-1-1"), "w"));
  OK(sl_checkpoint_load(ctx, at("run"), &c));
  assert_int_equal(sl_checkpoint_step(c), 10);
  sl_checkpoint_free(c);
  damage(at("run/checkpoints/step-0000010.safetensors"));
  OK(sl_checkpoint_load(ctx, at("run"), &c));
  assert_int_equal(sl_checkpoint_step(c), 9);
  assert_non_null(strstr(sl_checkpoint_path(c), "step-0000009"));
  sl_checkpoint_free(c);
  damage(at("run/checkpoints/step-0000009.safetensors"));
  FAILS(sl_checkpoint_load(ctx, at("run"), &c), FORMAT, "none of its 2 checkpoints can be read; the last:");
}

/* A run that goes on: while its checkpoint 1 is about to be read, 2 is written and 1 removed. */
static sl_status read_while_it_goes_on(void *user, const char *file) {
  if (++*(int *)user > 1) {
    assert_non_null(strstr(file, "step-0000002"));
    return SL_STATUS_OK;
  }
  assert_non_null(strstr(file, "step-0000001"));
  fclose(fopen(at("goes-on/checkpoints/step-0000002.safetensors"), "w"));
  remove(file);
  return sl_fail(SL_STATUS_IO, "%s: no such file", file);
}

static void test_a_checkpoint_that_goes_meanwhile_is_no_fault(void **state) {
  (void)state;
  int calls = 0;
  assert_int_equal(mkdir(at("goes-on"), 0777) | mkdir(at("goes-on/checkpoints"), 0777), 0);
  fclose(fopen(at("goes-on/run.json"), "w"));
  fclose(fopen(at("goes-on/checkpoints/step-0000001.safetensors"), "w"));
  OK(sl_checkpoint_newest(ctx, at("goes-on"), read_while_it_goes_on, &calls));
  assert_int_equal(calls, 2);
}

/* --- samples --- */

static sl_sample_options few(const sl_model *m, int64_t n) {
  sl_sample_options o = sl_sample_defaults(m);
  o.n = n;
  o.steps = 3;
  return o;
}

static const float *row(const sl_tensor *images, int64_t k) { return (const float *)sl_tensor_data(images) + k * 784; }

/* The first n images differ by this much at most. */
static float apart(const sl_tensor *a, const sl_tensor *b, int64_t n) {
  float most = 0;
  for (int64_t i = 0; i < n * 784; i++) most = fmaxf(most, fabsf(row(a, 0)[i] - row(b, 0)[i]));
  return most;
}

/* A library may add up in another order for another number of rows. */
static void test_an_image_depends_on_seed_and_number(void **state) {
  (void)state;
  sl_model *m;
  sl_tensor *all, *parts, *other;
  OK(sl_model_load(ctx, DIGITS, &m));
  sl_sample_options o = few(m, 5);
  OK(sl_sample(m, &o, &all));
  assert_true(sl_shape_equal(sl_tensor_shape(all), &SL_SHAPE(5, 1, 28, 28)));
  o.batch = 2; /* the last one is padded */
  OK(sl_sample(m, &o, &parts));
  assert_true(apart(all, parts, 5) < 1e-3f);
  o.seed++;
  OK(sl_sample(m, &o, &other));
  assert_true(apart(all, other, 1) > 0.1f);
  sl_tensor_release(other);
  o = few(m, 2);
  o.labels = SL_LABELS_LIST;
  o.label_list = (const int64_t[]){0, 1};
  o.label_count = 2;
  OK(sl_sample(m, &o, &other));
  assert_true(apart(all, other, 2) < 1e-3f);
  int64_t labels[12];
  o = few(m, 12);
  OK(sl_sample_labels(m, &o, labels));
  assert_int_equal(labels[11], 1);
  sl_tensor_release(all);
  sl_tensor_release(parts);
  sl_tensor_release(other);
  sl_model_release(m);
}

/* The digits with two averages: the weights themselves, and zeros. */
static void write_averages(const char *path, const char *sample) {
  sl_tensor_file *from, *to;
  OK(sl_tensor_file_load(ctx, DIGITS, &from));
  OK(sl_tensor_file_load(ctx, DIGITS, &to));
  for (int64_t i = 0; i < sl_tensor_file_count(from); i++) {
    const char *name = sl_tensor_file_name(from, i);
    sl_tensor *t = sl_tensor_file_tensor(from, i), *zeros;
    if (strncmp(name, "model.", 6) != 0) continue;
    char ema[160];
    snprintf(ema, sizeof ema, "ema.0.5.%s", name + 6);
    OK(sl_tensor_zeros(ctx, NULL, sl_tensor_dtype(t), sl_tensor_shape(t), &zeros));
    OK(sl_tensor_file_add(to, ema, zeros));
    sl_tensor_release(zeros);
    snprintf(ema, sizeof ema, "ema.0.999.%s", name + 6);
    OK(sl_tensor_file_add(to, ema, t));
  }
  OK(sl_tensor_file_set_meta(to, "ema", "[\"0.5\",\"0.999\"]"));
  OK(sl_tensor_file_set_meta(to, "sample", sample));
  OK(sl_tensor_file_save(path, to));
  sl_tensor_file_free(from);
  sl_tensor_file_free(to);
}

/* The images that a checkpoint's stored settings give, against those of the digits' own weights. */
static bool draws_as_the_digits(const char *sample) {
  sl_model *digits, *m;
  sl_tensor *a, *b;
  write_averages(at("ema"), sample);
  OK(sl_model_load(ctx, DIGITS, &digits));
  OK(sl_model_load(ctx, at("ema"), &m));
  assert_int_equal(sl_sample_averages(m), 2);
  sl_sample_options o = sl_sample_defaults(m);
  o.n = 1;
  o.steps = 2;
  OK(sl_sample(m, &o, &b));
  o.weights = NULL;
  OK(sl_sample(digits, &o, &a));
  bool same = memcmp(row(a, 0), row(b, 0), 784 * sizeof(float)) == 0;
  sl_tensor_release(a);
  sl_tensor_release(b);
  sl_model_release(digits);
  sl_model_release(m);
  return same;
}

static void test_stored_settings_choose_the_average(void **state) {
  (void)state;
  assert_false(draws_as_the_digits("{\"clip\":true}")); /* the first: zeros */
  assert_true(draws_as_the_digits("{\"ema\":0.999,\"columns\":4}"));
  assert_true(draws_as_the_digits("{\"ema\":\"none\"}"));
  sl_model *m;
  sl_tensor *images;
  write_averages(at("ema"), "{\"sampler\":\"mine\"}"); /* loads; what it asks for is not there */
  OK(sl_model_load(ctx, at("ema"), &m));
  FAILS(sl_sample(m, NULL, &images), ARG, "mine");
  sl_model_release(m);
  write_averages(at("ema"), "{\"ema\":0.7}");
  FAILS(sl_model_load(ctx, at("ema"), &m), FORMAT, "ema is 0.7, which is none of the 2 that are there");
}

typedef struct watch {
  int calls, stop_after;
  int64_t last_done, all;
} watch;

static bool on_step(void *user, const sl_sample_step *at_step) {
  watch *w = user;
  w->calls++;
  assert_true(at_step->done == w->last_done + 1 && at_step->i <= at_step->steps && at_step->n == 4);
  w->last_done = at_step->done;
  w->all = at_step->all;
  return w->calls != w->stop_after;
}

static void test_hooks_see_every_step_and_stop(void **state) {
  (void)state;
  sl_model *m;
  sl_tensor *images;
  OK(sl_model_load(ctx, DIGITS, &m));
  watch w = {0};
  sl_sample_options o = few(m, 4);
  o.batch = 2;
  o.step = on_step;
  o.user = &w;
  OK(sl_sample(m, &o, &images));
  sl_tensor_release(images);
  assert_true(w.calls == 6 && w.all == 6);
  w = (watch){.stop_after = 4};
  FAILS(sl_sample(m, &o, &images), CANCELLED, "stopped by its hook after step 4 of 6");
  assert_null(images);
  o.step = NULL;
  sl_context_cancel(ctx);
  assert_int_equal(sl_sample(m, &o, &images), SL_STATUS_CANCELLED);
  sl_context_cancel_clear(ctx);
  sl_model_release(m);
}

static void test_sampling_options_are_checked(void **state) {
  (void)state;
  sl_model *m;
  sl_tensor *images;
  OK(sl_model_load(ctx, DIGITS, &m));
#define WRONG(field, value, code, text)                                                                                \
  do {                                                                                                                 \
    sl_sample_options o = few(m, 2);                                                                                   \
    o.field = value;                                                                                                   \
    FAILS(sl_sample(m, &o, &images), code, text);                                                                      \
  } while (0)
  WRONG(n, 0, ARG, "n is 0");
  WRONG(n, INT64_MAX, ARG, "n is 9223372036854775807, expected 1 to 2147483647");
  WRONG(n, (int64_t)1 << 61, ARG, "expected 1 to 2147483647");
  WRONG(batch, -1, ARG, "batch is -1");
  WRONG(steps, 1001, ARG, "steps is 1001, expected 1 to 1000");
  WRONG(sampler, "dpm9", ARG, "dpm9");
  WRONG(labels, SL_LABELS_LIST, ARG, "label_list is NULL");
  WRONG(labels, (sl_labels)77, ARG, "labels is 77");
  sl_sample_options o = few(m, 2);
  o.labels = SL_LABELS_ONE;
  o.label = 11;
  assert_int_equal(sl_sample(m, &o, &images), SL_STATUS_ARG);
  OK(sl_diffusion_respace(o.diffusion, "10", &o.diffusion));
  FAILS(sl_sample(m, &o, &images), ARG, "respaced already (10 of 1000 steps)");
  sl_diffusion_release(o.diffusion);
  o = few(m, 2);
  OK(sl_tensor_zeros(ctx, NULL, SL_F32, &SL_SHAPE(1, 1, 28, 28), &o.init));
  FAILS(sl_sample(m, &o, &images), ARG, "it would change nothing");
  sl_tensor_release(o.init);
  sl_model_release(m);
  sl_dit_config c = sl_dit_defaults();
  c.channels = 1, c.height = c.width = 8, c.patch = 4, c.hidden = 16, c.depth = 1, c.heads = 2;
  OK(sl_dit_new(ctx, &c, NULL, &m));
  FAILS(sl_sample(m, NULL, &images), ARG, "diffusion is NULL");
  sl_model_release(m);
}

/* Every n-th allocation fails, until one run needs no more of them. */
static void test_failed_allocations_leak_nothing(void **state) {
  (void)state;
  uint64_t blocks = sl_context_memory(ctx).blocks;
  int64_t n = 0;
  for (;; n += n < 100 ? 1 : 37) {
    sl_model *m = NULL;
    sl_tensor *images = NULL;
    sl_context_fail_after(ctx, n);
    sl_status status = sl_model_load(ctx, DIGITS, &m);
    sl_sample_options o = {0};
    if (status == SL_STATUS_OK) o = few(m, 2);
    if (status == SL_STATUS_OK) status = sl_sample(m, &o, &images);
    sl_context_fail_after(ctx, -1);
    sl_tensor_release(images);
    sl_model_release(m);
    assert_true(status == SL_STATUS_OK || (status == SL_STATUS_OOM && strlen(sl_error()) > 0));
    assert_int_equal(sl_context_memory(ctx).blocks, blocks);
    if (status == SL_STATUS_OK) break;
  }
  assert_true(n > 200);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_a_checkpoint_tells_what_it_is),
      cmocka_unit_test(test_what_is_no_checkpoint_is_refused),
      cmocka_unit_test(test_a_run_gives_its_newest_whole_checkpoint),
      cmocka_unit_test(test_a_checkpoint_that_goes_meanwhile_is_no_fault),
      cmocka_unit_test(test_an_image_depends_on_seed_and_number),
      cmocka_unit_test(test_stored_settings_choose_the_average),
      cmocka_unit_test(test_hooks_see_every_step_and_stop),
      cmocka_unit_test(test_sampling_options_are_checked),
      cmocka_unit_test(test_failed_allocations_leak_nothing),
  };
  return cmocka_run_group_tests(tests, setup_folder, teardown_folder);
}
