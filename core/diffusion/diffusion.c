/* The process as an object: tables over t, and its functions on tensors. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "diffusion/process.h"
#include "ops/diffusion_loss.h"
#include "ops/ops.h"

#define PROGRAMS 24

static const char *const table_names[] = {
#define X(name) #name,
    SL_DIFFUSION_TABLES(X)
#undef X
};

static const struct {
  const char *name;
  int inputs, required, outputs, t; /* t: which input is the timestep */
} fns[SL_FN_COUNT] = {
    [SL_FN_Q_SAMPLE] = {"q_sample", 3, 3, 1, 1},
    [SL_FN_Q_MEAN_VARIANCE] = {"q_mean_variance", 2, 2, 3, 1},
    [SL_FN_Q_POSTERIOR] = {"q_posterior", 3, 3, 3, 2},
    [SL_FN_P_MEAN_VARIANCE] = {"p_mean_variance", 3, 3, 4, 2},
    [SL_FN_P_SAMPLE] = {"p_sample", 4, 4, 2, 2},
    [SL_FN_DDIM_SAMPLE] = {"ddim_sample", 4, 3, 2, 2},
    [SL_FN_DDIM_REVERSE] = {"ddim_reverse", 3, 3, 2, 2},
    [SL_FN_VB_BPD] = {"vb_bpd", 4, 4, 1, 3},
    [SL_FN_LOSSES] = {"losses", 6, 5, 3, 3},
};

const char *sl_diffusion_table_name(sl_diffusion_table t) { return table_names[t]; }
int sl_diffusion_fn_inputs(sl_diffusion_fn fn) { return fns[fn].inputs; }
int sl_diffusion_fn_outputs(sl_diffusion_fn fn) { return fns[fn].outputs; }

double sl_diffusion_number(const sl_diffusion *d, sl_diffusion_table table, int64_t i) {
  const sl_schedule *s = d->schedule;
  switch (table) {
#define X(field)                                                                                                       \
  case SL_TABLE_##field: return s->field[i];
    SL_SCHEDULE_FIELDS(X)
#undef X
    case SL_TABLE_log_betas: return log(s->betas[i]);
    case SL_TABLE_fixed_large_log_variance: return log(i == 0 && s->T > 1 ? s->posterior_variance[1] : s->betas[i]);
    case SL_DIFFUSION_TABLE_COUNT: break;
  }
  return 0;
}

void sl_diffusion_predicts(const sl_diffusion *d, int64_t i, double *of_x, double *of_p) {
  const sl_schedule *s = d->schedule;
  *of_x = 0, *of_p = 1;
  if (d->predict == SL_PREDICT_EPS) *of_x = s->sqrt_recip_alphas_cumprod[i], *of_p = -s->sqrt_recipm1_alphas_cumprod[i];
  if (d->predict == SL_PREDICT_V) *of_x = s->sqrt_alphas_cumprod[i], *of_p = -s->sqrt_one_minus_alphas_cumprod[i];
}

/* What the network predicts, as the loss reads it (diffusion_loss.h). */
static void loss_row(const sl_diffusion *d, int64_t i, double *row) {
  const sl_schedule *s = d->schedule;
  row[SL_LOSS_TARGET_NOISE] = d->predict == SL_PREDICT_EPS;
  row[SL_LOSS_TARGET_X0] = d->predict == SL_PREDICT_X0;
  if (d->predict == SL_PREDICT_V) {
    row[SL_LOSS_TARGET_NOISE] = s->sqrt_alphas_cumprod[i];
    row[SL_LOSS_TARGET_X0] = -s->sqrt_one_minus_alphas_cumprod[i];
  }
  sl_diffusion_predicts(d, i, &row[SL_LOSS_X_XT], &row[SL_LOSS_X_OUT]);
  row[SL_LOSS_MEAN_X] = s->posterior_mean_coef1[i];
  row[SL_LOSS_MEAN_XT] = s->posterior_mean_coef2[i];
  row[SL_LOSS_LOG_HIGH] = log(s->betas[i]);
  row[SL_LOSS_LOG_LOW] = s->posterior_log_variance_clipped[i];
  row[SL_LOSS_FIRST] = i == 0;
}

static sl_status make_tables(sl_diffusion *d) {
  for (int k = 0; k < SL_DIFFUSION_TABLE_COUNT; k++) {
    SL_TRY(sl_tensor_new(d->ctx, NULL, SL_F32, &SL_SHAPE(d->steps), &d->table[k]));
    float *out = sl_tensor_data(d->table[k]);
    for (int64_t i = 0; i < d->steps; i++) out[i] = (float)sl_diffusion_number(d, (sl_diffusion_table)k, i);
  }
  SL_TRY(sl_tensor_new(d->ctx, NULL, SL_F64, &SL_SHAPE(d->steps, SL_LOSS_COLUMNS), &d->loss_rows));
  double *rows = sl_tensor_data(d->loss_rows);
  for (int64_t i = 0; i < d->steps; i++) loss_row(d, i, rows + i * SL_LOSS_COLUMNS);
  return sl_tensor_from(d->ctx, SL_I64, 1, &d->steps, d->schedule->timestep_map, &d->timestep_map);
}

sl_status sl_diffusion_new(sl_context *ctx, sl_schedule *schedule, int64_t original_steps, sl_predict predict,
                           sl_variance variance, sl_diffusion **out) {
  *out = NULL;
  sl_diffusion *d = sl_alloc_zero(ctx, sizeof *d);
  if (!d) {
    sl_schedule_free(schedule);
    return SL_STATUS_OOM;
  }
  *d = (sl_diffusion){.ctx = ctx,
                      .refs = 1,
                      .schedule = schedule,
                      .steps = schedule->T,
                      .original_steps = original_steps,
                      .predict = predict,
                      .variance = variance};
  sl_status s = make_tables(d);
  if (s == SL_STATUS_OK) s = sl_eager_new(ctx, PROGRAMS, &d->programs);
  if (s == SL_STATUS_OK) {
    *out = d;
  } else {
    sl_diffusion_release(d);
  }
  return s;
}

sl_diffusion *sl_diffusion_retain(sl_diffusion *d) {
  d->refs++;
  return d;
}

void sl_diffusion_release(sl_diffusion *d) {
  if (!d || --d->refs > 0) return;
  sl_eager_free(d->programs);
  for (int k = 0; k < SL_DIFFUSION_TABLE_COUNT; k++) sl_tensor_release(d->table[k]);
  sl_tensor_release(d->loss_rows);
  sl_tensor_release(d->timestep_map);
  sl_schedule_free(d->schedule);
  sl_free(d->ctx, d);
}

sl_tensor *sl_diffusion_find(sl_diffusion *d, const char *name) {
  if (name && !strcmp(name, "timestep_map")) return d->timestep_map;
  for (int k = 0; name && k < SL_DIFFUSION_TABLE_COUNT; k++)
    if (!strcmp(name, table_names[k])) return d->table[k];
  return NULL;
}

/* --- functions --- */

static void give_gaussian(sl_gaussian p, int n, sl_value **out) {
  sl_value *all[4] = {p.mean, p.variance, p.log_variance, p.pred_xstart};
  for (int i = 0; i < n; i++) out[i] = all[i];
}

sl_status sl_diffusion_build(sl_diffusion *d, sl_diffusion_fn fn, sl_diffusion_options o, sl_graph *g,
                             sl_value *const *in, sl_value **out) {
  switch (fn) {
    case SL_FN_Q_SAMPLE: out[0] = sl_q_sample(d, in[0], in[1], in[2]); break;
    case SL_FN_Q_MEAN_VARIANCE: give_gaussian(sl_q_mean_variance(d, in[0], in[1]), 3, out); break;
    case SL_FN_Q_POSTERIOR: give_gaussian(sl_q_posterior(d, in[0], in[1], in[2]), 3, out); break;
    case SL_FN_P_MEAN_VARIANCE: give_gaussian(sl_p_mean_variance(d, in[0], in[1], in[2], o.clip), 4, out); break;
    case SL_FN_P_SAMPLE: out[0] = sl_p_sample(d, in[0], in[1], in[2], in[3], o.clip, &out[1]); break;
    case SL_FN_DDIM_SAMPLE:
      SL_REQUIRE(o.eta == 0 || in[3], ARG, "ddim_sample: eta is %g, so noise must be given", o.eta);
      out[0] = sl_ddim_sample(d, in[0], in[1], in[2], in[3], o.eta, o.clip, &out[1]);
      break;
    case SL_FN_DDIM_REVERSE: out[0] = sl_ddim_reverse(d, in[0], in[1], in[2], o.clip, &out[1]); break;
    case SL_FN_VB_BPD: out[0] = sl_vb_bpd(d, in[0], in[1], in[2], in[3], o.clip); break;
    case SL_FN_LOSSES: {
      sl_losses l = sl_diffusion_losses(d, in[0], in[1], in[2], in[3], in[4], in[5]);
      out[0] = l.loss;
      out[1] = l.mse;
      out[2] = l.vb ? l.vb : sl_mul_scalar(l.mse, 0.0);
      break;
    }
    case SL_FN_COUNT: break;
  }
  return sl_graph_status(g);
}

typedef struct call {
  sl_diffusion *d;
  sl_diffusion_fn fn;
  sl_diffusion_options o;
} call;

static sl_status build_call(void *user, sl_graph *g, int n_in, sl_value *const *in, int n_out, sl_value **out) {
  const call *c = user;
  (void)n_out;
  sl_value *all[SL_MAX_INPUTS] = {NULL};
  memcpy(all, in, (size_t)n_in * sizeof *all);
  int at = fns[c->fn].t;
  sl_value *t = all[at];
  if (t->dtype != SL_I64) all[at] = sl_cast(t, SL_I64);
  return sl_diffusion_build(c->d, c->fn, c->o, g, all, out);
}

static sl_status check_steps(const sl_diffusion *d, const char *name, sl_tensor *given) {
  sl_tensor *t = NULL;
  sl_status status = sl_tensor_on_host(given, &t);
  for (int64_t i = 0; status == SL_STATUS_OK && i < sl_tensor_numel(t); i++) {
    double v = sl_tensor_at(t, i);
    if (!(v >= 0 && v < (double)d->steps))
      status = sl_fail(SL_STATUS_ARG, "%s: t is %g, expected 0 … %lld", name, v, (long long)d->steps - 1);
  }
  sl_tensor_release(t);
  return status;
}

static sl_status check_call(const sl_diffusion *d, sl_diffusion_fn fn, sl_tensor *const *in) {
  const char *name = fns[fn].name;
  int at = fns[fn].t;
  for (int i = 0; i < fns[fn].required; i++) SL_REQUIRE(in[i], ARG, "%s: argument %d is missing", name, i + 1);
  const sl_shape *x = sl_tensor_shape(in[at == 0 ? 1 : 0]);
  sl_tensor *t = in[at];
  SL_REQUIRE(!sl_dtype_is_float(sl_tensor_dtype(t)), DTYPE,
             "%s: t is %s, expected integers (indices into the %lld steps)", name, sl_dtype_name(sl_tensor_dtype(t)),
             (long long)d->steps);
  SL_REQUIRE(sl_tensor_shape(t)->rank == 1 && x->rank >= 1 && sl_tensor_numel(t) == x->dim[0], SHAPE,
             "%s: t is %s, expected [%lld]", name, sl_shape_text(sl_tensor_shape(t)),
             (long long)(x->rank ? x->dim[0] : 1));
  SL_TRY(check_steps(d, name, t));
  bool has_out = fn >= SL_FN_P_MEAN_VARIANCE;
  if (has_out && d->variance == SL_VARIANCE_LEARNED) {
    const sl_shape *o = sl_tensor_shape(in[0]), *c = sl_tensor_shape(in[1]);
    SL_REQUIRE(o->rank == c->rank && o->rank > 1 && o->dim[1] == 2 * c->dim[1], SHAPE,
               "%s: out is %s, expected twice the channels of %s (variance = \"learned\")", name, sl_shape_text(o),
               sl_shape_text(c));
  }
  const sl_shape *like = sl_tensor_shape(in[has_out]);
  bool wide = has_out && d->variance == SL_VARIANCE_LEARNED;
  for (int i = wide; i < fns[fn].inputs && i < 5; i++) /* input 5 is the weight's table; nothing is broadcast */
    SL_REQUIRE(i == at || !in[i] || sl_shape_equal(sl_tensor_shape(in[i]), like), SHAPE,
               "%s: argument %d is %s, expected %s as argument %d", name, i + 1, sl_shape_text(sl_tensor_shape(in[i])),
               sl_shape_text(like), 1 + has_out);
  return SL_STATUS_OK;
}

/* Inputs together on the GPU that one of them lies on; what had to be brought there is in brought[]. */
static sl_status bring_together(int n, sl_tensor **in, sl_tensor **brought) {
  const sl_device *dev = NULL;
  for (int i = 0; i < n; i++)
    if (in[i] && sl_tensor_device(in[i])->gpu) dev = sl_tensor_device(in[i]);
  for (int i = 0; dev && i < n; i++) {
    if (!in[i] || sl_tensor_device(in[i])->gpu) continue;
    SL_TRY(sl_tensor_to(in[i], sl_tensor_dtype(in[i]), dev, &brought[i]));
    in[i] = brought[i];
  }
  return SL_STATUS_OK;
}

sl_status sl_diffusion_call(sl_diffusion *d, sl_diffusion_fn fn, sl_diffusion_options o, sl_tensor *const *given,
                            sl_tensor **out) {
  memset(out, 0, (size_t)fns[fn].outputs * sizeof *out);
  SL_TRY(check_call(d, fn, given));
  call c = {d, fn, o};
  sl_tensor *in[SL_MAX_INPUTS] = {NULL}, *brought[SL_MAX_INPUTS] = {NULL};
  memcpy(in, given, (size_t)fns[fn].inputs * sizeof *in);
  char key[64];
  int n = snprintf(key, sizeof key, "%d %d %a", (int)fn, (int)o.clip, o.eta);
  sl_status status = bring_together(fns[fn].inputs, in, brought);
  if (status == SL_STATUS_OK)
    status = sl_eager_call(d->programs, key, (size_t)n, build_call, &c, fns[fn].inputs, in, NULL, fns[fn].outputs, out);
  for (int i = 0; i < SL_MAX_INPUTS; i++) sl_tensor_release(brought[i]);
  return status;
}
