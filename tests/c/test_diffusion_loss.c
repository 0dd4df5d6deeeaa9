/* The losses of training, computed in one pass, against the same composed of nodes, for real schedules: values and
 * gradients. */
#include "on_context.h"

#include <math.h>
#include <stdio.h>

#include "diffusion/process.h"
#include "ops/ops.h"

enum { N = 12, C = 2, H = 3, W = 5, M = C * H * W };
static const int64_t timesteps[N] = {0, 999, 0, 1, 500, 0, 2, 10, 998, 100, 0, 900};

/* --- both forms in one graph --- */

enum { OUT, X0, XT, T, NOISE, SEED, WEIGHT, INPUTS };
enum { VALUES = 3, GRADIENTS = 4, HALF = VALUES + GRADIENTS };

/* The bound trains the variance alone: its mean is made of a prediction through which no gradient passes. */
static sl_losses composed(sl_diffusion *d, sl_value *const *in) {
  sl_value *out = in[OUT], *prediction = sl_diffusion_prediction(d, out);
  sl_losses l = {0};
  l.mse = sl_mean_rest(sl_square(sl_sub(sl_diffusion_target(d, in[X0], in[T], in[NOISE]), prediction)));
  if (in[WEIGHT]) l.mse = sl_mul(l.mse, sl_gather(in[WEIGHT], in[T]));
  l.loss = l.mse;
  if (d->variance != SL_VARIANCE_LEARNED) return l;
  sl_value *stopped = sl_cat(2, (sl_value *[]){sl_detach(prediction), sl_slice(out, 1, C, 2 * C - 1, 1)}, 1);
  l.vb = sl_vb_bpd(d, stopped, in[X0], in[XT], in[T], false);
  l.loss = sl_add(l.mse, l.vb);
  return l;
}

static sl_status give(sl_graph *g, sl_losses l, sl_value *const *in, sl_value **out) {
  sl_value *wrt[GRADIENTS] = {in[OUT], in[X0], in[XT], in[NOISE]};
  out[0] = l.loss, out[1] = l.mse;
  out[2] = l.vb ? l.vb : sl_mul_scalar(l.mse, 0.0);
  return sl_grad(g, l.loss, in[SEED], GRADIENTS, wrt, SL_RECOMPUTE_NONE, out + VALUES);
}

static sl_status build(void *user, sl_graph *g, int n_in, sl_value *const *given, int n_out, sl_value **out) {
  sl_diffusion *d = user;
  sl_value *in[INPUTS] = {NULL};
  memcpy(in, given, (size_t)n_in * sizeof *in);
  assert_int_equal(n_out, 2 * HALF);
  SL_TRY(give(g, sl_diffusion_losses(d, in[OUT], in[X0], in[XT], in[T], in[NOISE], in[WEIGHT]), in, out));
  return give(g, composed(d, in), in, out + HALF);
}

/* --- inputs --- */

static uint64_t state = 3;
static double draw(void) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (double)(state >> 11) * 0x1p-53;
}
static double draw_normal(void) { return sqrt(-2 * log(draw() + 1e-12)) * cos(6.283185307179586 * draw()); }

static sl_tensor *filled(int64_t channels, double (*value)(void)) {
  sl_tensor *t = NULL;
  OK(sl_tensor_new(ctx, NULL, SL_F32, &SL_SHAPE(N, channels, H, W), &t));
  for (int64_t i = 0; i < sl_tensor_numel(t); i++) ((float *)sl_tensor_data(t))[i] = (float)value();
  return t;
}

/* Of 8 bits, black and white among them often. */
static double draw_pixel(void) {
  double v = floor(draw() * 400) - 70;
  return (v < 0 ? 0 : v > 255 ? 255 : v) / 127.5 - 1;
}
static double draw_seed(void) { return draw() - 0.3; }

/* What the network should say, and how far it is from that: off by nothing, a little, or all of it. */
static sl_status build_target(void *user, sl_graph *g, int n_in, sl_value *const *in, int n_out, sl_value **out) {
  (void)n_in, (void)n_out;
  out[0] = sl_diffusion_target(user, in[0], in[1], in[2]);
  return sl_graph_status(g);
}

static void predict_about(sl_diffusion *d, sl_tensor **in, double off) {
  sl_tensor *target = NULL, *ask[] = {in[X0], in[T], in[NOISE]};
  OK(sl_eager_call(d->programs, "target", 6, build_target, d, 3, ask, NULL, 1, &target));
  int64_t wide = sl_tensor_numel(in[OUT]) / N;
  for (int64_t n = 0; n < N; n++)
    for (int64_t i = 0; i < M; i++) {
      float *out = (float *)sl_tensor_data(in[OUT]) + n * wide + i;
      *out = (float)(sl_tensor_at(target, n * M + i) * (1 - off) + off * *out);
    }
  sl_tensor_release(target);
}

static void make_inputs(sl_diffusion *d, double off, bool weighted, sl_tensor **in) {
  bool learned = d->variance == SL_VARIANCE_LEARNED;
  in[OUT] = filled(learned ? 2 * C : C, draw_normal);
  in[X0] = filled(C, draw_pixel);
  in[NOISE] = filled(C, draw_normal);
  OK(sl_tensor_from(ctx, SL_I64, 1, (int64_t[]){N}, timesteps, &in[T]));
  OK(sl_tensor_new(ctx, NULL, SL_F32, &SL_SHAPE(N), &in[SEED]));
  for (int64_t n = 0; n < N; n++) ((float *)sl_tensor_data(in[SEED]))[n] = (float)draw_seed();
  OK(sl_diffusion_call(d, SL_FN_Q_SAMPLE, (sl_diffusion_options){0}, (sl_tensor *[]){in[X0], in[T], in[NOISE]},
                       &in[XT]));
  predict_about(d, in, off);
  in[WEIGHT] = NULL;
  if (!weighted) return;
  OK(sl_tensor_new(ctx, NULL, SL_F32, &SL_SHAPE(d->steps), &in[WEIGHT]));
  for (int64_t i = 0; i < d->steps; i++) ((float *)sl_tensor_data(in[WEIGHT]))[i] = (float)(2 * draw());
}

/* --- comparing --- */

static const char *const names[HALF] = {"loss", "mse", "vb", "gradient by out", "by x0", "by xt", "by noise"};

/* By sample. Values are sums of like terms in one order, but for the last sum; a gradient's products go in another. */
static void compare(const char *what, int k, const sl_tensor *mine, const sl_tensor *theirs) {
  int64_t size = sl_tensor_numel(theirs) / N;
  assert_true(sl_shape_equal(sl_tensor_shape(mine), sl_tensor_shape(theirs)));
  double relative = k < VALUES ? 1e-6 : 1e-5, least = k < VALUES ? 1e-7 : 1e-8;
  for (int64_t n = 0; n < N; n++) {
    double error = 0, norm = 0;
    for (int64_t i = n * size; i < (n + 1) * size; i++) {
      double a = sl_tensor_at(mine, i), b = sl_tensor_at(theirs, i);
      error += (a - b) * (a - b), norm += b * b;
    }
    if (!(sqrt(error) <= relative * sqrt(norm) + least))
      fail_msg("%s, %s at t = %d: off by %g of %g", what, names[k], (int)timesteps[n], sqrt(error), sqrt(norm));
  }
}

static void check(sl_diffusion *d, const char *what, sl_tensor **in) {
  sl_tensor *out[2 * HALF] = {NULL};
  for (int isa = SL_ISA_BASE; isa <= (int)sl_isa_machine(); isa++) {
    sl_context_set_isa(ctx, (sl_isa)isa);
    sl_eager *fresh = NULL;
    OK(sl_eager_new(ctx, 2, &fresh));
    OK(sl_eager_call(fresh, "losses", 6, build, d, in[WEIGHT] ? INPUTS : WEIGHT, in, NULL, 2 * HALF, out));
    for (int k = 0; k < HALF; k++) compare(what, k, out[k], out[HALF + k]);
    for (int k = 0; k < 2 * HALF; k++) sl_tensor_release(out[k]);
    sl_eager_free(fresh);
  }
}

static void check_process(const char *schedule, sl_predict predict, sl_variance variance) {
  static const double off[] = {0, 0.01, 1};
  sl_schedule *s = NULL;
  sl_diffusion *d = NULL;
  char what[96];
  OK(sl_schedule_named(ctx, schedule, 1000, &s));
  OK(sl_diffusion_new(ctx, s, 1000, predict, variance, &d));
  for (int k = 0; k < 6; k++) {
    sl_tensor *in[INPUTS];
    snprintf(what, sizeof what, "%s, predict %d, variance %d, off by %g", schedule, (int)predict, (int)variance,
             off[k / 2]);
    make_inputs(d, off[k / 2], k % 2, in);
    check(d, what, in);
    for (int i = 0; i < INPUTS; i++) sl_tensor_release(in[i]);
  }
  sl_diffusion_release(d);
}

static void test_as_composed(void **unused) {
  (void)unused;
  for (int predict = SL_PREDICT_EPS; predict <= SL_PREDICT_V; predict++)
    for (int variance = SL_VARIANCE_LEARNED; variance <= SL_VARIANCE_FIXED_LARGE; variance++) {
      check_process("linear", (sl_predict)predict, (sl_variance)variance);
      check_process("cosine", (sl_predict)predict, (sl_variance)variance);
    }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_as_composed)};
  return cmocka_run_group_tests(tests, setup, teardown);
}
