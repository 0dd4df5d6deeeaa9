/* The CPU's fused kernels on every instruction set of this machine, against the definitions in double. */
#include "on_context.h"

#include "fused_case.h"

static const sl_kernels kernels = {.adaln = sl_cpu_adaln,
                                   .adaln_backward = sl_cpu_adaln_backward,
                                   .gated_residual = sl_cpu_gated_residual,
                                   .gated_residual_backward = sl_cpu_gated_residual_backward,
                                   .residual_adaln = sl_cpu_residual_adaln,
                                   .residual_adaln_backward = sl_cpu_residual_adaln_backward};

static double row_value(const sl_view *v, int64_t n, int64_t c, double absent) {
  return v->data ? fused_at(v, n * v->stride[0] + c) : absent;
}

typedef struct reference {
  double *out[6];
} reference;

static reference reference_new(const fused_case *c) {
  reference r;
  for (int i = 0; i < 6; i++) {
    size_t bytes = (size_t)(c->N * c->T * c->C + c->N * c->C + c->N * c->T) * sizeof(double);
    r.out[i] = fused_buffer(bytes);
    memset(r.out[i], 0, bytes);
  }
  return r;
}

static void reference_free(reference *r) {
  for (int i = 0; i < 6; i++) free(r->out[i]);
}

static void adaln_row(const fused_case *k, const fused_data *f, reference *r, int64_t n, int64_t row) {
  const int64_t C = k->C;
  const sl_view *x = &f->in[0], *shift = &f->in[1], *scale = &f->in[2], *mask = &f->in[3], *dy = &f->in[4],
                *prior = &f->in[5];
  double mean = 0.0, var = 0.0, mean_g = 0.0, mean_gx = 0.0;
#define R(c) (row_value(mask, n, c, 1.0) * fused_at(x, row * C + (c)))
#define G(c) (fused_at(dy, row * C + (c)) * (1.0 + row_value(scale, n, c, 0.0)))
#define XHAT(c) ((R(c) - mean) * rstd)
  for (int64_t c = 0; c < C; c++) mean += R(c) / (double)C;
  for (int64_t c = 0; c < C; c++) var += (R(c) - mean) * (R(c) - mean) / (double)C;
  const double rstd = 1.0 / sqrt(var + 1e-6);
  r->out[1][row] = mean, r->out[2][row] = rstd;
  for (int64_t c = 0; c < C; c++) mean_g += G(c) / (double)C, mean_gx += G(c) * XHAT(c) / (double)C;
  for (int64_t c = 0; c < C; c++) {
    r->out[0][row * C + c] = XHAT(c) * (1.0 + row_value(scale, n, c, 0.0)) + row_value(shift, n, c, 0.0);
    r->out[3][row * C + c] = (prior->data ? fused_at(prior, row * C + c) : 0.0) +
                             row_value(mask, n, c, 1.0) * rstd * (G(c) - mean_g - XHAT(c) * mean_gx);
    r->out[4][n * C + c] += fused_at(dy, row * C + c);
    r->out[5][n * C + c] += fused_at(dy, row * C + c) * XHAT(c);
  }
}

static void residual_row(const fused_case *k, const fused_data *f, reference *r, int64_t n, int64_t row) {
  const sl_view *x = &f->in[0], *y = &f->in[1], *gate = &f->in[2], *mask = &f->in[3], *dout = &f->in[4],
                *skip = &f->in[5];
  for (int64_t c = 0; c < k->C; c++) {
    const int64_t at = row * k->C + c;
    const double m = row_value(mask, n, c, 1.0), g = row_value(gate, n, c, 0.0), d = fused_at(dout, at);
    r->out[0][at] =
        (skip->data ? fused_at(x, at) + (1.0 - m) * fused_at(skip, at) : m * fused_at(x, at)) + g * fused_at(y, at);
    r->out[1][at] = m * d;
    r->out[2][at] = g * d;
    r->out[3][n * k->C + c] += d * fused_at(y, at);
    r->out[4][at] = (1.0 - m) * d;
  }
}

typedef fused_data run_fn(const sl_kernels *k, sl_exec *e, const fused_case *c);
typedef void row_fn(const fused_case *k, const fused_data *f, reference *r, int64_t n, int64_t row);

static void check(const char *const *names, run_fn *run, row_fn *row) {
  sl_exec e = {.ctx = ctx, .device = &sl_device_cpu};
  for (int isa = SL_ISA_BASE; isa <= (int)sl_isa_machine(); isa++) {
    sl_context_set_isa(ctx, (sl_isa)isa);
    for (int i = 0; i < FUSED_CASES; i++) {
      const fused_case *c = &fused_cases[i];
      fused_data f = run(&kernels, &e, c);
      reference r = reference_new(c);
      for (int64_t k = 0; k < c->N * c->T; k++) row(c, &f, &r, k / c->T, k);
      for (int k = 0; k < 6; k++)
        if (f.out[k].data) fused_near(names[k], i, &f.out[k], r.out[k], fused_count(&f.out[k]));
      reference_free(&r);
      fused_free(&f);
    }
  }
}

static void adaln(void **state) {
  (void)state;
  check((const char *const[]){"y", "mean", "rstd", "dx", "dshift", "dscale"}, fused_adaln, adaln_row);
}

static void residual(void **state) {
  (void)state;
  check((const char *const[]){"out", "dx", "dy", "dgate", "dskip", ""}, fused_residual, residual_row);
}

/* x's gradient from that of r: the part of residual_adaln that no other kernel makes. */
static void share_dx(const fused_case *c, const fused_data *f, const sl_view *d, sl_view *dx) {
  const sl_view *mask = &f->in[SL_RA_MASK], *prior = &f->in[SL_RA_INPUTS + SL_RAB_PRIOR],
                *dr = &f->in[SL_RA_INPUTS + SL_RAB_DR];
  const sl_residual_share share = fused_share(c);
  for (int64_t i = 0; i < fused_count(dx); i++) {
    const double m = row_value(mask, i / (c->T * c->C), i % c->C, 1.0);
    double v = fused_at(d, i) * (share == SL_SHARE_WHOLE ? 1.0 : m);
    if (share == SL_SHARE_RESTORED) v += (1.0 - m) * fused_at(dr, i);
    fused_set(dx, i, prior->data ? fused_at(prior, i) + v : v);
  }
}

/* The two ops' own kernels, one after the other. */
static fused_data apart(sl_exec *e, const fused_case *c) {
  fused_data f = fused_joined_data(c);
  const sl_view *in = f.in, *b = f.in + SL_RA_INPUTS;
  sl_view *out = f.out, *g = f.out + 4, none = {.dtype = c->x}, d = fused_output(c->x, 3, in->shape.dim);
  sl_status s = sl_cpu_gated_residual(e, &out[SL_RA_R], &in[SL_RA_X], &in[SL_RA_Y], &in[SL_RA_GATE], &in[SL_RA_MASK],
                                      &in[SL_RA_SKIP]);
  if (s == SL_STATUS_OK)
    s = sl_cpu_adaln(e, &out[SL_RA_H], &out[SL_RA_MEAN], &out[SL_RA_RSTD], &out[SL_RA_R], &in[SL_RA_SHIFT],
                     &in[SL_RA_SCALE], &in[SL_RA_NEXT_MASK], 1e-6);
  if (s == SL_STATUS_OK)
    s = sl_cpu_adaln_backward(e, &d, &g[SL_RAB_DSHIFT], &g[SL_RAB_DSCALE], &b[SL_RAB_DH], &out[SL_RA_R],
                              &in[SL_RA_SCALE], &in[SL_RA_NEXT_MASK], &out[SL_RA_MEAN], &out[SL_RA_RSTD], &b[SL_RAB_DR],
                              f.workspace);
  if (s == SL_STATUS_OK)
    s = sl_cpu_gated_residual_backward(e, &none, &g[SL_RAB_DY], &g[SL_RAB_DGATE], &g[SL_RAB_DSKIP], &d, &in[SL_RA_Y],
                                       &in[SL_RA_GATE], &in[SL_RA_MASK], f.workspace);
  if (s != SL_STATUS_OK) fail_msg("%s", sl_error());
  share_dx(c, &f, &d, &g[SL_RAB_DX]);
  free(d.data);
  return f;
}

static void same_bits(int number, const fused_case *c, const fused_data *a, const fused_data *b) {
  for (int k = 0; k < FUSED_JOINED_OUT; k++)
    if (a->out[k].data &&
        memcmp(a->out[k].data, b->out[k].data, (size_t)fused_count(&a->out[k]) * fused_width(a->out[k].dtype)))
      fail_msg("case %d, variant %u: output %d differs", number, c->joined, k);
}

/* Both in one give the two ops' numbers to the last bit, on any number of threads. */
static void joined(void **state) {
  (void)state;
  sl_exec e = {.ctx = ctx, .device = &sl_device_cpu};
  for (int isa = SL_ISA_BASE; isa <= (int)sl_isa_machine(); isa++)
    for (int i = 0; i < FUSED_CASES * FUSED_VARIANTS; i++) {
      fused_case c = fused_cases[i / FUSED_VARIANTS];
      c.joined = (unsigned)i % FUSED_VARIANTS;
      if (!fused_joined_is(&c)) continue;
      sl_context_set_isa(ctx, (sl_isa)isa);
      sl_context_set_threads(ctx, 1 + i % 3);
      fused_data one = fused_joined(&kernels, &e, &c), two = apart(&e, &c);
      same_bits(i / FUSED_VARIANTS, &c, &two, &one);
      fused_free(&one);
      fused_free(&two);
    }
}

/* The same bits on 1, 2, 3 and 5 threads. */
static void threads(void **state) {
  (void)state;
  const fused_case big = {3, 101, 384, SL_F32, SL_F32, SL_F32, true, true, true, false, 0};
  run_fn *const runs[] = {fused_adaln, fused_residual};
  sl_exec e = {.ctx = ctx, .device = &sl_device_cpu};
  sl_context_set_isa(ctx, sl_isa_machine());
  for (int which = 0; which < 2; which++) {
    sl_context_set_threads(ctx, 1);
    fused_data one = runs[which](&kernels, &e, &big);
    for (int n = 2; n <= 5; n += n - 1) {
      sl_context_set_threads(ctx, n);
      fused_data more = runs[which](&kernels, &e, &big);
      for (int k = 0; k < 6; k++)
        if (one.out[k].data)
          assert_memory_equal(one.out[k].data, more.out[k].data,
                              (size_t)fused_count(&one.out[k]) * fused_width(one.out[k].dtype));
      fused_free(&more);
    }
    fused_free(&one);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(adaln), cmocka_unit_test(residual), cmocka_unit_test(joined),
                                     cmocka_unit_test(threads)};
  return cmocka_run_group_tests(tests, setup, teardown);
}
