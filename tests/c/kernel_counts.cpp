/* Tables of kernels that count their calls: which rows of kernels.def a test went through. */
#include "kernel_counts.h"

#include <cstdio>

#include "graph/program_internal.h"
#include "ops/kernels.h"

namespace {

enum row {
#define SL_KERNEL(name, args) ROW_##name,
#include "ops/kernels.def"
#undef SL_KERNEL
  ROWS
};

struct row_name {
  const char *name;
};

const row_name names[] = {
#define SL_KERNEL(name, args) {#name},
#include "ops/kernels.def"
#undef SL_KERNEL
};

long calls[ROWS];

/* The kernel behind it is read from the table that was there before. */
const sl_kernels *original;

template <int Row, class F>
struct counted;
template <int Row, class... A>
struct counted<Row, sl_status(A...)> {
  template <sl_status (*sl_kernels::*Slot)(A...)>
  static sl_status call(A... a) {
    calls[Row]++;
    return (original->*Slot)(a...);
  }
};

const sl_kernels table = {
#define SL_KERNEL(name, args) counted<ROW_##name, sl_##name##_kernel>::call<&sl_kernels::name>,
#include "ops/kernels.def"
#undef SL_KERNEL
};

} // namespace

extern "C" void kernel_counts_watch(sl_program *p) {
  if (p->exec.kernels == &table) return;
  original = p->exec.kernels;
  p->exec.kernels = &table;
}

/* Rows that plan come before a program can be watched; put and the optimizer belong to no program. */
static bool seen_elsewhere(int i) {
  switch (i) {
    case ROW_put:
    case ROW_gemm_fuses:
    case ROW_gemm_workspace:
    case ROW_gemm_plan:
    case ROW_conv_workspace:
    case ROW_conv_plan:
    case ROW_attention_plan:
    case ROW_adamw_ema:
    case ROW_sum_of_squares: return true;
    default: return false;
  }
}

extern "C" bool kernel_counts_print(const char *device) {
  bool whole = true;
  std::printf("%-26s %s\n", "kernel", device);
  for (int i = 0; i < ROWS; i++) {
    const bool fine = calls[i] > 0 || seen_elsewhere(i);
    std::printf("%-26s %s\n", names[i].name, calls[i] > 0 ? "yes" : fine ? "by other tests" : "NO: no case runs it");
    whole &= fine;
  }
  return whole;
}
