/* What a host should not give: NULL where something must be given, numbers that are none of an enum's. Every such call
 * comes back with a status and words. */
#include <math.h>

#include "on_context.h"
#include "sluice.h"

#define DIGITS "models/digits.safetensors"

static sl_model *model;

static int setup_model(void **state) {
  if (setup(state)) return -1;
  OK(sl_model_load(ctx, DIGITS, &model));
  return 0;
}

static int teardown_model(void **state) {
  sl_model_release(model);
  return teardown(state);
}

static void test_paths_and_names(void **state) {
  (void)state;
  sl_tensor *t = NULL, *image;
  sl_dataset *d;
  const sl_device *dev;
  sl_dtype dtype;
  OK(sl_tensor_zeros(ctx, NULL, SL_F32, &SL_SHAPE(1, 4, 4), &t));
  FAILS(sl_image_load(ctx, NULL, &image), ARG, "path is NULL");
  FAILS(sl_png_write(NULL, t, 0), ARG, "path is NULL");
  FAILS(sl_dataset_from_npz(ctx, NULL, &d), ARG, "path is NULL");
  FAILS(sl_dataset_from_folder(ctx, NULL, NULL, &d), ARG, "path is NULL");
  FAILS(sl_dataset_from_pack(ctx, NULL, false, &d), ARG, "path is NULL");
  FAILS(sl_model_save(model, NULL), ARG, "path is NULL");
  FAILS(sl_device_find(ctx, NULL, &dev), ARG, "name is NULL");
  assert_false(sl_dtype_from_name(NULL, &dtype));
  FAILS(sl_dit_preset(NULL, &(sl_dit_config){0}), ARG, "name is NULL");
  FAILS(sl_adm_preset(NULL, &(sl_adm_config){0}), ARG, "name is NULL");
  FAILS(sl_routing_variant_from_name(NULL, &(sl_routing_variant){0}), ARG, "variant is \"NULL\"");
  sl_diffusion *process = sl_sample_defaults(model).diffusion, *respaced;
  FAILS(sl_diffusion_respace(process, NULL, &respaced), ARG, "respacing is NULL");
  assert_null(sl_diffusion_find(process, NULL));
  sl_tensor_release(t);
}

static void test_tensors(void **state) {
  (void)state;
  sl_tensor *t;
  const int64_t dim[] = {2, 3};
  const float data[6] = {0};
  FAILS(sl_tensor_from(ctx, SL_F32, 2, NULL, data, &t), ARG, "dim is NULL");
  FAILS(sl_tensor_from(ctx, SL_F32, 2, dim, NULL, &t), ARG, "data is NULL for shape [2,3]");
  assert_int_not_equal(sl_tensor_from(ctx, (sl_dtype)77, 2, dim, data, &t), SL_STATUS_OK);
  OK(sl_tensor_from(ctx, SL_F32, 2, dim, data, &t));
  assert_true(isnan(sl_tensor_at(t, -1)) && isnan(sl_tensor_at(t, 6)) && sl_tensor_at(t, 5) == 0);
  sl_tensor *part;
  FAILS(sl_tensor_narrow(t, 0, INT64_MAX, INT64_MAX, &part), SHAPE, "narrow");
  sl_tensor_release(t);
}

static void test_models(void **state) {
  (void)state;
  sl_model *m;
  sl_tensor *x, *t, *out, *kept;
  FAILS(sl_dit_new(ctx, NULL, NULL, &m), ARG, "config is NULL");
  FAILS(sl_adm_new(ctx, NULL, NULL, &m), ARG, "config is NULL");
  sl_adm_config c = sl_adm_defaults();
  OK(sl_adm_preset("ADM-64", &c));
  c.mask_at = (sl_adm_mask)77;
  FAILS(sl_adm_new(ctx, &c, NULL, &m), ARG, "mask_at is 77");
  OK(sl_tensor_zeros(ctx, NULL, SL_F32, &SL_SHAPE(1, 1, 28, 28), &x));
  OK(sl_tensor_zeros(ctx, NULL, SL_I64, &SL_SHAPE(1), &t));
  FAILS(sl_model_forward(model, NULL, t, NULL, 0, NULL, &out, NULL), ARG, "x and t must be given");
  FAILS(sl_model_forward(model, x, NULL, NULL, 0, NULL, &out, NULL), ARG, "x and t must be given");
  FAILS(sl_model_forward(model, x, t, NULL, -1, NULL, &out, NULL), ARG, "keep names -1 values");
  FAILS(sl_model_forward(model, x, t, NULL, 1, NULL, &out, &kept), ARG, "keep or kept is NULL");
  FAILS(sl_model_forward(model, x, t, NULL, 1, (const char *const[]){NULL}, &out, &kept), ARG,
        "name 1 to keep is NULL");
  FAILS(sl_model_forward_cfg(model, NULL, t, NULL, 2, 1, &out), ARG, "x must be given");
  FAILS(sl_sample(NULL, NULL, &out), ARG, "model is NULL");
  sl_tensor_release(x);
  sl_tensor_release(t);
}

static void test_routings(void **state) {
  (void)state;
  sl_routing *r;
  FAILS(sl_routing_from_tables(ctx, 1, NULL, &r), ARG, "no tables");
  FAILS(sl_routing_custom(ctx, NULL, NULL, NULL, &r), ARG, "the function is missing");
  assert_string_equal(sl_routing_kind_name((sl_routing_kind)77), "?");
  assert_string_equal(sl_routing_variant_name((sl_routing_variant)77), "?");
  assert_int_equal(sl_routing_width(10, 0.55), 5);
  assert_int_equal(sl_routing_width(10, NAN), 0);
  assert_int_equal(sl_routing_width(10, 1e300), 0);
}

static void test_training(void **state) {
  (void)state;
  sl_trainer *tr;
  sl_step_result result;
  FAILS(sl_trainer_new(ctx, NULL, &tr), ARG, "model and diffusion must be given");
  sl_train_options o = sl_train_defaults();
  o.model = model;
  FAILS(sl_trainer_new(ctx, &o, &tr), ARG, "model and diffusion must be given");
  o.diffusion = sl_sample_defaults(model).diffusion;
  o.recompute = (sl_recompute)9;
  FAILS(sl_trainer_new(ctx, &o, &tr), ARG, "recompute is 9");
  o.recompute = SL_RECOMPUTE_NONE;
  OK(sl_tensor_zeros(ctx, NULL, SL_F32, &SL_SHAPE(2, 2), &o.schedule));
  FAILS(sl_trainer_new(ctx, &o, &tr), SHAPE, "schedule is f32 [2,2], expected f32 [steps of training]");
  sl_tensor_release(o.schedule);
  o.schedule = NULL;
  OK(sl_trainer_new(ctx, &o, &tr));
  FAILS(sl_trainer_step_on(tr, NULL, &result), ARG, "the batch is NULL");
  FAILS(sl_trainer_step_on(tr, &(sl_batch){0}, &result), ARG, "x0 is missing");
  assert_null(sl_trainer_array(tr, NULL));
  sl_trainer_free(tr);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_paths_and_names), cmocka_unit_test(test_tensors),
                                     cmocka_unit_test(test_models), cmocka_unit_test(test_routings),
                                     cmocka_unit_test(test_training)};
  return cmocka_run_group_tests(tests, setup_model, teardown_model);
}
