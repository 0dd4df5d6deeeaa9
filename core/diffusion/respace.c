/* Respacing: which timesteps are kept, and the schedule between them. */
#include "diffusion/respace.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

sl_status sl_respace_sections(sl_context *ctx, const int64_t *counts, int64_t sections, int64_t T, int64_t **steps,
                              int64_t *n) {
  *steps = NULL;
  *n = 0;
  SL_REQUIRE(T >= 1, ARG, "respacing: the diffusion has %lld steps, expected at least 1", (long long)T);
  SL_REQUIRE(sections >= 1, ARG, "respacing: no sections are given, expected at least one count");
  int64_t total = 0;
  for (int64_t i = 0; i < sections; i++) {
    int64_t size = T / sections + (i < T % sections);
    SL_REQUIRE(counts[i] >= 0, ARG, "respacing: section %lld keeps %lld steps, expected 0 or more", (long long)i + 1,
               (long long)counts[i]);
    SL_REQUIRE(counts[i] <= size, ARG, "respacing: section %lld of %lld holds %lld of %lld steps and cannot keep %lld",
               (long long)i + 1, (long long)sections, (long long)size, (long long)T, (long long)counts[i]);
    total += counts[i];
  }
  SL_REQUIRE(total >= 1, ARG, "respacing: keeps no step, expected at least one");
  int64_t *kept = sl_alloc(ctx, (size_t)total * sizeof *kept);
  if (!kept) return SL_STATUS_OOM;
  int64_t start = 0, at = 0;
  for (int64_t i = 0; i < sections; i++) {
    int64_t size = T / sections + (i < T % sections);
    double stride = counts[i] > 1 ? (double)(size - 1) / (double)(counts[i] - 1) : 1.0, position = 0.0;
    for (int64_t k = 0; k < counts[i]; k++) { /* added up, as the reference does: its rounding decides ties */
      kept[at++] = start + (int64_t)rint(position);
      position += stride;
    }
    start += size;
  }
  *steps = kept;
  *n = total;
  return SL_STATUS_OK;
}

static sl_status keep_stride(sl_context *ctx, int64_t count, int64_t T, int64_t **steps, int64_t *n) {
  int64_t below = 0, above = 0; /* the nearest numbers that a stride gives */
  for (int64_t stride = 1; stride <= T; stride++) {
    int64_t members = (T + stride - 1) / stride;
    if (members > count) above = members;
    if (members < count) {
      below = members;
      break;
    }
    if (members > count) continue;
    int64_t *kept = sl_alloc(ctx, (size_t)count * sizeof *kept);
    if (!kept) return SL_STATUS_OOM;
    for (int64_t i = 0; i < count; i++) kept[i] = i * stride;
    *steps = kept;
    *n = count;
    return SL_STATUS_OK;
  }
  if (below && above)
    return sl_fail(SL_STATUS_ARG,
                   "respacing: \"ddim%lld\": no stride over %lld steps keeps %lld; the nearest are %lld and %lld",
                   (long long)count, (long long)T, (long long)count, (long long)below, (long long)above);
  return sl_fail(SL_STATUS_ARG, "respacing: \"ddim%lld\": expected 1 … %lld steps", (long long)count, (long long)T);
}

/* A number at *text, blanks around it allowed; false if there is none. */
static bool read_count(const char **text, int64_t *out) {
  const char *p = *text + strspn(*text, " \t");
  if (*p < '0' || *p > '9') return false;
  int64_t value = 0;
  for (; *p >= '0' && *p <= '9'; p++)
    if (value < ((int64_t)1 << 40)) value = 10 * value + (*p - '0'); /* beyond, it is too large for any T anyway */
  *out = value;
  *text = p + strspn(p, " \t");
  return true;
}

static sl_status malformed(const char *spec) {
  return sl_fail(SL_STATUS_ARG, "respacing is \"%.80s\", expected \"250\", \"10,10,20\" or \"ddim50\"", spec);
}

sl_status sl_respace_parse(sl_context *ctx, const char *spec, int64_t T, int64_t **steps, int64_t *n) {
  *steps = NULL;
  *n = 0;
  const char *p = spec;
  if (!strncmp(spec, "ddim", 4)) {
    int64_t count;
    p += 4;
    if (!read_count(&p, &count) || *p) return malformed(spec);
    return keep_stride(ctx, count, T, steps, n);
  }
  int64_t sections = 1, at = 0;
  for (; *p; p++) sections += *p == ',';
  int64_t *counts = sl_alloc(ctx, (size_t)sections * sizeof *counts);
  if (!counts) return SL_STATUS_OOM;
  p = spec;
  while (read_count(&p, &counts[at]) && ++at < sections && *p == ',') p++;
  sl_status status = at < sections || *p ? malformed(spec) : sl_respace_sections(ctx, counts, sections, T, steps, n);
  sl_free(ctx, counts);
  return status;
}

sl_status sl_schedule_respace(const sl_schedule *s, const int64_t *steps, int64_t n, sl_schedule **out) {
  *out = NULL;
  SL_REQUIRE(n >= 1 && n <= s->T, ARG, "respacing: keeps %lld steps, expected 1 … %lld", (long long)n, (long long)s->T);
  for (int64_t i = 0; i < n; i++)
    SL_REQUIRE(steps[i] < s->T && steps[i] > (i > 0 ? steps[i - 1] : -1), ARG,
               "respacing: step %lld of the kept is %lld, expected ascending timesteps in 0 … %lld", (long long)i + 1,
               (long long)steps[i], (long long)s->T - 1);
  double *betas = sl_alloc(s->ctx, (size_t)n * sizeof *betas), last = 1.0;
  if (!betas) return SL_STATUS_OOM;
  for (int64_t i = 0; i < n; i++) {
    double A = s->alphas_cumprod[steps[i]];
    betas[i] = 1.0 - A / last;
    last = A;
  }
  sl_status status = sl_schedule_from_betas(s->ctx, betas, n, out);
  sl_free(s->ctx, betas);
  if (status != SL_STATUS_OK) return status;
  (*out)->name = s->name;
  for (int64_t i = 0; i < n; i++) (*out)->timestep_map[i] = s->timestep_map[steps[i]];
  return SL_STATUS_OK;
}

sl_status sl_schedule_respace_spec(const sl_schedule *s, const char *spec, sl_schedule **out) {
  *out = NULL;
  int64_t *steps, n;
  SL_TRY(sl_respace_parse(s->ctx, spec, s->T, &steps, &n));
  sl_status status = sl_schedule_respace(s, steps, n, out);
  sl_free(s->ctx, steps);
  return status;
}
