#include "diffusion/sampler_internal.h"
#include "ops/ops.h"

enum {
  MOST_VALUES = 80,
  LEAST_STEPS = 8,        /* in a batch: below, the batch saves little of the reading of weights */
  MOST_BYTES = 256 << 20, /* of a batch */
  ALIGN = 128,            /* elements between the values of a step */
};

struct sl_conditioning {
  sl_sampler *s;
  bool guided;
  int n;                                         /* values, those of one dtype */
  int number[MOST_VALUES];                       /* of the value, along the frontier */
  int64_t offset[MOST_VALUES], row[MOST_VALUES]; /* elements: where it starts in a step's, and of one row of it */
  sl_value *table[MOST_VALUES];                  /* while a program is built */
  sl_tensor *now;                                /* a step's values, where its program reads them */
  sl_tensor *view[MOST_VALUES];                  /* of now, in the values' shapes */
  sl_tensor *batch;                              /* [capacity, elements of a step] */
  int64_t capacity, held;                        /* steps: that it has room for, and that it holds */
  uint64_t version;                              /* of the parameters that it was computed from */
  int64_t index[];                               /* capacity long: the diffusion's step of each */
};

static int64_t rows_of(const sl_conditioning *c) { return (c->guided ? 2 : 1) * c->s->o.n; }

/* --- what there is to compute --- */

/* The model on steps x n images, whatever they are; t i64 [steps*n], y i64 [n] or NULL. */
static sl_status build_model(sl_conditioning *c, sl_graph *g, int64_t steps, sl_value *t, sl_value *y, sl_value **found,
                             int *n) {
  const sl_model_info *f = &c->s->o.model->info;
  int64_t images = steps * c->s->o.n;
  sl_value *x = sl_expand(sl_scalar(g, 0, SL_F32), &SL_SHAPE(images, f->in_channels, f->height, f->width)), *o;
  if (y) y = sl_reshape(sl_expand(y, &SL_SHAPE(steps, c->s->o.n)), 1, (int64_t[]){images});
  SL_TRY(sl__sampler_predict(c->s, c->s->o.diffusion, c->guided, g, x, t, y, &o));
  return sl_graph_frontier(g, 1, &x, MOST_VALUES, found, n);
}

/* Those that have a row per image, and the dtype of the first; the others stay in the step. */
static int64_t choose(sl_conditioning *c, sl_value *const *found, int n) {
  int64_t used = 0, rows = rows_of(c);
  for (int i = 0; i < n; i++) {
    const sl_value *v = found[i];
    if (v->shape.rank < 2 || v->shape.dim[0] != rows || v->dtype != found[0]->dtype || !sl_value_is_dense(v)) continue;
    int k = c->n++;
    c->number[k] = i;
    c->row[k] = sl_shape_numel(&v->shape) / rows;
    c->offset[k] = used;
    used += (rows * c->row[k] + ALIGN - 1) / ALIGN * ALIGN;
  }
  return used;
}

static sl_status make_views(sl_conditioning *c, sl_value *const *found) {
  for (int k = 0; k < c->n; k++) {
    const sl_value *v = found[c->number[k]];
    SL_TRY(sl_tensor_view_as(c->now, &v->shape, v->stride, c->offset[k], &c->view[k]));
  }
  return SL_STATUS_OK;
}

/* A batch of as many steps as fit and are left; none if that is few. */
static sl_status make_room(sl_conditioning *c, sl_value *const *found, int64_t used) {
  sl_sampler *s = c->s;
  sl_dtype dtype = found[0]->dtype;
  int64_t fit = MOST_BYTES / (used * (int64_t)sl_dtype_size(dtype));
  c->capacity = fit < s->steps ? fit : s->steps;
  if (c->capacity < LEAST_STEPS) return SL_STATUS_UNSUPPORTED;
  SL_TRY(sl_tensor_new(s->ctx, s->device, dtype, &SL_SHAPE(used), &c->now));
  SL_TRY(sl_tensor_new(s->ctx, s->device, dtype, &SL_SHAPE(c->capacity, used), &c->batch));
  return make_views(c, found);
}

/* *pays: whether there are such values, and room for enough steps of them. */
static sl_status look(sl_conditioning *c, bool *pays) {
  sl_sampler *s = c->s;
  sl_value *found[MOST_VALUES];
  sl_graph *g = NULL;
  int n = 0;
  *pays = false;
  SL_TRY(sl_graph_new(s->ctx, &g));
  sl_graph_set_device(g, s->device);
  sl_value *t = sl_input(g, "t", SL_I64, &SL_SHAPE(s->o.n)),
           *y = s->labels ? sl_input(g, "y", SL_I64, &SL_SHAPE(s->o.n)) : NULL;
  sl_status status = build_model(c, g, 1, t, y, found, &n);
  if (status == SL_STATUS_OK && n > 0 && n <= MOST_VALUES) {
    status = make_room(c, found, choose(c, found, n));
    *pays = status == SL_STATUS_OK;
    if (status == SL_STATUS_UNSUPPORTED) status = SL_STATUS_OK;
  }
  sl_graph_release(g);
  return status;
}

sl_status sl__conditioning_new(sl_sampler *s, bool guided, sl_conditioning **out) {
  *out = NULL;
  if (!s->device->gpu) return SL_STATUS_OK; /* the CPU's steps are bound by arithmetic */
  sl_conditioning *c = sl_alloc_zero(s->ctx, sizeof *c + (size_t)s->steps * sizeof c->index[0]);
  if (!c) return SL_STATUS_OOM;
  c->s = s;
  c->guided = guided;
  bool pays;
  sl_status status = look(c, &pays);
  if (status == SL_STATUS_OK && pays) {
    *out = c;
  } else {
    sl__conditioning_free(c);
  }
  return status;
}

void sl__conditioning_free(sl_conditioning *c) {
  if (!c) return;
  for (int k = 0; k < c->n; k++) sl_tensor_release(c->view[k]);
  sl_tensor_release(c->now);
  sl_tensor_release(c->batch);
  sl_free(c->s->ctx, c);
}

uint64_t sl__conditioning_bytes(const sl_conditioning *c) {
  return c ? sl_tensor_storage_bytes(c->now) + 2 * sl_tensor_storage_bytes(c->batch) : 0;
}

/* --- computing a batch --- */

typedef struct batch_build {
  sl_conditioning *c;
  int64_t steps;
} batch_build;

static sl_status build_batch(void *user, sl_graph *g, int n_in, sl_value *const *in, int n_out, sl_value **out) {
  const batch_build *b = user;
  sl_value *found[MOST_VALUES];
  int n;
  (void)n_in;
  SL_TRY(build_model(b->c, g, b->steps, in[0], in[1], found, &n));
  for (int k = 0; k < n_out; k++) out[k] = found[b->c->number[k]];
  return SL_STATUS_OK;
}

/* Value k of all steps, rows ordered (guidance, step, image), to its place in every step's: ordered (step, guidance,
 * image). */
static sl_status spread(sl_conditioning *c, int k, int64_t steps, sl_tensor *value) {
  int64_t n = c->s->o.n, row = c->row[k], step = sl_tensor_strides(c->batch)[0];
  sl_shape shape = SL_SHAPE(c->guided ? 2 : 1, steps, n, row);
  sl_tensor *from = NULL, *to = NULL;
  sl_status status = sl_tensor_reshape(value, &shape, &from);
  if (status == SL_STATUS_OK)
    status = sl_tensor_view_as(c->batch, &shape, (int64_t[]){n * row, step, row, 1}, c->offset[k], &to);
  if (status == SL_STATUS_OK) status = sl_tensor_copy(to, from);
  sl_tensor_release(from);
  sl_tensor_release(to);
  return status;
}

/* The steps from i on that have this guidance, as many as fit. */
static int64_t gather_steps(sl_conditioning *c, int64_t i) {
  const int64_t *map = c->s->o.diffusion->schedule->timestep_map;
  int64_t n = 0;
  for (; i >= 0 && n < c->capacity; i--)
    if (sl__sampler_guided(c->s, map[i]) == c->guided) c->index[n++] = i;
  return n;
}

static sl_status compute(sl_conditioning *c, sl_tensor *params, int64_t i) {
  sl_sampler *s = c->s;
  int64_t steps = gather_steps(c, i), n = s->o.n;
  sl_tensor *t = NULL, *out[MOST_VALUES] = {NULL};
  c->held = 0;
  SL_TRY(sl_tensor_new(s->ctx, NULL, SL_I64, &SL_SHAPE(steps * n), &t));
  for (int64_t k = 0; k < steps * n; k++) ((int64_t *)sl_tensor_data(t))[k] = c->index[k / n];
  batch_build b = {c, steps};
  char key[2] = {'c', (char)c->guided};
  sl_run run = {.params = params};
  sl_status status =
      sl_eager_call(s->programs, key, sizeof key, build_batch, &b, 2, (sl_tensor *[]){t, s->labels}, &run, c->n, out);
  for (int k = 0; k < c->n; k++) {
    if (status == SL_STATUS_OK) status = spread(c, k, steps, out[k]);
    sl_tensor_release(out[k]);
  }
  sl_tensor_release(t);
  if (status != SL_STATUS_OK) return status;
  c->held = steps;
  c->version = sl_tensor_version(params);
  return SL_STATUS_OK;
}

sl_status sl__conditioning_at(sl_sampler *s, sl_tensor *params, int64_t i, sl_conditioning **out) {
  sl_conditioning *c = s->conditioning[sl__sampler_guided(s, s->o.diffusion->schedule->timestep_map[i]) ? 1 : 0];
  *out = c;
  if (!c) return SL_STATUS_OK;
  int64_t at = 0;
  while (at < c->held && c->index[at] != i) at++;
  if (at == c->held || c->version != sl_tensor_version(params)) {
    SL_TRY(compute(c, params, i));
    at = 0;
  }
  sl_tensor *step = NULL;
  SL_TRY(sl_tensor_select(c->batch, 0, at, &step));
  sl_status status = sl_tensor_copy(c->now, step);
  sl_tensor_release(step);
  return status;
}

/* --- reading it --- */

sl_status sl__conditioning_tables(sl_conditioning *c, sl_graph *g) {
  for (int k = 0; k < c->n; k++) c->table[k] = sl_table(g, "conditioning", c->view[k]);
  return sl_graph_status(g);
}

sl_status sl__conditioning_use(sl_conditioning *c, sl_graph *g, sl_value *x) {
  sl_value *found[MOST_VALUES];
  int n;
  SL_TRY(sl_graph_frontier(g, 1, &x, MOST_VALUES, found, &n));
  for (int k = 0; k < c->n; k++) sl_graph_replace(g, found[c->number[k]], c->table[k]);
  return SL_STATUS_OK;
}
