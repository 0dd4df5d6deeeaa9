/* Draws images of a checkpoint or a run:  sample CHECKPOINT OUT.png [N [STEPS]]
 * Everything else is as the checkpoint's settings say. Ctrl-C stops it after the step at hand. */
#include <signal.h>
#include <sluice.h>
#include <stdio.h>
#include <stdlib.h>

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number) {
  (void)number;
  interrupted = 1;
}

static void on_log(void *user, const char *text) {
  (void)user;
  fprintf(stderr, "sample: %s\n", text);
}

static bool on_step(void *user, const sl_sample_step *at) {
  (void)user;
  fprintf(stderr, "\rstep %lld of %lld", (long long)at->done, (long long)at->all);
  if (at->done == at->all || interrupted) fputc('\n', stderr);
  return !interrupted;
}

static sl_status draw(sl_context *ctx, int argc, char **argv) {
  sl_model *model = NULL;
  sl_tensor *images = NULL;
  sl_status status = sl_model_load(ctx, argv[1], &model);
  if (status != SL_STATUS_OK) return status;
  sl_sample_options o = sl_sample_defaults(model);
  if (argc > 3) o.n = atoll(argv[3]);
  if (argc > 4) o.steps = atoll(argv[4]);
  if (o.labels == SL_LABELS_LIST && o.n != o.label_count) o.labels = SL_LABELS_BALANCED;
  o.step = on_step;
  status = sl_sample(model, &o, &images);
  if (status == SL_STATUS_OK) status = sl_png_write(argv[2], images, 0);
  sl_tensor_release(images);
  sl_model_release(model);
  return status;
}

int main(int argc, char **argv) {
  if (argc < 3 || argc > 5) return fprintf(stderr, "usage: sample CHECKPOINT OUT.png [N [STEPS]]\n"), 2;
  signal(SIGINT, on_interrupt);
  sl_context *ctx = NULL;
  sl_context_options options = {.log = on_log};
  sl_status status = sl_context_new(&options, &ctx);
  if (status == SL_STATUS_OK) status = draw(ctx, argc, argv);
  if (status != SL_STATUS_OK) fprintf(stderr, "sample: %s\n", sl_error());
  sl_context_free(ctx);
  return status == SL_STATUS_OK ? 0 : status == SL_STATUS_CANCELLED ? 130 : 1;
}
