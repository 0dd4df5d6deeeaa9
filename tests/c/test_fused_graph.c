/* adaLN and the gated residual as DTR's block puts them together, through graphs: gradients against differences of the
 * loss, with and without mask and skip, kept or computed again; both in one op; and what is refused. */
#include "on_context.h"

#include "fused_case.h"
#include "ops/ops.h"
#include "ops/residual_adaln.h"

enum { N = 2, T = 35, C = 12, INPUTS = 4, OUTPUTS = 3 };
static const char *const names[INPUTS] = {"x", "mod", "mask", "dy"};

static sl_value *block(sl_value *x, sl_value *mod, sl_value *mask, bool skip) {
  sl_value *part = sl_chunk(mod, 6, -1);
  sl_value *h = sl_adaln(x, sl_output(part, 0), sl_output(part, 1), mask, 1e-6);
  sl_value *r = sl_gated_residual(x, h, sl_output(part, 2), mask, NULL);
  h = sl_adaln(r, sl_output(part, 3), sl_output(part, 4), NULL, 1e-6);
  return sl_gated_residual(r, h, sl_output(part, 5), mask, skip ? x : NULL);
}

/* Two blocks and a last norm. In one: each residual with the norm after it. */
static sl_value *chain(sl_value *x, sl_value *mod, sl_value *mask, bool skip, bool in_one) {
  sl_value *part = sl_chunk(mod, 6, -1), *z = x;
  sl_value *h = sl_adaln(x, sl_output(part, 0), sl_output(part, 1), mask, 1e-6);
  for (int i = 0; i < 2; i++) {
    sl_value *next = i == 0 ? mask : NULL;
    if (in_one) {
      sl_residual_adaln_parts mid = {sl_output(part, 2), mask, NULL, sl_output(part, 3), sl_output(part, 4), NULL};
      sl_value *r = sl_residual_adaln(z, sl_gelu(h), &mid, 1e-6);
      sl_residual_adaln_parts end = {sl_output(part, 5), mask, skip ? z : NULL, sl_output(part, 0),
                                     sl_output(part, 1), next};
      z = sl_residual_adaln(r, sl_gelu(sl_output(r, 1)), &end, 1e-6);
      h = sl_output(z, 1);
    } else {
      sl_value *r = sl_gated_residual(z, sl_gelu(h), sl_output(part, 2), mask, NULL);
      h = sl_adaln(r, sl_output(part, 3), sl_output(part, 4), NULL, 1e-6);
      z = sl_gated_residual(r, sl_gelu(h), sl_output(part, 5), mask, skip ? z : NULL);
      h = sl_adaln(z, sl_output(part, 0), sl_output(part, 1), next, 1e-6);
    }
  }
  return h;
}

/* Gradients of the chain by x and mod, whose bits must not depend on how it is written; *restored: how many backward
 * passes put the skip's part back from the gradient that they read anyway. */
static void chain_gradients(bool masked, bool skip, bool in_one, sl_recompute recompute, sl_dtype stream, float *dx,
                            float *dmod, int *restored) {
  sl_graph *g = NULL;
  sl_program *p = NULL;
  OK(sl_graph_new(ctx, &g));
  const sl_shape big = SL_SHAPE(N, T, C), six = SL_SHAPE(N, 6 * C), rows = SL_SHAPE(N, C);
  sl_value *x = sl_input(g, "x", SL_F32, &big), *mod = sl_input(g, "mod", SL_F32, &six),
           *mask = sl_input(g, "mask", SL_U8, &rows), *d[2];
  sl_value *y = chain(sl_cast(x, stream), sl_cast(mod, stream), masked ? mask : NULL, skip, in_one);
  y = sl_cast(y, SL_F32);
  sl_value *loss = sl_sum(sl_mul(y, sl_square(y)), 0, NULL, false);
  OK(sl_grad(g, loss, NULL, 2, (sl_value *[]){x, mod}, recompute, d));
  sl_graph_output(g, "dx", d[0]);
  sl_graph_output(g, "dmod", d[1]);
  *restored = 0;
  for (int i = 0; i < sl_graph_node_count(g); i++) {
    const sl_node *n = sl_graph_node(g, i);
    *restored += n->op == sl_op_find("residual_adaln_backward") && n->attrs.i[0] == SL_SHARE_RESTORED;
  }
  OK(sl_graph_compile(g, NULL, &p));
  sl_graph_release(g);
  sl_tensor *in[3], *out[2];
  const sl_shape *shape[] = {&big, &six, &rows};
  uint64_t seed = 8;
  for (int k = 0; k < 3; k++) {
    OK(sl_tensor_new(ctx, NULL, k == 2 ? SL_U8 : SL_F32, shape[k], &in[k]));
    for (int64_t i = 0; i < sl_tensor_numel(in[k]); i++) {
      const double value = fused_random(&seed);
      if (k == 2) ((uint8_t *)sl_tensor_data(in[k]))[i] = value > -0.3;
      else ((float *)sl_tensor_data(in[k]))[i] = (float)value;
    }
  }
  OK(sl_program_call(p, &(sl_run){.inputs = in}, 2, out));
  memcpy(dx, sl_tensor_data(out[0]), sizeof(float) * N * T * C);
  memcpy(dmod, sl_tensor_data(out[1]), sizeof(float) * N * 6 * C);
  for (int k = 0; k < 3; k++) sl_tensor_release(in[k]);
  for (int k = 0; k < 2; k++) sl_tensor_release(out[k]);
  sl_program_free(p);
}

static void one_op(void **state) {
  (void)state;
  static float dx[2][N * T * C], dmod[2][N * 6 * C];
  for (int v = 0; v < 16; v++) {
    bool masked = v & 1, skip = v & 2;
    sl_recompute recompute = v & 4 ? SL_RECOMPUTE_LIGHT : SL_RECOMPUTE_NONE;
    sl_dtype stream = v & 8 ? SL_BF16 : SL_F32;
    int restored[2];
    for (int k = 0; k < 2; k++)
      chain_gradients(masked, skip, k, k ? recompute : SL_RECOMPUTE_NONE, stream, dx[k], dmod[k], &restored[k]);
    if (memcmp(dx[0], dx[1], sizeof dx[0])) fail_msg("variant %d: dx differs", v);
    if (memcmp(dmod[0], dmod[1], sizeof dmod[0])) fail_msg("variant %d: dmod differs", v);
    assert_int_equal(restored[0], 0);
    assert_int_equal(restored[1], masked && skip ? 2 : 0);
  }
}

static sl_program *build(bool masked, bool skip, bool recompute) {
  sl_graph *g = NULL;
  sl_program *p = NULL;
  OK(sl_graph_new(ctx, &g));
  const sl_shape stream = SL_SHAPE(N, T, C), six = SL_SHAPE(N, 6 * C), one = SL_SHAPE(1, C), rows = SL_SHAPE(N, C);
  sl_value *x = sl_input(g, names[0], SL_F32, &stream), *mod = sl_input(g, names[1], SL_F32, &six);
  sl_value *mask = sl_expand(sl_input(g, names[2], SL_U8, &one), &rows), *dy = sl_input(g, names[3], SL_F32, &stream),
           *d[2];
  if (recompute) sl_segment_begin(g);
  sl_value *y = block(x, mod, masked ? mask : NULL, skip);
  if (recompute) sl_segment_end(g);
  sl_value *loss = sl_sum(sl_mul(y, dy), 0, NULL, false);
  OK(sl_grad(g, loss, NULL, 2, (sl_value *[]){x, mod}, recompute, d));
  sl_graph_output(g, "loss", loss);
  sl_graph_output(g, "dx", d[0]);
  sl_graph_output(g, "dmod", d[1]);
  OK(sl_graph_compile(g, &(sl_compile_options){.checked = true}, &p));
  sl_graph_release(g);
  return p;
}

typedef struct bindings {
  sl_tensor *in[INPUTS], *at[INPUTS], *out[OUTPUTS];
} bindings;

static bindings bind(const sl_program *p) {
  bindings b;
  uint64_t seed = 5;
  const sl_shape in[INPUTS] = {SL_SHAPE(N, T, C), SL_SHAPE(N, 6 * C), SL_SHAPE(1, C), SL_SHAPE(N, T, C)};
  const sl_shape out[OUTPUTS] = {{0}, SL_SHAPE(N, T, C), SL_SHAPE(N, 6 * C)};
  for (int k = 0; k < INPUTS; k++) {
    OK(sl_tensor_new(ctx, NULL, k == 2 ? SL_U8 : SL_F32, &in[k], &b.in[k]));
    b.at[sl_program_input(p, names[k])] = b.in[k];
    for (int64_t i = 0; i < sl_tensor_numel(b.in[k]); i++) {
      const double value = fused_random(&seed);
      if (k == 2) ((uint8_t *)sl_tensor_data(b.in[k]))[i] = value > -0.3;
      else ((float *)sl_tensor_data(b.in[k]))[i] = (float)value;
    }
  }
  for (int k = 0; k < OUTPUTS; k++) OK(sl_tensor_new(ctx, NULL, SL_F32, &out[k], &b.out[k]));
  return b;
}

static double loss_of(sl_program *p, const bindings *b) {
  OK(sl_program_run(p, &(sl_run){.inputs = b->at, .outputs = b->out}));
  return sl_tensor_at(b->out[0], 0);
}

static void check_gradient(sl_program *p, const bindings *b, int which) {
  const int64_t n = sl_tensor_numel(b->in[which]);
  float *x = sl_tensor_data(b->in[which]), *gradient = fused_buffer((size_t)n * sizeof *gradient);
  (void)loss_of(p, b);
  memcpy(gradient, sl_tensor_data(b->out[1 + which]), (size_t)n * sizeof *gradient);
  for (int64_t i = 0; i < n; i += 5) {
    const float keep = x[i], e = 0.01f;
    x[i] = keep + e;
    const double above = loss_of(p, b);
    x[i] = keep - e;
    const double below = loss_of(p, b), expected = (above - below) / (2.0 * (double)e);
    x[i] = keep;
    if (!(fabs((double)gradient[i] - expected) <= 0.03))
      fail_msg("d %s[%lld] is %g, expected %g", names[which], (long long)i, (double)gradient[i], expected);
  }
  free(gradient);
}

static void gradients(void **state) {
  (void)state;
  for (int v = 0; v < 8; v++) {
    sl_program *p = build(v & 1, v & 2, v & 4);
    bindings b = bind(p);
    check_gradient(p, &b, 0);
    check_gradient(p, &b, 1);
    for (int k = 0; k < INPUTS; k++) sl_tensor_release(b.in[k]);
    for (int k = 0; k < OUTPUTS; k++) sl_tensor_release(b.out[k]);
    sl_program_free(p);
  }
}

static void refused(sl_graph *g, sl_value *v, sl_status s, const char *text) {
  assert_null(v);
  assert_int_equal(sl_graph_status(g), s);
  assert_string_equal(sl_error(), text);
  sl_graph_release(g);
}

static void bad(void **state) {
  (void)state;
  const sl_shape stream = SL_SHAPE(N, T, C), wide = SL_SHAPE(N, C + 1), rows = SL_SHAPE(N, C);
  sl_graph *g = NULL;
  OK(sl_graph_new(ctx, &g));
  sl_value *x = sl_input(g, "x", SL_F32, &stream), *r = sl_input(g, "r", SL_F32, &rows),
           *w = sl_input(g, "w", SL_F32, &wide);
  refused(g, sl_adaln(x, r, w, NULL, 1e-6), SL_STATUS_SHAPE,
          "adaln: scale is f32 [2,13], expected [2,12] for x f32 [2,35,12]");
  OK(sl_graph_new(ctx, &g));
  x = sl_input(g, "x", SL_F32, &stream), r = sl_input(g, "r", SL_F32, &rows);
  refused(g, sl_gated_residual(x, x, r, r, NULL), SL_STATUS_DTYPE, "gated_residual: mask is f32 [2,12], expected u8");
  OK(sl_graph_new(ctx, &g));
  x = sl_input(g, "x", SL_F32, &stream), r = sl_input(g, "r", SL_F32, &rows);
  refused(g, sl_adaln(x, r, r, NULL, 0.0), SL_STATUS_ARG, "adaln: eps is 0, expected more than 0");
  OK(sl_graph_new(ctx, &g));
  r = sl_input(g, "r", SL_I32, &stream);
  refused(g, sl_adaln(r, r, r, NULL, 1e-6), SL_STATUS_DTYPE, "adaln: x is i32 [2,35,12], expected f32 or bf16");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(gradients), cmocka_unit_test(one_op), cmocka_unit_test(bad)};
  return cmocka_run_group_tests(tests, setup, teardown);
}
