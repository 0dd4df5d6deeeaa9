/* A run's folder: which of its checkpoints to read. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "io/checkpoint.h"

/* The step in "step-0000123.safetensors"; -1: another name. */
static long long step_of(const char *name) {
  long long step = -1;
  int end = 0;
  return sscanf(name, "step-%18lld.safetensors%n", &step, &end) == 1 && end && !name[end] ? step : -1;
}

static int is_checkpoint(const struct dirent *e) { return step_of(e->d_name) >= 0; }

static int newest_first(const struct dirent **a, const struct dirent **b) {
  long long x = step_of((*a)->d_name), y = step_of((*b)->d_name);
  return x > y ? -1 : x < y;
}

static sl_status join(char *to, const char *folder, const char *name) {
  SL_REQUIRE(snprintf(to, PATH_MAX, "%s/%s", folder, name) < PATH_MAX, IO, "%s/%s: the path is too long", folder, name);
  return SL_STATUS_OK;
}

/* Error texts are one per thread: the last failure's is kept here, to be told when it is known what was read instead.
 */
typedef struct fault {
  char text[1024];
  sl_status status;
} fault;

static bool exists(const char *path) {
  struct stat s;
  return stat(path, &s) == 0;
}

/* *gone: one of them is no longer there. */
static sl_status read_list(sl_context *ctx, const char *run, const char *folder, struct dirent **names, int n,
                           sl_status (*read)(void *user, const char *file), void *user, bool *gone) {
  char file[PATH_MAX];
  fault last = {{0}, SL_STATUS_OK};
  for (int i = 0; i < n; i++) {
    SL_TRY(join(file, folder, names[i]->d_name));
    sl_status status = read(user, file);
    if (status == SL_STATUS_OOM || status == SL_STATUS_CANCELLED || status == SL_STATUS_UNSUPPORTED) return status;
    if (status == SL_STATUS_OK) {
      if (i > 0) sl_context_log(ctx, "warning: %s; using %s, of step %lld", last.text, file, step_of(names[i]->d_name));
      return status;
    }
    *gone = !exists(file);
    if (*gone) return status;
    if (i > 0) sl_context_log(ctx, "warning: %s", last.text);
    last.status = status;
    snprintf(last.text, sizeof last.text, "%s", sl_error());
  }
  SL_REQUIRE(n > 0, IO, "%s has no checkpoint yet", run);
  return sl_fail(last.status, "%s: none of its %d checkpoints can be read; the last: %s", run, n, last.text);
}

/* A run that goes on meanwhile may write a newer checkpoint and remove these: then they are looked for again, so often.
 */
#define LOOKS 20

static bool is_folder(const char *path) {
  struct stat s;
  return stat(path, &s) == 0 && S_ISDIR(s.st_mode);
}

sl_status sl_checkpoint_newest(sl_context *ctx, const char *path, sl_status (*read)(void *user, const char *file),
                               void *user) {
  if (!is_folder(path)) return read(user, path);
  char folder[PATH_MAX];
  SL_TRY(join(folder, path, "run.json"));
  SL_REQUIRE(exists(folder), IO, "%s is not a run's folder: it has no run.json", path);
  SL_TRY(join(folder, path, "checkpoints"));
  sl_status status = SL_STATUS_OK;
  bool gone = true;
  for (int k = 0; gone && k < LOOKS; k++) {
    struct dirent **names = NULL;
    int n = scandir(folder, &names, is_checkpoint, newest_first);
    gone = false;
    status = read_list(ctx, path, folder, names, n > 0 ? n : 0, read, user, &gone);
    for (int i = 0; i < n; i++) free(names[i]);
    free(names);
  }
  return status;
}
