/* A few bytes of the host's, given by value with the launch: in the stream's order, and no host memory to keep. */
#include "gpu/gpu.h"

#include "ops/kernels.h"

namespace {

struct put_args {
  unsigned char *to;
  int n;
  unsigned char bytes[SL_PUT_BYTES];
};

} // namespace

/* One block; a thread has one byte. */
__global__ void put_kernel(const put_args a) {
  if ((int)threadIdx.x < a.n) a.to[threadIdx.x] = a.bytes[threadIdx.x];
}

extern "C" sl_status sl_cuda_put(sl_exec *e, void *to, const void *from, size_t bytes) {
  put_args a = {(unsigned char *)to, (int)bytes, {}};
  SL_REQUIRE(bytes <= SL_PUT_BYTES, INTERNAL, "put: %zu bytes, expected at most %d", bytes, SL_PUT_BYTES);
  memcpy(a.bytes, from, bytes);
  return bytes ? SL_LAUNCH(put_kernel, 1, SL_PUT_BYTES, 0, e->stream, a) : SL_STATUS_OK;
}
