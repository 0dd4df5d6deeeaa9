/* The launch layer without a GPU, for tests; include gpu.h. Every CUDA thread is a fiber; blocks run one after another
 * on the calling thread. Shared memory is NaN until it is written. It proves indices, bounds, barriers, shared memory
 * that nobody wrote, and, by running a kernel in several orders (sl_gpu_host_order), that no result depends on who
 * comes first. It proves nothing about memory order or speed.
 *
 * Functions have CUDA's names, overloads and results; the fast ones (__expf) have the accuracy of the C library. What
 * CUDA does not have is not here either, nor are atomics on floats. */
#ifndef SL_GPU_GPU_HOST_H
#define SL_GPU_GPU_HOST_H

#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <tuple>
#include <type_traits>
#include <utility>

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
extern __thread dim3 threadIdx, blockIdx, blockDim,
    gridDim; /* thread_local would be read through a function, at each use */
inline constexpr int warpSize = 32;

#define __global__ static
#define __device__
#define __host__
#define __grid_constant__
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))

/* --- The machine --- */

enum sl_gpu_order { SL_GPU_ASCENDING, SL_GPU_DESCENDING, SL_GPU_SHUFFLED };

namespace sl_gpu_host {
constexpr unsigned max_threads = 1024;
constexpr size_t max_shared = 48 << 10;   /* what every GPU gives without asking, and all of SL_SHARED */
constexpr size_t most_shared = 227 << 10; /* with SL_SHARED_DYN's, if that alone is above max_shared: on an H100 */

/* As sl_gpu_host_order, with an order of its own for each level. */
void set_order(sl_gpu_order lanes, sl_gpu_order warps, sl_gpu_order blocks, uint64_t seed);

struct grid_job {
  const char *name;
  dim3 grid, block;
  size_t dynamic;         /* bytes of SL_SHARED_DYN */
  void (*thread)(void *); /* called with `data` once for every thread of the grid */
  const void *data;
  size_t bytes; /* of data, which may be copied as bytes */
};
sl_status launch(const grid_job &job);
/* What launch does once it has checked the job, and who does it instead while a recording is made: the calling
 * thread's, NULL for none. */
sl_status run_grid(const grid_job &job);
extern __thread sl_status (*recorder)(const grid_job &job);
/* The block's memory of one SL_SHARED, known by the address of its mark. */
void *shared(const void *mark, size_t bytes);
void *shared_dynamic();
/* Where a thread waits: all that wait together must wait at the same place and for the same thing. */
struct place {
  unsigned line;
  char kind[4];
};
void wait_warp(unsigned mask, place at);
void wait_block(place at);
/* The value of lane `from`. */
uint64_t exchange(unsigned mask, uint64_t value, unsigned from, place at);
unsigned ballot(unsigned mask, bool vote, place at);
/* Waits for the block; the number of its threads with a vote. */
unsigned count_block(bool vote, place at);
unsigned lane();

template <class T>
T shuffle(unsigned mask, T v, unsigned from, place at) {
  static_assert(std::is_arithmetic<T>::value && sizeof(T) <= 8, "a shuffle moves one number of at most 8 bytes");
  uint64_t bits = 0;
  memcpy(&bits, &v, sizeof v);
  bits = exchange(mask, bits, from, at);
  memcpy(&v, &bits, sizeof v);
  return v;
}

/* A launch's arguments: made once, as a call of the kernel would; each thread gets copies. */
template <class... P>
struct arguments {
  static_assert((std::is_trivially_copyable<P>::value && ...), "a kernel's parameters are copied as bytes");
  std::tuple<P...> values;
  static arguments of(P... p) { return {std::tuple<P...>(p...)}; }
};
template <class... P>
arguments<P...> arguments_of(void (*kernel)(P...));

template <class A, class F>
struct bound_kernel {
  A arguments;
  F kernel;
  static void thread(void *data) {
    const bound_kernel *b = (const bound_kernel *)data;
    std::apply(b->kernel, b->arguments.values);
  }
};

template <class A, class F>
sl_status launch(const char *name, dim3 grid, dim3 block, size_t dynamic, const A &arguments, const F &kernel) {
  static_assert(std::is_trivially_copyable<F>::value, "");
  const bound_kernel<A, F> b = {arguments, kernel};
  return launch({name, grid, block, dynamic, b.thread, &b, sizeof b});
}
} // namespace sl_gpu_host

#define SL_LAUNCH(kernel, grid, block, bytes, stream, ...)                                                             \
  ((void)(stream), sl_gpu_host::launch(#kernel, (grid), (block), (bytes),                                              \
                                       decltype(sl_gpu_host::arguments_of(kernel))::of(__VA_ARGS__),                   \
                                       [=](const auto &...sl_launched) { (kernel)(sl_launched...); }))
#define SL_SHARED(T, name, count)                                                                                      \
  static const char name##_mark = 0;                                                                                   \
  T *const name = (T *)sl_gpu_host::shared(&name##_mark, sizeof(T) * (count))
#define SL_SHARED_DYN(T, name) T *const name = (T *)sl_gpu_host::shared_dynamic()

/* --- Barriers, shuffles, votes. The last parameter is not CUDA's: the caller's line. --- */

#define SL_LINE_ unsigned line = __builtin_LINE()

static inline void __syncthreads(SL_LINE_) { sl_gpu_host::wait_block({line, "-"}); }
static inline int __syncthreads_count(int vote, SL_LINE_) {
  return (int)sl_gpu_host::count_block(vote != 0, {line, "sum"});
}
static inline int __syncthreads_or(int vote, SL_LINE_) { return sl_gpu_host::count_block(vote != 0, {line, "or"}) > 0; }
static inline int __syncthreads_and(int vote, SL_LINE_) {
  return sl_gpu_host::count_block(vote == 0, {line, "and"}) == 0;
}
static inline void __syncwarp(unsigned mask = ~0u, SL_LINE_) { sl_gpu_host::wait_warp(mask, {line, "-"}); }
static inline unsigned __ballot_sync(unsigned mask, int vote, SL_LINE_) {
  return sl_gpu_host::ballot(mask, vote != 0, {line, "vot"});
}
static inline int __any_sync(unsigned mask, int vote, SL_LINE_) {
  return sl_gpu_host::ballot(mask, vote != 0, {line, "any"}) != 0;
}
static inline int __all_sync(unsigned mask, int vote, SL_LINE_) {
  return sl_gpu_host::ballot(mask, vote != 0, {line, "all"}) == ~0u;
}

/* `width` lanes shuffle among themselves; who asks for a lane outside keeps its own value. */
template <class T>
T __shfl_sync(unsigned mask, T v, int from, int width = warpSize, SL_LINE_) {
  const unsigned w = (unsigned)width, base = sl_gpu_host::lane() & ~(w - 1);
  return sl_gpu_host::shuffle(mask, v, base + ((unsigned)from & (w - 1)), {line, "one"});
}
template <class T>
T __shfl_xor_sync(unsigned mask, T v, int by, int width = warpSize, SL_LINE_) {
  const unsigned me = sl_gpu_host::lane(), w = (unsigned)width, from = me ^ (unsigned)by;
  return sl_gpu_host::shuffle(mask, v, from < (me & ~(w - 1)) + w ? from : me, {line, "xor"});
}
template <class T>
T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = warpSize, SL_LINE_) {
  const unsigned me = sl_gpu_host::lane(), w = (unsigned)width;
  return sl_gpu_host::shuffle(mask, v, (me & (w - 1)) + by < w ? me + by : me, {line, "dwn"});
}
template <class T>
T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = warpSize, SL_LINE_) {
  const unsigned me = sl_gpu_host::lane(), w = (unsigned)width;
  return sl_gpu_host::shuffle(mask, v, (me & (w - 1)) >= by ? me - by : me, {line, "up"});
}
#undef SL_LINE_

/* Fibers change places only where they wait, so there is nothing to order. */
static inline void __threadfence() {}
static inline void __threadfence_block() {}

/* --- Atomics, on whole numbers: sums of floats would depend on the order. All return the old value. --- */

#define SL_ATOMIC_(name, T, expression)                                                                                \
  static inline T name(T *p, T v) {                                                                                    \
    const T old = *p;                                                                                                  \
    *p = (expression);                                                                                                 \
    return old;                                                                                                        \
  }
#define SL_ATOMICS_(T)                                                                                                 \
  SL_ATOMIC_(atomicAdd, T, (T)(old + v))                                                                               \
  SL_ATOMIC_(atomicExch, T, v)                                                                                         \
  SL_ATOMIC_(atomicMin, T, old < v ? old : v)                                                                          \
  SL_ATOMIC_(atomicMax, T, old > v ? old : v)                                                                          \
  SL_ATOMIC_(atomicAnd, T, old &v)                                                                                     \
  SL_ATOMIC_(atomicOr, T, old | v)                                                                                     \
  SL_ATOMIC_(atomicXor, T, old ^ v)                                                                                    \
  static inline T atomicCAS(T *p, T expected, T v) {                                                                   \
    const T old = *p;                                                                                                  \
    if (old == expected) *p = v;                                                                                       \
    return old;                                                                                                        \
  }
SL_ATOMICS_(int)
SL_ATOMICS_(unsigned)
SL_ATOMICS_(unsigned long long)
#undef SL_ATOMICS_
#undef SL_ATOMIC_

/* --- Numbers --- */

template <class T>
T __ldg(const T *p) {
  return *p;
}

#define SL_AS_(name, To, From)                                                                                         \
  static inline To name(From v) {                                                                                      \
    static_assert(sizeof(To) == sizeof(From), "");                                                                     \
    To r;                                                                                                              \
    memcpy(&r, &v, sizeof r);                                                                                          \
    return r;                                                                                                          \
  }
SL_AS_(__float_as_uint, unsigned, float)
SL_AS_(__uint_as_float, float, unsigned)
SL_AS_(__float_as_int, int, float)
SL_AS_(__int_as_float, float, int)
SL_AS_(__double_as_longlong, long long, double)
SL_AS_(__longlong_as_double, double, long long)
#undef SL_AS_

/* Rounded each by itself: volatile keeps the compiler from making one multiply-add of two of them. */
static inline float __fadd_rn(float a, float b) {
  const volatile float r = a + b;
  return r;
}
static inline float __fsub_rn(float a, float b) { return __fadd_rn(a, -b); }
static inline float __fmul_rn(float a, float b) {
  const volatile float r = a * b;
  return r;
}
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __frcp_rn(float x) { return 1.0f / x; }
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
/* glibc has functions of these names, which must not be called. */
#define __expf(x) expf(x)
#define __logf(x) logf(x)
static inline float __fdividef(float a, float b) { return a / b; }

static inline int __popc(unsigned v) { return __builtin_popcount(v); }
static inline int __clz(int v) { return v ? __builtin_clz((unsigned)v) : 32; }
static inline int __ffs(int v) { return __builtin_ffs(v); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }

#define SL_LEAST_(R, A, B)                                                                                             \
  static inline R min(A a, B b) { return (R)a < (R)b ? (R)a : (R)b; }                                                  \
  static inline R max(A a, B b) { return (R)a > (R)b ? (R)a : (R)b; }
#define SL_LEASTS_(S, U) SL_LEAST_(S, S, S) SL_LEAST_(U, U, U) SL_LEAST_(U, S, U) SL_LEAST_(U, U, S)
SL_LEASTS_(int, unsigned)
SL_LEASTS_(long, unsigned long)
SL_LEASTS_(long long, unsigned long long)
#undef SL_LEASTS_
#undef SL_LEAST_
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }
static inline double min(float a, double b) { return fmin((double)a, b); }
static inline double max(float a, double b) { return fmax((double)a, b); }
static inline double min(double a, float b) { return fmin(a, (double)b); }
static inline double max(double a, float b) { return fmax(a, (double)b); }

/* --- Short vectors, aligned to their size --- */

#define SL_VECTORS_(name, T)                                                                                           \
  struct alignas(2 * sizeof(T)) name##2 {                                                                              \
    T x, y;                                                                                                            \
  };                                                                                                                   \
  static inline name##2 make_##name##2(T x, T y) { return {x, y}; }
#define SL_VECTORS_4_(name, T)                                                                                         \
  SL_VECTORS_(name, T)                                                                                                 \
  struct alignas(4 * sizeof(T)) name##4 {                                                                              \
    T x, y, z, w;                                                                                                      \
  };                                                                                                                   \
  static inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
SL_VECTORS_4_(uchar, unsigned char)
SL_VECTORS_4_(ushort, unsigned short)
SL_VECTORS_4_(int, int)
SL_VECTORS_4_(uint, unsigned)
SL_VECTORS_4_(float, float)
SL_VECTORS_(longlong, long long)
SL_VECTORS_(ulonglong, unsigned long long)
SL_VECTORS_(double, double)
#undef SL_VECTORS_4_
#undef SL_VECTORS_

#endif
