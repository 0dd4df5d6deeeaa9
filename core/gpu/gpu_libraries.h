/* NVIDIA's libraries, found and opened at first use. Nothing here needs a CUDA header. */
#ifndef SL_GPU_GPU_LIBRARIES_H
#define SL_GPU_GPU_LIBRARIES_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum sl_gpu_library_id {
  SL_GPU_CUBLASLT,
  SL_GPU_NVRTC, /* for cuDNN, which asks for it by name alone */
  SL_GPU_CUDNN,
  SL_GPU_NCCL,
  SL_GPU_LIBRARY_COUNT
} sl_gpu_library_id;

/* Of the process; never closed. */
typedef struct sl_gpu_library {
  const char *name; /* "cuBLASLt" */
  void *handle;     /* for dlsym; NULL: not found */
  char path[4096], folder[4096];
  int version;     /* 130100 is 13.1.0; 0: unknown */
  char text[2560]; /* where it was looked for and what the loader said of files that did not open */
} sl_gpu_library;

/* Searched for in the folders of SLUICE_CUDA_LIBRARIES, by the loader's own rules, in CUDA's folders and in Python
 * environments; later calls repeat the first answer. Never NULL. For any thread. */
const sl_gpu_library *sl_gpu_library_find(sl_gpu_library_id which);
/* CUDA's version of the installed driver (13000 is 13.0); 0: no driver. */
int sl_gpu_driver_version(void);

#ifdef __cplusplus
}
#endif

#endif
