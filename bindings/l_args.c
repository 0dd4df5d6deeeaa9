#include "l_args.h"

#include <string.h>

typedef struct reader {
  lua_State *L;
  const sl_op *op;
  const sl_op_signature *sig;
  slL_args *out;
  bool given[12]; /* attributes */
} reader;

static int refuse(reader *r, const char *name, int idx, const char *expected) {
  return slL_error(r->L, "%s: %s is %s, expected %s", r->op->name, name, slL_what(r->L, idx), expected);
}

/* --- attributes --- */

static int64_t read_integer(reader *r, const sl_op_attr *a, int idx, const char *expected) {
  int ok = 0;
  lua_Integer v = lua_type(r->L, idx) == LUA_TNUMBER ? lua_tointegerx(r->L, idx, &ok) : 0;
  if (!ok) refuse(r, a->name, idx, expected);
  return v;
}

/* Lua's positions count from 1, or from the end with -1; C's from 0. */
static int64_t read_position(reader *r, const sl_op_attr *a, int idx) {
  int64_t v = read_integer(r, a, idx, "an integer");
  if (v == 0) slL_error(r->L, "%s: %s is 0; it counts from 1, or from the end with -1", r->op->name, a->name);
  return v > 0 ? v - 1 : v;
}

static int64_t read_choice(reader *r, const sl_op_attr *a, int idx) {
  if (lua_type(r->L, idx) != LUA_TSTRING) refuse(r, a->name, idx, a->choices);
  const char *want = lua_tostring(r->L, idx), *at = a->choices;
  size_t length = strlen(want);
  for (int i = 0; *at; i++) {
    size_t n = strcspn(at, "|");
    if (n == length && !strncmp(at, want, n)) return i;
    at += n + (at[n] == '|');
  }
  refuse(r, a->name, idx, a->choices);
  return 0;
}

static int64_t read_list_item(reader *r, const sl_op_attr *a, int idx) {
  return a->kind == 'L' ? read_position(r, a, idx) : read_integer(r, a, idx, "integers");
}

static void read_list(reader *r, const sl_op_attr *a, int idx) {
  lua_State *L = r->L;
  int64_t *list = &r->out->attrs.i[a->slot];
  if (lua_type(L, idx) == LUA_TNUMBER) { /* one number stands for all of a fixed-length list */
    list[0] = a->kind == 'l' && a->n_list > 1 ? a->n_list : 1;
    for (int i = 0; i < list[0]; i++) list[1 + i] = read_list_item(r, a, idx);
    return;
  }
  if (lua_type(L, idx) != LUA_TTABLE) refuse(r, a->name, idx, "a list of integers");
  lua_Unsigned n = lua_rawlen(L, idx);
  if (n > SL_ATTR_LIST - 1)
    slL_error(L, "%s: %s has %I entries, at most %d", r->op->name, a->name, (LUAI_UACINT)n, SL_ATTR_LIST - 1);
  list[0] = (int64_t)n;
  for (int i = 0; i < (int)n; i++) {
    lua_rawgeti(L, idx, i + 1);
    list[1 + i] = read_list_item(r, a, lua_gettop(L));
    lua_pop(L, 1);
  }
}

static void read_attr(reader *r, int k, int idx) {
  const sl_op_attr *a = &r->sig->attr[k];
  sl_attrs *to = &r->out->attrs;
  if (r->given[k]) slL_error(r->L, "%s: %s is given twice", r->op->name, a->name);
  r->given[k] = true;
  switch (a->kind) {
    case 'i': to->i[a->slot] = read_integer(r, a, idx, "an integer"); break;
    case 'd':
    case 'p': to->i[a->slot] = read_position(r, a, idx); break;
    case 'b':
      if (lua_type(r->L, idx) != LUA_TBOOLEAN) refuse(r, a->name, idx, "true or false");
      to->i[a->slot] = lua_toboolean(r->L, idx);
      break;
    case 'f':
      if (lua_type(r->L, idx) != LUA_TNUMBER) refuse(r, a->name, idx, "a number");
      to->f[a->slot] = lua_tonumber(r->L, idx);
      break;
    case 't': to->i[a->slot] = slL_check_dtype(r->L, idx, r->op->name); break;
    case 'e': to->i[a->slot] = read_choice(r, a, idx); break;
    default: read_list(r, a, idx);
  }
}

/* --- inputs --- */

static void set_input(reader *r, int k, int idx) {
  const char *name = r->sig->input[k < r->sig->n_inputs ? k : r->sig->n_inputs - 1];
  if (!slL_is_tensor(r->L, idx) && lua_type(r->L, idx) != LUA_TNUMBER) refuse(r, name, idx, "a tensor or a number");
  if (r->out->idx[k]) slL_error(r->L, "%s: %s is given twice", r->op->name, name);
  r->out->idx[k] = idx;
}

/* Any number of tensors: one after the other, or a list of them. Returns the position of what follows. */
static int read_many(reader *r, int top) {
  lua_State *L = r->L;
  int at = 1;
  for (; at <= top && slL_is_tensor(L, at); at++) {
    if (r->out->n == SL_MAX_INPUTS) slL_error(L, "%s: at most %d tensors", r->op->name, SL_MAX_INPUTS);
    r->out->idx[r->out->n++] = at;
  }
  if (at > 1 || lua_type(L, 1) != LUA_TTABLE) {
    if (at == 1) refuse(r, r->sig->input[0], 1, "a tensor or a list of tensors");
    return at;
  }
  lua_Unsigned n = lua_rawlen(L, 1);
  if (n == 0 || n > SL_MAX_INPUTS)
    slL_error(L, "%s: a list of %I tensors, expected 1 to %d", r->op->name, (LUAI_UACINT)n, SL_MAX_INPUTS);
  luaL_checkstack(L, (int)n + 8, r->op->name);
  for (int i = 1; i <= (int)n; i++) {
    lua_rawgeti(L, 1, i);
    if (!slL_is_tensor(L, -1)) refuse(r, r->sig->input[0], lua_gettop(L), "a list of tensors");
    r->out->idx[r->out->n++] = lua_gettop(L);
  }
  return 2;
}

static bool has_names(lua_State *L, int idx) {
  if (lua_type(L, idx) != LUA_TTABLE) return false;
  lua_pushnil(L);
  if (!lua_next(L, idx)) return false;
  bool names = lua_type(L, -2) == LUA_TSTRING;
  lua_pop(L, 2);
  return names;
}

/* {keepdim = true}: attributes and inputs by name. */
static void read_names(reader *r, int idx) {
  lua_State *L = r->L;
  const sl_op_signature *s = r->sig;
  const char *names[SL_MAX_INPUTS + 13];
  int n = 0, inputs = s->variadic ? 0 : s->n_inputs;
  for (int i = 0; i < inputs; i++) names[n++] = s->input[i];
  for (int i = 0; i < s->n_attrs; i++) names[n++] = s->attr[i].name;
  names[n] = NULL;
  luaL_checkstack(L, 2 * n + 8, r->op->name);
  slL_options(L, idx, r->op->name, names);
  if (lua_rawgeti(L, idx, 1) != LUA_TNIL) slL_error(L, "%s: names and a list in one table", r->op->name);
  lua_pop(L, 1);
  for (int i = 0; i < n; i++) {
    if (lua_getfield(L, idx, names[i]) == LUA_TNIL) continue;
    if (i < inputs) set_input(r, i, lua_gettop(L)); /* stays on the stack */
    else read_attr(r, i - inputs, lua_gettop(L));
  }
}

static void check_complete(reader *r) {
  const sl_op_signature *s = r->sig;
  for (int i = 0; i < s->n_required && !s->variadic; i++)
    if (!r->out->idx[i]) slL_error(r->L, "%s: %s is missing, expected a tensor", r->op->name, s->input[i]);
  for (int k = 0; k < s->n_attrs; k++)
    if (s->attr[k].required && !r->given[k]) slL_error(r->L, "%s: %s is missing", r->op->name, s->attr[k].name);
}

void slL_read_args(lua_State *L, const sl_op *op, const sl_op_signature *sig, slL_args *out) {
  reader r = {.L = L, .op = op, .sig = sig, .out = out};
  *out = (slL_args){.attrs = sl_op_defaults(op)};
  luaL_checkstack(L, 2 * SL_MAX_INPUTS + 16, op->name);
  int top = lua_gettop(L), last = top, at = 1;
  if (top && has_names(L, top)) last = top - 1;
  if (sig->variadic) {
    at = read_many(&r, last);
  } else {
    out->n = sig->n_inputs;
    for (; at <= last && at <= sig->n_inputs; at++) {
      bool optional = at > sig->n_required;
      if (lua_isnil(L, at) && optional) continue;
      set_input(&r, at - 1, at);
    }
  }
  for (int k = 0; at <= last; at++, k++) {
    if (k == sig->n_attrs) slL_error(L, "%s: %s is one argument too many", op->name, slL_what(L, at));
    if (!lua_isnil(L, at)) read_attr(&r, k, at);
  }
  if (last < top) read_names(&r, top);
  check_complete(&r);
}
