/* A sampler's step in one pass, against the forms that users call composed of nodes, for real schedules: every
 * prediction, variance and rule. */
#include "on_context.h"

#include <math.h>
#include <stdio.h>

#include "diffusion/sampler.h"
#include "ops/ops.h"

enum { N = 8, C = 2, H = 3, W = 5, M = C * H * W };
static const int64_t timesteps[N] = {0, 999, 1, 2, 500, 998, 10, 300};

enum { OUT, X, T, NOISE, SCALE, INPUTS };

typedef struct rule {
  sl_diffusion *d;
  const sl_sampler_kind *kind;
  sl_tensor *rows;
  double eta;
  bool clip, guided;
} rule;

/* In one: outputs 0 and 1; composed: 2 and 3. */
static sl_status build(void *user, sl_graph *g, int n_in, sl_value *const *in, int n_out, sl_value **out) {
  const rule *r = user;
  (void)n_in, (void)n_out;
  bool learned = r->d->variance == SL_VARIANCE_LEARNED, noisy = r->kind->needs_noise(r->eta);
  sl_value *o = in[OUT], *scale = r->guided ? in[SCALE] : NULL;
  out[0] = sl_sampler_update(o, in[X], sl_gather(sl_table(g, "rows", r->rows), in[T]), noisy ? in[NOISE] : NULL, scale,
                             1, learned && r->kind->own_variance, r->clip);
  out[1] = sl_output(out[0], 1);
  if (r->guided) { /* the first channel */
    sl_value *with = sl_slice(o, 0, 0, N - 1, 1), *without = sl_slice(o, 0, N, 2 * N - 1, 1);
    sl_value *a = sl_slice(with, 1, 0, 0, 1), *b = sl_slice(without, 1, 0, 0, 1);
    o = sl_cat(2, (sl_value *[]){sl_add(b, sl_mul(scale, sl_sub(a, b))), sl_slice(with, 1, 1, -1, 1)}, 1);
  }
  out[2] = r->kind == &sl_sampler_ddpm ? sl_p_sample(r->d, o, in[X], in[T], in[NOISE], r->clip, &out[3])
                                       : sl_ddim_sample(r->d, o, in[X], in[T], in[NOISE], r->eta, r->clip, &out[3]);
  return sl_graph_status(g);
}

static uint64_t state = 5;
static double draw(void) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (double)(state >> 11) * 0x1p-53;
}
static float draw_normal(void) { return (float)(sqrt(-2 * log(draw() + 1e-12)) * cos(6.283185307179586 * draw())); }

static sl_tensor *normals(int64_t n, int64_t channels) {
  sl_tensor *t = NULL;
  OK(sl_tensor_new(ctx, NULL, SL_F32, &SL_SHAPE(n, channels, H, W), &t));
  for (int64_t i = 0; i < sl_tensor_numel(t); i++) ((float *)sl_tensor_data(t))[i] = draw_normal();
  return t;
}

/* By sample. ddim's composed form takes 1 - alphas_cumprod from floats, which leaves it few digits near t = 0. */
static void compare(const char *what, const char *name, double tolerance, const sl_tensor *mine,
                    const sl_tensor *theirs) {
  for (int64_t n = 0; n < N; n++) {
    double error = 0, norm = 0;
    for (int64_t i = n * M; i < (n + 1) * M; i++) {
      double a = sl_tensor_at(mine, i), b = sl_tensor_at(theirs, i);
      error += (a - b) * (a - b), norm += b * b;
    }
    if (!(sqrt(error) <= tolerance * sqrt(norm) + 1e-6))
      fail_msg("%s, %s at t = %d: off by %g of %g", what, name, (int)timesteps[n], sqrt(error), sqrt(norm));
  }
}

static void check(const rule *r, const char *what) {
  int64_t rows = r->guided ? 2 * N : N, channels = r->d->variance == SL_VARIANCE_LEARNED ? 2 * C : C;
  sl_tensor *in[INPUTS] = {normals(rows, channels), normals(N, C), NULL, normals(N, C), NULL}, *out[4] = {NULL};
  float scale = 1.5f;
  OK(sl_tensor_from(ctx, SL_I64, 1, (int64_t[]){N}, timesteps, &in[T]));
  OK(sl_tensor_from(ctx, SL_F32, 0, NULL, &scale, &in[SCALE]));
  sl_eager *fresh = NULL;
  OK(sl_eager_new(ctx, 2, &fresh));
  OK(sl_eager_call(fresh, "step", 4, build, (void *)(uintptr_t)r, INPUTS, in, NULL, 4, out));
  compare(what, "next", r->kind == &sl_sampler_ddpm ? 2e-5 : 2e-3, out[0], out[2]);
  compare(what, "x0", 2e-5, out[1], out[3]);
  for (int i = 0; i < INPUTS; i++) sl_tensor_release(in[i]);
  for (int i = 0; i < 4; i++) sl_tensor_release(out[i]);
  sl_eager_free(fresh);
}

static void check_rule(sl_diffusion *d, const char *schedule, const sl_sampler_kind *kind, double eta) {
  rule r = {.d = d, .kind = kind, .eta = eta};
  char what[128];
  OK(sl_sampler_rows(kind, d, d->steps, eta, &r.rows));
  for (int k = 0; k < 4; k++) {
    r.clip = k & 1, r.guided = k & 2;
    snprintf(what, sizeof what, "%s, %s, eta %g, predict %d, variance %d%s%s", kind->name, schedule, eta,
             (int)d->predict, (int)d->variance, r.clip ? ", clipped" : "", r.guided ? ", guided" : "");
    check(&r, what);
  }
  sl_tensor_release(r.rows);
}

static void test_as_composed(void **unused) {
  static const char *const schedules[] = {"linear", "cosine"};
  (void)unused;
  for (int k = 0; k < 2 * 9; k++) {
    sl_schedule *s = NULL;
    sl_diffusion *d = NULL;
    OK(sl_schedule_named(ctx, schedules[k / 9], 1000, &s));
    OK(sl_diffusion_new(ctx, s, 1000, (sl_predict)(k % 3), (sl_variance)(k / 3 % 3), &d));
    check_rule(d, schedules[k / 9], &sl_sampler_ddpm, 0);
    check_rule(d, schedules[k / 9], &sl_sampler_ddim, 0);
    check_rule(d, schedules[k / 9], &sl_sampler_ddim, 0.7);
    check_rule(d, schedules[k / 9], &sl_sampler_ddim, 1);
    sl_diffusion_release(d);
  }
}

static void test_eta_too_large(void **unused) {
  sl_schedule *s = NULL;
  sl_diffusion *d = NULL;
  sl_tensor *rows = NULL;
  (void)unused;
  OK(sl_schedule_named(ctx, "cosine", 1000, &s));
  OK(sl_diffusion_new(ctx, s, 1000, SL_PREDICT_EPS, SL_VARIANCE_LEARNED, &d));
  FAILS(sl_sampler_rows(&sl_sampler_ddim, d, d->steps, 3, &rows), ARG, "eta is 3, too much for ddim at step");
  assert_null(rows);
  FAILS(sl_sampler_rows(&sl_sampler_ddim, d, d->steps, 1.2, &rows), ARG, "eta is 1.2, too much for ddim at step 2 of");
  OK(sl_sampler_rows(&sl_sampler_ddim, d, 100, 1.2, &rows)); /* of the steps that are taken */
  sl_tensor_release(rows);
  sl_diffusion_release(d);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_as_composed), cmocka_unit_test(test_eta_too_large)};
  return cmocka_run_group_tests(tests, setup, teardown);
}
