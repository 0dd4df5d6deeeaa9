#include "op_table.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static bool seen_forward[SL_OP_ID_COUNT], seen_gradient[SL_OP_ID_COUNT], seen_refusal[SL_OP_ID_COUNT];
static bool whole_numbers[SL_OP_ID_COUNT]; /* gives integers: no gradient to speak of */

/* Where graphs run; what the definition is compared with is brought to the CPU. */
static const sl_device *device = &sl_device_cpu;
static void (*made)(sl_program *p);

void op_use_device(const sl_device *dev, void (*made_program)(sl_program *p)) {
  device = dev;
  made = made_program;
}

static int row_of(const sl_op *op) { return (int)(op - sl_ops); }

void op_unflatten(const sl_shape *s, int64_t flat, int64_t *index) {
  for (int d = s->rank; d-- > 0;) {
    index[d] = flat % s->dim[d];
    flat /= s->dim[d];
  }
}

int64_t op_broadcast_at(const sl_shape *s, const sl_shape *out, const int64_t *index) {
  int64_t at = 0;
  for (int d = 0; d < s->rank; d++) {
    int64_t i = index[out->rank - s->rank + d];
    at = at * s->dim[d] + (s->dim[d] == 1 ? 0 : i);
  }
  return at;
}

/* --- attributes from text --- */

static double attr_value(const sl_op_attr *a, const char *text) {
  sl_dtype d;
  if (a->kind == 't') return sl_dtype_from_name(text, &d) ? (double)d : -1;
  if (a->kind != 'e') return strtod(text, NULL);
  char choices[96];
  strcpy(choices, a->choices);
  int k = 0;
  for (char *save, *w = strtok_r(choices, "|", &save); w; w = strtok_r(NULL, "|", &save), k++)
    if (!strcmp(w, text)) return k;
  fail_msg("attribute %s has no choice %s", a->name, text);
  return 0;
}

static void set_attr(const char *op, const sl_op_signature *sig, const char *name, const char *text, sl_attrs *out) {
  for (int i = 0; i < sig->n_attrs; i++) {
    const sl_op_attr *a = &sig->attr[i];
    if (strcmp(a->name, name)) continue;
    if (a->kind == 'f') {
      out->f[a->slot] = strtod(text, NULL);
    } else if (a->kind == 'l' || a->kind == 'L') {
      int64_t *list = &out->i[a->slot], n = 0;
      for (const char *p = text; *p; p++)
        if (*p == '-' || (*p >= '0' && *p <= '9')) {
          char *end;
          list[1 + n++] = strtoll(p, &end, 10);
          p = end - 1;
        }
      list[0] = n;
    } else {
      out->i[a->slot] = (int64_t)attr_value(a, text);
    }
    return;
  }
  fail_msg("%s has no attribute %s", op, name);
}

static sl_attrs parse_attrs(const sl_op *op, const char *text) {
  sl_op_signature sig;
  sl_op_describe(op, &sig);
  sl_attrs a = sl_op_defaults(op);
  char copy[256];
  snprintf(copy, sizeof copy, "%s", text ? text : "");
  for (char *save, *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
    char *eq = strchr(w, '=');
    assert_non_null(eq);
    *eq = 0;
    set_attr(op->name, &sig, w, eq + 1, &a);
  }
  return a;
}

/* --- inputs --- */

static uint64_t random_state = 7;

static double draw(void) {
  random_state = random_state * 6364136223846793005u + 1442695040888963407u;
  return (double)(random_state >> 11) * 0x1p-53;
}

static sl_shape shape_of(const op_in *in) {
  sl_shape s = {.rank = in->rank};
  memcpy(s.dim, in->dim, sizeof in->dim);
  return s;
}

static void fill(const op_in *in, double *v, int64_t n) {
  for (int64_t i = 0; i < n; i++) switch (in->gen) {
      case GEN_NORMAL: v[i] = 1.2 * (draw() + draw() + draw() - 1.5) * 1.4; break;
      case GEN_POSITIVE: v[i] = 0.3 + 1.5 * draw(); break;
      case GEN_APART: v[i] = 0.06 * (double)((i + 1) / 2) * (i % 2 ? 1 : -1) + (i ? 0 : 0.03); break;
      case GEN_INDEX: v[i] = floor(draw() * (double)in->below); break;
      case GEN_MASK: v[i] = draw() > 0.4; break;
    }
  for (int64_t i = n; in->gen == GEN_APART && i > 1; i--) { /* shuffled */
    int64_t k = (int64_t)(draw() * (double)i);
    double t = v[i - 1];
    v[i - 1] = v[k];
    v[k] = t;
  }
}

/* The values as a tensor: dense, or transposed with gaps. Rounds v to what the tensor holds. */
static sl_tensor *tensor_of(sl_context *ctx, sl_dtype dtype, const sl_shape *s, double *v, bool strided) {
  sl_tensor *dense = NULL, *wide = NULL, *view = NULL;
  int64_t n = sl_shape_numel(s), stride[SL_MAX_RANK], step = 2;
  assert_int_equal(sl_tensor_new(ctx, NULL, dtype, s, &dense), SL_STATUS_OK);
  for (int64_t i = 0; i < n; i++) {
    void *p = (char *)sl_tensor_data(dense) + (size_t)i * sl_dtype_size(dtype);
    sl_element_set(dtype, p, v[i]);
    v[i] = sl_element_get(dtype, p);
  }
  if (!strided) return dense;
  for (int d = 0; d < s->rank; d++) {
    stride[d] = step;
    step *= s->dim[d] > 0 ? s->dim[d] : 1;
  }
  assert_int_equal(sl_tensor_zeros(ctx, NULL, dtype, &SL_SHAPE(2 * n + 2), &wide), SL_STATUS_OK);
  assert_int_equal(sl_tensor_view_as(wide, s, stride, 0, &view), SL_STATUS_OK);
  assert_int_equal(sl_tensor_copy(view, dense), SL_STATUS_OK);
  sl_tensor_release(dense);
  sl_tensor_release(wide);
  return view;
}

/* --- one case, one way of running it --- */

typedef enum variant { PLAIN, STRIDED, AS_PARAM } variant;

typedef struct bench {
  sl_context *ctx;
  const op_case *c;
  const sl_op *op;
  sl_attrs attrs;
  sl_dtype dtype;                                        /* of float inputs */
  op_run run;                                            /* values and definition */
  double *weight[SL_MAX_OUTPUTS], *grad[OP_MOST_INPUTS]; /* of the loss; sampled central differences */
  unsigned outs;
} bench;

static void die(const bench *b, const char *what, double error, double limit) {
  char in[256] = "";
  for (int k = 0; k < b->c->n_in; k++) {
    size_t used = strlen(in);
    snprintf(in + used, sizeof in - used, " %s", b->run.in[k] ? sl_shape_text(&b->run.in_shape[k]) : "-");
  }
  fail_msg("%s(%s) %s of%s: %s is off by %g, limit %g", b->op->name, b->c->attrs ? b->c->attrs : "",
           sl_dtype_name(b->dtype), in, what, error, limit);
}

static bool is_float_in(const bench *b, int k) { return b->run.in[k] && b->c->in[k].dtype == SL_F32; }

/* How many elements of an input the gradient is checked at, and which. */
static int64_t sampled(int64_t n) {
  int64_t most = getenv("SLUICE_TEST_REDUCED") ? 6 : 24;
  return n < most ? n : most;
}
static int64_t sample_at(int64_t n, int64_t i) { return n <= sampled(n) ? i : (i * 7919 + 3) % n; }

static sl_value *build(bench *b, sl_graph *g, variant v, sl_tensor **in, sl_value **values) {
  char name[16];
  for (int k = 0; k < b->c->n_in; k++) {
    values[k] = NULL;
    if (!in[k]) continue;
    snprintf(name, sizeof name, "x%d", k);
    values[k] = v == AS_PARAM && k == 0 ? sl_param_value(g, 0, 16, name, &b->run.in_shape[0])
                                        : sl_input_strided(g, name, sl_tensor_dtype(in[k]), sl_tensor_shape(in[k]),
                                                           sl_tensor_strides(in[k]));
  }
  return sl_apply(g, b->op, b->c->n_in, values, &b->attrs);
}

static void mark_rows(sl_graph *g, bool *seen) {
  for (int i = 0; i < sl_graph_node_count(g); i++) {
    const sl_node *n = sl_graph_node(g, i);
    if (n->leaf == SL_LEAF_NONE) seen[row_of(n->op)] = true;
  }
}

/* sum over outputs of sum(out * weight). */
static sl_value *weighted_loss(bench *b, sl_graph *g, sl_value *y) {
  sl_value *loss = NULL;
  for (int k = 0; k < b->run.n_out; k++) {
    if (!(b->outs >> k & 1)) continue;
    double *w = b->weight[k];
    sl_tensor *t = tensor_of(b->ctx, SL_F32, &b->run.out_shape[k], w, false);
    sl_value *out = k ? sl_output(y, k) : y;
    sl_value *part = sl_sum(sl_mul(sl_cast(out, SL_F32), sl_table(g, "weight", t)), 0, NULL, false);
    sl_tensor_release(t);
    loss = loss ? sl_add(loss, part) : part;
  }
  return loss;
}

static void compare(const bench *b, const char *what, const sl_tensor *t, const double *want, double tolerance) {
  double error = 0, norm = 0;
  int64_t n = sl_tensor_numel(t);
  for (int64_t i = 0; i < n; i++) {
    double d = sl_tensor_at(t, i) - want[i];
    if (!(fabs(d) <= 1e300) && !(sl_tensor_at(t, i) == want[i])) die(b, what, NAN, tolerance);
    error += d * d;
    norm += want[i] * want[i];
  }
  double limit = tolerance * sqrt(norm) + 1e-7 * sqrt((double)n);
  if (!(sqrt(error) <= limit)) die(b, what, sqrt(error), limit);
}

static void compare_gradient(const bench *b, int k, const sl_tensor *t, double shift, double tolerance) {
  double error = 0, norm = 0;
  int64_t n = sl_tensor_numel(t), m = sampled(n);
  char what[32];
  for (int64_t i = 0; i < m; i++) {
    double d = sl_tensor_at(t, sample_at(n, i)) - shift - b->grad[k][i];
    error += d * d;
    norm += b->grad[k][i] * b->grad[k][i];
  }
  snprintf(what, sizeof what, "gradient of input %d", k);
  double limit = tolerance * sqrt(norm) + 20 * tolerance * 1e-3 * sqrt((double)m);
  if (!(sqrt(error) <= limit)) die(b, what, sqrt(error), limit);
}

/* --- forward --- */

static sl_program *forward_program(bench *b, variant v, sl_tensor **in, bool checked) {
  sl_graph *g = NULL;
  sl_program *p = NULL;
  sl_value *values[OP_MOST_INPUTS];
  char name[16];
  assert_int_equal(sl_graph_new(b->ctx, &g), SL_STATUS_OK);
  sl_graph_set_device(g, device);
  sl_value *y = build(b, g, v, in, values);
  for (int k = 0; k < SL_MAX_OUTPUTS; k++)
    if (b->outs >> k & 1) {
      snprintf(name, sizeof name, "o%d", k);
      sl_graph_output(g, name, k ? sl_output(y, k) : y);
    }
  if (sl_graph_compile(g, &(sl_compile_options){.checked = checked}, &p) != SL_STATUS_OK)
    fail_msg("%s: %s", b->op->name, sl_error());
  mark_rows(g, seen_forward);
  if (made) made(p);
  sl_graph_release(g);
  return p;
}

/* *t replaced by a copy there, unless it lies there. */
static void to_device(sl_tensor **t, const sl_device *dev) {
  sl_tensor *there = NULL;
  if (sl_tensor_device(*t)->gpu == dev->gpu) return;
  assert_int_equal(sl_tensor_to(*t, sl_tensor_dtype(*t), dev, &there), SL_STATUS_OK);
  sl_tensor_release(*t);
  *t = there;
}

static sl_tensor **run_program(bench *b, sl_program *p, sl_tensor **in, variant v, sl_tensor *params,
                               sl_tensor *grads) {
  static sl_tensor *out[SL_MAX_OUTPUTS + OP_MOST_INPUTS];
  sl_tensor *bound[OP_MOST_INPUTS];
  int n = 0;
  for (int k = 0; k < b->c->n_in; k++)
    if (in[k] && !(v == AS_PARAM && k == 0)) bound[n++] = in[k];
  sl_step step = {.seed = 11, .step = 3, .first_sample = 5};
  sl_run run = {.inputs = bound, .step = &step, .params = params, .grads = grads};
  if (sl_program_call(p, &run, sl_program_outputs(p), out) != SL_STATUS_OK) fail_msg("%s: %s", b->op->name, sl_error());
  for (int k = 0; k < sl_program_outputs(p); k++) to_device(&out[k], &sl_device_cpu);
  return out;
}

static void make_inputs(bench *b, sl_tensor **in, bool strided) {
  for (int k = 0; k < b->c->n_in; k++) {
    sl_dtype d = b->c->in[k].dtype == SL_F32 ? b->dtype : b->c->in[k].dtype;
    in[k] = b->run.in[k] ? tensor_of(b->ctx, d, &b->run.in_shape[k], b->run.in[k], strided) : NULL;
  }
}

static void release_all(sl_tensor **t, int n) {
  for (int k = 0; k < n; k++) sl_tensor_release(t[k]);
}

static void check_forward(bench *b, variant v, double tolerance) {
  sl_tensor *in[OP_MOST_INPUTS];
  make_inputs(b, in, v == STRIDED);
  sl_program *p = forward_program(b, v, in, true);
  int n_out = sl_program_outputs(p);
  static void *bits[SL_MAX_OUTPUTS];
  for (int threads = 1; threads <= 2; threads++) {
    sl_context_set_threads(b->ctx, threads);
    sl_program *fresh = forward_program(b, v, in, true);
    sl_tensor **out = run_program(b, fresh, in, v, NULL, NULL);
    for (int k = 0, at = 0; k < SL_MAX_OUTPUTS; k++) {
      if (!(b->outs >> k & 1)) continue;
      size_t bytes = (size_t)sl_tensor_numel(out[at]) * sl_dtype_size(sl_tensor_dtype(out[at]));
      if (threads == 1) {
        if (b->c->flags & CASE_RANDOM) {
          for (int64_t i = 0; i < sl_tensor_numel(out[at]); i++) b->run.out[k][i] = sl_tensor_at(out[at], i);
          b->c->naive(&b->run);
        }
        compare(b, "the value", out[at], b->run.out[k], tolerance);
        bits[at] = malloc(bytes + 1);
        memcpy(bits[at], sl_tensor_data(out[at]), bytes);
      } else {
        if (memcmp(bits[at], sl_tensor_data(out[at]), bytes)) die(b, "with two threads the value", NAN, 0);
        free(bits[at]);
      }
      at++;
    }
    release_all(out, n_out);
    sl_program_free(fresh);
  }
  sl_program_free(p);
  release_all(in, b->c->n_in);
}

/* --- gradients --- */

static double naive_loss(bench *b) {
  double loss = 0;
  b->c->naive(&b->run);
  for (int k = 0; k < b->run.n_out; k++) {
    if (!(b->outs >> k & 1)) continue;
    int64_t n = sl_shape_numel(&b->run.out_shape[k]);
    for (int64_t i = 0; i < n; i++) loss += b->run.out[k][i] * b->weight[k][i];
  }
  return loss;
}

static void central_differences(bench *b) {
  for (int k = 0; k < b->c->n_in; k++) {
    if (!is_float_in(b, k)) continue;
    int64_t n = sl_shape_numel(&b->run.in_shape[k]), m = sampled(n);
    b->grad[k] = malloc(sizeof(double) * (size_t)(m + 1));
    for (int64_t i = 0; i < m; i++) {
      double *x = &b->run.in[k][sample_at(n, i)], was = *x;
      const double h = 1e-5;
      *x = was + h;
      double up = naive_loss(b);
      *x = was - h;
      b->grad[k][i] = (up - naive_loss(b)) / (2 * h);
      *x = was;
    }
  }
  b->c->naive(&b->run);
}

static void check_gradient(bench *b, variant v, double tolerance) {
  sl_tensor *in[OP_MOST_INPUTS], *params = NULL, *grads = NULL;
  sl_value *values[OP_MOST_INPUTS], *wrt[OP_MOST_INPUTS], *d[OP_MOST_INPUTS];
  int of[OP_MOST_INPUTS], n = 0;
  make_inputs(b, in, v == STRIDED);
  sl_graph *g = NULL;
  sl_program *p = NULL;
  assert_int_equal(sl_graph_new(b->ctx, &g), SL_STATUS_OK);
  sl_graph_set_device(g, device);
  sl_value *y = build(b, g, v, in, values);
  for (int k = 0; k < b->c->n_in; k++)
    if (is_float_in(b, k)) of[n] = k, wrt[n++] = values[k];
  sl_value *loss = weighted_loss(b, g, y);
  if (sl_grad(g, loss, NULL, n, wrt, false, d) != SL_STATUS_OK) fail_msg("%s: %s", b->op->name, sl_error());
  char name[16];
  for (int i = 0; i < n; i++) {
    snprintf(name, sizeof name, "d%d", i);
    if (v == AS_PARAM && of[i] == 0) {
      sl_graph_accumulate(g, wrt[i], d[i]);
    } else {
      sl_graph_output(g, name, d[i]);
    }
  }
  if (sl_graph_compile(g, &(sl_compile_options){.checked = true}, &p) != SL_STATUS_OK)
    fail_msg("%s: %s", b->op->name, sl_error());
  mark_rows(g, seen_forward);
  if (made) made(p);
  seen_gradient[row_of(b->op)] = true;
  sl_graph_release(g);
  if (v == AS_PARAM) { /* onto gradients of 1 */
    int64_t size = 32 + sl_tensor_numel(in[0]);
    assert_int_equal(sl_tensor_zeros(b->ctx, NULL, SL_F32, &SL_SHAPE(size), &params), SL_STATUS_OK);
    assert_int_equal(sl_tensor_zeros(b->ctx, NULL, SL_F32, &SL_SHAPE(size), &grads), SL_STATUS_OK);
    memcpy((float *)sl_tensor_data(params) + 16, sl_tensor_data(in[0]), (size_t)sl_tensor_numel(in[0]) * sizeof(float));
    for (int64_t i = 0; i < size; i++) ((float *)sl_tensor_data(grads))[i] = 1;
    to_device(&params, device);
    to_device(&grads, device);
  }
  sl_tensor **out = run_program(b, p, in, v, params, grads);
  if (grads) to_device(&grads, &sl_device_cpu);
  for (int i = 0, at = 0; i < n; i++) {
    if (v == AS_PARAM && of[i] == 0) {
      sl_tensor *part = NULL;
      assert_int_equal(sl_tensor_narrow(grads, 0, 16, sl_tensor_numel(in[0]), &part), SL_STATUS_OK);
      compare_gradient(b, 0, part, 1, tolerance);
      sl_tensor_release(part);
    } else {
      compare_gradient(b, of[i], out[at++], 0, tolerance);
    }
  }
  release_all(out, sl_program_outputs(p));
  sl_program_free(p);
  sl_tensor_release(params);
  sl_tensor_release(grads);
  release_all(in, b->c->n_in);
}

/* --- a case --- */

static void prepare(bench *b) {
  for (int k = 0; k < b->c->n_in; k++) {
    const op_in *in = &b->c->in[k];
    if (in->rank < 0) continue;
    b->run.in_shape[k] = shape_of(in);
    int64_t n = sl_shape_numel(&b->run.in_shape[k]);
    b->run.in[k] = malloc(sizeof(double) * (size_t)(n + 1));
    fill(in, b->run.in[k], n);
  }
  /* the outputs' shapes, and values rounded to the dtype, from a first build */
  sl_tensor *in[OP_MOST_INPUTS];
  sl_value *values[OP_MOST_INPUTS];
  sl_graph *g = NULL;
  make_inputs(b, in, false);
  assert_int_equal(sl_graph_new(b->ctx, &g), SL_STATUS_OK);
  sl_graph_set_device(g, device);
  sl_value *y = build(b, g, PLAIN, in, values);
  if (!y) {
    sl_status s = sl_graph_status(g);
    fail_msg("%s(%s): %s %s", b->op->name, b->c->attrs ? b->c->attrs : "", sl_status_name(s), sl_error());
  }
  for (int k = 0; k < SL_MAX_OUTPUTS; k++) {
    sl_value *o = k ? sl_output(y, k) : y;
    if (!o) break;
    b->run.n_out = k + 1;
    b->run.out_shape[k] = o->shape;
    if (k == 0 && !sl_dtype_is_float(o->dtype) && b->c->in[0].dtype == SL_F32)
      whole_numbers[row_of(b->op)] |= !strcmp(b->op->name, "argmax") || o->dtype == SL_U8;
    int64_t n = sl_shape_numel(&o->shape);
    b->run.out[k] = calloc((size_t)n + 1, sizeof(double));
    b->weight[k] = malloc(sizeof(double) * (size_t)(n + 1));
    for (int64_t i = 0; i < n; i++) b->weight[k][i] = (float)(draw() - 0.4);
  }
  sl_graph_release(g);
  release_all(in, b->c->n_in);
}

static void clear(bench *b) {
  for (int k = 0; k < OP_MOST_INPUTS; k++) {
    free(b->run.in[k]);
    free(b->grad[k]);
  }
  for (int k = 0; k < SL_MAX_OUTPUTS; k++) {
    free(b->run.out[k]);
    free(b->weight[k]);
  }
}

static void check_dtype(sl_context *ctx, const op_case *c, sl_dtype dtype) {
  bench b = {.ctx = ctx, .c = c, .op = sl_op_find(c->op), .dtype = dtype, .outs = c->outs ? c->outs : 1};
  if (!b.op) fail_msg("there is no row %s", c->op);
  b.attrs = parse_attrs(b.op, c->attrs);
  b.run.attrs = &b.attrs;
  b.run.n_in = c->n_in;
  prepare(&b);
  seen_forward[row_of(b.op)] = true;
  double tolerance = dtype == SL_BF16 ? 1e-2 : c->tolerance > 0 ? c->tolerance : 2e-6;
  bool gradient = !(c->flags & CASE_NO_GRAD) && dtype == SL_F32;
  if (!(c->flags & CASE_RANDOM)) b.c->naive(&b.run);
  if (gradient) central_differences(&b);
  /* other roundings: fused multiply-adds, sums of other orders */
  if (device->kind == SL_DEVICE_CUDA) tolerance = dtype == SL_BF16 ? 2e-2 : fmax(10 * tolerance, 1e-5);
  else if (device->gpu) tolerance *= 2;
  for (int isa = device->gpu ? (int)sl_isa_machine() : SL_ISA_BASE; isa <= (int)sl_isa_machine(); isa++) {
    sl_context_set_isa(ctx, (sl_isa)isa);
    check_forward(&b, PLAIN, tolerance);
    check_forward(&b, STRIDED, tolerance);
    if (!gradient) continue;
    check_gradient(&b, PLAIN, 100 * tolerance);
    check_gradient(&b, STRIDED, 100 * tolerance);
    if (is_float_in(&b, 0)) check_gradient(&b, AS_PARAM, 100 * tolerance);
  }
  clear(&b);
}

void op_check_case(sl_context *ctx, const op_case *c) {
  check_dtype(ctx, c, SL_F32);
  if (c->flags & CASE_BF16) check_dtype(ctx, c, SL_BF16);
}

void op_check_refusal(sl_context *ctx, const op_refusal *r) {
  const sl_op *op = sl_op_find(r->op);
  if (!op) fail_msg("there is no row %s", r->op);
  sl_attrs attrs = parse_attrs(op, r->attrs);
  sl_graph *g = NULL;
  sl_value *in[OP_MOST_INPUTS] = {NULL};
  char name[16];
  assert_int_equal(sl_graph_new(ctx, &g), SL_STATUS_OK);
  for (int k = 0; k < r->n_in; k++) {
    if (r->in[k].rank < 0) continue;
    sl_shape s = shape_of(&r->in[k]);
    snprintf(name, sizeof name, "x%d", k);
    in[k] = sl_input(g, name, r->in[k].dtype, &s);
  }
  if (sl_apply(g, op, r->n_in, in, &attrs))
    fail_msg("%s(%s) took what it should refuse (%s)", r->op, r->attrs ? r->attrs : "", r->words);
  assert_int_not_equal(sl_graph_status(g), SL_STATUS_OK);
  if (!strstr(sl_error(), r->words)) fail_msg("%s: \"%s\" does not say \"%s\"", r->op, sl_error(), r->words);
  seen_refusal[row_of(op)] = true;
  sl_graph_release(g);
}

bool op_print_table(void) {
  bool whole = true;
  printf("%-26s %-8s %-8s %s\n", "row", "forward", "gradient", "refusal");
  for (int i = 0; i < sl_op_count; i++) {
    const sl_op *op = &sl_ops[i];
    bool private = op->flags & SL_OP_PRIVATE,
         has_gradient = (op->rules->grad || op->rules->compose) && !private && !whole_numbers[i];
    if (!strcmp(op->name, "detach")) has_gradient = false; /* stopping it is its purpose */
    bool forward = seen_forward[i] || op->flags & SL_OP_VIEW, gradient = seen_gradient[i] || !has_gradient;
    bool refusal = seen_refusal[i] || private || !*op->inputs;
    printf("%-26s %-8s %-8s %s\n", op->name, seen_forward[i] ? "yes" : "NO",
           seen_gradient[i] ? "yes"
           : has_gradient   ? "NO"
                            : "-",
           seen_refusal[i] ? "yes"
           : private       ? "private"
                           : "NO");
    if (forward && gradient && refusal) continue;
    whole = false;
    printf("  hole: %s\n", op->name);
  }
  return whole;
}
