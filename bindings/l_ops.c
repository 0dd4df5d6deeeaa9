/* Every public row of ops.def as sluice.<op> and t:<op>: one C function, told by its upvalues which row it is.
 * Arguments: tensors first, then the attributes in the row's order; or a last table of named ones. */
#include <string.h>

#include "l_args.h"
#include "l_tensor.h"

/* --- running --- */

static bool is_random(const sl_op *op) {
  return !strcmp(op->name, "normal") || !strcmp(op->name, "uniform") || !strcmp(op->name, "dropout");
}

static sl_dtype wider(sl_dtype a, sl_dtype b) {
  static const int rank[SL_DTYPE_COUNT] = {[SL_F32] = 9, [SL_F64] = 8, [SL_BF16] = 7, [SL_F16] = 6, [SL_I64] = 5,
                                           [SL_I32] = 4, [SL_I16] = 3, [SL_I8] = 2,   [SL_U8] = 1,  [SL_BOOL] = 0};
  return rank[a] > rank[b] ? a : b;
}

static bool fits(sl_dtype d, double v) {
  switch (d) {
    case SL_U8: return v >= 0 && v <= 255;
    case SL_I32: return v >= -2147483648.0 && v <= 2147483647.0;
    case SL_I64: return v >= -9007199254740992.0 && v <= 9007199254740992.0;
    default: return false;
  }
}

/* What a number stands for beside the other inputs: their dtype if that holds it. */
static sl_dtype number_dtype(lua_State *L, const sl_op *op, int n, const int *idx, int k) {
  bool choice = !strcmp(op->name, "where");
  if (!strcmp(op->name, "gather") && k == 1) return SL_I64;
  if (!strcmp(op->name, "timestep_embedding")) return SL_F32;
  if (choice && k == 0) return SL_U8;
  int like = -1;
  for (int i = choice; i < n; i++) {
    if (!idx[i] || !slL_is_tensor(L, idx[i])) continue;
    sl_dtype d = slL_is_symbolic(L, idx[i]) ? slL_check_value(L, idx[i], NULL)->dtype
                                            : sl_tensor_dtype(slL_check_tensor(L, idx[i]));
    like = like < 0 ? (int)d : (int)wider((sl_dtype)like, d);
  }
  if (like < 0) return SL_F32;
  if (sl_dtype_is_float((sl_dtype)like)) return like == SL_BF16 ? SL_BF16 : SL_F32;
  double v = lua_tonumber(L, idx[k]);
  if (!fits(SL_I64, v) || v != (double)(int64_t)v) return SL_F32;
  return fits((sl_dtype)like, v) ? (sl_dtype)like : SL_I64;
}

/* The trace that the inputs belong to; NULL if all are concrete. */
static slL_trace *trace_of(lua_State *L, int n, const int *idx) {
  slL_trace *trace = NULL;
  for (int i = 0; i < n && !trace; i++)
    if (idx[i] && slL_is_symbolic(L, idx[i])) slL_check_value(L, idx[i], &trace);
  return trace;
}

static int call_symbolic(lua_State *L, const sl_op *op, int n, const int *idx, const sl_attrs *attrs,
                         slL_trace *trace) {
  sl_value *in[SL_MAX_INPUTS] = {NULL};
  sl_graph *g = slL_trace_graph(trace);
  for (int i = 0; i < n; i++) {
    if (!idx[i]) continue;
    bool number = lua_type(L, idx[i]) == LUA_TNUMBER;
    in[i] =
        number ? sl_scalar(g, lua_tonumber(L, idx[i]), number_dtype(L, op, n, idx, i)) : slL_to_value(L, idx[i], trace);
  }
  sl_value *v = sl_apply(g, op, n, in, attrs);
  slL_trace_check(L, trace);
  int n_out = op->outputs == 1 ? 1 : v->node->n_out;
  for (int k = 0; k < n_out; k++) slL_push_value(L, k ? sl_output(v, k) : v, trace);
  return n_out;
}

/* Views of concrete tensors share their storage: the op is only asked what it would see. False (and nothing pushed)
 * where it would have to copy. */
static bool call_view(lua_State *L, const sl_op *op, sl_tensor *t, const sl_attrs *attrs, int *n_out) {
  sl_graph *g = NULL;
  slL_try(L, sl_graph_new(slL_context(L), &g));
  sl_value *x = sl_input_strided(g, "x", sl_tensor_dtype(t), sl_tensor_shape(t), sl_tensor_strides(t));
  sl_value *v = sl_apply(g, op, 1, &x, attrs), seen[SL_MAX_OUTPUTS];
  sl_status status = sl_graph_status(g);
  *n_out = status == SL_STATUS_OK ? (op->outputs == 1 ? 1 : v->node->n_out) : 0;
  bool shares = status == SL_STATUS_OK;
  for (int k = 0; k < *n_out; k++) {
    seen[k] = k ? *sl_output(v, k) : *v;
    shares &= seen[k].base == x;
  }
  sl_graph_release(g);
  slL_try(L, status);
  for (int k = 0; shares && k < *n_out; k++)
    slL_try(L, sl_tensor_view_as(t, &seen[k].shape, seen[k].stride, seen[k].offset, slL_push_tensor(L)));
  return shares;
}

/* Puts a tensor of no dimensions in the place of the number at idx. */
static void number_to_tensor(lua_State *L, int idx, sl_dtype dtype) {
  char bytes[8];
  sl_element_set(dtype, bytes, lua_tonumber(L, idx));
  slL_try(L, sl_tensor_from(slL_context(L), dtype, 0, NULL, bytes, slL_push_tensor(L)));
  lua_replace(L, idx);
}

static int output_count(const sl_op *op, const sl_attrs *attrs) {
  return strcmp(op->name, "chunk") ? op->outputs : (int)attrs->i[0];
}

int slL_call_op(lua_State *L, const sl_op *op, int n, const int *idx, const sl_attrs *attrs) {
  luaL_checkstack(L, 2 * SL_MAX_OUTPUTS + 8, op->name);
  slL_trace *trace = trace_of(L, n, idx);
  if (trace) return call_symbolic(L, op, n, idx, attrs, trace);
  for (int i = 0; i < n; i++)
    if (idx[i] && lua_type(L, idx[i]) == LUA_TNUMBER) number_to_tensor(L, idx[i], number_dtype(L, op, n, idx, i));
  sl_tensor *in[SL_MAX_INPUTS] = {NULL}, *out[SL_MAX_OUTPUTS] = {NULL}, **box[SL_MAX_OUTPUTS];
  for (int i = 0; i < n; i++) in[i] = idx[i] ? slL_check_tensor(L, idx[i]) : NULL;
  int n_out = 0;
  if ((op->flags & SL_OP_VIEW || !strcmp(op->name, "reshape")) && call_view(L, op, in[0], attrs, &n_out)) return n_out;
  n_out = output_count(op, attrs);
  for (int k = 0; k < n_out; k++) box[k] = slL_push_tensor(L);
  sl_step step = {.seed = is_random(op) ? slL_next_seed(L) : 0};
  sl_status s = sl_eager_apply(slL_eager(L), op, n, in, attrs, &step, n_out, out);
  for (int k = 0; k < n_out; k++) *box[k] = out[k];
  slL_try(L, s);
  return n_out;
}

/* --- registering --- */

static int l_op(lua_State *L) {
  const sl_op *op = lua_touserdata(L, lua_upvalueindex(1));
  slL_args args;
  slL_read_args(L, op, lua_touserdata(L, lua_upvalueindex(2)), &args);
  int n = slL_call_op(L, op, args.n, args.idx, &args.attrs);
  if (!(op->flags & SL_OP_RESULT_FIRST)) return n;
  lua_pop(L, n - 1);
  return 1;
}

static const sl_attrs no_attrs;

static void check_operands(lua_State *L, int n, const char *name) {
  for (int i = 1; i <= n; i++)
    if (lua_type(L, i) != LUA_TNUMBER && !slL_is_tensor(L, i))
      slL_error(L, "%s: an operand is %s, expected a tensor or a number", name, slL_what(L, i));
}

/* a + b and the like: no table of names, two inputs. */
static int l_operator(lua_State *L) {
  const sl_op *op = lua_touserdata(L, lua_upvalueindex(1));
  int n = (int)lua_tointeger(L, lua_upvalueindex(2));
  check_operands(L, n, op->name);
  return slL_call_op(L, op, n, (int[]){1, 2}, &no_attrs);
}

/* a // b: the quotient rounded down. */
static int l_floor_divide(lua_State *L) {
  lua_settop(L, 2);
  check_operands(L, 2, "// and %");
  slL_call_op(L, sl_op_find("div"), 2, (int[]){1, 2}, &no_attrs);
  return slL_call_op(L, sl_op_find("floor"), 1, (int[]){3}, &no_attrs);
}

/* a % b: what a // b leaves; of b's sign, as Lua's own. */
static int l_remainder(lua_State *L) {
  l_floor_divide(L);
  lua_replace(L, 3);
  lua_settop(L, 3);
  slL_call_op(L, sl_op_find("mul"), 2, (int[]){3, 2}, &no_attrs);
  return slL_call_op(L, sl_op_find("sub"), 2, (int[]){1, 4}, &no_attrs);
}

static void add_operators(lua_State *L) {
  static const struct {
    const char *event, *op;
    int n;
  } rows[] = {{"__add", "add", 2}, {"__sub", "sub", 2}, {"__mul", "mul", 2},
              {"__div", "div", 2}, {"__pow", "pow", 2}, {"__unm", "neg", 1}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    lua_pushlightuserdata(L, (void *)(uintptr_t)sl_op_find(rows[i].op));
    lua_pushinteger(L, rows[i].n);
    lua_pushcclosure(L, l_operator, 2);
    lua_setfield(L, -2, rows[i].event);
  }
  lua_pushcfunction(L, l_floor_divide);
  lua_setfield(L, -2, "__idiv");
  lua_pushcfunction(L, l_remainder);
  lua_setfield(L, -2, "__mod");
}

void slL_open_ops(lua_State *L) {
  int module = lua_gettop(L);
  luaL_getmetatable(L, SLL_TENSOR);
  add_operators(L);
  lua_getfield(L, -1, "methods");
  for (int i = 0; i < sl_op_count; i++) {
    const sl_op *op = &sl_ops[i];
    if (op->flags & SL_OP_PRIVATE) continue;
    lua_pushlightuserdata(L, (void *)(uintptr_t)op);
    sl_op_describe(op, lua_newuserdatauv(L, sizeof(sl_op_signature), 0));
    bool method = *op->inputs;
    lua_pushcclosure(L, l_op, 2);
    if (method) {
      lua_pushvalue(L, -1);
      lua_setfield(L, -3, op->name);
    }
    lua_setfield(L, module, op->name);
  }
  lua_settop(L, module);
}
