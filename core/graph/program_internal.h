/* What plan, run and trace share. */
#ifndef SL_GRAPH_PROGRAM_INTERNAL_H
#define SL_GRAPH_PROGRAM_INTERNAL_H

#include "graph/graph_internal.h"

typedef enum storage_kind {
  STORE_NONE, /* nobody uses it: no memory */
  STORE_ARENA,
  STORE_INPUT,
  STORE_OUTPUT,
  STORE_PARAM,
  STORE_GRAD,
  STORE_SHADOW, /* bf16 copy of a parameter, of the flat array's own (tensor.h) */
  STORE_FIXED,  /* a table or a constant */
  STORE_STEP,
} storage_kind;

/* Memory behind one base value (or a workspace), alive over the steps first … last. */
typedef struct sl_storage {
  storage_kind kind;
  int slot, first, last;
  uint64_t bytes, offset; /* bytes into its arena, parameter or gradient array */
  const void *fixed;
  const sl_node *leaf; /* STORE_FIXED: the table or constant */
} sl_storage;

typedef struct sl_plan_step {
  const sl_node *node;
  void *state;
  int workspace; /* storage, or -1 */
  double seconds;
  int64_t calls;
  int in_store[SL_MAX_INPUTS], out_store[SL_MAX_OUTPUTS];     /* -1: absent */
  int64_t in_bytes[SL_MAX_INPUTS], out_bytes[SL_MAX_OUTPUTS]; /* view's first byte in its storage */
  sl_view in[SL_MAX_INPUTS], out[SL_MAX_OUTPUTS];
} sl_plan_step;

typedef struct sl_plan {
  sl_graph *g;
  int n_steps, n_stores, cap_stores;
  sl_plan_step *steps;
  sl_storage *stores;
  int *store_of;                             /* [value id] of base values: storage number */
  uint64_t arena_bytes, grad_end, param_end; /* elements that params and grads must at least have */
  bool shadowed;                             /* reads the parameters' bf16 copy */
  bool checked;
} sl_plan;

/* What a GPU's program keeps there beside the arena (residence.c). */
typedef struct sl_residence {
  uint8_t *constants; /* all of them, one after the other */
  void **fixed;       /* [storage] of STORE_FIXED: where it lies on the device */
  uint64_t *version;  /* [storage] of a table copied from the host */
  void **in, **out;   /* [input], [output]: rooms for tensors that the caller has on the host; NULL until needed */
  sl_step *step;
} sl_residence;

/* Steps that were recorded for some bindings (recording.c). */
enum { SL_RECORDINGS = 4 };
typedef struct sl_recording {
  uint8_t **base;
  const sl_step *step;
  void *handle; /* NULL: seen once, not recorded yet */
  uint64_t tick;
} sl_recording;

struct sl_program {
  sl_graph *g;
  sl_plan plan;
  sl_exec exec;
  uint8_t *arena;
  int threads;    /* that workspaces and primitives were made for; every run uses as many */
  uint8_t **base; /* [storage] resolved for this run */
  bool *input_used;
  sl_residence there; /* GPUs only */
  sl_recording recording[SL_RECORDINGS];
  uint64_t tick;
  void **stamps;     /* [step + 1] of profiled runs, or NULL */
  bool sync_each;    /* SLUICE_CUDA_SYNC=1: every step is waited for, so that a fault is told with its node */
  bool unrecordable; /* a recording failed: steps are launched one by one */
};

/* --- residence.c: only for programs of GPUs --- */
SL_MUST_USE sl_status sl__residence_make(sl_program *p);
void sl__residence_free(sl_program *p);
uint64_t sl__residence_bytes(const sl_program *p);
/* Brings what changed since the last run: tables, the step, inputs that lie on the host, the bf16 parameters. */
SL_MUST_USE sl_status sl__residence_enter(sl_program *p, const sl_run *run);
/* Where input i and output i lie for this run. */
void *sl__residence_in(sl_program *p, const sl_run *run, int i);
void *sl__residence_out(sl_program *p, const sl_run *run, int i);
/* Brings outputs to the host where the caller wants them there, and waits for them. */
SL_MUST_USE sl_status sl__residence_leave(sl_program *p, const sl_run *run);

/* --- recording.c --- */
/* Runs the steps by replaying a recording of them where there is one for these bindings, making one at the second run.
 */
SL_MUST_USE sl_status sl__recording_run(sl_program *p, const sl_run *run);
void sl__recording_free(sl_program *p);
SL_MUST_USE sl_status sl__run_steps(sl_program *p, const sl_run *run); /* run.c: one by one */

sl_exec sl__exec_of(const sl_graph *g);
SL_MUST_USE sl_status sl__plan_make(sl_graph *g, sl_exec *e, bool checked, sl_plan *out);
uint64_t sl__redzone(
    const sl_plan *p); /* bytes before and after a block, where there are any; blocks are aligned to it */
void sl__plan_clear(sl_plan *p);
/* Checked runs: before and after a step. */
void sl__check_before(sl_program *p, int step);
SL_MUST_USE sl_status sl__check_after(sl_program *p, int step);
void sl__check_start(sl_program *p);
void sl__check_end(sl_program *p);
/* False: the caller asked to stop. */
bool sl__trace_step(sl_program *p, const sl_run *run, const sl_plan_step *s);

/* --- profile.c: profiled runs of a GPU, by time stamps between the launches --- */
bool sl__profile_stamped(const sl_program *p);
SL_MUST_USE sl_status sl__profile_begin(sl_program *p); /* each step is followed by its stamp, stamps[step + 1] */
SL_MUST_USE sl_status sl__profile_end(sl_program *p);   /* waits, and adds up */
void sl__profile_free(sl_program *p);

#endif
