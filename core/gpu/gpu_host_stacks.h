/* Changing from one stack to another, for gpu_host.cpp. On x86-64 by a few instructions; elsewhere, and where
 * SL_GPU_HOST_UCONTEXT is defined, by swapcontext, which makes two system calls each time. And what the address
 * sanitizer is told about it. */
#ifndef SL_GPU_GPU_HOST_STACKS_H
#define SL_GPU_GPU_HOST_STACKS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) && !defined(__SANITIZE_ADDRESS__)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define SL_SANITIZED 1
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define __sanitizer_start_switch_fiber(save, bottom, size) ((void)(save), (void)(bottom), (void)(size))
#define __sanitizer_finish_switch_fiber(save, bottom, size) ((void)(save), (void)(bottom), (void)(size))
#define SL_SANITIZED 0
#endif

#if defined(__x86_64__) && defined(__ELF__) && !defined(__ILP32__) && !defined(SL_GPU_HOST_UCONTEXT)

/* Pushes what a function must keep, and goes on where `to` was left. */
extern "C" void sl_gpu_host_swap(void **from, void *to);
asm(R"(
  .pushsection .text
  .p2align 4
  .globl sl_gpu_host_swap
  .hidden sl_gpu_host_swap
  .type sl_gpu_host_swap, @function
sl_gpu_host_swap:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  subq $8, %rsp
  stmxcsr (%rsp)
  fnstcw 4(%rsp)
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  ldmxcsr (%rsp)
  fldcw 4(%rsp)
  addq $8, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size sl_gpu_host_swap, .-sl_gpu_host_swap
  .popsection
)");

namespace sl_gpu_host {

struct context {
  void *sp;
};

static void swap(context &from, context &to) { sl_gpu_host_swap(&from.sp, to.sp); }

/* As if `entry` had been called from nowhere and had then called swap. */
static void make(context &c, char *low, size_t bytes, void (*entry)()) {
  void **sp = (void **)(low + bytes) - 9; /* `entry` is to find the stack's end at a multiple of 16, less 8 */
  uint32_t mxcsr;
  uint16_t x87;
  asm volatile("stmxcsr %0\n\tfnstcw %1" : "=m"(mxcsr), "=m"(x87));
  for (int i = 0; i < 9; i++) sp[i] = nullptr; /* 0: control words, 1 … 6: registers, 7: where to go, 8: its caller */
  memcpy(sp, &mxcsr, sizeof mxcsr);
  memcpy((char *)sp + 4, &x87, sizeof x87);
  sp[7] = (void *)entry;
  c.sp = sp;
}

} // namespace sl_gpu_host

#else
#include <ucontext.h>

namespace sl_gpu_host {

struct context {
  ucontext_t u;
};

static void swap(context &from, context &to) { swapcontext(&from.u, &to.u); }

static void make(context &c, char *low, size_t bytes, void (*entry)()) {
  getcontext(&c.u);
  c.u.uc_stack.ss_sp = low;
  c.u.uc_stack.ss_size = bytes;
  c.u.uc_link = nullptr;
  makecontext(&c.u, entry, 0);
}

} // namespace sl_gpu_host

#endif

#endif
