/* Attention against its definition: cross lengths, hidden keys, causal, strided and packed inputs, any head width. */
#include "naive_case.h"

typedef struct heads {
  int64_t N, Tq, Tk, H, D;
  bool causal;
  double scale; /* 0: 1/sqrt(D) */
  int layout;   /* 0 [N,T,H,D]; 1 given as [N,H,T,D]; 2 given as [N,T,D,H]; 3 packed [N,T,3,H,D] */
} heads;

/* Where element (n, t, h, d) lies in an input of that layout. */
static int64_t place(const heads *s, int64_t T, int64_t n, int64_t t, int64_t h, int64_t d) {
  if (s->layout == 1) return ((n * s->H + h) * T + t) * s->D + d;
  if (s->layout == 2) return ((n * T + t) * s->D + d) * s->H + h;
  return ((n * T + t) * s->H + h) * s->D + d;
}

/* scores [Tk] of one query become probabilities; false if it sees no key. */
static bool probabilities(const heads *s, const double *mask, int64_t n, int64_t i, double *p) {
  double top = -INFINITY, sum = 0;
  for (int64_t t = 0; t < s->Tk; t++) {
    if ((mask && mask[n * s->Tk + t] == 0) || (s->causal && t > i + s->Tk - s->Tq)) p[t] = -INFINITY;
    if (p[t] > top) top = p[t];
  }
  if (top == -INFINITY) return false;
  for (int64_t t = 0; t < s->Tk; t++) sum += p[t] = exp(p[t] - top);
  for (int64_t t = 0; t < s->Tk; t++) p[t] /= sum;
  return true;
}

typedef struct reading { /* element (n, t, h, 0) of q, k, v, and how far the next one is */
  const double *q, *k, *v;
  int64_t q_step[4], k_step[4];
} reading;

static void attend(const heads *s, reading r, const double *mask, double *y) {
  double *p = malloc(sizeof(double) * (size_t)(s->Tk + 1)), scale = s->scale != 0 ? s->scale : 1 / sqrt((double)s->D);
  assert_non_null(p);
  for (int64_t at = 0; at < s->N * s->Tq * s->H; at++, y += s->D) {
    int64_t n = at / (s->Tq * s->H), i = at / s->H % s->Tq, h = at % s->H;
    const double *q = r.q + n * r.q_step[0] + i * r.q_step[1] + h * r.q_step[2];
    int64_t base = n * r.k_step[0] + h * r.k_step[2];
    for (int64_t t = 0; t < s->Tk; t++) {
      p[t] = 0;
      for (int64_t d = 0; d < s->D; d++)
        p[t] += scale * q[d * r.q_step[3]] * r.k[base + t * r.k_step[1] + d * r.k_step[3]];
    }
    bool any = probabilities(s, mask, n, i, p);
    for (int64_t d = 0; d < s->D; d++) {
      y[d] = 0;
      for (int64_t t = 0; any && t < s->Tk; t++) y[d] += p[t] * r.v[base + t * r.k_step[1] + d * r.k_step[3]];
    }
  }
  free(p);
}

static void define_apart(const heads *s, double *const *in, const double *mask, double *y) {
  reading r = {in[0], in[1], in[2], {0}, {0}};
  for (int i = 0; i < 4; i++) {
    r.q_step[i] = place(s, s->Tq, i == 0, i == 1, i == 2, i == 3);
    r.k_step[i] = place(s, s->Tk, i == 0, i == 1, i == 2, i == 3);
  }
  attend(s, r, mask, y);
}

static void define_plain(const void *of, double *const *in, double *y) { define_apart(of, in, NULL, y); }
static void define_masked(const void *of, double *const *in, double *y) { define_apart(of, in, in[3], y); }

static void define_packed(const void *of, double *const *in, double *y) {
  const heads *s = of;
  int64_t C = s->H * s->D;
  attend(s,
         (reading){in[0], in[0] + C, in[0] + 2 * C, {s->Tq * 3 * C, 3 * C, s->D, 1}, {s->Tk * 3 * C, 3 * C, s->D, 1}},
         NULL, y);
}

static sl_value *as_heads(const heads *s, sl_value *v) {
  if (s->layout == 1) return SL_PERMUTE(v, 0, 2, 1, 3);
  return s->layout == 2 ? SL_PERMUTE(v, 0, 1, 3, 2) : v;
}

static sl_value *build_plain(const void *of, sl_value *const *in) {
  const heads *s = of;
  return sl_attention(as_heads(s, in[0]), as_heads(s, in[1]), as_heads(s, in[2]), NULL, s->scale, s->causal);
}

static sl_value *build_masked(const void *of, sl_value *const *in) {
  const heads *s = of;
  return sl_attention(as_heads(s, in[0]), as_heads(s, in[1]), as_heads(s, in[2]), in[3], s->scale, s->causal);
}

static sl_value *build_packed(const void *of, sl_value *const *in) {
  return sl_attention_qkv(in[0], ((const heads *)of)->scale);
}

static sl_shape laid_out(const heads *s, int64_t T) {
  if (s->layout == 1) return SL_SHAPE(s->N, s->H, T, s->D);
  return s->layout == 2 ? SL_SHAPE(s->N, T, s->D, s->H) : SL_SHAPE(s->N, T, s->H, s->D);
}

static void check_heads(fixture *f, heads s, bool masked, sl_dtype dtype) {
  sl_shape q = laid_out(&s, s.Tq), k = laid_out(&s, s.Tk);
  naive_case c = {.name = "attention",
                  .n = masked ? 4 : 3,
                  .dtype = {dtype, dtype, dtype, SL_U8},
                  .shape = {q, k, k, SL_SHAPE(s.N, s.Tk)},
                  .out = SL_SHAPE(s.N, s.Tq, s.H, s.D),
                  .of = &s,
                  .build = masked ? build_masked : build_plain,
                  .define = masked ? define_masked : define_plain,
                  .tolerance = dtype == SL_BF16 ? 8e-3 : 0};
  if (s.layout == 3) {
    c.n = 1;
    c.shape[0] = SL_SHAPE(s.N, s.Tq, 3, s.H, s.D);
    c.build = build_packed;
    c.define = define_packed;
  }
  check_case(f, c);
}

static void test_head_widths(void **state) {
  static const int64_t widths[] = {1, 8, 16, 33, 64, 72, 512};
  for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
    check_heads(*state, (heads){.N = 2, .Tq = 7, .Tk = 7, .H = 2, .D = widths[i]}, false, SL_F32);
}

static void test_lengths(void **state) {
  check_heads(*state, (heads){.N = 1, .Tq = 1, .Tk = 37, .H = 2, .D = 8}, false, SL_F32);
  check_heads(*state, (heads){.N = 1, .Tq = 67, .Tk = 3, .H = 1, .D = 8}, true, SL_F32);
  check_heads(*state, (heads){.N = 1, .Tq = 35, .Tk = 530, .H = 1, .D = 8, .scale = 0.7}, true, SL_F32);
}

static void test_causal(void **state) {
  check_heads(*state, (heads){.N = 1, .Tq = 40, .Tk = 40, .H = 2, .D = 16, .causal = true}, false, SL_F32);
  check_heads(*state, (heads){.N = 2, .Tq = 5, .Tk = 300, .H = 1, .D = 8, .causal = true}, true, SL_F32);
  check_heads(*state, (heads){.N = 1, .Tq = 9, .Tk = 4, .H = 1, .D = 8, .causal = true}, false,
              SL_F32); /* rows see nothing */
}

static void test_layouts(void **state) {
  for (int layout = 1; layout <= 3; layout++)
    check_heads(*state, (heads){.N = 2, .Tq = 11, .Tk = 11, .H = 3, .D = 24, .layout = layout}, false, SL_F32);
}

static void test_bf16(void **state) {
  check_heads(*state, (heads){.N = 1, .Tq = 20, .Tk = 35, .H = 2, .D = 40}, true, SL_BF16);
  check_heads(*state, (heads){.N = 1, .Tq = 20, .Tk = 20, .H = 2, .D = 40, .layout = 3}, false, SL_BF16);
}

/* All keys of sample 0 hidden: zeros, log-sum-exp -infinity, and no gradient. */
static sl_status build_hidden(void *user, sl_graph *g, int n_in, sl_value *const *in, int n_out, sl_value **out) {
  (void)user, (void)n_in, (void)n_out;
  sl_value *y = sl_attention(in[0], in[1], in[1], in[2], 0, false);
  out[0] = y;
  out[1] = sl_output(y, 1);
  return sl_grad(g, y, in[0], 2, in, false, out + 2);
}

static void test_hidden_sample(void **state) {
  fixture *f = *state;
  sl_shape s = SL_SHAPE(2, 5, 1, 8), m = SL_SHAPE(2, 5);
  sl_tensor *in[3] = {draw_tensor(f, SL_F32, &s), draw_tensor(f, SL_F32, &s), NULL}, *out[4];
  assert_int_equal(sl_tensor_from(f->ctx, SL_U8, 2, m.dim, (uint8_t[]){0, 0, 0, 0, 0, 1, 1, 0, 1, 1}, &in[2]),
                   SL_STATUS_OK);
  assert_int_equal(sl_eager_call(f->eager, "hidden", 6, build_hidden, NULL, 3, in, NULL, 4, out), SL_STATUS_OK);
  for (int64_t i = 0; i < 40; i++)
    for (int k = 0; k < 4; k += k == 0 ? 2 : 1) {
      assert_true(sl_tensor_at(out[k], i) == 0);
      assert_true(isfinite(sl_tensor_at(out[k], 40 + i)));
    }
  for (int64_t i = 0; i < 5; i++) assert_true(sl_tensor_at(out[1], i) == -INFINITY);
  for (int i = 0; i < 3; i++) sl_tensor_release(in[i]);
  for (int i = 0; i < 4; i++) sl_tensor_release(out[i]);
}

/* A number that is none must show, not vanish in a maximum. */
static sl_status build_self(void *user, sl_graph *g, int n_in, sl_value *const *in, int n_out, sl_value **out) {
  (void)user, (void)n_in, (void)n_out;
  out[0] = sl_attention(in[0], in[0], in[0], NULL, 0, false);
  return sl_graph_status(g);
}

static void test_nan(void **state) {
  fixture *f = *state;
  sl_shape s = SL_SHAPE(1, 20, 1, 8);
  for (int isa = SL_ISA_BASE; isa <= (int)sl_isa_machine(); isa++) {
    sl_context_set_isa(f->ctx, (sl_isa)isa);
    sl_tensor *in = draw_tensor(f, SL_F32, &s), *out;
    ((float *)sl_tensor_data(in))[13 * 8 + 2] = NAN;
    assert_int_equal(sl_eager_call(f->eager, "nan", 3, build_self, NULL, 1, &in, NULL, 1, &out), SL_STATUS_OK);
    for (int64_t i = 0; i < 20; i++) assert_true(isnan(sl_tensor_at(out, i * 8)));
    sl_tensor_release(in);
    sl_tensor_release(out);
  }
}

/* The same bits for any number of threads. */
static void test_threads(void **state) {
  fixture *f = *state;
  sl_shape s = SL_SHAPE(2, 100, 3, 16);
  sl_tensor *in = draw_tensor(f, SL_F32, &s), *out[3];
  for (int i = 0; i < 3; i++) {
    sl_context_set_threads(f->ctx, 1 + 2 * i);
    sl_eager *fresh;
    assert_int_equal(sl_eager_new(f->ctx, 4, &fresh), SL_STATUS_OK);
    assert_int_equal(sl_eager_call(fresh, "self", 4, build_self, NULL, 1, &in, NULL, 1, &out[i]), SL_STATUS_OK);
    sl_eager_free(fresh);
    assert_memory_equal(sl_tensor_data(out[0]), sl_tensor_data(out[i]), sizeof(float) * 2 * 100 * 3 * 16);
  }
  for (int i = 0; i < 3; i++) sl_tensor_release(out[i]);
  sl_tensor_release(in);
}

static sl_value *refused(sl_value *const *in) { return sl_attention(in[0], in[1], in[1], NULL, 0, false); }
static sl_value *refused_mask(sl_value *const *in) { return sl_attention(in[0], in[0], in[0], in[1], 0, false); }
static sl_value *refused_packed(sl_value *const *in) { return sl_attention_qkv(in[0], 0); }

static void test_refusals(void **state) {
  const sl_dtype f32[] = {SL_F32, SL_F32}, ints[] = {SL_I32, SL_I32}, masked[] = {SL_F32, SL_U8};
  sl_shape q = SL_SHAPE(2, 5, 3, 8);
  check_refused(*state, SL_STATUS_SHAPE, "expected [2,Tk,3,8]", 2, f32, (sl_shape[]){q, SL_SHAPE(2, 5, 2, 8)}, refused);
  check_refused(*state, SL_STATUS_SHAPE, "expected [N,Tq,H,D]", 2, f32, (sl_shape[]){SL_SHAPE(2, 5, 8), q}, refused);
  check_refused(*state, SL_STATUS_DTYPE, "expected f32 or bf16", 2, ints, (sl_shape[]){q, q}, refused);
  check_refused(*state, SL_STATUS_SHAPE, "one place for each key", 2, masked, (sl_shape[]){q, SL_SHAPE(2, 4)},
                refused_mask);
  check_refused(*state, SL_STATUS_DTYPE, "expected u8", 2, f32, (sl_shape[]){q, SL_SHAPE(2, 5)}, refused_mask);
  check_refused(*state, SL_STATUS_SHAPE, "[N,T,3,H,D]", 1, f32, (sl_shape[]){SL_SHAPE(2, 5, 2, 3, 8)}, refused_packed);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_head_widths, setup, teardown),
      cmocka_unit_test_setup_teardown(test_lengths, setup, teardown),
      cmocka_unit_test_setup_teardown(test_causal, setup, teardown),
      cmocka_unit_test_setup_teardown(test_layouts, setup, teardown),
      cmocka_unit_test_setup_teardown(test_bf16, setup, teardown),
      cmocka_unit_test_setup_teardown(test_hidden_sample, setup, teardown),
      cmocka_unit_test_setup_teardown(test_nan, setup, teardown),
      cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
      cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
  };
  return cmocka_run_group_tests_name("attention", tests, NULL, NULL);
}
