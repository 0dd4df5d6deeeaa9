/* ADM against its definition in double: outputs, and every parameter's gradient against central differences of it, in
 * all forms of resampling and conditioning. The reference's own numbers stand in tests/lua/golden_adm_spec.lua. */
#include <math.h>
#include <string.h>

#include "base/random.h"
#include "naive_adm.h"
#include "on_context.h"

enum { N = 2, SIDE = 4, PIXELS = SIDE * SIDE };

static sl_adm_config small(void) {
  sl_adm_config c = sl_adm_defaults();
  c.image_size = SIDE;
  c.in_channels = 2;
  c.model_channels = 32;
  c.num_res_blocks = 1;
  c.levels = 2;
  c.channel_mult[0] = 1, c.channel_mult[1] = 2;
  c.attentions = 1;
  c.attention_resolutions[0] = 2;
  c.num_heads = 2;
  c.classes = 3;
  c.options.timesteps = 20;
  return c;
}

typedef struct setting {
  bool updown, conv, scale_shift, new_order;
  int head_channels;
  sl_adm_mask mask;
} setting;

static const setting settings[] = {
    {false, true, false, false, 0, SL_ADM_MASK_IN_SILU}, /* convolutional resampling, additive conditioning */
    {false, false, true, true, 16, SL_ADM_MASK_BOTH},    /* plain resampling */
    {true, true, false, false, 32, SL_ADM_MASK_OUT_NORM}, {true, true, true, true, 0, SL_ADM_MASK_IN_NORM},
    {false, false, false, true, 0, SL_ADM_MASK_IN_SILU},
};

static sl_model *make(const setting *s) {
  sl_adm_config c = small();
  sl_routing *routing;
  sl_model *m;
  c.resblock_updown = s->updown;
  c.conv_resample = s->conv;
  c.use_scale_shift_norm = s->scale_shift;
  c.use_new_attention_order = s->new_order;
  c.num_head_channels = s->head_channels;
  c.mask_at = s->mask;
  OK(sl_routing_random(ctx, 0.6, 5, &routing));
  OK(sl_adm_new(ctx, &c, routing, &m));
  sl_routing_release(routing);
  OK(sl_model_init(m, 1));
  return m;
}

/* Weights of which none is on a dead path: what init leaves at 0 or 1 is moved too. */
static void disturb(sl_model *m) {
  sl_tensor *weights;
  OK(sl_model_weights(m, &weights));
  float *w = sl_tensor_data(weights);
  for (int i = 0; i < sl_params_count(m->params); i++) {
    const sl_param *p = sl_params_get(m->params, i);
    int64_t n = sl_shape_numel(&p->shape);
    float *noise = malloc((size_t)n * sizeof *noise);
    sl_random_normal((sl_rng_key){3, SL_STREAM_USER}, (uint32_t)i, 0, 0, n, noise);
    for (int64_t k = 0; k < n; k++) w[p->offset + k] += 0.05f * noise[k];
    free(noise);
  }
  sl_tensor_bump(weights);
}

typedef struct problem {
  sl_model *m;
  sl_tensor *x, *t, *y, *upstream;
  double *params;
  int64_t elements, in, out; /* of the parameters; of an image and of its output */
} problem;

static sl_tensor *normals(uint32_t stream_sample, const sl_shape *shape) {
  sl_tensor *t;
  OK(sl_tensor_new(ctx, NULL, SL_F32, shape, &t));
  sl_random_normal((sl_rng_key){7, SL_STREAM_USER}, stream_sample, 0, 0, sl_tensor_numel(t), sl_tensor_data(t));
  return t;
}

static problem problem_new(const setting *s) {
  problem p = {.m = make(s)};
  const sl_model_info *i = &p.m->info;
  sl_tensor *weights;
  disturb(p.m);
  p.x = normals(1, &SL_SHAPE(N, i->in_channels, SIDE, SIDE));
  p.upstream = normals(2, &SL_SHAPE(N, i->out_channels, SIDE, SIDE));
  OK(sl_tensor_from(ctx, SL_I64, 1, (int64_t[]){N}, (int64_t[]){3, 17}, &p.t));
  OK(sl_tensor_from(ctx, SL_I64, 1, (int64_t[]){N}, (int64_t[]){2, 0}, &p.y));
  OK(sl_model_weights(p.m, &weights));
  p.elements = sl_tensor_numel(weights);
  p.params = malloc((size_t)p.elements * sizeof *p.params);
  for (int64_t k = 0; k < p.elements; k++) p.params[k] = (double)((const float *)sl_tensor_data(weights))[k];
  p.in = i->in_channels * PIXELS;
  p.out = i->out_channels * PIXELS;
  return p;
}

static void problem_free(problem *p) {
  sl_tensor *all[] = {p->x, p->t, p->y, p->upstream};
  for (int i = 0; i < 4; i++) sl_tensor_release(all[i]);
  sl_model_release(p->m);
  free(p->params);
}

/* The definition's output for image n; step: x moves by step * direction. */
static void define(const problem *p, int64_t n, double step, const float *direction, double *out) {
  double x[4 * PIXELS];
  for (int64_t i = 0; i < p->in; i++)
    x[i] = (double)((const float *)sl_tensor_data(p->x))[n * p->in + i] +
           (direction ? step * (double)direction[n * p->in + i] : 0);
  naive_adm(p->m, p->params, x, (int64_t)sl_tensor_at(p->t, n), (int64_t)sl_tensor_at(p->y, n), out);
}

static double loss(const problem *p, double step, const float *direction) {
  double out[8 * PIXELS], sum = 0;
  for (int64_t n = 0; n < N; n++) {
    define(p, n, step, direction, out);
    for (int64_t i = 0; i < p->out; i++)
      sum += out[i] * (double)((const float *)sl_tensor_data(p->upstream))[n * p->out + i];
  }
  return sum;
}

static void check_output(size_t k) {
  problem p = problem_new(&settings[k]);
  sl_tensor *out;
  double defined[8 * PIXELS], error = 0, all = 0;
  OK(sl_model_forward(p.m, p.x, p.t, p.y, 0, NULL, &out, NULL));
  for (int64_t n = 0; n < N; n++) {
    define(&p, n, 0, NULL, defined);
    for (int64_t i = 0; i < p.out; i++) {
      error += pow(sl_tensor_at(out, n * p.out + i) - defined[i], 2);
      all += pow(defined[i], 2);
    }
  }
  if (!(sqrt(error) <= 5e-6 * sqrt(all)))
    fail_msg("setting %zu, %s: off by %g of %g", k, sl_isa_name(sl_context_isa(ctx)), sqrt(error), sqrt(all));
  sl_tensor_release(out);
  problem_free(&p);
}

/* On every path of the machine: images lie otherwise on some. */
static void test_output(void **state) {
  (void)state;
  for (sl_isa isa = SL_ISA_BASE; isa <= sl_isa_machine(); isa++) {
    sl_context_set_isa(ctx, isa);
    for (size_t k = 0; k < sizeof settings / sizeof *settings; k++) check_output(k);
  }
}

#define STEP 1e-5

/* The derivative of the definition's loss along a random direction of parameter i. */
static double difference(problem *p, const sl_param *q, const float *direction) {
  int64_t n = sl_shape_numel(&q->shape);
  double *w = p->params + q->offset, *before = malloc((size_t)n * sizeof *before), side[2];
  memcpy(before, w, (size_t)n * sizeof *before);
  for (int s = 0; s < 2; s++) {
    for (int64_t k = 0; k < n; k++) w[k] = before[k] + (s ? -STEP : STEP) * (double)direction[k];
    side[s] = loss(p, 0, NULL);
  }
  memcpy(w, before, (size_t)n * sizeof *before);
  free(before);
  return (side[0] - side[1]) / (2 * STEP);
}

/* All: the norm of all gradients; directions have length about sqrt(n). */
static void check_slope(const char *name, double slope, const float *gradient, const float *direction, int64_t n,
                        double all) {
  double along = 0, size = 0;
  for (int64_t k = 0; k < n; k++) {
    along += (double)gradient[k] * (double)direction[k];
    size += (double)gradient[k] * (double)gradient[k];
  }
  if (!(fabs(along - slope) <= 1e-4 * sqrt(size) + 2e-6 * all))
    fail_msg("%s: slope %g, the definition's %g, gradient %g of %g", name, along, slope, sqrt(size), all);
}

static void test_gradients(void **state) {
  (void)state;
  for (size_t k = 0; k < sizeof settings / sizeof *settings; k++) {
    problem p = problem_new(&settings[k]);
    sl_tensor *dx, *flat;
    sl_context_set_isa(ctx, k % 2 ? SL_ISA_BASE : sl_isa_machine());
    OK(sl_model_gradients(p.m, p.x, p.t, p.y, p.upstream, &dx, &flat));
    const float *g = sl_tensor_data(flat);
    double all = 0;
    for (int64_t i = 0; i < sl_tensor_numel(flat); i++) all += (double)g[i] * (double)g[i];
    float *direction = malloc((size_t)p.elements * sizeof *direction);
    for (int i = 0; i < sl_params_count(p.m->params); i++) {
      const sl_param *q = sl_params_get(p.m->params, i);
      int64_t n = sl_shape_numel(&q->shape);
      sl_random_normal((sl_rng_key){9, SL_STREAM_USER}, (uint32_t)i, 0, 0, n, direction);
      check_slope(q->name, difference(&p, q, direction), g + q->offset, direction, n, sqrt(all));
    }
    sl_random_normal((sl_rng_key){9, SL_STREAM_USER}, 1000, 0, 0, N * p.in, direction);
    double slope = (loss(&p, STEP, direction) - loss(&p, -STEP, direction)) / (2 * STEP);
    check_slope("x", slope, sl_tensor_data(dx), direction, N * p.in, sqrt(all));
    free(direction);
    sl_tensor_release(dx);
    sl_tensor_release(flat);
    problem_free(&p);
  }
}

static void test_refusals(void **state) {
  (void)state;
  sl_model *m;
  sl_adm_config c = small();
#define WRONG(change, text)                                                                                            \
  do {                                                                                                                 \
    c = small();                                                                                                       \
    change;                                                                                                            \
    FAILS(sl_adm_new(ctx, &c, NULL, &m), ARG, text);                                                                   \
    assert_null(m);                                                                                                    \
  } while (0)
  WRONG(c.image_size = 5, "image_size is 5, expected a multiple of 2");
  WRONG(c.channel_mult[1] = 1.3, "channel_mult[2] = 1.3 of model_channels = 32 makes 41.6 channels");
  WRONG(c.attention_resolutions[0] = 3, "attention_resolutions[1] is 3");
  WRONG(c.num_head_channels = 24, "num_head_channels is 24, expected a divisor of 64");
  WRONG(c.num_heads = 7, "num_heads is 7, expected a divisor of 64");
  WRONG(c.out_channels = 3, "out_channels is 3, expected 2, as in_channels, or 4");
  WRONG(c.num_res_blocks = 0, "num_res_blocks is 0");
  WRONG(c.dropout = 1, "dropout is 1");
  WRONG(c.levels = 0, "channel_mult has 0 entries");
  WRONG((c.classes = 0, c.class_dropout = 0.1), "class_dropout is 0.1, but there are no classes");
  FAILS(sl_adm_preset("ADM-63", &c), ARG, "there is no \"ADM-63\"");
  FAILS(sl_adm_preset("ADM-64-", &c), ARG, "there is no \"ADM-64-\"");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_output), cmocka_unit_test(test_gradients),
                                     cmocka_unit_test(test_refusals)};
  return cmocka_run_group_tests(tests, setup, teardown);
}
