/* Rows by number: gather and its gradient, and the sinusoidal embedding of timesteps. */
#include <math.h>

#include "ops/rules.h"

enum { ATTR_ROWS };                 /* scatter_add: i */
enum { ATTR_DIM, ATTR_PERIOD = 0 }; /* timestep_embedding: i, f */

static sl_status check_index(const char *op, const sl_value *index) {
  SL_REQUIRE(index->dtype == SL_I64 || index->dtype == SL_I32, DTYPE, "%s: index is %s, expected i64 or i32", op,
             sl_value_text(index));
  return SL_STATUS_OK;
}

/* Elements of one row of a table. */
static int64_t row_width(const sl_shape *s, int skip) {
  int64_t n = 1;
  for (int i = skip; i < s->rank; i++) n *= s->dim[i];
  return n;
}

/* --- gather --- */

static sl_status canon_gather(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)n, (void)a;
  if (in[1]->dtype == SL_U8) in[1] = sl_cast(in[1], SL_I32);
  return sl_graph_status(g);
}

static sl_status infer_gather(sl_node *n) {
  const sl_value *table = n->in[0], *index = n->in[1];
  SL_TRY(check_index("gather", index));
  SL_REQUIRE(table->shape.rank >= 1, SHAPE, "gather: table is a scalar, expected rows [R,…]");
  SL_REQUIRE(index->shape.rank + table->shape.rank - 1 <= SL_MAX_RANK, SHAPE,
             "gather: %s by %s gives more than %d dimensions", sl_value_text(table), sl_value_text(index), SL_MAX_RANK);
  sl_shape s = index->shape;
  for (int i = 1; i < table->shape.rank; i++) s.dim[s.rank++] = table->shape.dim[i];
  n->out[0].dtype = table->dtype;
  n->out[0].shape = s;
  return SL_STATUS_OK;
}

static sl_status grad_gather(sl_grad_args *a) {
  if (!a->need[0]) return SL_STATUS_OK;
  sl_attrs attrs = {.i = {[ATTR_ROWS] = a->in[0]->shape.dim[0]}};
  a->dx[0] = sl_cast(sl_op2(SL_OP_scatter_add, a->dy[0], a->in[1], &attrs), a->in[0]->dtype);
  return SL_STATUS_OK;
}

static sl_status run_gather(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                            void *workspace) {
  (void)n, (void)state, (void)workspace;
  return e->kernels->gather(e, &out[0], &in[0], &in[1], row_width(&in[0].shape, 1));
}

const sl_op_rules sl_rules_gather = {
    .canon = canon_gather, .infer = infer_gather, .grad = grad_gather, .run = run_gather};

sl_value *sl_gather(sl_value *table, sl_value *index) { return sl_op2(SL_OP_gather, table, index, NULL); }

/* --- scatter_add: rows of dy added up by number, f32 --- */

static sl_status infer_scatter_add(sl_node *n) {
  const sl_value *dy = n->in[0], *index = n->in[1];
  SL_TRY(check_index("scatter_add", index));
  SL_REQUIRE(dy->dtype == SL_F32 || dy->dtype == SL_BF16, DTYPE, "scatter_add: dy is %s, expected f32 or bf16",
             sl_value_text(dy));
  bool leads = dy->shape.rank >= index->shape.rank;
  for (int i = 0; leads && i < index->shape.rank; i++) leads = dy->shape.dim[i] == index->shape.dim[i];
  SL_REQUIRE(leads, SHAPE, "scatter_add: dy is %s, expected to begin with index's shape %s", sl_shape_text(&dy->shape),
             sl_shape_text(&index->shape));
  SL_REQUIRE(n->attrs.i[ATTR_ROWS] >= 0, ARG, "scatter_add: rows is %lld", (long long)n->attrs.i[ATTR_ROWS]);
  sl_shape s = {.rank = 1, .dim = {n->attrs.i[ATTR_ROWS]}};
  for (int i = index->shape.rank; i < dy->shape.rank; i++) s.dim[s.rank++] = dy->shape.dim[i];
  n->out[0].dtype = SL_F32;
  n->out[0].shape = s;
  return SL_STATUS_OK;
}

static sl_status run_scatter_add(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in, void *state,
                                 void *workspace) {
  (void)n, (void)state, (void)workspace;
  return e->kernels->scatter_add(e, &out[0], &in[0], &in[1], row_width(&out[0].shape, 1));
}

const sl_op_rules sl_rules_scatter_add = {.infer = infer_scatter_add, .run = run_scatter_add};

/* --- timestep_embedding --- */

static sl_status canon_timestep_embedding(sl_graph *g, int n, sl_value **in, sl_attrs *a) {
  (void)n, (void)a;
  in[0] = sl_cast(in[0], SL_F32);
  return sl_graph_status(g);
}

static sl_status infer_timestep_embedding(sl_node *n) {
  const sl_value *t = n->in[0];
  int64_t dim = n->attrs.i[ATTR_DIM];
  double period = n->attrs.f[ATTR_PERIOD];
  SL_REQUIRE(t->shape.rank == 1, SHAPE, "timestep_embedding: t is %s, expected [N]", sl_shape_text(&t->shape));
  SL_REQUIRE(dim >= 2, ARG, "timestep_embedding: dim is %lld, expected at least 2", (long long)dim);
  SL_REQUIRE(period > 0, ARG, "timestep_embedding: max_period is %g, expected more than 0", period);
  n->out[0].dtype = SL_F32;
  n->out[0].shape = SL_SHAPE(t->shape.dim[0], dim);
  return SL_STATUS_OK;
}

/* f_i = exp(-ln(max_period) i / half) as a row [1, half]. */
static sl_value *frequencies(sl_graph *g, int64_t half, double period) {
  sl_tensor *row = NULL;
  sl_status s = sl_tensor_new(sl_graph_context(g), NULL, SL_F32, &SL_SHAPE(1, half), &row);
  if (s != SL_STATUS_OK) return sl_graph_fail(g, s);
  for (int64_t i = 0; i < half; i++)
    ((float *)sl_tensor_data(row))[i] = (float)exp(-log(period) * (double)i / (double)half);
  sl_value *v = sl_table(g, "timestep_frequencies", row);
  sl_tensor_release(row);
  return v;
}

/* d/dt cos(t f) = -f sin(t f), d/dt sin(t f) = f cos(t f). */
static sl_status grad_timestep_embedding(sl_grad_args *a) {
  if (!a->need[0]) return SL_STATUS_OK;
  int64_t half = a->node->attrs.i[ATTR_DIM] / 2;
  sl_value *cosines = sl_slice(a->out[0], 1, 0, half - 1, 1), *sines = sl_slice(a->out[0], 1, half, 2 * half - 1, 1);
  sl_value *dcos = sl_slice(a->dy[0], 1, 0, half - 1, 1), *dsin = sl_slice(a->dy[0], 1, half, 2 * half - 1, 1);
  sl_value *f = frequencies(a->graph, half, a->node->attrs.f[ATTR_PERIOD]);
  sl_value *d = sl_mul(f, sl_sub(sl_mul(dsin, cosines), sl_mul(dcos, sines)));
  a->dx[0] = sl_sum(d, 1, (int[]){1}, false);
  return SL_STATUS_OK;
}

static sl_status run_timestep_embedding(sl_exec *e, const sl_node *n, const sl_view *out, const sl_view *in,
                                        void *state, void *workspace) {
  (void)state, (void)workspace;
  return e->kernels->timestep_embedding(e, &out[0], &in[0], n->attrs.f[ATTR_PERIOD]);
}

const sl_op_rules sl_rules_timestep_embedding = {.canon = canon_timestep_embedding,
                                                 .infer = infer_timestep_embedding,
                                                 .grad = grad_timestep_embedding,
                                                 .run = run_timestep_embedding};

sl_value *sl_timestep_embedding(sl_value *t, int64_t dim) {
  sl_attrs a = sl_op_defaults(sl_op_find("timestep_embedding"));
  a.i[ATTR_DIM] = dim;
  return sl_op1(SL_OP_timestep_embedding, t, &a);
}
