#include "eval/bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/parallel.h"
#include "base/random.h"
#include "ops/kernels.h"
#include "ops/ops.h"

enum { SAMPLES = 5, LEAST_SIDE = 128, FIRST_SIDE = 256, MOST_SIDE = 8192, SIDE_STEP = 128, ROW = 4096 };
static const int64_t first_copy = 1 << 20, most_copy_gpu = 1 << 30,
                     most_copy_cpu = 512 << 20; /* bytes: beyond every cache */

/* --- time --- */

typedef struct timer {
  sl_context *ctx;
  const sl_device *dev;
  void *from, *to; /* the device's stamps; NULL: the clock */
} timer;

static void timer_close(timer *t) {
  if (t->from) t->dev->stamp_free(t->dev, t->from);
  if (t->to) t->dev->stamp_free(t->dev, t->to);
}

static sl_status timer_open(sl_context *ctx, const sl_device *dev, timer *t) {
  *t = (timer){.ctx = ctx, .dev = dev};
  if (dev->use) SL_TRY(dev->use(dev));
  if (!dev->stamp_new) return SL_STATUS_OK;
  sl_status s = dev->stamp_new(dev, &t->from);
  if (s == SL_STATUS_OK) s = dev->stamp_new(dev, &t->to);
  if (s != SL_STATUS_OK) timer_close(t);
  return s;
}

static double clock_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Seconds of n calls in a row. */
static sl_status timer_run(timer *t, sl_status (*call)(void *), void *user, int64_t n, double *seconds) {
  const sl_device *dev = t->dev;
  SL_TRY(dev->sync(dev, NULL));
  double began = clock_now();
  if (t->from) SL_TRY(dev->stamp(dev, t->from));
  for (int64_t i = 0; i < n; i++) {
    if (sl_context_cancelled(t->ctx)) return sl_fail(SL_STATUS_CANCELLED, "stopped on request");
    SL_TRY(call(user));
  }
  if (t->to) SL_TRY(dev->stamp(dev, t->to));
  SL_TRY(dev->sync(dev, NULL));
  *seconds = clock_now() - began;
  return t->from ? dev->stamp_seconds(dev, t->from, t->to, seconds) : SL_STATUS_OK;
}

/* Seconds of one call: the least of three, so that a moment in which something else ran does not decide. The first call
 * of all, which is slower, is not among them. */
static sl_status timer_least(timer *t, sl_status (*call)(void *), void *user, double *seconds) {
  double one = 0;
  SL_TRY(call(user));
  SL_TRY(timer_run(t, call, user, 1, seconds));
  for (int i = 0; i < 2; i++) {
    SL_TRY(timer_run(t, call, user, 1, &one));
    if (one < *seconds) *seconds = one;
  }
  return SL_STATUS_OK;
}

/* --- memory and random numbers --- */

/* Bytes that may still be taken there. */
static uint64_t room_on(sl_context *ctx, const sl_device *dev) {
  sl_device_memory m;
  uint64_t limit = sl_context_memory_limit(ctx), used = sl_context_memory(ctx).bytes, room = UINT64_MAX;
  if (dev->memory) {
    if (dev->memory(dev, &m) != SL_STATUS_OK) return UINT64_MAX; /* the allocation itself will tell */
    used = m.used, room = m.available;
  }
  if (!limit) return room;
  limit = limit > used ? limit - used : 0;
  return limit < room ? limit : room;
}

/* Normal deviates, drawn where they will lie. */
static sl_status random_normal(sl_context *ctx, const sl_device *dev, sl_dtype dtype, const sl_shape *shape,
                               uint32_t seed, sl_tensor **out) {
  sl_graph *g = NULL;
  sl_program *p = NULL;
  sl_step step = {.seed = seed};
  SL_TRY(sl_graph_new(ctx, &g));
  sl_graph_set_device(g, dev);
  sl_graph_output(g, "x", sl_cast(sl_normal(g, shape, SL_STREAM_USER), dtype));
  sl_status status = sl_graph_compile(g, NULL, &p);
  if (status == SL_STATUS_OK) status = sl_program_call(p, &(sl_run){.step = &step}, 1, out);
  sl_program_free(p);
  sl_graph_release(g);
  return status;
}

/* --- products --- */

typedef struct product {
  sl_program *program;
  sl_tensor *x, *w, *y;
} product;

static void product_free(product *p) {
  sl_program_free(p->program);
  sl_tensor_release(p->x);
  sl_tensor_release(p->w);
  sl_tensor_release(p->y);
  *p = (product){0};
}

/* Whether f32 operands may be rounded is settled when the product is planned. */
static sl_status compile_as(sl_graph *g, bool tf32, sl_program **out) {
  sl_gpu *gpu = sl_graph_device(g)->gpu;
  if (!gpu) return sl_graph_compile(g, NULL, out);
  bool before = gpu->tf32;
  gpu->tf32 = tf32;
  sl_status s = sl_graph_compile(g, NULL, out);
  gpu->tf32 = before;
  return s;
}

/* y = x w^T, the form that models ask for most. */
static sl_status product_make(sl_context *ctx, const sl_device *dev, sl_bench_kind kind, int64_t side, product *p) {
  sl_dtype dtype = kind == SL_BENCH_BF16 ? SL_BF16 : SL_F32;
  sl_shape square = SL_SHAPE(side, side);
  sl_graph *g = NULL;
  sl_status status;
  *p = (product){0};
  SL_GOTO(random_normal(ctx, dev, dtype, &square, 1, &p->x));
  SL_GOTO(random_normal(ctx, dev, dtype, &square, 2, &p->w));
  SL_GOTO(sl_tensor_new(ctx, dev, dtype, &square, &p->y));
  SL_GOTO(sl_graph_new(ctx, &g));
  sl_graph_set_device(g, dev);
  sl_value *x = sl_input(g, "x", dtype, &square), *w = sl_input(g, "w", dtype, &square);
  sl_graph_output(g, "y", sl_linear(x, w, NULL, SL_ACT_NONE));
  SL_GOTO(compile_as(g, kind == SL_BENCH_TF32, &p->program));
done:
  sl_graph_release(g);
  if (status != SL_STATUS_OK) product_free(p);
  return status;
}

static sl_status product_run(void *user) {
  product *p = user;
  return sl_program_run(p->program, &(sl_run){.inputs = (sl_tensor *[]){p->x, p->w}, .outputs = &p->y});
}

/* Three matrices, and as much again for what a library lays out anew or a cast reads. */
static bool side_fits(sl_context *ctx, const sl_device *dev, int64_t side) {
  return (uint64_t)side * (uint64_t)side * 6 * sizeof(float) <= room_on(ctx, dev);
}

/* The side at which a product takes `seconds`, when one of `side` takes `spent`; no more than fits. */
static int64_t next_side(const timer *t, int64_t side, double spent, double seconds) {
  double factor = spent > 0 ? cbrt(seconds / spent) : 4;
  int64_t next = (int64_t)((double)side * (factor < 4 ? factor : 4)) / SIDE_STEP * SIDE_STEP;
  if (next > MOST_SIDE) next = MOST_SIDE;
  while (next > side && !side_fits(t->ctx, t->dev, next)) next -= SIDE_STEP;
  return next;
}

/* The largest product that fits in memory and time, and how long it takes. */
static sl_status product_find(timer *t, sl_bench_kind kind, double seconds, product *p, int64_t *side, double *spent) {
  *side = side_fits(t->ctx, t->dev, FIRST_SIDE) ? FIRST_SIDE : LEAST_SIDE;
  SL_REQUIRE(side_fits(t->ctx, t->dev, *side), OOM, "bench: %s has no room for matrices of %lld x %lld", t->dev->name,
             (long long)*side, (long long)*side);
  for (;;) {
    SL_TRY(product_make(t->ctx, t->dev, kind, *side, p));
    sl_status s = timer_least(t, product_run, p, spent);
    int64_t next = s == SL_STATUS_OK ? next_side(t, *side, *spent, seconds) : 0;
    if (s == SL_STATUS_OK && next <= *side) return s;
    product_free(p);
    SL_TRY(s);
    *side = next;
  }
}

/* --- copies --- */

typedef struct copy {
  sl_exec exec;
  sl_tensor *from, *to;
} copy;

static void copy_free(copy *c) {
  sl_tensor_release(c->from);
  sl_tensor_release(c->to);
  c->from = c->to = NULL;
}

static sl_status copy_make(sl_context *ctx, const sl_device *dev, int64_t bytes, copy *c) {
  sl_shape shape = SL_SHAPE(bytes / (int64_t)sizeof(float) / ROW, ROW);
  sl_status status;
  *c = (copy){.exec = sl_exec_on(ctx, dev)};
  SL_GOTO(random_normal(ctx, dev, SL_F32, &shape, 1, &c->from));
  SL_GOTO(sl_tensor_new(ctx, dev, SL_F32, &shape, &c->to));
done:
  if (status != SL_STATUS_OK) copy_free(c);
  return status;
}

static sl_status copy_run(void *user) {
  copy *c = user;
  sl_view to = sl_tensor_view(c->to), from = sl_tensor_view(c->from);
  return c->exec.kernels->copy(&c->exec, &to, &from);
}

static sl_status copy_find(timer *t, double seconds, copy *c, int64_t *bytes, double *spent) {
  const uint64_t room = room_on(t->ctx, t->dev);
  const int64_t most = t->dev->gpu ? most_copy_gpu : most_copy_cpu;
  SL_REQUIRE(2 * (uint64_t)first_copy <= room, OOM, "bench: %s has no room for two arrays of %lld bytes", t->dev->name,
             (long long)first_copy);
  for (*bytes = first_copy;; *bytes *= 2) {
    SL_TRY(copy_make(t->ctx, t->dev, *bytes, c));
    sl_status s = timer_least(t, copy_run, c, spent);
    bool last = *bytes >= most || *spent >= seconds || 4 * (uint64_t)*bytes > room;
    if (s == SL_STATUS_OK && last) return SL_STATUS_OK;
    copy_free(c);
    SL_TRY(s);
  }
}

/* --- rates --- */

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* work: FLOP or bytes of a call that takes `spent`. */
static sl_status take_samples(timer *t, sl_status (*call)(void *), void *user, double work, double spent,
                              double seconds, sl_bench_rate *out) {
  double rate[SAMPLES];
  int64_t calls = spent > 0 && spent < seconds ? (int64_t)(seconds / spent) : 1;
  SL_TRY(timer_run(t, call, user, calls, &spent)); /* until clocks and caches are as they will be */
  for (int i = 0; i < SAMPLES; i++) {
    SL_TRY(timer_run(t, call, user, calls, &spent));
    rate[i] = work * (double)calls / spent;
  }
  qsort(rate, SAMPLES, sizeof *rate, by_value);
  out->median = rate[SAMPLES / 2], out->least = rate[0], out->most = rate[SAMPLES - 1];
  out->samples = SAMPLES;
  return SL_STATUS_OK;
}

static sl_status measure_product(timer *t, sl_bench_kind kind, double seconds, sl_bench_rate *out) {
  product p;
  double spent = 0;
  SL_TRY(product_find(t, kind, seconds, &p, &out->size, &spent));
  sl_status s = take_samples(t, product_run, &p, 2 * pow((double)out->size, 3), spent, seconds, out);
  product_free(&p);
  return s;
}

static sl_status measure_copy(timer *t, double seconds, sl_bench_rate *out) {
  copy c;
  double spent = 0;
  sl_parallel_enter(t->ctx); /* programs do it themselves */
  SL_TRY(copy_find(t, seconds, &c, &out->size, &spent));
  sl_status s = take_samples(t, copy_run, &c, 2 * (double)out->size, spent, seconds, out);
  copy_free(&c);
  return s;
}

sl_status sl_bench_measure(sl_context *ctx, const sl_device *dev, sl_bench_kind kind, double seconds,
                           sl_bench_rate *out) {
  timer t;
  *out = (sl_bench_rate){0};
  SL_REQUIRE(seconds > 0 && seconds <= 60, ARG, "bench: seconds is %g, expected more than 0, at most 60", seconds);
  SL_REQUIRE(kind != SL_BENCH_TF32 || dev->gpu, ARG, "bench: tf32 on %s, expected a GPU", dev->name);
  SL_TRY(timer_open(ctx, dev, &t));
  sl_status s = kind == SL_BENCH_COPY ? measure_copy(&t, seconds, out) : measure_product(&t, kind, seconds, out);
  timer_close(&t);
  return s;
}

/* --- a forward pass --- */

enum { IN_X, IN_T, IN_Y, N_IN };

struct sl_bench_pass {
  sl_model *model;
  sl_program *program;
  sl_tensor *in[N_IN], *out, *weights;
  timer timer;
  bool profile;
};

static sl_status check_pass(const sl_model *m, int64_t batch, bool guided) {
  SL_REQUIRE(batch > 0, ARG, "bench: batch is %lld, expected at least 1", (long long)batch);
  SL_REQUIRE(!guided || m->info.null_class, ARG, "bench: guidance is asked for, but the %s has no null class",
             m->kind->name);
  return SL_STATUS_OK;
}

static sl_status describe_pass(sl_model *m, int64_t batch, bool guided, sl_graph *g) {
  const sl_model_info *f = &m->info;
  const int64_t rows = guided ? 2 * batch : batch;
  sl_builder b;
  SL_TRY(sl_builder_init(&b, g, m->params, false));
  sl_value *x = sl_input(g, "x", SL_F32, &SL_SHAPE(rows, f->in_channels, f->height, f->width));
  sl_value *t = sl_input(g, "t", SL_I64, &SL_SHAPE(rows));
  sl_value *y = sl_input(g, "y", SL_I64, &SL_SHAPE(rows));
  sl_graph_output(g, "out", sl_model_build(m, &b, x, t, f->classes ? y : NULL));
  sl_builder_clear(&b);
  return sl_graph_status(g);
}

static sl_status pass_graph(sl_model *m, int64_t batch, bool guided, sl_graph **out) {
  SL_TRY(check_pass(m, batch, guided));
  SL_TRY(sl_graph_new(m->ctx, out));
  sl_graph_set_device(*out, m->device);
  sl_status s = describe_pass(m, batch, guided, *out);
  if (s == SL_STATUS_OK) return s;
  sl_graph_release(*out);
  *out = NULL;
  return s;
}

/* Integers 0 … top-1, or all the same where there is but one; in the second half of guided rows the null class. */
static sl_status random_integers(sl_model *m, int64_t rows, int64_t top, int64_t null_from, uint32_t seed,
                                 sl_tensor **out) {
  sl_tensor *host = NULL;
  SL_TRY(sl_tensor_new(m->ctx, NULL, SL_I64, &SL_SHAPE(rows), &host));
  int64_t *v = sl_tensor_data(host);
  for (int64_t i = 0; i < rows; i++)
    v[i] = i >= null_from ? top : sl_random_below((sl_rng_key){seed, SL_STREAM_USER}, (uint32_t)i, 0, 0, (uint32_t)top);
  sl_status s = sl_tensor_to(host, SL_I64, m->device, out);
  sl_tensor_release(host);
  return s;
}

static sl_status make_inputs(sl_bench_pass *p, int64_t batch, bool guided) {
  sl_model *m = p->model;
  const sl_model_info *f = &m->info;
  const int64_t rows = guided ? 2 * batch : batch;
  SL_TRY(
      random_normal(m->ctx, m->device, SL_F32, &SL_SHAPE(rows, f->in_channels, f->height, f->width), 1, &p->in[IN_X]));
  SL_TRY(random_integers(m, rows, f->timesteps, rows, 2, &p->in[IN_T]));
  return f->classes ? random_integers(m, rows, f->classes, batch, 3, &p->in[IN_Y]) : SL_STATUS_OK;
}

static sl_status make_pass(sl_bench_pass *p, int64_t batch, bool guided) {
  sl_model *m = p->model;
  sl_graph *g = NULL;
  SL_TRY(pass_graph(m, batch, guided, &g));
  sl_status s = sl_graph_compile(g, NULL, &p->program);
  sl_graph_release(g);
  SL_TRY(s);
  SL_TRY(make_inputs(p, batch, guided));
  const sl_value *y = sl_program_output_value(p->program, 0);
  SL_TRY(sl_tensor_new(m->ctx, m->device, y->dtype, &y->shape, &p->out));
  SL_TRY(sl_model_weights(m, &p->weights));
  sl_tensor_retain(p->weights);
  return timer_open(m->ctx, m->device, &p->timer);
}

sl_status sl_bench_pass_new(sl_model *m, int64_t batch, bool guided, sl_bench_pass **out) {
  *out = NULL;
  sl_bench_pass *p = sl_alloc_zero(m->ctx, sizeof *p);
  if (!p) return SL_STATUS_OOM;
  p->model = sl_model_retain(m);
  sl_status s = make_pass(p, batch, guided);
  if (s == SL_STATUS_OK) *out = p;
  else sl_bench_pass_free(p);
  return s;
}

void sl_bench_pass_free(sl_bench_pass *p) {
  if (!p) return;
  sl_context *ctx = p->model->ctx;
  timer_close(&p->timer);
  sl_program_free(p->program);
  for (int i = 0; i < N_IN; i++) sl_tensor_release(p->in[i]);
  sl_tensor_release(p->out);
  sl_tensor_release(p->weights);
  sl_model_release(p->model);
  sl_free(ctx, p);
}

static sl_status run_pass(void *user) {
  sl_bench_pass *p = user;
  return sl_program_run(p->program,
                        &(sl_run){.inputs = p->in, .outputs = &p->out, .params = p->weights, .profile = p->profile});
}

sl_status sl_bench_pass_run(sl_bench_pass *p, int n, bool profile, double *seconds) {
  *seconds = 0;
  SL_REQUIRE(n > 0, ARG, "bench: %d passes, expected at least 1", n);
  p->profile = profile;
  return timer_run(&p->timer, run_pass, p, n, seconds);
}

sl_program *sl_bench_pass_program(const sl_bench_pass *p) { return p->program; }

/* --- what programs ask --- */

sl_status sl_bench_pass_costs(sl_model *m, int64_t batch, bool guided, const sl_rates *rates,
                              void (*each)(void *user, const sl_op_cost *c), void *user) {
  sl_graph *g = NULL;
  SL_TRY(pass_graph(m, batch, guided, &g));
  sl_status s = sl_graph_costs(g, rates, each, user);
  sl_graph_release(g);
  return s;
}

typedef struct caught {
  sl_graph *graph;
} caught;

/* The loss that training has by itself; it is described here because the function that describes a loss sees the graph.
 * A forecast may describe several; the last is the one that it settles for. */
static sl_value *catch_graph(void *user, sl_graph *g, const sl_loss_inputs *in) {
  caught *c = user;
  sl_graph_release(c->graph);
  c->graph = sl_graph_retain(g);
  return sl_diffusion_losses(in->diffusion, in->out, in->x0, in->xt, in->t, in->noise, in->weight).loss;
}

sl_status sl_bench_train_costs(sl_context *ctx, const sl_train_options *given, const sl_rates *rates,
                               void (*each)(void *user, const sl_op_cost *c), void *user) {
  SL_REQUIRE(!given->loss, ARG, "bench: the loss is one of its own, expected the trainer's");
  caught c = {NULL};
  sl_train_options o = *given;
  uint64_t bytes = 0;
  o.holdout = NULL; /* only the gradient program is described */
  o.loss = catch_graph;
  o.loss_user = &c;
  sl_status s = sl_train_forecast(ctx, &o, &bytes);
  if (s == SL_STATUS_OK) s = sl_graph_costs(c.graph, rates, each, user);
  sl_graph_release(c.graph);
  return s;
}
