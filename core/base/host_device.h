/* SL_HD: a formula that C, the CUDA compiler and the GPU host layer all compile. */
#ifndef SL_BASE_HOST_DEVICE_H
#define SL_BASE_HOST_DEVICE_H

#ifndef SL_HD
#ifdef __CUDACC__
#define SL_HD __host__ __device__ static inline
#else
#define SL_HD static inline
#endif
#endif

#endif
