/* An opened GPU: what the libraries' files (blas.h, dnn.h) and the device table (tensor/device.h) share. */
#ifndef SL_GPU_GPU_RUNTIME_H
#define SL_GPU_GPU_RUNTIME_H

#include "base/context.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Belongs to one context. Everything runs in one stream. */
typedef struct sl_gpu {
  sl_context *ctx;
  int index; /* CUDA's number of the device */
  int sm;    /* compute capability, 90 for 9.0; 0 in the host stand-in */
  int multiprocessors;
  void *stream;         /* cudaStream_t */
  void *blas, *dnn;     /* handles, made at first use and closed by sl_blas_close and sl_dnn_close; NULL until then */
  bool no_blas, no_dnn; /* looked for and not found: not looked for again */
  bool recording;       /* launches are being recorded: nothing may be allocated, waited for or recorded once more */
  int tune;  /* algorithms that a library's operation tries at its first run; below 2: its first guess stays */
  bool tf32; /* SLUICE_TF32: f32 products may round what they multiply to TF32, whatever the graph says */
} sl_gpu;

#ifdef __cplusplus
}
#endif

#endif
