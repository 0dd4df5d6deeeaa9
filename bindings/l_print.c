/* tostring(t): dtype, shape, device and elements in columns, the middle of long dimensions left out. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "l_tensor.h"

#define EDGE 3        /* elements shown at each end of a long dimension */
#define SMALL 128     /* tensors of so many elements are shown whole … */
#define SMALL_SIDE 16 /* … unless a dimension is longer than this */
#define DECIMALS 4

/* One notation for all elements, so that they stand in columns. */
typedef struct notation {
  double most;  /* largest magnitude that is finite */
  int decimals; /* that some element needs, at most DECIMALS */
  bool scientific;
  int width;
} notation;

typedef struct printer {
  luaL_Buffer *b; /* NULL: elements are measured, not written */
  sl_view v;
  int edge, whole_side;
  notation n;
  void (*visit)(struct printer *p, double x);
} printer;

/* --- the notation --- */

static int format(const printer *p, double x, char text[64]) {
  if (isnan(x)) return snprintf(text, 64, "nan"); /* whatever its sign */
  if (p->v.shape.rank == 0 && sl_dtype_is_float(p->v.dtype)) return snprintf(text, 64, "%.7g", x);
  if (p->n.scientific) return snprintf(text, 64, "%.*e", DECIMALS, x);
  return snprintf(text, 64, "%.*f", p->n.decimals, x);
}

/* Decimals that show x, or DECIMALS if more would be needed. */
static int decimals_of(double x) {
  char text[400];
  int n = snprintf(text, sizeof text, "%.*f", DECIMALS, x), decimals = DECIMALS;
  if (fabs(strtod(text, NULL) - x) > 1e-7 * fabs(x)) return DECIMALS;
  while (decimals > 0 && text[--n] == '0') decimals--;
  return decimals;
}

static void measure(printer *p, double x) {
  if (!isfinite(x)) return;
  if (fabs(x) > p->n.most) p->n.most = fabs(x);
  int decimals = sl_dtype_is_float(p->v.dtype) ? decimals_of(x) : 0;
  if (decimals > p->n.decimals) p->n.decimals = decimals;
}

static void widen(printer *p, double x) {
  char text[64];
  int n = format(p, x, text);
  if (n > p->n.width) p->n.width = n;
}

static void write_element(printer *p, double x) {
  char text[64];
  int n = format(p, x, text);
  for (int i = n; i < p->n.width; i++) luaL_addchar(p->b, ' ');
  luaL_addstring(p->b, text);
}

/* --- going through the elements that are shown --- */

static void write_text(printer *p, const char *text) {
  if (p->b) luaL_addstring(p->b, text);
}

static void separate(printer *p, int dim) {
  bool last = dim == p->v.shape.rank - 1;
  write_text(p, last ? ", " : ",\n");
  for (int k = 0; !last && k <= dim; k++) write_text(p, " ");
}

static void go_through(printer *p, int dim, const char *at) {
  if (dim == p->v.shape.rank) {
    p->visit(p, sl_element_get(p->v.dtype, at));
    return;
  }
  int64_t n = p->v.shape.dim[dim], step = p->v.stride[dim] * (int64_t)sl_dtype_size(p->v.dtype);
  bool abridged = n > p->whole_side;
  write_text(p, "[");
  for (int64_t i = 0; i < n; i++) {
    if (i) separate(p, dim);
    if (abridged && i == p->edge) {
      write_text(p, "…");
      i = n - p->edge - 1;
      continue;
    }
    go_through(p, dim + 1, at + i * step);
  }
  write_text(p, "]");
}

static void add_elements(printer *p, luaL_Buffer *b) {
  p->visit = measure;
  go_through(p, 0, p->v.data);
  p->n.scientific =
      sl_dtype_is_float(p->v.dtype) && (p->n.decimals ? p->n.most >= 1e6 || p->n.most < 1e-2 : p->n.most >= 1e15);
  p->visit = widen;
  go_through(p, 0, p->v.data);
  p->b = b;
  p->visit = write_element;
  go_through(p, 0, p->v.data);
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
  printer p = {.v = sl_tensor_view(slL_check_host_tensor(L, 1))};
  int64_t elements = sl_shape_numel(&p.v.shape);
  p.edge = p.v.shape.rank > 2 ? 1 : EDGE;
  p.whole_side = elements <= SMALL ? SMALL_SIDE : 2 * p.edge + 1;
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  luaL_addstring(&b, sl_dtype_name(p.v.dtype));
  luaL_addchar(&b, ' ');
  luaL_addstring(&b, sl_shape_text(&p.v.shape));
  luaL_addchar(&b, ' ');
  luaL_addstring(&b, device);
  luaL_addchar(&b, elements > 0 && p.v.shape.rank > 1 ? '\n' : ' ');
  if (elements) add_elements(&p, &b);
  else luaL_addstring(&b, "[]");
  luaL_pushresult(&b);
  return 1;
}
