#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* dlinfo */
#endif
#include "gpu/gpu_libraries.h"

#include <dlfcn.h>
#include <glob.h>
#include <limits.h>
#include <link.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct library_spec {
  const char *name, *stem;
  int majors[3];       /* of the file name, the best first; 0 ends them */
  bool major_is_cudas; /* the file name's number is CUDA's: a driver must know it */
  const char *version; /* function that tells the version: size_t (void), or ncclGetVersion */
  const char *cudart;  /* size_t (void): the CUDA version that the library was built for */
} library_spec;

static const library_spec specs[SL_GPU_LIBRARY_COUNT] = {
    [SL_GPU_CUBLASLT] = {"cuBLASLt", "libcublasLt", {13, 12}, true, "cublasLtGetVersion", NULL},
    [SL_GPU_NVRTC] = {"NVRTC", "libnvrtc", {13, 12}, true, NULL, NULL},
    [SL_GPU_CUDNN] = {"cuDNN", "libcudnn", {9}, false, "cudnnGetVersion", "cudnnGetCudartVersion"},
    [SL_GPU_NCCL] = {"NCCL", "libnccl", {2}, false, "ncclGetVersion", NULL},
};

typedef struct search {
  const library_spec *spec;
  sl_gpu_library *lib;
  int cuda; /* the driver's CUDA, 13; 0: unknown */
} search;

static SL_PRINTF(2, 3) void note(sl_gpu_library *lib, const char *fmt, ...) {
  size_t used = strlen(lib->text), room = sizeof lib->text - used;
  va_list args;
  va_start(args, fmt);
  int n = vsnprintf(lib->text + used, room, fmt, args);
  va_end(args);
  if (n < 0 || (size_t)n >= room) lib->text[used] = 0; /* all or nothing of each note */
}

/* --- one file --- */

static int version_of(const library_spec *s, void *handle) {
  void *symbol = s->version ? dlsym(handle, s->version) : NULL;
  if (!symbol) return 0;
  if (!strcmp(s->version, "ncclGetVersion")) {
    int (*get)(int *), version = 0;
    memcpy(&get, &symbol, sizeof get); /* ISO C has no cast from objects to functions */
    return get(&version) == 0 ? version : 0;
  }
  size_t (*get)(void);
  memcpy(&get, &symbol, sizeof get);
  return (int)get();
}

/* Whether the driver is new enough for the CUDA that the library was built for. */
static bool fits_driver(const search *s, void *handle, const char *path) {
  void *symbol = s->spec->cudart ? dlsym(handle, s->spec->cudart) : NULL;
  if (!symbol || !s->cuda) return true;
  size_t (*get)(void);
  memcpy(&get, &symbol, sizeof get);
  const int built = (int)(get() / 1000);
  if (built > s->cuda) note(s->lib, "; %s is for CUDA %d, the driver for %d", path, built, s->cuda);
  return built <= s->cuda;
}

static void take(search *s, void *handle, const char *path) {
  struct link_map *map = NULL;
  if (dlinfo(handle, RTLD_DI_LINKMAP, &map) == 0 && map && map->l_name[0]) path = map->l_name;
  snprintf(s->lib->path, sizeof s->lib->path, "%s", path);
  snprintf(s->lib->folder, sizeof s->lib->folder, "%s", path);
  char *slash = strrchr(s->lib->folder, '/');
  if (slash) *slash = 0;
  else s->lib->folder[0] = 0;
  s->lib->version = version_of(s->spec, handle);
  s->lib->handle = handle;
}

static bool open_file(search *s, const char *path) {
  void *handle = dlopen(path, RTLD_LAZY | RTLD_LOCAL);
  if (!handle) {
    const char *why = dlerror();
    bool absent = !strchr(path, '/') && why && strstr(why, "No such file"); /* of a plain name, as expected */
    if (!absent) note(s->lib, "; %s", why ? why : path);
    return false;
  }
  if (!fits_driver(s, handle, path)) {
    dlclose(handle);
    return false;
  }
  take(s, handle, path);
  return true;
}

/* folder "": the plain name, by the loader's rules. */
static bool try_major(search *s, const char *folder, int major) {
  char path[PATH_MAX];
  if (s->spec->major_is_cudas && s->cuda && major > s->cuda) return false;
  int n = snprintf(path, sizeof path, "%s%s%s.so.%d", folder, *folder ? "/" : "", s->spec->stem, major);
  if (n < 0 || (size_t)n >= sizeof path || (*folder && access(path, F_OK) != 0)) return false;
  return open_file(s, path);
}

static bool in_folder(search *s, const char *folder) {
  bool ok = false;
  for (const int *major = s->spec->majors; *major && !ok; major++) ok = try_major(s, folder, *major);
  return ok;
}

/* --- places --- */

/* Every folder of the pattern; the best number first, then later names, so that of two versions the newer is taken. */
static bool in_pattern(search *s, const char *pattern) {
  glob_t found;
  if (glob(pattern, GLOB_ONLYDIR, NULL, &found) != 0) return false;
  bool ok = false;
  for (const int *major = s->spec->majors; *major && !ok; major++)
    for (size_t i = found.gl_pathc; i-- > 0 && !ok;) ok = try_major(s, found.gl_pathv[i], *major);
  globfree(&found);
  return ok;
}

static bool in_folders(search *s, const char *list) {
  char folder[PATH_MAX];
  for (const char *at = list; at && *at;) {
    size_t n = strcspn(at, ":");
    if (n > 0 && n < sizeof folder) {
      memcpy(folder, at, n);
      folder[n] = 0;
      if (in_folder(s, folder)) return true;
    }
    at += n + (at[n] == ':');
  }
  return false;
}

static bool below(search *s, const char *prefix, const char *tail) {
  char pattern[PATH_MAX];
  int n = snprintf(pattern, sizeof pattern, "%s%s", prefix, tail);
  return n > 0 && (size_t)n < sizeof pattern && in_pattern(s, pattern);
}

/* A Python environment: NVIDIA's wheels have nvidia/cu13/lib or nvidia/cublas/lib, nvidia/cudnn/lib. */
static bool in_python(search *s, const char *prefix) {
  return below(s, prefix, "/lib/python3*/*-packages/nvidia/*/lib") ||
         below(s, prefix, "/lib64/python3*/*-packages/nvidia/*/lib") ||
         below(s, prefix, "/lib/python3*/*-packages/torch/lib");
}

/* The environments of the python3 that a shell would start: of the link and of the file that it leads to. */
static bool in_path_python(search *s) {
  char path[PATH_MAX], real[PATH_MAX];
  for (const char *at = getenv("PATH"); at && *at;) {
    size_t n = strcspn(at, ":");
    int length = snprintf(path, sizeof path, "%.*s/python3", (int)n, at);
    at += n + (at[n] == ':');
    if (n == 0 || length < 0 || (size_t)length >= sizeof path || access(path, X_OK) != 0) continue;
    bool linked = realpath(path, real) != NULL;
    for (int i = 0; i < 2; i++) {
      char *prefix = i ? real : path, *slash = NULL;
      if (i && !linked) break;
      for (int up = 0; up < 2; up++)
        if ((slash = strrchr(prefix, '/'))) *slash = 0;
      if (in_python(s, prefix)) return true;
    }
    return false;
  }
  return false;
}

static const char *const cuda_folders[] = {"/usr/local/cuda/lib64", "/usr/local/cuda-*/lib64", "/opt/cuda/lib64"};
static const char *const environments[] = {"/usr/local",   "/usr",        "/opt/*",
                                           "/opt/*/.venv", "/opt/*/venv", "/opt/conda/envs/*"};
static const char *const home_environments[] = {"/.local", "/.venv", "/venv", "/*conda3", "/*conda3/envs/*"};

#define COUNT(list) (sizeof(list) / sizeof *(list))

static bool in_cuda(search *s) {
  static const char *const variables[] = {"CUDA_HOME", "CUDA_PATH"};
  for (size_t i = 0; i < COUNT(variables); i++) {
    const char *root = getenv(variables[i]);
    if (root && *root && (below(s, root, "/lib64") || below(s, root, "/lib"))) return true;
  }
  for (size_t i = 0; i < COUNT(cuda_folders); i++)
    if (in_pattern(s, cuda_folders[i])) return true;
  return false;
}

static bool in_environments(search *s) {
  const char *venv = getenv("VIRTUAL_ENV"), *conda = getenv("CONDA_PREFIX"), *home = getenv("HOME");
  char prefix[PATH_MAX];
  if (venv && *venv && in_python(s, venv)) return true;
  if (conda && *conda && (below(s, conda, "/lib") || in_python(s, conda))) return true;
  if (in_path_python(s)) return true;
  for (size_t i = 0; home && *home && i < COUNT(home_environments); i++) {
    int n = snprintf(prefix, sizeof prefix, "%s%s", home, home_environments[i]);
    if (n > 0 && (size_t)n < sizeof prefix && in_python(s, prefix)) return true;
  }
  for (size_t i = 0; i < COUNT(environments); i++)
    if (in_python(s, environments[i])) return true;
  return false;
}

static bool anywhere(search *s) {
  const char *own = getenv("SLUICE_CUDA_LIBRARIES");
  if (own && *own) {
    note(s->lib, ", not in SLUICE_CUDA_LIBRARIES (%s)", own);
    if (in_folders(s, own)) return true; /* asked for by name: before what the loader would take */
  }
  note(s->lib, ", not by the loader, not in CUDA_HOME, CUDA_PATH, /usr/local/cuda/lib64, /usr/local/cuda-*/lib64");
  if (in_folder(s, "") || in_cuda(s)) return true;
  note(s->lib,
       ", not in site-packages/nvidia/*/lib of VIRTUAL_ENV, CONDA_PREFIX, the python3 in PATH, ~/.local, /usr, "
       "/usr/local, /opt/*");
  return in_environments(s);
}

/* --- the answer, once --- */

static int read_driver_version(void) {
  void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
  void *symbol = driver ? dlsym(driver, "cuDriverGetVersion") : NULL;
  int (*get)(int *), version = 0;
  if (!symbol) return 0;
  memcpy(&get, &symbol, sizeof get);
  return get(&version) == 0 ? version : 0; /* the driver stays open: CUDA opens it anyway */
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int driver_version_locked(void) {
  static bool known;
  static int version;
  if (!known) version = read_driver_version();
  known = true;
  return version;
}

static const sl_gpu_library *find_locked(sl_gpu_library_id which) {
  static sl_gpu_library libraries[SL_GPU_LIBRARY_COUNT];
  sl_gpu_library *lib = &libraries[which];
  const library_spec *spec = &specs[which];
  if (lib->name) return lib;
  lib->name = spec->name;
  if (which == SL_GPU_CUDNN) (void)find_locked(SL_GPU_NVRTC); /* loaded, it is found under its plain name */
  search s = {spec, lib, driver_version_locked() / 1000};
  note(lib, "%s.so", spec->stem);
  for (const int *major = spec->majors; *major; major++)
    note(lib, "%s.%d", major == spec->majors ? "" : " or ", *major);
  if (spec->major_is_cudas && s.cuda && spec->majors[0] > s.cuda) note(lib, " (the driver knows CUDA %d)", s.cuda);
  if (anywhere(&s)) lib->text[0] = 0;
  return lib;
}

int sl_gpu_driver_version(void) {
  pthread_mutex_lock(&lock);
  int version = driver_version_locked();
  pthread_mutex_unlock(&lock);
  return version;
}

const sl_gpu_library *sl_gpu_library_find(sl_gpu_library_id which) {
  SL_ASSERT((int)which >= 0 && which < SL_GPU_LIBRARY_COUNT);
  pthread_mutex_lock(&lock);
  const sl_gpu_library *lib = find_locked(which);
  pthread_mutex_unlock(&lock);
  return lib;
}
