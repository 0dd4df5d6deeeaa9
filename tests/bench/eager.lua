-- What an eager operation on four numbers costs beyond a C function that returns a userdata with a metatable:
--   sluice run tests/bench/eager.lua
-- The two are timed in turn, ten times; medians are printed. Needs cc and Lua's headers.
local sluice = require "sluice"
local core = require "sluice.core"

local SOURCE = [[
#include <lauxlib.h>
static int make(lua_State *L) {
  lua_newuserdatauv(L, 24, 1);
  luaL_setmetatable(L, "bench.userdata");
  return 1;
}
int luaopen_userdata(lua_State *L) {
  luaL_newmetatable(L, "bench.userdata");
  lua_pushcfunction(L, make);
  return 1;
}
]]

local function compiled()
  local base = os.tmpname()
  local file = assert(io.open(base .. ".c", "w"))
  assert(file:write(SOURCE)):close()
  assert(os.execute(("cc -O2 -shared -fPIC -I/usr/include/lua5.4 %s.c -o %s.so"):format(base, base)))
  local f = assert(package.loadlib(base .. ".so", "luaopen_userdata"))()
  for _, ending in ipairs { "", ".c", ".so" } do os.remove(base .. ending) end
  return f
end

local N <const> = 1000000

local function microseconds(f)
  local start = core.clock()
  f()
  return (core.clock() - start) / N * 1e6
end

local function median(list)
  table.sort(list)
  return (list[#list // 2] + list[#list // 2 + 1]) / 2
end

local make = compiled()
local a, b = sluice.tensor { 1, 2, 3, 4 }, sluice.tensor { 5, 6, 7, 8 }
local plain, add = {}, {}
for i = 1, 10 do
  plain[i] = microseconds(function() for _ = 1, N do local _ = make() end end)
  add[i] = microseconds(function() for _ = 1, N do local _ = a + b end end)
end
local m, n = median(plain), median(add)
print(("userdata %.3f us, a + b %.3f us, beyond it %.3f us"):format(m, n, n - m))
