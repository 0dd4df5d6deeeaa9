/* What cuDNN says, without a GPU, of every attention and every convolution of DiT's and ADM's presets on a GPU that
 * tests/data/h100.json describes: that the graph is accepted, that engines exist which may be used, and for the
 * backward pass of attention that they are of the deterministic form. One line for each plan. Kernels are not loaded or
 * run.
 *
 *   cudnn_plan [device.json]
 *
 * Exit code 77, "skipped", without cuDNN or the toolkit's stub of the driver. The stub is not in the loader's path: the
 * program makes a folder with a link to it and starts itself again. */
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "gpu/dnn.h"
#include "gpu/gpu_libraries.h"
#include "model/adm.h"

enum { SKIPPED = 77 };

static struct {
  sl_context *ctx;
  char *json;
  int plans, bad;
} run;

static int skip(const char *why) {
  printf("skipped: %s\n", why);
  return SKIPPED;
}

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* --- one plan --- */

static void print_engines(const sl_dnn_report *r) {
  printf(" engines");
  for (int i = 0; i < r->engines; i++)
    printf(" %d%s%s", r->engine[i], r->behaviour[i] & 1 ? "c" : "", r->notes[i] & 1u << 4 ? "!" : "");
}

static SL_PRINTF(3, 4) void plan(const sl_dnn_report *r, const char *wrong, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  vprintf(fmt, args);
  va_end(args);
  if (!wrong && r->usable == 0) wrong = r->refusal[0] ? r->refusal : "no engine that may be used";
  if (!wrong && r->refusal[0]) wrong = r->refusal;
  printf(": %d of %d, first %d, %.1f MB%s,", r->usable, r->configurations, r->first, (double)r->workspace / 1e6,
         r->finished ? ", finished" : "");
  print_engines(r);
  printf("%s%s\n", wrong ? " WRONG: " : "", wrong ? wrong : "");
  run.plans++;
  run.bad += wrong != NULL;
}

static void failed(const char *what) {
  printf("%s: %s\n", what, sl_error());
  run.plans++;
  run.bad++;
}

/* --- attention --- */

/* Packed as DiT and ADM's new order have it, [N,T,3,H,D], or as its old order has it, [N,T,H,3,D]. */
static sl_dnn_attention packed(int64_t N, int64_t H, int64_t T, int64_t D, bool old_order) {
  const sl_dnn_heads in = {T * 3 * H * D, 3 * H * D, old_order ? 3 * D : D}, out = {T * H * D, H * D, D};
  return (sl_dnn_attention){.statistics = true,
                            .N = N,
                            .H = H,
                            .Tq = T,
                            .Tk = T,
                            .D = D,
                            .scale = 0.125,
                            .q = in,
                            .k = in,
                            .v = in,
                            .o = out,
                            .dout = out,
                            .dq = in,
                            .dk = in,
                            .dv = in};
}

static void attention(const char *model, int64_t N, int64_t H, int64_t T, int64_t D, bool old_order) {
  sl_dnn_attention a = packed(N, H, T, D, old_order);
  for (int i = 0; i < 3; i++) {
    static const char *const names[] = {"forward", "forward without lse", "backward"};
    a.backward = i == 2;
    a.statistics = i != 1;
    sl_dnn_report r;
    if (sl_dnn_check_attention(run.ctx, run.json, &a, &r) != SL_STATUS_OK) {
      failed("attention");
      continue;
    }
    /* the deterministic form keeps the gradients of the scores; the other needs a hundredth of that */
    const char *wrong = a.backward && r.usable && r.workspace < 2 * N * H * T * T ? "not the deterministic form" : NULL;
    plan(&r, wrong, "%-8s attention %s N%lld H%lld T%lld D%lld", model, names[i], (long long)N, (long long)H,
         (long long)T, (long long)D);
  }
}

static void dit(void) {
  static const struct {
    const char *name;
    int64_t heads, D;
  } sizes[] = {{"DiT-S", 6, 64}, {"DiT-B", 12, 64}, {"DiT-L", 16, 64}, {"DiT-XL", 16, 72}};
  static const int64_t batches[] = {256, 128, 2};
  for (int i = 0; i < 4; i++)
    for (int b = 0; b < 3; b++) attention(sizes[i].name, batches[b], sizes[i].heads, 256, sizes[i].D, false);
}

/* --- ADM's convolutions: as model/adm.c builds the network --- */

enum { MOST = 400 };

typedef struct shapes {
  int64_t N;
  int n;
  struct shape {
    int64_t C, K, size, kernel;
  } list[MOST];
} shapes;

static void put(shapes *s, int64_t C, int64_t K, int64_t size, int64_t kernel) {
  struct shape now = {C, K, size, kernel};
  for (int i = 0; i < s->n; i++)
    if (!memcmp(&s->list[i], &now, sizeof now)) return;
  if (s->n < MOST) s->list[s->n++] = now;
}

static void put_block(shapes *s, int64_t C, int64_t K, int64_t size) {
  put(s, C, K, size, 3);
  put(s, K, K, size, 3);
  if (C != K) put(s, C, K, size, 1);
}

static int64_t channels_of(const sl_adm_config *c, int level) {
  return (int64_t)(c->channel_mult[level] * (double)c->model_channels);
}

static void put_network(shapes *s, const sl_adm_config *c) {
  int64_t skip_channels[64], now = channels_of(c, 0), size = c->image_size;
  int skips = 0;
  put(s, c->in_channels, now, size, 3);
  skip_channels[skips++] = now;
  for (int level = 0; level < c->levels; level++) {
    for (int64_t i = 0; i < c->num_res_blocks; i++) {
      put_block(s, now, channels_of(c, level), size);
      skip_channels[skips++] = now = channels_of(c, level);
    }
    if (level == c->levels - 1) break;
    size /= 2;
    put_block(s, now, now, size); /* which halves */
    skip_channels[skips++] = now;
  }
  put_block(s, now, now, size);
  for (int level = c->levels; level-- > 0;) {
    for (int64_t i = 0; i <= c->num_res_blocks; i++) {
      put_block(s, now + skip_channels[--skips], channels_of(c, level), size);
      now = channels_of(c, level);
    }
    if (level > 0) put_block(s, now, now, size *= 2); /* which doubles */
  }
  put(s, now, 2 * c->in_channels, size, 3);
}

static sl_dnn_conv conv_of(const struct shape *s, int64_t N, sl_dnn_conv_kind kind, bool bf16) {
  const int64_t pad = s->kernel / 2;
  return (sl_dnn_conv){.kind = kind,
                       .N = N,
                       .C = s->C,
                       .H = s->size,
                       .W = s->size,
                       .K = s->K,
                       .R = s->kernel,
                       .S = s->kernel,
                       .OH = s->size,
                       .OW = s->size,
                       .groups = 1,
                       .stride = {1, 1},
                       .dilation = {1, 1},
                       .pad = {pad, pad, pad, pad},
                       .last = true,
                       .filter_last = bf16,
                       .bf16_in = bf16,
                       .bf16_result = bf16};
}

static void conv(const char *model, const struct shape *s, const sl_dnn_conv *c, const char *what) {
  static const char *const kinds[] = {"forward", "data", "weights"};
  sl_dnn_report r;
  if (sl_dnn_check_conv(run.ctx, run.json, c, &r) != SL_STATUS_OK) {
    failed("convolution");
    return;
  }
  plan(&r, NULL, "%-8s %s convolution %s N%lld %lldx%lld %lld>%lld %lldx%lld", model, what, kinds[c->kind],
       (long long)c->N, (long long)s->size, (long long)s->size, (long long)s->C, (long long)s->K, (long long)s->kernel,
       (long long)s->kernel);
}

static void convs(const char *model, const shapes *all) {
  for (int i = 0; i < all->n; i++)
    for (int kind = 0; kind < 3; kind++)
      for (int bf16 = 0; bf16 < 2; bf16++) {
        sl_dnn_conv c = conv_of(&all->list[i], all->N, (sl_dnn_conv_kind)kind, bf16);
        conv(model, &all->list[i], &c, bf16 ? "bf16" : "f32 ");
      }
}

/* What compiles an engine: one layer stands for all. */
static void compiled(const char *model, const shapes *all) {
  const struct shape *s = &all->list[1];
  for (int kind = 0; kind < 3; kind++) {
    sl_dnn_conv c = conv_of(s, all->N, (sl_dnn_conv_kind)kind, true);
    c.bf16_result = false;
    conv(model, s, &c, "bf16 to f32");
  }
  sl_dnn_conv c = conv_of(s, all->N, SL_DNN_CONV_FORWARD, true);
  c.bias = true;
  conv(model, s, &c, "bf16 with bias");
  c = conv_of(s, all->N, SL_DNN_CONV_FORWARD, false);
  c.bias = true;
  conv(model, s, &c, "f32 with bias");
}

static void adm_attention(const char *model, const sl_adm_config *c, int64_t N) {
  for (int level = 0; level < c->levels; level++) {
    bool attends = level == c->levels - 1; /* the middle block always */
    const int64_t size = c->image_size >> level, channels = channels_of(c, level);
    for (int i = 0; i < c->attentions; i++) attends |= c->attention_resolutions[i] == size;
    const int64_t D = c->num_head_channels > 0 ? c->num_head_channels : channels / c->num_heads;
    if (attends) attention(model, N, channels / D, size * size, D, !c->use_new_attention_order);
  }
}

static bool adm(void) {
  static const struct {
    const char *name;
    int64_t batch;
  } presets[] = {{"ADM-64", 128}, {"ADM-128", 64}, {"ADM-256", 16}, {"ADM-512", 4}};
  static shapes all;
  for (int i = 0; i < 4; i++) {
    sl_adm_config c = sl_adm_defaults();
    if (sl_adm_preset(presets[i].name, &c) != SL_STATUS_OK) return false;
    adm_attention(presets[i].name, &c, presets[i].batch);
    all.n = 0;
    all.N = presets[i].batch;
    put_network(&all, &c);
    convs(presets[i].name, &all);
    if (i == 0) compiled(presets[i].name, &all);
  }
  return true;
}

/* --- the stub of the driver --- */

static bool find_stub(char *path, size_t room) {
  const char *roots[] = {getenv("CUDA_HOME"), getenv("CUDA_PATH"), "/usr/local/cuda"};
  for (int i = 0; i < 3; i++) {
    if (!roots[i] || !*roots[i]) continue;
    int n = snprintf(path, room, "%s/lib64/stubs/libcuda.so", roots[i]);
    if (n > 0 && (size_t)n < room && access(path, R_OK) == 0) return true;
  }
  return false;
}

static int run_again(char **argv, const char *folder) {
  char value[4096];
  const char *before = getenv("LD_LIBRARY_PATH");
  snprintf(value, sizeof value, "%s%s%s", folder, before && *before ? ":" : "", before ? before : "");
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    if (setenv("LD_LIBRARY_PATH", value, 1) == 0 && setenv("CUDNN_PLAN_STUB", "1", 1) == 0)
      execv("/proc/self/exe", argv);
    _exit(1);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child) return 1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static int with_stub(char **argv) {
  char stub[4096], folder[] = "/tmp/cudnn_plan.XXXXXX", link[sizeof folder + 16];
  if (!find_stub(stub, sizeof stub))
    return skip("no driver, and no lib64/stubs/libcuda.so in CUDA_HOME, CUDA_PATH or /usr/local/cuda");
  if (!mkdtemp(folder)) return 1;
  snprintf(link, sizeof link, "%s/libcuda.so.1", folder);
  int code = symlink(stub, link) == 0 ? run_again(argv, folder) : 1;
  unlink(link);
  rmdir(folder);
  return code;
}

/* --- */

static char *read_text(const char *path) {
  FILE *f = fopen(path, "r");
  if (!f) return NULL;
  enum { ROOM = 1 << 16 };
  char *text = calloc(1, ROOM);
  size_t n = text ? fread(text, 1, ROOM - 1, f) : 0;
  fclose(f);
  for (size_t i = 0; i < n; i++)
    if (text[i] == '\n') text[i] = ' ';
  return text;
}

static void log_line(void *user, const char *text) {
  (void)user;
  printf("%s\n", text);
}

int main(int argc, char **argv) {
  const char *path = argc > 1 ? argv[1] : "tests/data/h100.json";
  const double begin = seconds();
  const bool again = getenv("CUDNN_PLAN_STUB") != NULL;
  if (!again && !dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL)) return with_stub(argv);
  if (!sl_gpu_library_find(SL_GPU_CUDNN)->handle) return skip("no cuDNN");
  sl_context_options options = {.log = log_line};
  run.json = read_text(path);
  if (!run.json || sl_context_new(&options, &run.ctx) != SL_STATUS_OK) {
    printf("%s: cannot be read\n", path);
    return 1;
  }
  printf("cuDNN %s, version %d; usable of all configurations; c: compiled when planned; !: not deterministic\n",
         sl_gpu_library_find(SL_GPU_CUDNN)->path, sl_gpu_library_find(SL_GPU_CUDNN)->version);
  dit();
  if (!adm()) run.bad++;
  printf("%d plans, %d wrong, %.1f s\n", run.plans, run.bad, seconds() - begin);
  sl_context_free(run.ctx);
  free(run.json);
  return run.bad ? 1 : 0;
}
