/* Channels-last images inside a graph: a small U-Net's worth of ops gives the same numbers as with plain images, and
 * the order travels from one convolution to the next without copies. */
#include "on_context.h"

#include <math.h>
#include <string.h>

#include "graph/program.h"
#include "ops/ops.h"

enum { N = 2, C = 8, S = 8, INPUTS = 5 };

static const sl_window same = {.kernel = {3, 3}, .stride = {1, 1}, .dilation = {1, 1}, .pad = {1, 1, 1, 1}};
static const sl_window two = {.kernel = {2, 2}, .stride = {2, 2}, .dilation = {1, 1}};

static int copies; /* contiguous nodes between the two convolutions */

/* in: x, w1, w2, norm weight, scale. Out: y and the gradients of sum(y^2) by all of them. */
static sl_status build(void *user, sl_graph *g, int n_in, sl_value *const *in, int n_out, sl_value **out) {
  (void)user, (void)n_out;
  sl_value *h = sl_conv2d(in[0], in[1], NULL, &same, 1, SL_F32);
  int before = sl_graph_node_count(g);
  sl_value *skip = h;
  sl_group_norm_parts parts = {.w = in[3], .scale = in[4], .shift = in[4]};
  h = sl_group_norm(h, &parts, 4, 1e-5, SL_ACT_SILU);
  h = sl_dropout(h, 0.3, 2);
  h = sl_add(sl_mul_scalar(h, 0.5), skip);
  h = sl_cat(2, (sl_value *[]){h, skip}, 1);
  h = sl_add(sl_slice(h, 1, 0, C - 1, 1), sl_slice(h, 1, C, 2 * C - 1, 1));
  h = sl_upsample(sl_avg_pool2d(h, &two, true), 2);
  h = sl_downsample(sl_upsample(sl_add(h, sl_silu(skip)), 2), 2);
  h = sl_upsample(sl_max_pool2d(h, &two), 2);
  int after = sl_graph_node_count(g);
  h = sl_conv2d(h, in[2], NULL, &same, 1, SL_F32);
  copies = 0;
  for (int i = before; i < after; i++) copies += sl_graph_node(g, i)->op == sl_op_find("contiguous");
  out[0] = h;
  return sl_grad(g, sl_sum(sl_square(h), 0, NULL, false), NULL, n_in, in, false, out + 1);
}

static void run(sl_isa isa, sl_tensor *const *in, sl_tensor **out) {
  sl_eager *e = NULL;
  sl_context_set_isa(ctx, isa);
  OK(sl_eager_new(ctx, 2, &e));
  OK(sl_eager_call(e, "unet", 4, build, NULL, INPUTS, in, NULL, INPUTS + 1, out));
  sl_eager_free(e);
}

static void test_orders_agree(void **state) {
  (void)state;
  const sl_shape shape[INPUTS] = {{4, {N, 3, S, S}}, {4, {C, 3, 3, 3}}, {4, {5, C, 3, 3}}, {1, {C}}, {2, {N, C}}};
  sl_tensor *in[INPUTS], *plain[INPUTS + 1], *last[INPUTS + 1];
  for (int k = 0; k < INPUTS; k++) {
    OK(sl_tensor_new(ctx, NULL, SL_F32, &shape[k], &in[k]));
    for (int64_t i = 0; i < sl_tensor_numel(in[k]); i++) ((float *)sl_tensor_data(in[k]))[i] = sinf((float)(i * 7 + k));
  }
  run(SL_ISA_BASE, in, plain);
  run(sl_isa_machine(), in, last);
  if (sl_isa_machine() >= SL_ISA_AVX512) {
    assert_int_equal(copies, 0);
  } else {
    print_message("channels last is not preferred on this machine: both runs were plain\n");
  }
  for (int k = 0; k <= INPUTS; k++) {
    double error = 0, norm = 0;
    assert_true(sl_shape_equal(sl_tensor_shape(plain[k]), sl_tensor_shape(last[k])));
    for (int64_t i = 0; i < sl_tensor_numel(plain[k]); i++) {
      double d = sl_tensor_at(plain[k], i) - sl_tensor_at(last[k], i);
      error += d * d;
      norm += sl_tensor_at(plain[k], i) * sl_tensor_at(plain[k], i);
    }
    if (!(sqrt(error) <= 1e-5 * sqrt(norm))) fail_msg("output %d is off by %g of %g", k, sqrt(error), sqrt(norm));
    sl_tensor_release(plain[k]);
    sl_tensor_release(last[k]);
  }
  for (int k = 0; k < INPUTS; k++) sl_tensor_release(in[k]);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_orders_agree)};
  return cmocka_run_group_tests(tests, setup, teardown);
}
