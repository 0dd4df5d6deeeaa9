/* tostring(t): dtype, shape, device and a few elements, as numpy abridges them. */
#include <stdio.h>

#include "l_tensor.h"

#define EDGE 3 /* elements shown at each end of a long dimension */

typedef struct printer {
  luaL_Buffer b;
  sl_view v;
  int edge;
} printer;

static void add_element(printer *p, const char *at) {
  char text[40];
  double x = sl_element_get(p->v.dtype, at);
  if (sl_dtype_is_float(p->v.dtype)) snprintf(text, sizeof text, "%.5g", x);
  else snprintf(text, sizeof text, "%.0f", x);
  luaL_addstring(&p->b, text);
}

static void add_nested(printer *p, int dim, const char *at) {
  if (dim == p->v.shape.rank) {
    add_element(p, at);
    return;
  }
  int64_t n = p->v.shape.dim[dim], step = p->v.stride[dim] * (int64_t)sl_dtype_size(p->v.dtype);
  bool abridged = n > 2 * p->edge + 1, last = dim == p->v.shape.rank - 1;
  luaL_addchar(&p->b, '[');
  for (int64_t i = 0; i < n; i++) {
    if (i && last) luaL_addstring(&p->b, ", ");
    if (i && !last) {
      luaL_addstring(&p->b, ",\n");
      for (int k = 0; k <= dim; k++) luaL_addchar(&p->b, ' ');
    }
    if (abridged && i == p->edge) {
      luaL_addstring(&p->b, "…");
      i = n - p->edge - 1;
      continue;
    }
    add_nested(p, dim + 1, at + i * step);
  }
  luaL_addchar(&p->b, ']');
}

static int describe_symbolic(lua_State *L) {
  sl_value *v = slL_check_value(L, 1, NULL);
  lua_pushfstring(L, "symbolic %s", sl_value_text(v));
  return 1;
}

int slL_tensor_tostring(lua_State *L) {
  luaL_checkudata(L, 1, SLL_TENSOR);
  lua_settop(L, 1);
  if (slL_is_symbolic(L, 1)) return describe_symbolic(L);
  sl_tensor *t = slL_test_tensor(L, 1);
  if (!t) return lua_pushliteral(L, "released tensor"), 1;
  const char *device = sl_tensor_device(t)->name; /* of the tensor itself; its values may be a copy's */
  printer p = {.v = sl_tensor_view(t)};
  p.edge = p.v.shape.rank > 2 ? 1 : EDGE;
  p.v = sl_tensor_view(slL_check_host_tensor(L, 1));
  luaL_buffinit(L, &p.b);
  luaL_addstring(&p.b, sl_dtype_name(p.v.dtype));
  luaL_addchar(&p.b, ' ');
  luaL_addstring(&p.b, sl_shape_text(&p.v.shape));
  luaL_addchar(&p.b, ' ');
  luaL_addstring(&p.b, device);
  luaL_addchar(&p.b, sl_shape_numel(&p.v.shape) > 0 && p.v.shape.rank > 1 ? '\n' : ' ');
  if (sl_shape_numel(&p.v.shape)) add_nested(&p, 0, p.v.data);
  else luaL_addstring(&p.b, "[]");
  luaL_pushresult(&p.b);
  return 1;
}
