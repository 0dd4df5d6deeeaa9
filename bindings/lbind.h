/* What the files of bindings/ share: the state's context, checked arguments, raised errors, tensors and traces as
 * userdata. Handle first: an empty box with its metatable is pushed, then the core fills it, so that an error in
 * between leaks nothing. */
#ifndef SLUICE_LBIND_H
#define SLUICE_LBIND_H

#include <lauxlib.h>
#include <lua.h>

#include "graph/program.h"

/* --- the state of one lua_State: made by luaopen_sluice, freed when the lua_State is closed --- */

void slL_open_state(lua_State *L);
sl_context *slL_context(lua_State *L);
sl_eager *slL_eager(lua_State *L);
/* "24G", "500M" or bytes, from `what`, as a number of bytes; raises for anything else. */
uint64_t slL_parse_bytes(lua_State *L, const char *what, const char *text);
/* The seed of a call that names none: sluice.seed's number, then one more at each call. */
uint32_t slL_next_seed(lua_State *L);
void slL_set_seed(lua_State *L, uint32_t seed);
/* Tells Lua's collector how much the context's memory grew since the last call; before new storage is made. */
void slL_account(lua_State *L);
/* Where value_and_grad keeps its compiled programs: the state's own slot, freed by `release` with the state. */
void **slL_program_cache(lua_State *L, void (*release)(void *cache));

/* --- errors --- */

/* Pushes "file:line" of the nearest function that is neither C nor one of the module's own, with `end` after it; false,
 * and "", if there is none. */
bool slL_push_place(lua_State *L, const char *end);

/* Raises fmt (as lua_pushfstring) at the nearest line of a Lua function that is the user's. Never returns. */
int slL_error(lua_State *L, const char *fmt, ...);
/* Raises the core's error text unless s is OK; else 1, so that `return slL_try(L, f(…))` returns the top's box. */
int slL_try(lua_State *L, sl_status s);
/* For functions that the core calls back, which must not raise: takes the error from the top and makes it the failure
 * that they return, "what: its text". The slL_try to which the core hands that failure raises the error as it was; any
 * other failure is told as it is. Never raises. */
sl_status slL_fail(lua_State *L, sl_status status, const char *what);
/* The same for a failure whose text the core has set just before. */
void slL_keep_error(lua_State *L, sl_status status);
/* lua_pcall for functions that the core calls back: the watcher sees an error while its stack is still there. Needs one
 * slot of the stack. */
int slL_pcall(lua_State *L, int n_args, int n_results);
/* The watcher of this state, called with the error: it may look at the stack, what it raises or returns is dropped. */
void slL_watch_errors(lua_State *L, lua_CFunction watcher);
/* Refuses string keys of the table at idx that are not in names (NULL-terminated), naming the nearest of them. Position
 * 1 is the caller's affair. what: "sluice.dit" and the like. */
void slL_options(lua_State *L, int idx, const char *what, const char *const *names);
/* Raises about a name that is not in names. kind: "field", "option". */
int slL_unknown(lua_State *L, const char *what, const char *kind, const char *name, const char *const *names);
/* The nearest of names by edit distance; NULL if none is near. */
const char *slL_nearest(const char *name, const char *const *names);
/* A word for the value at idx: "a table", "3", "\"abc\"", "nil", "a sluice.model", "a tensor of numbers (f32 [8])";
 * lives on the stack, one slot is pushed. */
const char *slL_what(lua_State *L, int idx);

/* The pointer that the userdata of this class at idx holds; raises for anything else, and if it was closed or released.
 * word: "model". */
void *slL_check_held(lua_State *L, int idx, const char *class, const char *word);

/* Pushes a box for a block of memory that the core is about to make for its caller (char **, and the like); it is freed
 * with the box. */
void *slL_push_block(lua_State *L);

/* A Lua function that the core calls later: in the main thread, as it may outlive the coroutine that made it. */
typedef struct slL_function {
  lua_State *L;
  int ref; /* in the registry */
} slL_function;
slL_function slL_hold_function(lua_State *L, int idx);
void slL_release_function(slL_function f);

/* Makes the metatable `name` with __index = methods; leaves the stack as it was. */
void slL_class(lua_State *L, const char *name, const luaL_Reg *meta, const luaL_Reg *methods);
/* The same with fields: __index = index, which ends with slL_push_method for keys that are no field of its own. */
void slL_class_with_fields(lua_State *L, const char *name, const luaL_Reg *meta, const luaL_Reg *methods,
                           lua_CFunction index);
/* Pushes {class name = {method names}} of all classes made so far; returns 1. */
int slL_push_classes(lua_State *L);
int slL_push_method(lua_State *L, const char *name, int key); /* the method at stack position key, or nil; returns 1 */

/* --- tensors, concrete or symbolic (l_box.c) --- */

typedef struct slL_trace slL_trace;

/* Pushes an empty box for a tensor that the core is about to make. */
sl_tensor **slL_push_tensor(lua_State *L);
/* The concrete tensor at idx; raises for anything else, for a released tensor, and for a symbolic one. */
sl_tensor *slL_check_tensor(lua_State *L, int idx);
/* The same, on the CPU: of a GPU's tensor a copy takes its place on the stack. */
sl_tensor *slL_check_host_tensor(lua_State *L, int idx);
/* The same, or NULL if the value is no concrete tensor (also if it was released). */
sl_tensor *slL_test_tensor(lua_State *L, int idx);
bool slL_is_tensor(lua_State *L, int idx); /* concrete or symbolic */
/* Pushes the tensor t, a new reference; nil for NULL. */
void slL_push_shared(lua_State *L, sl_tensor *t);
void slL_release_tensor(lua_State *L, int idx);

bool slL_is_symbolic(lua_State *L, int idx);
/* The symbolic tensor at idx and its trace; raises for anything else, and for one kept after its trace. */
sl_value *slL_check_value(lua_State *L, int idx, slL_trace **trace);
/* The symbolic, concrete (captured) or number value at idx, as a value of the trace. */
sl_value *slL_to_value(lua_State *L, int idx, slL_trace *trace);
/* The symbolic tensor at idx if it belongs to the trace, else NULL. */
sl_value *slL_test_value(lua_State *L, int idx, slL_trace *trace);
void slL_push_value(lua_State *L, sl_value *v, slL_trace *trace);

/* --- traces (l_box.c) --- */

typedef sl_value *(*slL_build_fn)(lua_State *L, slL_trace *trace, void *user);
/* For functions that the core calls back to build a part of g, which must not raise: calls f protected, on a stack of
 * its own that holds the n values which are taken from the top. f calls Lua with symbolic tensors of g; concrete ones
 * that Lua uses become tables of g. An error, after "what: ", becomes the graph's failure (as slL_fail), and NULL the
 * result. The trace ends with f: symbolic tensors still around raise when they are used. */
sl_value *slL_build(lua_State *L, sl_graph *g, const char *what, int n, slL_build_fn f, void *user);
/* Pushes a trace that ends when it is closed or collected; captured tensors become inputs of g, in order. */
slL_trace *slL_trace_push(lua_State *L, sl_graph *g);
sl_graph *slL_trace_graph(slL_trace *trace);
int slL_trace_captured(const slL_trace *trace, sl_tensor *const **tensors);
/* Raises the error recorded in the trace's graph, if any. */
void slL_trace_check(lua_State *L, slL_trace *trace);

/* --- operations (l_ops.c) --- */

/* Runs op on the n values at the stack positions idx (0: absent), eagerly or into a trace; pushes its outputs, returns
 * their number. */
int slL_call_op(lua_State *L, const sl_op *op, int n, const int *idx, const sl_attrs *attrs);

/* --- small readers --- */

/* A shape: an integer or a list of integers. */
sl_shape slL_check_shape(lua_State *L, int idx, const char *what);
sl_dtype slL_check_dtype(lua_State *L, int idx, const char *what); /* a dtype's name */
/* A row of Lua values in nested tables, or a number, as a new tensor on the top. */
void slL_tensor_from_lua(lua_State *L, int idx, const char *what, sl_dtype dtype);

/* --- parts of the module, each given the module's table on the top --- */

#define SL_LUA_PART(name) void slL_open_##name(lua_State *L);
#define SL_LUA_LAZY(name, module, field)
#include "modules.def"
#undef SL_LUA_PART
#undef SL_LUA_LAZY

int luaopen_sluice(lua_State *L);

#endif
