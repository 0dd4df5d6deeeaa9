/* Recordings of the stand-in's launches, as CUDA's capture makes them: kept with copies of their arguments. */
#include <new>
#include <vector>

#define SL_GPU_HOST 1
#include "gpu/gpu.h"
#include "gpu/gpu_host_control.h"

namespace sl_gpu_host {

/* A launch, or a job of sl_gpu_host_do. */
struct entry {
  grid_job grid;
  sl_status (*work)(void *job);
  void *data;
};

/* A copy of bytes that may hold a struct of any alignment up to 64. */
static void *copy_of(const void *data, size_t bytes) {
  void *copy = ::operator new(bytes, std::align_val_t(64), std::nothrow);
  if (copy) memcpy(copy, data, bytes);
  return copy;
}

static void release(void *copy) { ::operator delete(copy, std::align_val_t(64)); }

struct recording {
  std::vector<entry> entries;
  ~recording() {
    for (const entry &e : entries) release(e.data);
  }
};

static __thread recording *tape; /* being recorded */

static sl_status append(const grid_job *grid, sl_status (*work)(void *), const void *data, size_t bytes) {
  void *copy = copy_of(data, bytes);
  SL_REQUIRE(copy, OOM, "gpu-host: no memory to record %zu bytes of arguments", bytes);
  tape->entries.push_back({grid ? *grid : grid_job{}, work, copy});
  tape->entries.back().grid.data = copy;
  return SL_STATUS_OK;
}

static sl_status append_grid(const grid_job &job) { return append(&job, nullptr, job.data, job.bytes); }

} // namespace sl_gpu_host

using sl_gpu_host::recording;
using sl_gpu_host::tape;

sl_status sl_gpu_host_do(sl_status (*work)(void *job), const void *job, size_t bytes) {
  if (tape) return sl_gpu_host::append(nullptr, work, job, bytes);
  void *copy = sl_gpu_host::copy_of(job, bytes);
  SL_REQUIRE(copy, OOM, "gpu-host: no memory for a job of %zu bytes", bytes);
  const sl_status status = work(copy);
  sl_gpu_host::release(copy);
  return status;
}

sl_status sl_gpu_host_record_begin(void) {
  SL_REQUIRE(!tape, DEVICE, "gpu-host: already recording");
  tape = new (std::nothrow) recording;
  SL_REQUIRE(tape, OOM, "gpu-host: no memory for a recording");
  sl_gpu_host::recorder = sl_gpu_host::append_grid;
  return SL_STATUS_OK;
}

sl_status sl_gpu_host_record_end(void **out) {
  *out = nullptr;
  SL_REQUIRE(tape, DEVICE, "gpu-host: not recording");
  *out = tape;
  tape = nullptr;
  sl_gpu_host::recorder = nullptr;
  return SL_STATUS_OK;
}

sl_status sl_gpu_host_replay(void *played) {
  SL_REQUIRE(!tape, DEVICE, "gpu-host: a recording is replayed while another is made");
  for (const sl_gpu_host::entry &e : ((const recording *)played)->entries)
    SL_TRY(e.work ? e.work(e.data) : sl_gpu_host::run_grid(e.grid));
  return SL_STATUS_OK;
}

void sl_gpu_host_record_free(void *p) { delete (recording *)p; }
