/* Fibers for gpu_host.h: a block's threads take turns on one OS thread, each until its next barrier or shuffle. */
#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <new>
#include <vector>

#define SL_GPU_HOST 1
#include "gpu/gpu.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer) && !defined(__SANITIZE_ADDRESS__)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define __sanitizer_start_switch_fiber(save, bottom, size) ((void)(save), (void)(bottom), (void)(size))
#define __sanitizer_finish_switch_fiber(save, bottom, size) ((void)(save), (void)(bottom), (void)(size))
#endif

__thread dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace sl_gpu_host {

enum state { READY, AT_WARP, AT_BLOCK, DONE };

struct fiber {
  ucontext_t context;
  state at;
  dim3 index;
  void *fake_stack; /* the sanitizer's */
};

constexpr size_t stack_bytes = 64 << 10;
constexpr size_t red_zone = 64; /* between blocks of shared memory */
constexpr size_t shared_room = 2 * max_shared;

struct shared_block {
  const void *mark;
  size_t offset;
};

struct machine {
  std::vector<fiber> fibers;
  std::vector<shared_block> blocks;
  const std::function<void()> *body = nullptr;
  const char *name = nullptr;
  char *stacks = nullptr, *memory = nullptr;
  ucontext_t scheduler;
  void *scheduler_fake_stack = nullptr;
  const void *scheduler_bottom = nullptr;
  size_t scheduler_size = 0;
  unsigned current = 0, threads = 0;
  size_t dynamic = 0, used = 0, asked = 0;
  uint64_t slots[max_threads];

  ~machine() {
    release_stacks();
    if (memory) {
      ASAN_UNPOISON_MEMORY_REGION(memory, shared_room);
      munmap(memory, shared_room);
    }
  }
  void release_stacks() {
    if (!stacks) return;
    ASAN_UNPOISON_MEMORY_REGION(stacks, max_threads * stack_bytes);
    munmap(stacks, max_threads * stack_bytes);
    stacks = nullptr;
  }
};

static machine &here() {
  static thread_local machine m;
  return m;
}

static char *map(size_t bytes) {
  void *p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return p == MAP_FAILED ? nullptr : (char *)p;
}

/* Leaves the running fiber for the scheduler; comes back when it is resumed. */
static void leave(state at) {
  machine &m = here();
  fiber &f = m.fibers[m.current];
  f.at = at;
  __sanitizer_start_switch_fiber(at == DONE ? nullptr : &f.fake_stack, m.scheduler_bottom, m.scheduler_size);
  swapcontext(&f.context, &m.scheduler);
  __sanitizer_finish_switch_fiber(f.fake_stack, nullptr, nullptr);
}

static void start() {
  machine &m = here();
  __sanitizer_finish_switch_fiber(nullptr, &m.scheduler_bottom, &m.scheduler_size);
  (*m.body)();
  leave(DONE);
}

static void resume(unsigned i) {
  machine &m = here();
  m.current = i;
  threadIdx = m.fibers[i].index;
  __sanitizer_start_switch_fiber(&m.scheduler_fake_stack, m.stacks + i * stack_bytes, stack_bytes);
  swapcontext(&m.scheduler, &m.fibers[i].context);
  __sanitizer_finish_switch_fiber(m.scheduler_fake_stack, nullptr, nullptr);
}

void wait_block() { leave(AT_BLOCK); }
void wait_warp() { leave(AT_WARP); }
unsigned lane() { return here().current % 32; }
uint64_t *slot(unsigned lane) { return &here().slots[here().current / 32 * 32 + lane]; }
void *shared_dynamic() { return here().memory + red_zone; }

/* Bump allocation with a poisoned zone after each block; what does not fit is counted, and the launch reports it. */
static size_t take(machine &m, size_t bytes) {
  const size_t offset = m.used + red_zone, size = (bytes + 15) / 16 * 16;
  m.asked += bytes;
  if (offset + size + red_zone > shared_room) return red_zone;
  m.used = offset + size;
  ASAN_UNPOISON_MEMORY_REGION(m.memory + offset, bytes);
  return offset;
}

void *shared(const void *mark, size_t bytes) {
  machine &m = here();
  for (const shared_block &b : m.blocks)
    if (b.mark == mark) return m.memory + b.offset;
  m.blocks.push_back({mark, take(m, bytes)});
  return m.memory + m.blocks.back().offset;
}

static sl_status divergent(const machine &m, const char *where) {
  return sl_fail(SL_STATUS_DEVICE, "%s: divergent %s in block (%u,%u,%u)", m.name, where, blockIdx.x, blockIdx.y,
                 blockIdx.z);
}

/* Lets waiting fibers go on where all of a warp, or all of the block, have arrived. */
static bool release(machine &m) {
  unsigned at_block = 0;
  bool moved = false;
  for (unsigned w = 0; w < m.threads; w += 32) {
    unsigned at_warp = 0;
    for (unsigned i = w; i < w + 32; i++) at_warp += m.fibers[i].at == AT_WARP, at_block += m.fibers[i].at == AT_BLOCK;
    for (unsigned i = w; at_warp == 32 && i < w + 32; i++) m.fibers[i].at = READY;
    moved |= at_warp == 32;
  }
  for (unsigned i = 0; at_block == m.threads && i < m.threads; i++) m.fibers[i].at = READY;
  return moved || at_block == m.threads;
}

static sl_status run_block(machine &m) {
  m.blocks.clear();
  m.used = m.asked = 0;
  ASAN_UNPOISON_MEMORY_REGION(m.memory, shared_room);
  memset(m.memory, 0xff, shared_room); /* a NaN in f32, bf16 and f64 */
  ASAN_POISON_MEMORY_REGION(m.memory, shared_room);
  (void)take(m, m.dynamic);
  for (unsigned i = 0; i < m.threads; i++) {
    fiber &f = m.fibers[i];
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = m.stacks + i * stack_bytes;
    f.context.uc_stack.ss_size = stack_bytes;
    f.context.uc_link = nullptr;
    makecontext(&f.context, start, 0);
    f.at = READY;
    f.fake_stack = nullptr;
    f.index = dim3(i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y));
  }
  for (;;) {
    unsigned done = 0, waiting_warp = 0;
    for (unsigned i = 0; i < m.threads; i++)
      if (m.fibers[i].at == READY) resume(i);
    for (unsigned i = 0; i < m.threads; i++) done += m.fibers[i].at == DONE, waiting_warp += m.fibers[i].at == AT_WARP;
    if (m.asked > max_shared)
      return sl_fail(SL_STATUS_DEVICE, "%s: %zu bytes of shared memory, expected at most %zu", m.name, m.asked,
                     max_shared);
    if (done == m.threads) return SL_STATUS_OK;
    if (!release(m)) return divergent(m, waiting_warp ? "shuffle" : "barrier");
  }
}

static sl_status prepare(machine &m, const char *name, dim3 grid, dim3 block, size_t bytes) {
  const uint64_t threads = (uint64_t)block.x * block.y * block.z;
  SL_REQUIRE(grid.x && grid.y && grid.z && grid.x <= 0x7fffffffu && grid.y <= 65535 && grid.z <= 65535, DEVICE,
             "%s: a grid of (%u,%u,%u) blocks", name, grid.x, grid.y, grid.z);
  SL_REQUIRE(threads && threads <= max_threads && threads % 32 == 0, DEVICE,
             "%s: blocks of %llu threads, expected a multiple of 32 up to %u", name, (unsigned long long)threads,
             max_threads);
  SL_REQUIRE(bytes <= max_shared, DEVICE, "%s: %zu bytes of shared memory, expected at most %zu", name, bytes,
             max_shared);
  if (!m.memory) m.memory = map(shared_room);
  if (!m.stacks) m.stacks = map(max_threads * stack_bytes);
  SL_REQUIRE(m.memory && m.stacks, OOM, "%s: no memory for the stacks of its threads", name);
  m.fibers.resize(threads);
  m.threads = (unsigned)threads;
  m.name = name;
  m.dynamic = bytes;
  gridDim = grid;
  blockDim = block;
  return SL_STATUS_OK;
}

sl_status launch(const char *name, dim3 grid, dim3 block, size_t bytes, const std::function<void()> &body) {
  machine &m = here();
  SL_TRY(prepare(m, name, grid, block, bytes));
  m.body = &body;
  sl_status status = SL_STATUS_OK;
  for (unsigned z = 0; z < grid.z && status == SL_STATUS_OK; z++)
    for (unsigned y = 0; y < grid.y && status == SL_STATUS_OK; y++)
      for (unsigned x = 0; x < grid.x && status == SL_STATUS_OK; x++) {
        blockIdx = dim3(x, y, z);
        status = run_block(m);
      }
  if (status != SL_STATUS_OK) m.release_stacks(); /* fibers that never came to an end lie there */
  return status;
}

} // namespace sl_gpu_host
