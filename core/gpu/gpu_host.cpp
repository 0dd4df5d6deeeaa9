/* Fibers for gpu_host.h. The threads of a block take turns on one OS thread, each until it waits for its warp or block.
 * A thread has a stack of its own from its start to its end, and the next to start takes over the stack: a kernel that
 * never waits runs on one stack and needs no switch between its threads. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <new>

#define SL_GPU_HOST 1
#include "gpu/gpu.h"
#include "gpu/gpu_host_control.h"
#include "gpu/gpu_host_stacks.h"

__thread dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace sl_gpu_host {

__thread sl_status (*recorder)(const grid_job &job);

constexpr size_t stack_bytes = 64 << 10;
constexpr size_t red_zone = 64; /* around the blocks of shared memory */
constexpr unsigned max_marks = 64;
constexpr size_t shared_room = most_shared + (max_marks + 2) * (red_zone + 16);
constexpr unsigned max_warps = max_threads / 32;

enum stop { AT_WARP, AT_BLOCK, DONE };

struct stack {
  char *low;
  size_t bytes;
  void *fake; /* the sanitizer's */
  stack *next_unused;
};

struct thread {
  context at; /* where it waits */
  stack *on;  /* NULL before it begins and after its end */
  dim3 index;
  unsigned number;
};

struct warp {
  uint32_t ready, stopped[3]; /* sets of lanes */
  unsigned turns;             /* how often it went on together */
  place at;                   /* of the first lane that waits */
  uint64_t slots[2][32];      /* what lanes give each other, by turns: those of the last may still be read */
};

struct shared_block {
  const void *mark;
  size_t offset, bytes;
};

struct machine {
  const grid_job *job = nullptr;     /* NULL between launches */
  dim3 block;                        /* the shape for which threads are numbered */
  unsigned n_warps, made;            /* made: stacks */
  uint32_t ready;                    /* warps */
  unsigned waiting, done;            /* warps */
  unsigned arrived, turns, votes[2]; /* threads; and of the block, as of a warp */
  place at;
  sl_status status;
  thread scheduler, *running, *last; /* last: who ran before */
  stack scheduler_stack, *unused;
  size_t dynamic, used, fixed; /* fixed: all of SL_SHARED */
  unsigned marks;
  uint64_t random;
  char *stacks = nullptr, *memory = nullptr;
  size_t stride; /* of stacks */
  warp warps[max_warps];
  thread threads[max_threads];
  stack stack_of[max_threads];
  shared_block blocks[max_marks];
};

static struct {
  sl_gpu_order lanes, warps, blocks;
  uint64_t seed;
} orders;
static struct { void (*enter)(void), (*leave)(void); } hooks;

static __thread machine *self;

void set_order(sl_gpu_order lanes, sl_gpu_order warps, sl_gpu_order blocks, uint64_t seed) {
  orders = {lanes, warps, blocks, seed};
}

/* --- Memory --- */

static char *map(size_t bytes) {
  void *p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return p == MAP_FAILED ? nullptr : (char *)p;
}

static void unmap(char *&p, size_t bytes, size_t touched) {
  if (!p) return;
  ASAN_UNPOISON_MEMORY_REGION(p, touched);
  munmap(p, bytes);
  p = nullptr;
}

/* After a failure: fibers that never came to an end lie on the stacks. */
static void release_stacks(machine &m) {
  unmap(m.stacks, max_threads * m.stride, m.made * m.stride);
  for (thread &t : m.threads) t.on = nullptr;
  m.unused = nullptr;
  m.made = 0;
}

static machine *open() {
  static thread_local struct owner {
    machine *m = nullptr;
    ~owner() {
      if (!m) return;
      release_stacks(*m);
      unmap(m->memory, shared_room, shared_room);
      delete m;
    }
  } mine;
  if (!mine.m) mine.m = new (std::nothrow) machine();
  return mine.m;
}

/* Pages are touched as they are used. The page under each stack is protected; it also keeps equal places of different
 * stacks from falling into one set of the cache, as does the odd size. */
static stack *take_stack(machine &m) {
  stack *s = m.unused;
  if (s) {
    m.unused = s->next_unused;
    ASAN_UNPOISON_MEMORY_REGION(s->low + s->bytes - 4096, 4096); /* frames that were left for ever */
  } else {
    s = &m.stack_of[m.made];
    char *const base = m.stacks + m.made * m.stride;
    const size_t guard = m.stride - stack_bytes;
    (void)mprotect(base, guard, PROT_NONE);
    s->low = base + guard;
    s->bytes = stack_bytes - 64 * (m.made % 61);
    m.made++;
  }
  return s;
}

/* --- Turns --- */

/* The sanitizer is told of a fiber's arrival. */
static void arrived(machine &m, void *fake) {
  const void *low = nullptr;
  size_t bytes = 0;
  __sanitizer_finish_switch_fiber(fake, &low, &bytes);
  if (m.last == &m.scheduler) m.scheduler_stack.low = (char *)low, m.scheduler_stack.bytes = bytes;
}

/* Without a sanitizer a waiting fiber leaves no frame of its own but swap's. */
static inline void go(machine &m, thread &from, thread &to, bool gone) {
  m.last = &from;
  m.running = &to;
  if (SL_SANITIZED) __sanitizer_start_switch_fiber(gone ? nullptr : &from.on->fake, to.on->low, to.on->bytes);
  swap(from.at, to.at);
  if (SL_SANITIZED) arrived(m, from.on->fake);
}

static void run_threads();

static uint64_t draw(machine &m) { /* splitmix64 */
  uint64_t z = m.random += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

/* A member of a set that is not empty. */
static unsigned choose(machine &m, uint32_t set, sl_gpu_order order) {
  if (order == SL_GPU_ASCENDING) return (unsigned)__builtin_ctz(set);
  if (order == SL_GPU_DESCENDING) return 31u - (unsigned)__builtin_clz(set);
  const unsigned by = (unsigned)draw(m) % 32;
  const uint32_t turned = set >> by | set << (32 - by) % 32;
  return ((unsigned)__builtin_ctz(turned) + by) % 32;
}

static thread &choose_thread(machine &m) {
  if (!m.ready) return m.scheduler;
  const unsigned w = choose(m, m.ready, orders.warps);
  return m.threads[32 * w + choose(m, m.warps[w].ready, orders.lanes)];
}

/* Goes on with a thread that is ready, or with the scheduler if none is; comes back when `mine` is chosen. */
static inline void next(machine &m, thread &mine) {
  thread &to = choose_thread(m);
  threadIdx = to.index;
  if (!to.on) {
    to.on = take_stack(m);
    make(to.at, to.on->low, to.on->bytes, run_threads);
  }
  if (&to != &mine) go(m, mine, to, false);
}

/* The same after the end of `mine`; comes back when another thread is to begin on its stack. */
static void next_after(machine &m, thread &mine) {
  thread &to = choose_thread(m);
  stack *const s = mine.on;
  threadIdx = to.index;
  mine.on = nullptr;
  if (!to.on) {
    to.on = s;
    m.running = &to;
    return;
  }
  s->next_unused = m.unused;
  m.unused = s;
  go(m, mine, to, true);
}

/* The launch ends here, with what was running. */
static void fail(machine &m, sl_status status) {
  m.status = status;
  m.ready = 0;
}

static void divergent(machine &m, const char *where, place a, place b) {
  char lines[64] = "";
  if (a.line != b.line) snprintf(lines, sizeof lines, ": threads wait at lines %u and %u", a.line, b.line);
  fail(m, sl_fail(SL_STATUS_DEVICE, "%s: divergent %s in block (%u,%u,%u)%s", m.job->name, where, blockIdx.x,
                  blockIdx.y, blockIdx.z, lines));
}

/* No warp can go on before the block does. */
static void settle_block(machine &m) {
  if (m.done == m.n_warps) return;
  if (m.waiting < m.n_warps) return divergent(m, "barrier", m.at, m.at);
  for (unsigned i = 0; i < m.n_warps; i++) m.warps[i].stopped[AT_BLOCK] = 0, m.warps[i].ready = ~0u;
  m.ready = ~0u >> (32 - m.n_warps);
  m.waiting = m.arrived = 0;
  m.votes[++m.turns % 2] = 0;
}

/* All lanes of a warp have stopped. */
static void settle_warp(machine &m, unsigned i) {
  warp &w = m.warps[i];
  if (w.stopped[AT_WARP] == ~0u) {
    w.stopped[AT_WARP] = 0;
    w.ready = ~0u;
    w.turns++;
    return;
  }
  if (w.stopped[AT_BLOCK] != ~0u && w.stopped[DONE] != ~0u)
    return divergent(m, w.stopped[AT_WARP] ? "shuffle" : "barrier", m.at, m.at);
  m.waiting += w.stopped[AT_BLOCK] != 0;
  m.done += w.stopped[DONE] != 0;
  m.ready &= ~(1u << i);
  if (!m.ready) settle_block(m);
}

static void arrive(machine &m, unsigned number, stop why) {
  warp &w = m.warps[number / 32];
  const uint32_t me = 1u << number % 32;
  w.ready &= ~me;
  w.stopped[why] |= me;
  if (!w.ready) settle_warp(m, number / 32);
}

static bool same(place a, place b) { return a.line == b.line && memcmp(a.kind, b.kind, sizeof a.kind) == 0; }

static inline void wait(machine &m, thread &mine, stop why, bool first, place &theirs, place at) {
  if (first) theirs = at;
  if (same(theirs, at)) arrive(m, mine.number, why);
  else divergent(m, why == AT_WARP ? "shuffle" : "barrier", theirs, at);
  next(m, mine);
}

[[noreturn]] static void give_up(machine &m, sl_status status) {
  fail(m, status);
  next(m, *m.running);
  abort();
}

void wait_warp(unsigned mask, place at) {
  machine &m = *self;
  thread &mine = *m.running;
  warp &w = m.warps[mine.number / 32];
  if (mask != ~0u)
    give_up(m, sl_fail(SL_STATUS_DEVICE, "%s: a shuffle with mask %08x, expected ffffffff", m.job->name, mask));
  wait(m, mine, AT_WARP, !w.stopped[AT_WARP], w.at, at);
}

void wait_block(place at) {
  machine &m = *self;
  wait(m, *m.running, AT_BLOCK, !m.arrived++, m.at, at);
}

unsigned lane() { return self->running->number % 32; }

uint64_t exchange(unsigned mask, uint64_t value, unsigned from, place at) {
  const unsigned me = self->running->number;
  warp &w = self->warps[me / 32];
  uint64_t *const slots = w.slots[w.turns % 2];
  slots[me % 32] = value;
  wait_warp(mask, at);
  return slots[from % 32];
}

unsigned ballot(unsigned mask, bool vote, place at) {
  const warp &w = self->warps[self->running->number / 32];
  const uint64_t *const slots = w.slots[w.turns % 2];
  unsigned votes = 0;
  (void)exchange(mask, vote, 0, at);
  for (unsigned i = 0; i < 32; i++) votes |= (unsigned)slots[i] << i;
  return votes;
}

unsigned count_block(bool vote, place at) {
  unsigned &votes = self->votes[self->turns % 2];
  votes += vote;
  wait_block(at);
  return votes;
}

/* A fiber's first function. */
static void run_threads() {
  machine &m = *self;
  arrived(m, nullptr);
  for (;;) {
    m.job->thread((void *)m.job->data);
    arrive(m, m.running->number, DONE);
    next_after(m, *m.running);
  }
}

/* --- Shared memory: bump allocation, each block between red zones that are poisoned or, without a sanitizer, must keep
 * their bytes. 0xff is a NaN in f32, bf16 and f64. --- */

static void check_room(machine &m) {
  const size_t fixed = m.fixed, all = fixed + m.dynamic, most = m.dynamic > max_shared ? most_shared : max_shared;
  if (fixed > max_shared || all > most)
    give_up(m, sl_fail(SL_STATUS_DEVICE, "%s: %zu bytes of shared memory, expected at most %zu", m.job->name,
                       fixed > max_shared ? fixed : all, fixed > max_shared ? max_shared : most));
}

static char *take(machine &m, const void *mark, size_t bytes) {
  const size_t offset = m.used, size = (bytes + 15) / 16 * 16;
  ASAN_UNPOISON_MEMORY_REGION(m.memory + offset, size + red_zone);
  memset(m.memory + offset, 0xff, size + red_zone);
  ASAN_POISON_MEMORY_REGION(m.memory + offset + bytes, size - bytes + red_zone);
  m.used = offset + size + red_zone;
  m.blocks[m.marks++] = {mark, offset, bytes};
  return m.memory + offset;
}

void *shared_dynamic() { return self->memory + red_zone; }

void *shared(const void *mark, size_t bytes) {
  machine &m = *self;
  for (unsigned i = 1; i < m.marks; i++)
    if (m.blocks[i].mark == mark) return m.memory + m.blocks[i].offset;
  m.fixed += bytes;
  check_room(m);
  if (m.marks == max_marks)
    give_up(m, sl_fail(SL_STATUS_DEVICE, "%s: more than %u times SL_SHARED", m.job->name, max_marks - 1));
  return take(m, mark, bytes);
}

static bool zones_kept(const machine &m) {
  size_t kept = 0; /* where the zone begins */
  for (unsigned i = 0; i < m.marks && !SL_SANITIZED; i++) {
    const shared_block &b = m.blocks[i];
    for (; kept < b.offset; kept++)
      if (m.memory[kept] != (char)0xff) return false;
    kept = b.offset + b.bytes;
  }
  for (; kept < m.used && !SL_SANITIZED; kept++)
    if (m.memory[kept] != (char)0xff) return false;
  return true;
}

static void clear_shared(machine &m) {
  ASAN_UNPOISON_MEMORY_REGION(m.memory, red_zone);
  memset(m.memory, 0xff, red_zone);
  ASAN_POISON_MEMORY_REGION(m.memory, m.used > red_zone ? m.used : red_zone);
  m.used = red_zone;
  m.marks = 0;
  m.fixed = 0;
  (void)take(m, nullptr, m.dynamic);
}

/* --- Launches --- */

static sl_status run_block(machine &m) {
  for (unsigned i = 0; i < m.n_warps; i++) {
    warp &w = m.warps[i];
    w.ready = ~0u;
    w.stopped[AT_WARP] = w.stopped[AT_BLOCK] = w.stopped[DONE] = w.turns = 0;
  }
  m.ready = ~0u >> (32 - m.n_warps);
  m.waiting = m.done = m.arrived = m.turns = m.votes[0] = m.votes[1] = 0;
  m.status = SL_STATUS_OK;
  clear_shared(m);
  m.scheduler.on = &m.scheduler_stack;
  next(m, m.scheduler);
  SL_TRY(m.status);
  SL_REQUIRE(zones_kept(m), DEVICE, "%s: wrote past its shared memory in block (%u,%u,%u)", m.job->name, blockIdx.x,
             blockIdx.y, blockIdx.z);
  return SL_STATUS_OK;
}

static sl_status check_grid(const grid_job &job) {
  const dim3 grid = job.grid, block = job.block;
  const uint64_t threads = (uint64_t)block.x * block.y * block.z;
  SL_REQUIRE(!self || !self->job, DEVICE, "%s: launched by a kernel", job.name);
  SL_REQUIRE(grid.x && grid.y && grid.z && grid.x <= 0x7fffffffu && grid.y <= 65535 && grid.z <= 65535, DEVICE,
             "%s: a grid of (%u,%u,%u) blocks", job.name, grid.x, grid.y, grid.z);
  SL_REQUIRE(threads && threads <= max_threads && threads % 32 == 0 && block.z <= 64, DEVICE,
             "%s: blocks of %llu threads, expected a multiple of 32 up to %u", job.name, (unsigned long long)threads,
             max_threads);
  SL_REQUIRE(job.dynamic <= most_shared, DEVICE, "%s: %zu bytes of shared memory, expected at most %zu", job.name,
             job.dynamic, most_shared);
  return SL_STATUS_OK;
}

static void number_threads(machine &m, dim3 block) {
  if (block.x == m.block.x && block.y == m.block.y && block.z == m.block.z) return;
  m.block = block;
  m.n_warps = block.x * block.y * block.z / 32;
  for (unsigned i = 0; i < 32 * m.n_warps; i++) {
    m.threads[i].index = dim3(i % block.x, i / block.x % block.y, i / (block.x * block.y));
    m.threads[i].number = i;
  }
}

static sl_status prepare(machine &m, const grid_job &job) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  m.stride = (stack_bytes + page - 1) / page * page + page;
  if (!m.memory) m.memory = map(shared_room), m.used = shared_room;
  if (!m.stacks) m.stacks = map(max_threads * m.stride);
  SL_REQUIRE(m.memory && m.stacks, OOM, "%s: no memory for the stacks of its threads", job.name);
  number_threads(m, job.block);
  blockDim = job.block;
  gridDim = job.grid;
  m.dynamic = job.dynamic;
  m.random = orders.seed;
  return SL_STATUS_OK;
}

/* The blocks' order: i -> (a i + b) mod n goes through all of them where a has no divisor in common with n. */
struct block_order {
  uint64_t n, a, b;
};

static uint64_t divisor(uint64_t a, uint64_t b) { return b ? divisor(b, a % b) : a; }

static block_order order_of(machine &m, dim3 grid) {
  block_order o = {(uint64_t)grid.x * grid.y * grid.z, 1, 0};
  if (orders.blocks == SL_GPU_DESCENDING) o.a = o.n - 1, o.b = o.n - 1;
  if (orders.blocks == SL_GPU_SHUFFLED && o.n <= UINT32_MAX) {
    o.b = draw(m) % o.n;
    do o.a = draw(m) % o.n;
    while (divisor(o.a, o.n) != 1);
  }
  return o;
}

static dim3 block_at(const block_order &o, dim3 grid, uint64_t i) {
  const uint64_t at = o.a == o.n - 1 ? (o.b + o.n - i) % o.n : (o.a * i + o.b) % o.n;
  return dim3((unsigned)(at % grid.x), (unsigned)(at / grid.x % grid.y), (unsigned)(at / grid.x / grid.y));
}

sl_status run_grid(const grid_job &job) {
  machine *const m = self = open();
  SL_REQUIRE(m, OOM, "%s: no memory for the state of its threads", job.name);
  SL_TRY(prepare(*m, job));
  const block_order order = order_of(*m, job.grid);
  sl_status status = SL_STATUS_OK;
  m->job = &job;
  if (hooks.enter) hooks.enter();
  for (uint64_t i = 0; i < order.n && status == SL_STATUS_OK; i++) {
    blockIdx = block_at(order, job.grid, i);
    status = run_block(*m);
  }
  if (hooks.leave) hooks.leave();
  m->job = nullptr;
  if (status != SL_STATUS_OK) release_stacks(*m);
  return status;
}

sl_status launch(const grid_job &job) {
  SL_TRY(check_grid(job));
  return recorder ? recorder(job) : run_grid(job);
}

} // namespace sl_gpu_host

void sl_gpu_host_order(int order, uint64_t seed) {
  const sl_gpu_order o = (sl_gpu_order)order;
  sl_gpu_host::set_order(o, o, o, seed);
}

void sl_gpu_host_hooks(void (*enter)(void), void (*leave)(void)) { sl_gpu_host::hooks = {enter, leave}; }
