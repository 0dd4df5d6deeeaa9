/* How near the engine's convolutions come to what oneDNN reaches on this machine, shape by shape.
 *   build/tests/conv_rates [small|ADM-64] [batch] [train]
 * The machine's rate: the same convolution alone, all its operands in the layouts that oneDNN likes best. The engine's:
 * its kernel on images as they lie in a model's graph and filters as they are stored, all reorders included. Weighted
 * by calls at the end. */
#include <dnnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/parallel.h"
#include "model/adm.h"
#include "ops/conv.h"
#include "ops/kernels.h"

#define MAX_SHAPES 256
#define SECONDS 0.15 /* each measurement, at least */

static sl_context *ctx;

static void must(sl_status s) {
  if (s == SL_STATUS_OK) return;
  fprintf(stderr, "conv_rates: %s\n", sl_error());
  exit(1);
}

static void dnnl(dnnl_status_t s) {
  if (s == dnnl_success) return;
  fprintf(stderr, "conv_rates: oneDNN status %d\n", (int)s);
  exit(1);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Seconds of one call: the least of repeated rounds. */
static double seconds(void (*call)(void *), void *user) {
  double best = 1e9, until = now() + SECONDS;
  call(user);
  for (int rounds = 0; rounds < 3 || now() < until; rounds++) {
    double t0 = now();
    call(user);
    double t = now() - t0;
    best = t < best ? t : best;
  }
  return best;
}

/* --- the engine's kernel --- */

typedef struct own {
  sl_exec exec;
  void *state, *x, *w, *b, *y, *workspace;
} own;

static void call_own(void *user) {
  own *o = user;
  must(o->exec.kernels->conv(&o->exec, o->state, o->x, o->w, o->b, o->y, o->workspace));
}

static void *floats(int64_t n) {
  float *v = aligned_alloc(64, ((size_t)n * sizeof *v + 63) / 64 * 64);
  for (int64_t i = 0; i < n; i++) v[i] = (float)(i % 17) * 0.1f - 0.8f;
  return v;
}

static double time_own(const sl_conv *c) {
  own o = {.exec = {.ctx = ctx, .device = &sl_device_cpu, .kernels = sl_kernels_of(&sl_device_cpu)}};
  size_t bytes;
  must(o.exec.kernels->conv_plan(&o.exec, c, &o.state));
  o.x = floats(c->N * c->C * c->H * c->W);
  o.w = floats(c->K * c->C * c->window.kernel[0] * c->window.kernel[1]);
  o.b = c->bias ? floats(c->K) : NULL;
  o.y = floats(c->N * c->K * c->OH * c->OW);
  must(o.exec.kernels->conv_workspace(&o.exec, c, &bytes));
  o.workspace = aligned_alloc(64, bytes / 64 * 64 + 64);
  double t = seconds(call_own, &o);
  must(o.exec.kernels->conv_release(&o.exec, o.state));
  free(o.x), free(o.w), free(o.b), free(o.y), free(o.workspace);
  return t;
}

/* --- oneDNN alone --- */

typedef struct alone {
  dnnl_stream_t stream;
  dnnl_primitive_t run;
  int n;
  dnnl_exec_arg_t args[5];
} alone;

static void call_alone(void *user) {
  alone *a = user;
  dnnl(dnnl_primitive_execute(a->run, a->stream, a->n, a->args));
  dnnl(dnnl_stream_wait(a->stream));
}

static void give(alone *a, int arg, dnnl_engine_t engine, const dnnl_memory_desc_t *md) {
  if (!md || !dnnl_memory_desc_get_size(md)) return;
  a->args[a->n].arg = arg;
  dnnl(dnnl_memory_create(&a->args[a->n++].memory, md, engine, DNNL_MEMORY_ALLOCATE));
}

static double time_alone(const sl_conv *c) {
  dnnl_engine_t engine;
  alone a = {0};
  dnnl_memory_desc_t x, w, b, y;
  dnnl_convolution_desc_t d;
  dnnl_primitive_desc_t hint = NULL, pd;
  dnnl_dims_t xs = {c->N, c->C, c->H, c->W}, ws = {c->K, c->C, c->window.kernel[0], c->window.kernel[1]}, bs = {c->K};
  dnnl_dims_t ys = {c->N, c->K, c->OH, c->OW}, stride = {c->window.stride[0], c->window.stride[1]}, none = {0, 0};
  dnnl_dims_t before = {c->window.pad[0], c->window.pad[2]}, after = {c->window.pad[1], c->window.pad[3]};
  dnnl(dnnl_engine_create(&engine, dnnl_cpu, 0));
  dnnl(dnnl_stream_create(&a.stream, engine, dnnl_stream_default_flags));
  dnnl(dnnl_memory_desc_init_by_tag(&x, 4, xs, dnnl_f32, dnnl_format_tag_any));
  dnnl(dnnl_memory_desc_init_by_tag(&w, 4, ws, dnnl_f32, dnnl_format_tag_any));
  dnnl(dnnl_memory_desc_init_by_tag(&b, 1, bs, dnnl_f32, dnnl_a));
  dnnl(dnnl_memory_desc_init_by_tag(&y, 4, ys, dnnl_f32, dnnl_format_tag_any));
  const dnnl_memory_desc_t *bias = c->bias ? &b : NULL;
  dnnl(dnnl_dilated_convolution_forward_desc_init(
      &d, c->kind == SL_CONV_FORWARD ? dnnl_forward_inference : dnnl_forward_training, dnnl_convolution_direct, &x, &w,
      bias, &y, stride, none, before, after));
  dnnl(dnnl_primitive_desc_create(c->kind == SL_CONV_FORWARD ? &pd : &hint, &d, NULL, engine, NULL));
  if (c->kind == SL_CONV_DATA)
    dnnl(dnnl_dilated_convolution_backward_data_desc_init(&d, dnnl_convolution_direct, &x, &w, &y, stride, none, before,
                                                          after));
  if (c->kind == SL_CONV_WEIGHTS)
    dnnl(dnnl_dilated_convolution_backward_weights_desc_init(&d, dnnl_convolution_direct, &x, &w, bias, &y, stride,
                                                             none, before, after));
  if (hint) dnnl(dnnl_primitive_desc_create(&pd, &d, NULL, engine, hint));
  dnnl(dnnl_primitive_create(&a.run, pd));
  static const struct {
    dnnl_query_t query;
    int arg;
  } operands[] = {{dnnl_query_src_md, DNNL_ARG_SRC},
                  {dnnl_query_weights_md, DNNL_ARG_WEIGHTS},
                  {dnnl_query_dst_md, DNNL_ARG_DST},
                  {dnnl_query_diff_src_md, DNNL_ARG_DIFF_SRC},
                  {dnnl_query_diff_weights_md, DNNL_ARG_DIFF_WEIGHTS},
                  {dnnl_query_diff_dst_md, DNNL_ARG_DIFF_DST}};
  for (size_t i = 0; i < sizeof operands / sizeof *operands; i++)
    give(&a, operands[i].arg, engine, dnnl_primitive_desc_query_md(pd, operands[i].query, 0));
  if (bias) give(&a, c->kind == SL_CONV_FORWARD ? DNNL_ARG_BIAS : DNNL_ARG_DIFF_BIAS, engine, bias);
  double t = seconds(call_alone, &a);
  for (int i = 0; i < a.n; i++) dnnl_memory_destroy(a.args[i].memory);
  dnnl_primitive_destroy(a.run);
  dnnl_primitive_desc_destroy(pd);
  if (hint) dnnl_primitive_desc_destroy(hint);
  dnnl_stream_destroy(a.stream);
  dnnl_engine_destroy(engine);
  return t;
}

/* --- the shapes of a model --- */

typedef struct shape {
  sl_conv c;
  int calls;
} shape;

static int gather(sl_graph *g, shape *shapes) {
  int n = 0;
  for (int i = 0; i < sl_graph_node_count(g); i++) {
    sl_conv c;
    int k = 0;
    if (!sl_conv_of_node(sl_graph_node(g, i), &c)) continue;
    while (k < n && memcmp(&shapes[k].c, &c, sizeof c)) k++;
    if (k == MAX_SHAPES) continue;
    if (k == n) shapes[n++] = (shape){c, 0};
    shapes[k].calls++;
  }
  return n;
}

static sl_model *model_of(const char *name) {
  sl_adm_config c = sl_adm_defaults();
  sl_model *m;
  if (!strcmp(name, "small")) { /* as tests/bench/adm_torch.py's ADM-32 */
    c.image_size = 32, c.model_channels = 64, c.num_res_blocks = 2, c.levels = 3;
    c.channel_mult[0] = 1, c.channel_mult[1] = c.channel_mult[2] = 2;
    c.attentions = 2, c.attention_resolutions[0] = 16, c.attention_resolutions[1] = 8;
    c.num_head_channels = 32, c.use_scale_shift_norm = c.resblock_updown = true, c.classes = 10;
  } else {
    must(sl_adm_preset(name, &c));
  }
  must(sl_adm_new(ctx, &c, NULL, &m));
  return m;
}

static sl_graph *graph_of(sl_model *m, int64_t batch, bool train) {
  sl_graph *g;
  sl_builder b;
  must(sl_graph_new(ctx, &g));
  must(sl_builder_init(&b, g, m->params, false));
  sl_value *x = sl_input(g, "x", SL_F32, &SL_SHAPE(batch, m->info.in_channels, m->info.height, m->info.width));
  sl_value *t = sl_input(g, "t", SL_I64, &SL_SHAPE(batch));
  sl_value *y = m->info.classes ? sl_input(g, "y", SL_I64, &SL_SHAPE(batch)) : NULL;
  sl_value *out = sl_model_build(m, &b, x, t, y);
  if (train) {
    sl_value **grads = calloc((size_t)b.n_values, sizeof *grads);
    must(sl_grad(g, out, out, b.n_values, b.values, false, grads));
    free(grads);
  }
  must(sl_graph_status(g));
  sl_builder_clear(&b);
  return g;
}

int main(int argc, char **argv) {
  static const char *const kinds[] = {"forward", "data", "weights"};
  const char *name = argc > 1 ? argv[1] : "small";
  int64_t batch = argc > 2 ? atoll(argv[2]) : 16;
  static shape shapes[MAX_SHAPES];
  must(sl_context_new(NULL, &ctx));
  sl_parallel_enter(ctx);
  sl_model *m = model_of(name);
  sl_graph *g = graph_of(m, batch > 0 ? batch : 1, argc > 3 && !strcmp(argv[3], "train"));
  int n = gather(g, shapes);
  double own_sum[3] = {0}, alone_sum[3] = {0}, work_sum[3] = {0};
  printf("%s, batch %lld, %d threads, %s; GFLOP/s\n", name, (long long)batch, sl_context_threads(ctx),
         sl_isa_name(sl_context_isa(ctx)));
  printf("%-8s %5s %5s %4s %3s %2s %6s %9s %9s %7s\n", "kind", "C", "K", "side", "k", "s", "calls", "engine", "machine",
         "share");
  for (int i = 0; i < n; i++) {
    const sl_conv *c = &shapes[i].c;
    double work = 2e-9 * (double)(c->N * c->K * c->OH * c->OW * c->C * c->window.kernel[0] * c->window.kernel[1]);
    double engine = time_own(c), machine = time_alone(c);
    printf("%-8s %5lld %5lld %4lld %3lld %2lld %6d %9.0f %9.0f %6.0f%%\n", kinds[c->kind], (long long)c->C,
           (long long)c->K, (long long)c->H, (long long)c->window.kernel[0], (long long)c->window.stride[0],
           shapes[i].calls, work / engine, work / machine, 100 * machine / engine);
    own_sum[c->kind] += engine * shapes[i].calls;
    alone_sum[c->kind] += machine * shapes[i].calls;
    work_sum[c->kind] += work * shapes[i].calls;
  }
  for (int k = 0; k < 3; k++)
    if (work_sum[k] > 0)
      printf("all %-8s engine %.0f GFLOP/s, machine %.0f, share %.0f%%\n", kinds[k], work_sum[k] / own_sum[k],
             work_sum[k] / alone_sum[k], 100 * alone_sum[k] / own_sum[k]);
  sl_graph_release(g);
  sl_model_release(m);
  sl_context_free(ctx);
  return 0;
}
