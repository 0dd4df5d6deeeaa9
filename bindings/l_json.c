/* sluice.json: JSON for metadata and recipes. Reading by cJSON; writing keeps integers and doubles exact. */
#include <cjson/cJSON.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "l_json.h"

#define JSON_BOX "sluice.json_box"
#define MAX_DEPTH 100

/*** sluice.json
JSON, for metadata and notes. */

/*** sluice.json.null: lightuserdata
What null in JSON is in Lua.
@example print(sluice.json.encode { x = sluice.json.null })  --> {"x":null} */

/* --- decoding --- */

static int json_gc(lua_State *L) {
  cJSON **box = luaL_checkudata(L, 1, JSON_BOX);
  cJSON_Delete(*box);
  *box = NULL;
  return 0;
}

static void push_json(lua_State *L, const cJSON *v, int depth) {
  if (depth > MAX_DEPTH) slL_error(L, "json.decode: nested deeper than %d", MAX_DEPTH);
  luaL_checkstack(L, 8, "json.decode");
  if (cJSON_IsBool(v)) {
    lua_pushboolean(L, cJSON_IsTrue(v));
  } else if (cJSON_IsNumber(v)) {
    double d = v->valuedouble;
    if (d == floor(d) && fabs(d) <= 9007199254740992.0) lua_pushinteger(L, (lua_Integer)d);
    else lua_pushnumber(L, d);
  } else if (cJSON_IsString(v)) {
    lua_pushstring(L, v->valuestring);
  } else if (cJSON_IsArray(v) || cJSON_IsObject(v)) {
    lua_newtable(L);
    lua_Integer i = 0;
    for (const cJSON *c = v->child; c; c = c->next) {
      push_json(L, c, depth + 1);
      if (cJSON_IsArray(v)) lua_rawseti(L, -2, ++i);
      else lua_setfield(L, -2, c->string);
    }
  } else {
    lua_pushlightuserdata(L, NULL);
  }
}

/*** sluice.json.decode(text) -> value
A JSON text as a Lua value; null is sluice.json.null, whole numbers are integers.
@param text string
@return any
@example print(sluice.json.decode('{"a": [1, 2.5]}').a[2])  --> 2.5 */
static int l_decode(lua_State *L) {
  size_t n;
  const char *text = luaL_checklstring(L, 1, &n), *end = NULL;
  cJSON **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  luaL_setmetatable(L, JSON_BOX);
  *box = cJSON_ParseWithLengthOpts(text, n, &end, 0);
  if (!*box)
    return slL_error(L, "json.decode: the text is malformed at byte %I", (LUAI_UACINT)(end ? end - text + 1 : 1));
  while (end < text + n && strchr(" \t\r\n", *end) && *end) end++;
  if (end < text + n)
    return slL_error(L, "json.decode: there is more text after the value, at byte %I", (LUAI_UACINT)(end - text + 1));
  push_json(L, *box, 0);
  cJSON_Delete(*box);
  *box = NULL;
  return 1;
}

void slL_push_json(lua_State *L, const char *text) {
  cJSON **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  luaL_setmetatable(L, JSON_BOX);
  *box = cJSON_Parse(text);
  if (!*box) slL_error(L, "this is no JSON, or there is no memory for it: %s", text);
  push_json(L, *box, 0);
  lua_remove(L, -2);
}

/* --- encoding --- */

/* A number's or a string's text, left on the stack. */
/* A number as printf wrote it, with a point also where the locale has another sign. */
static void with_point(char *text) {
  const char *sign = localeconv()->decimal_point;
  char *at = strcmp(sign, ".") ? strstr(text, sign) : NULL;
  if (!at) return;
  *at = '.';
  memmove(at + 1, at + strlen(sign), strlen(at + strlen(sign)) + 1);
}

static void push_number(lua_State *L, int idx) {
  char text[40];
  if (lua_isinteger(L, idx)) {
    snprintf(text, sizeof text, "%lld", (long long)lua_tointeger(L, idx));
  } else {
    double v = lua_tonumber(L, idx);
    if (!isfinite(v)) slL_error(L, "json.encode: %f is no number in JSON", v);
    for (int digits = 15; digits <= 17; digits++) { /* the shortest that reads back equal */
      snprintf(text, sizeof text, "%.*g", digits, v);
      double back = 0;
      if (sscanf(text, "%lf", &back) == 1 && back == v) break;
    }
    with_point(text);
    if (!strpbrk(text, ".e")) strcat(text, ".0");
  }
  lua_pushstring(L, text);
}

static void push_string(lua_State *L, int idx) {
  size_t n;
  const char *s = lua_tolstring(L, idx, &n);
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  luaL_addchar(&b, '"');
  for (size_t i = 0; i < n; i++) {
    unsigned char c = (unsigned char)s[i];
    char text[8];
    if (c == '"' || c == '\\') {
      luaL_addchar(&b, '\\');
      luaL_addchar(&b, (char)c);
    } else if (c == '\n') {
      luaL_addstring(&b, "\\n");
    } else if (c < 32 || c == 127) {
      snprintf(text, sizeof text, "\\u%04x", c);
      luaL_addstring(&b, text);
    } else {
      luaL_addchar(&b, (char)c);
    }
  }
  luaL_addchar(&b, '"');
  luaL_pushresult(&b);
}

static void encode(lua_State *L, int parts, int idx, bool array, int depth);

static void add(lua_State *L, int parts) { lua_rawseti(L, parts, (lua_Integer)lua_rawlen(L, parts) + 1); }

static void add_text(lua_State *L, int parts, const char *text) {
  lua_pushstring(L, text);
  add(L, parts);
}

static void encode_list(lua_State *L, int parts, int idx, int depth) {
  lua_Unsigned n = lua_rawlen(L, idx), entries = 0;
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) entries++;
  if (entries != n) slL_error(L, "json.encode: a table is both a list and an object");
  add_text(L, parts, "[");
  for (lua_Unsigned i = 1; i <= n; i++) {
    if (i > 1) add_text(L, parts, ",");
    lua_rawgeti(L, idx, (lua_Integer)i);
    encode(L, parts, lua_gettop(L), false, depth + 1);
    lua_pop(L, 1);
  }
  add_text(L, parts, "]");
}

/* Keys in order, so that equal tables give equal texts. */
static void encode_object(lua_State *L, int parts, int idx, int depth) {
  lua_newtable(L);
  int keys = lua_gettop(L);
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING)
      slL_error(L, "json.encode: the key %s in an object, expected strings", slL_what(L, -2));
    const char *key = lua_tostring(L, -2);
    lua_Integer at = (lua_Integer)lua_rawlen(L, keys) + 1;
    for (; at > 1; at--) {
      lua_rawgeti(L, keys, at - 1);
      if (strcmp(lua_tostring(L, -1), key) <= 0) break;
      lua_rawseti(L, keys, at);
    }
    if (at > 1) lua_pop(L, 1);
    lua_pushvalue(L, -2);
    lua_rawseti(L, keys, at);
  }
  add_text(L, parts, "{");
  lua_Integer n = (lua_Integer)lua_rawlen(L, keys);
  for (lua_Integer i = 1; i <= n; i++) {
    if (i > 1) add_text(L, parts, ",");
    lua_rawgeti(L, keys, i);
    push_string(L, lua_gettop(L));
    add(L, parts);
    add_text(L, parts, ":");
    lua_rawget(L, idx);
    encode(L, parts, lua_gettop(L), false, depth + 1);
    lua_pop(L, 1);
  }
  add_text(L, parts, "}");
  lua_pop(L, 1);
}

static void encode(lua_State *L, int parts, int idx, bool array, int depth) {
  if (depth > MAX_DEPTH) slL_error(L, "json.encode: nested deeper than %d, or in a circle", MAX_DEPTH);
  luaL_checkstack(L, 16, "json.encode");
  switch (lua_type(L, idx)) {
    case LUA_TNIL: add_text(L, parts, "null"); break;
    case LUA_TBOOLEAN: add_text(L, parts, lua_toboolean(L, idx) ? "true" : "false"); break;
    case LUA_TNUMBER:
      push_number(L, idx);
      add(L, parts);
      break;
    case LUA_TSTRING:
      push_string(L, idx);
      add(L, parts);
      break;
    case LUA_TTABLE: {
      lua_pushnil(L);
      bool empty = !lua_next(L, idx);
      if (!empty) lua_pop(L, 2);
      if (lua_rawlen(L, idx) > 0 || (empty && array)) encode_list(L, parts, idx, depth);
      else encode_object(L, parts, idx, depth);
      break;
    }
    default:
      if (lua_islightuserdata(L, idx) && !lua_touserdata(L, idx)) add_text(L, parts, "null");
      else slL_error(L, "json.encode: %s has no form in JSON", slL_what(L, idx));
  }
}

/*** sluice.json.encode(value, empty?) -> text
A value as JSON on one line, keys in order, numbers so that they read back equal. Lists are tables with 1 … n.
@param value any
@param empty? "object"|"array"  "object"; what an empty table is
@return string
@example print(sluice.json.encode { b = 1, a = { 1, 2 } })  --> {"a":[1,2],"b":1} */
static int l_encode(lua_State *L) {
  static const char *const kinds[] = {"object", "array", NULL};
  luaL_checkany(L, 1);
  bool array = luaL_checkoption(L, 2, "object", kinds) == 1;
  lua_settop(L, 1);
  lua_newtable(L);
  encode(L, 2, 1, array, 0);
  luaL_Buffer b;
  lua_Integer n = (lua_Integer)lua_rawlen(L, 2);
  luaL_buffinit(L, &b);
  for (lua_Integer i = 1; i <= n; i++) {
    lua_rawgeti(L, 2, i);
    luaL_addvalue(&b);
  }
  luaL_pushresult(&b);
  return 1;
}

void slL_open_json(lua_State *L) {
  static const luaL_Reg functions[] = {{"decode", l_decode}, {"encode", l_encode}, {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", json_gc}, {NULL, NULL}};
  slL_class(L, JSON_BOX, meta, NULL);
  luaL_newlib(L, functions);
  lua_pushlightuserdata(L, NULL);
  lua_setfield(L, -2, "null");
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_pushvalue(L, -2);
  lua_setfield(L, -2, "sluice.json");
  lua_pop(L, 1);
  lua_setfield(L, -2, "json");
}
