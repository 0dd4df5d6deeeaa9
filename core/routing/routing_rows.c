/* The formulas behind mask tables. */
#include "routing/routing_rows.h"

#include <math.h>
#include <string.h>

int64_t sl_routing_width(int64_t C, double beta) {
  double width = (double)C * beta;
  return fabs(width) < 0x1p62 ? (int64_t)width : 0; /* no number, or none of channels */
}

void sl_routing_dtr_rows(double alpha, double beta, sl_routing_variant variant, int64_t T, int64_t C, uint8_t *mask) {
  int64_t width = sl_routing_width(C, beta);
  double room = (double)(C - width), step = T > 1 ? 1.0 / (double)(T - 1) : 0.0;
  memset(mask, 0, (size_t)(T * C));
  for (int64_t i = 0; i < T; i++) {
    int64_t start, end;
    if (variant == SL_ROUTING_EQ4) {
      start = (int64_t)rint(room * pow((double)i / (double)T, alpha));
      end = (int64_t)rint(room * pow((double)(i + 1) / (double)T, alpha)) + width;
    } else {
      /* As numpy's linspace rounds: multiples of the step, but the last point exact; one point is 0. */
      double x = T > 1 && i == T - 1 ? 1.0 : (double)i * step;
      start = (int64_t)rint(pow(x, alpha) * room);
      end = start + width;
    }
    memset(mask + i * C + start, 1, (size_t)(end - start));
  }
}

/* The bits of a float as an unsigned number of the same order; -0 equals 0. */
static uint32_t ordered_bits(float f) {
  uint32_t u;
  f += 0.0f;
  memcpy(&u, &f, sizeof u);
  return u & 0x80000000u ? ~u : u | 0x80000000u;
}

/* Moves the k smallest of n different numbers to the front (Hoare 1961). */
static void select_smallest(uint64_t *a, int64_t n, int64_t k) {
  int64_t lo = 0, hi = n - 1;
  while (lo < hi) {
    uint64_t pivot = a[lo + (hi - lo) / 2];
    int64_t i = lo, j = hi;
    while (i <= j) {
      while (a[i] < pivot) i++;
      while (a[j] > pivot) j--;
      if (i > j) break;
      uint64_t x = a[i];
      a[i++] = a[j];
      a[j--] = x;
    }
    if (k - 1 <= j) {
      hi = j;
    } else if (k - 1 >= i) {
      lo = i;
    } else {
      return;
    }
  }
}

void sl_routing_random_row(const float *uniforms, int64_t C, int64_t width, uint64_t *order, uint8_t *row) {
  /* The channel below the uniform: all keys differ, and of equal uniforms the first channel comes first. */
  for (int64_t c = 0; c < C; c++) order[c] = (uint64_t)ordered_bits(uniforms[c]) << 32 | (uint64_t)c;
  select_smallest(order, C, width);
  memset(row, 0, (size_t)C);
  for (int64_t k = 0; k < width; k++) row[order[k] & 0xffffffffu] = 1;
}

sl_status sl_routing_random_from_uniforms(sl_context *ctx, const float *uniforms, int64_t T, int64_t C, double beta,
                                          uint8_t *mask) {
  SL_REQUIRE(beta > 0 && beta <= 1, ARG, "routing.random: beta is %g, expected above 0 and at most 1", beta);
  SL_REQUIRE(T >= 1 && C >= 1, SHAPE, "routing.random: uniforms are [%lld,%lld], expected [T,C]", (long long)T,
             (long long)C);
  for (int64_t i = 0; i < T * C; i++)
    SL_REQUIRE(!isnan(uniforms[i]), ARG, "routing.random: the uniform of row %lld, channel %lld is not a number",
               (long long)(i / C + 1), (long long)(i % C + 1));
  uint64_t *order = sl_alloc(ctx, (size_t)C * sizeof *order);
  if (!order) return SL_STATUS_OOM;
  int64_t width = sl_routing_width(C, beta);
  for (int64_t t = 0; t < T; t++) sl_routing_random_row(uniforms + t * C, C, width, order, mask + t * C);
  sl_free(ctx, order);
  return SL_STATUS_OK;
}

sl_status sl_routing_check_rows(const uint8_t *mask, int64_t blocks, int64_t T, int64_t C, int block,
                                const char *what) {
  int64_t n = blocks * T * C;
  for (int64_t i = 0; i < n; i++)
    SL_REQUIRE(mask[i] <= 1, ARG, "%s: block %lld, t = %lld, channel %lld is %d, expected 0 or 1", what,
               (long long)(i / (T * C) + block + 1), (long long)(i / C % T), (long long)(i % C + 1), (int)mask[i]);
  return SL_STATUS_OK;
}

bool sl_routing_windows(const uint8_t *mask, int64_t T, int64_t C, int64_t *start, int64_t *width) {
  for (int pass = 0; pass < (start || width ? 2 : 1); pass++) { /* first look, then write: false leaves all as it was */
    for (int64_t t = 0; t < T; t++) {
      const uint8_t *row = mask + t * C;
      int64_t first = 0, end;
      while (first < C && !row[first]) first++;
      for (end = first; end < C && row[end]; end++) continue;
      if (pass == 0 && end < C && memchr(row + end, 1, (size_t)(C - end))) return false;
      if (pass == 1 && start) start[t] = first < C ? first : 0;
      if (pass == 1 && width) width[t] = end - first;
    }
  }
  return true;
}
