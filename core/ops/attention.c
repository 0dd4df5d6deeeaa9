/* Attention's rules: q, k, v apart, or side by side in one value (attention_qkv). */
#include "ops/attention.h"

#include <math.h>
#include <string.h>

#include "ops/product.h"
#include "ops/rules.h"

enum { ATTR_CAUSAL }; /* i */
enum { ATTR_SCALE };  /* f */

static sl_attrs attrs_of(double scale, bool causal) {
  return (sl_attrs){.i = {[ATTR_CAUSAL] = causal}, .f = {[ATTR_SCALE] = scale}};
}

sl_value *sl_attention(sl_value *q, sl_value *k, sl_value *v, sl_value *mask, double scale, bool causal) {
  sl_attrs a = attrs_of(scale, causal);
  return q && k && v ? sl_opn(SL_OP_attention, 4, (sl_value *[]){q, k, v, mask}, &a) : NULL;
}

sl_value *sl_attention_qkv(sl_value *qkv, double scale) {
  sl_attrs a = attrs_of(scale, false);
  return sl_op1(SL_OP_attention_qkv, qkv, &a);
}

/* --- what the four rows share --- */

/* Unit stride along D, whatever the others are; n values of one float dtype. */
static sl_status canon_heads(sl_graph *g, const char *op, int n, sl_value **in, const char *const *names) {
  bool same = true;
  for (int i = 0; i < n; i++) {
    SL_REQUIRE(in[i]->dtype == SL_F32 || in[i]->dtype == SL_BF16, DTYPE, "%s: %s is %s, expected f32 or bf16", op,
               names[i], sl_value_text(in[i]));
    same &= in[i]->dtype == in[0]->dtype;
  }
  for (int i = 0; i < n; i++) {
    int r = in[i]->shape.rank;
    if (!same) in[i] = sl_cast(in[i], SL_F32);
    if (in[i] && r > 0 && in[i]->shape.dim[r - 1] != 1 && in[i]->stride[r - 1] != 1) in[i] = sl_contiguous(in[i]);
    if (!in[i]) return sl_graph_status(g);
  }
  return SL_STATUS_OK;
}

/* The scale that 0 stands for. */
static double scale_of(const sl_attrs *a, int64_t D) {
  return a->f[ATTR_SCALE] != 0 ? a->f[ATTR_SCALE] : 1.0 / sqrt((double)D);
}

typedef struct head_sizes {
  int64_t N, H, Tq, Tk, D;
} head_sizes;

static const sl_view absent;

/* What a kernel is asked: from a node's views, with data when it runs, without when it is planned. */
typedef struct asked {
  sl_view part[6]; /* q, k, v and their gradients, where they lie side by side */
  sl_attention_job job;
} asked;

static void ask(asked *a, const sl_attrs *attrs, const sl_view *q, const sl_view *k, const sl_view *v,
                const sl_view *mask) {
  const int64_t *d = q->shape.dim;
  a->job = (sl_attention_job){.q = q,
                              .k = k,
                              .v = v,
                              .mask = mask,
                              .N = d[0],
                              .Tq = d[1],
                              .H = d[2],
                              .D = d[3],
                              .Tk = k->shape.dim[1],
                              .scale = (float)scale_of(attrs, d[3]),
                              .causal = attrs->i[ATTR_CAUSAL] != 0};
}

typedef void ask_fn(asked *a, const sl_attrs *attrs, const sl_view *out, const sl_view *in);

/* Plans a node; its state is the kernel's plan. */
static sl_status plan(sl_exec *e, const sl_node *n, ask_fn *fill, bool backward, void **state, size_t *bytes) {
  sl_view in[SL_MAX_INPUTS], out[SL_MAX_OUTPUTS];
  asked a;
  for (int i = 0; i < n->n_in; i++) in[i] = n->in[i] ? sl_value_as_view(n->in[i]) : absent;
  for (int i = 0; i < n->n_out; i++) out[i] = sl_value_as_view(&n->out[i]);
  fill(&a, &n->attrs, out, in);
  return e->kernels->attention_plan(e, &a.job, backward, state, bytes);
}

static void release(sl_exec *e, void *state) {
  sl_status s = e->kernels->attention_release(e, state);
  (void)s; /* releasing does not fail */
}

/* workspace_, prepare_ and run_<name> of a row whose jobs `fill` makes. */
#define RUNS(name, fill, backward, kernel)                                                                             \
  static sl_status workspace_##name(sl_exec *e, const sl_node *n, size_t *bytes) {                                     \
    void *state = NULL;                                                                                                \
    SL_TRY(plan(e, n, fill, backward, &state, bytes));                                                                 \
    release(e, state);                                                                                                 \
    return SL_STATUS_OK;                                                                                               \
  }                                                                                                                    \
  static sl_status prepare_##name(sl_exec *e, const sl_node *n, void **state) {                                        \
    size_t bytes;                                                                                                      \
    return plan(e, n, fill, backward, state, &bytes);                                                                  \
  }                                                                                                                    \
  static sl_status run_##name(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,        \
                              void *work) {                                                                            \
    asked a;                                                                                                           \
    fill(&a, &n->attrs, out, in);                                                                                      \
    return e->kernels->kernel(e, state, &a.job, work);                                                                 \
  }

static int64_t visible_pairs(head_sizes s) { return s.N * s.H * s.Tq * s.Tk * s.D; }

/* --- q, k, v apart --- */

static const char *const apart[] = {"q", "k", "v"};

static head_sizes sizes_apart(const sl_value *q, const sl_value *k) {
  const int64_t *d = q->shape.dim;
  return (head_sizes){d[0], d[2], d[1], k->shape.dim[1], d[3]};
}

static sl_status attention_canon(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)n, (void)a;
  return canon_heads(g, "attention", 3, in, apart);
}

static sl_status attention_infer(sl_node *n) {
  const sl_shape *q = &n->in[0]->shape, *k = &n->in[1]->shape, *v = &n->in[2]->shape;
  SL_REQUIRE(q->rank == 4, SHAPE, "attention: q is %s, expected [N,Tq,H,D]", sl_shape_text(q));
  SL_REQUIRE(k->rank == 4 && k->dim[0] == q->dim[0] && k->dim[2] == q->dim[2] && k->dim[3] == q->dim[3], SHAPE,
             "attention: k is %s, expected [%lld,Tk,%lld,%lld] as q has it", sl_shape_text(k), (long long)q->dim[0],
             (long long)q->dim[2], (long long)q->dim[3]);
  SL_REQUIRE(sl_shape_equal(v, k), SHAPE, "attention: v is %s, expected k's shape %s", sl_shape_text(v),
             sl_shape_text(k));
  SL_REQUIRE(q->dim[3] > 0, SHAPE, "attention: q is %s: heads have no channels", sl_shape_text(q));
  if (n->in[3]) {
    const sl_shape *m = &n->in[3]->shape;
    SL_REQUIRE(n->in[3]->dtype == SL_U8, DTYPE, "attention: mask is %s, expected u8", sl_value_text(n->in[3]));
    SL_REQUIRE(m->rank == 2 && m->dim[0] == k->dim[0] && m->dim[1] == k->dim[1], SHAPE,
               "attention: mask is %s, expected [%lld,%lld], one place for each key", sl_shape_text(m),
               (long long)k->dim[0], (long long)k->dim[1]);
  }
  n->out[0].dtype = n->in[0]->dtype;
  n->out[0].shape = *q;
  n->out[1].dtype = SL_F32;
  n->out[1].shape = SL_SHAPE(q->dim[0], q->dim[2], q->dim[1]);
  return SL_STATUS_OK;
}

static sl_status refuse_lse_gradient(const sl_grad_args *g) {
  SL_REQUIRE(!g->dy[1], UNSUPPORTED, "%s: its log-sum-exp has no gradient", g->node->op->name);
  return SL_STATUS_OK;
}

static sl_status attention_grad(sl_grad_args *g) {
  SL_TRY(refuse_lse_gradient(g));
  sl_value *in[] = {g->dy[0], g->in[0], g->in[1], g->in[2], g->out[0], g->out[1], g->in[3]};
  sl_value *d = sl_opn(SL_OP_attention_backward, 7, in, &g->node->attrs);
  for (int i = 0; i < 3; i++) g->dx[i] = g->need[i] ? sl_output(d, i) : NULL;
  return sl_graph_status(g->graph);
}

static int64_t attention_macs(const sl_node *n) { return 2 * visible_pairs(sizes_apart(n->in[0], n->in[1])); }

static void ask_apart(asked *a, const sl_attrs *attrs, const sl_view *out, const sl_view *in) {
  ask(a, attrs, &in[0], &in[1], &in[2], &in[3]);
  a->job.out = &out[0];
  a->job.lse = &out[1];
}

RUNS(apart, ask_apart, false, attention)

const sl_op_rules sl_rules_attention = {.canon = attention_canon,
                                        .infer = attention_infer,
                                        .grad = attention_grad,
                                        .macs = attention_macs,
                                        .workspace = workspace_apart,
                                        .prepare = prepare_apart,
                                        .release = release,
                                        .run = run_apart};

/* dout q k v out lse mask? */
static sl_status backward_canon(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)n, (void)a;
  static const char *const names[] = {"dout"}, *const out[] = {"out"};
  SL_TRY(canon_heads(g, "attention_backward", 1, &in[0], names));
  SL_TRY(canon_heads(g, "attention_backward", 3, &in[1], apart));
  SL_TRY(canon_heads(g, "attention_backward", 1, &in[4], out));
  in[5] = sl_contiguous(in[5]);
  return sl_graph_status(g);
}

static sl_status check_saved(const sl_node *n, const sl_value *dout, const sl_value *out, const sl_value *lse,
                             const sl_shape *q) {
  SL_REQUIRE(sl_shape_equal(&dout->shape, q) && sl_shape_equal(&out->shape, q), SHAPE,
             "%s: dout is %s and out %s, expected %s", n->op->name, sl_shape_text(&dout->shape),
             sl_shape_text(&out->shape), sl_shape_text(q));
  sl_shape want = SL_SHAPE(q->dim[0], q->dim[2], q->dim[1]);
  SL_REQUIRE(lse->dtype == SL_F32 && sl_shape_equal(&lse->shape, &want), SHAPE, "%s: lse is %s, expected f32 %s",
             n->op->name, sl_value_text(lse), sl_shape_text(&want));
  return SL_STATUS_OK;
}

static sl_status backward_infer(sl_node *n) {
  const sl_shape *q = &n->in[1]->shape;
  SL_REQUIRE(q->rank == 4 && n->in[2]->shape.rank == 4, SHAPE, "%s: q is %s, expected [N,Tq,H,D]", n->op->name,
             sl_shape_text(q));
  SL_TRY(check_saved(n, n->in[0], n->in[4], n->in[5], q));
  for (int i = 0; i < 3; i++) {
    n->out[i].dtype = n->in[1 + i]->dtype;
    n->out[i].shape = n->in[1 + i]->shape;
  }
  return SL_STATUS_OK;
}

static int64_t backward_macs(const sl_node *n) { return 5 * visible_pairs(sizes_apart(n->in[1], n->in[2])); }

static void ask_backward(asked *a, const sl_attrs *attrs, const sl_view *out, const sl_view *in) {
  ask(a, attrs, &in[1], &in[2], &in[3], &in[6]);
  a->job.dout = &in[0];
  a->job.out = &in[4];
  a->job.lse = &in[5];
  a->job.dq = &out[0];
  a->job.dk = &out[1];
  a->job.dv = &out[2];
}

RUNS(backward, ask_backward, true, attention_backward)

const sl_op_rules sl_rules_attention_backward = {.canon = backward_canon,
                                                 .infer = backward_infer,
                                                 .macs = backward_macs,
                                                 .workspace = workspace_backward,
                                                 .prepare = prepare_backward,
                                                 .release = release,
                                                 .run = run_backward};

/* --- side by side: qkv [N,T,3,H,D] --- */

static head_sizes sizes_packed(const sl_value *qkv) {
  const int64_t *d = qkv->shape.dim;
  return (head_sizes){d[0], d[3], d[1], d[1], d[4]};
}

/* q, k or v of qkv. */
static sl_view part_of(const sl_view *qkv, int i) {
  sl_view p = *qkv;
  if (p.data) p.data = (char *)p.data + i * qkv->stride[2] * (int64_t)sl_dtype_size(qkv->dtype);
  p.shape.rank = 4;
  for (int k = 2; k < 4; k++) p.shape.dim[k] = qkv->shape.dim[k + 1], p.stride[k] = qkv->stride[k + 1];
  return p;
}

static sl_status check_packed(const sl_node *n, const sl_value *qkv) {
  const sl_shape *s = &qkv->shape;
  SL_REQUIRE(s->rank == 5 && s->dim[2] == 3 && s->dim[4] > 0, SHAPE, "%s: qkv is %s, expected [N,T,3,H,D]", n->op->name,
             sl_shape_text(s));
  return SL_STATUS_OK;
}

static sl_status qkv_canon(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)n, (void)a;
  static const char *const names[] = {"qkv"};
  return canon_heads(g, "attention_qkv", 1, in, names);
}

static sl_status qkv_infer(sl_node *n) {
  SL_TRY(check_packed(n, n->in[0]));
  const int64_t *d = n->in[0]->shape.dim;
  n->out[0].dtype = n->in[0]->dtype;
  n->out[0].shape = SL_SHAPE(d[0], d[1], d[3], d[4]);
  n->out[1].dtype = SL_F32;
  n->out[1].shape = SL_SHAPE(d[0], d[3], d[1]);
  return SL_STATUS_OK;
}

static sl_status qkv_grad(sl_grad_args *g) {
  SL_TRY(refuse_lse_gradient(g));
  sl_value *in[] = {g->dy[0], g->in[0], g->out[0], g->out[1]};
  g->dx[0] = sl_opn(SL_OP_attention_qkv_backward, 4, in, &g->node->attrs);
  return sl_graph_status(g->graph);
}

static int64_t qkv_macs(const sl_node *n) { return 2 * visible_pairs(sizes_packed(n->in[0])); }

static void ask_packed(asked *a, const sl_attrs *attrs, const sl_view *out, const sl_view *in) {
  for (int i = 0; i < 3; i++) a->part[i] = part_of(&in[0], i);
  ask(a, attrs, &a->part[0], &a->part[1], &a->part[2], &absent);
  a->job.out = &out[0];
  a->job.lse = &out[1];
}

RUNS(packed, ask_packed, false, attention)

const sl_op_rules sl_rules_attention_qkv = {.canon = qkv_canon,
                                            .infer = qkv_infer,
                                            .grad = qkv_grad,
                                            .macs = qkv_macs,
                                            .workspace = workspace_packed,
                                            .prepare = prepare_packed,
                                            .release = release,
                                            .run = run_packed};

/* dout qkv out lse */
static sl_status qkv_backward_canon(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)n, (void)a;
  static const char *const names[] = {"dout", "qkv", "out"};
  for (int i = 0; i < 3; i++) SL_TRY(canon_heads(g, "attention_qkv_backward", 1, &in[i], &names[i]));
  in[3] = sl_contiguous(in[3]);
  return sl_graph_status(g);
}

static sl_status qkv_backward_infer(sl_node *n) {
  SL_TRY(check_packed(n, n->in[1]));
  const int64_t *d = n->in[1]->shape.dim;
  sl_shape q = SL_SHAPE(d[0], d[1], d[3], d[4]);
  SL_TRY(check_saved(n, n->in[0], n->in[2], n->in[3], &q));
  n->out[0].dtype = n->in[1]->dtype;
  n->out[0].shape = n->in[1]->shape;
  return SL_STATUS_OK;
}

static int64_t qkv_backward_macs(const sl_node *n) { return 5 * visible_pairs(sizes_packed(n->in[1])); }

static void ask_packed_backward(asked *a, const sl_attrs *attrs, const sl_view *out, const sl_view *in) {
  for (int i = 0; i < 3; i++) a->part[i] = part_of(&in[1], i), a->part[3 + i] = part_of(&out[0], i);
  ask(a, attrs, &a->part[0], &a->part[1], &a->part[2], &absent);
  a->job.dout = &in[0];
  a->job.out = &in[2];
  a->job.lse = &in[3];
  a->job.dq = &a->part[3];
  a->job.dk = &a->part[4];
  a->job.dv = &a->part[5];
}

RUNS(packed_backward, ask_packed_backward, true, attention_backward)

const sl_op_rules sl_rules_attention_qkv_backward = {.canon = qkv_backward_canon,
                                                     .infer = qkv_backward_infer,
                                                     .macs = qkv_backward_macs,
                                                     .workspace = workspace_packed_backward,
                                                     .prepare = prepare_packed_backward,
                                                     .release = release,
                                                     .run = run_packed_backward};
