/* Respacing: a process with fewer steps that keeps some of the original timesteps.
 * Source: openai/guided-diffusion respace.py. */
#ifndef SL_DIFFUSION_RESPACE_H
#define SL_DIFFUSION_RESPACE_H

#include "diffusion/schedule.h"

/* The kept timesteps of 0 … T-1, ascending: *steps [*n] is from sl_alloc and the caller's to sl_free.
 * spec: "250" (one section), "10,10,20" (three; the first T mod 3 are one longer), "ddim50" (the first stride that
 * gives 50). ARG: malformed, a section that holds fewer steps than are asked of it, no such stride (the nearest are
 * named). */
SL_MUST_USE sl_status sl_respace_parse(sl_context *ctx, const char *spec, int64_t T, int64_t **steps, int64_t *n);
/* The same for counts[sections] kept steps of each section; a section may keep none. */
SL_MUST_USE sl_status sl_respace_sections(sl_context *ctx, const int64_t *counts, int64_t sections, int64_t T,
                                          int64_t **steps, int64_t *n);
/* The process on steps[n], ascending indices into s: beta'_i = 1 - A[steps_i] / A[steps_{i-1}]. Its timestep_map leads
 * to the original timesteps, also when s was respaced already. s stays as it is; the caller owns *out. */
SL_MUST_USE sl_status sl_schedule_respace(const sl_schedule *s, const int64_t *steps, int64_t n, sl_schedule **out);
/* sl_respace_parse and sl_schedule_respace in one. */
SL_MUST_USE sl_status sl_schedule_respace_spec(const sl_schedule *s, const char *spec, sl_schedule **out);

#endif
