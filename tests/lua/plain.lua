-- Runs specs without busted, where nothing can be installed: sluice run tests/lua/plain.lua SPEC…
-- What it knows of busted's language is what the specs named for GPUs use: describe, it, setup, teardown, pending and some of assert.
local clock = os.clock
do
  local found, core = pcall(function() return require "sluice" and require "sluice.core" end)
  if found then clock = core.clock end -- what waits for a GPU takes no time of the processor's
end

local folder = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = folder .. "/?.lua;" .. package.path

local passed, failed, prefix = 0, 0, ""

local function text(v)
  if type(v) ~= "table" then return tostring(v) end
  local parts = {}
  for k, x in pairs(v) do parts[#parts + 1] = tostring(k) .. " = " .. text(x) end
  table.sort(parts)
  return "{" .. table.concat(parts, ", ") .. "}"
end

local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return a == b end
  for k, v in pairs(a) do
    if not same(v, b[k]) then return false end
  end
  for k in pairs(b) do
    if a[k] == nil then return false end
  end
  return true
end

local function check(ok, message)
  if not ok then error(message or "assertion failed", 3) end
end

local native = assert
assert = setmetatable({ -- luacheck: ignore
  equal = function(want, got, m) check(want == got, m or ("expected %s, got %s"):format(text(want), text(got))) end,
  same = function(want, got, m) check(same(want, got), m or ("expected %s, got %s"):format(text(want), text(got))) end,
  truthy = function(v, m) check(v, m or ("expected a true value, got %s"):format(text(v))) end,
  falsy = function(v, m) check(not v, m or ("expected a false value, got %s"):format(text(v))) end,
  is_true = function(v, m) check(v == true, m or ("expected true, got %s"):format(text(v))) end,
  is_false = function(v, m) check(v == false, m or ("expected false, got %s"):format(text(v))) end,
  has_error = function(f, m)
    local ok, e = pcall(f)
    check(not ok, "expected an error")
    if m then check(e == m, ("expected the error %s, got %s"):format(text(m), text(e))) end
  end,
}, { __call = function(_, ...) return native(...) end })

local teardowns = {}

function describe(name, f) -- luacheck: ignore
  local before, outer = prefix, teardowns
  prefix, teardowns = prefix .. name .. " ", {}
  local ok, e = pcall(f)
  for i = #teardowns, 1, -1 do teardowns[i]() end
  if not ok then
    failed = failed + 1
    print("FAIL " .. prefix .. "\n  " .. tostring(e))
  end
  prefix, teardowns = before, outer
end

function it(name, f) -- luacheck: ignore
  local start = clock()
  local ok, e = xpcall(f, debug.traceback)
  print(("%s %s%s (%.2f s)%s"):format(ok and "PASS" or "FAIL", prefix, name, clock() - start, ok and "" or "\n  " .. tostring(e)))
  if ok then passed = passed + 1 else failed = failed + 1 end
  io.stdout:flush()
end

function setup(f) f() end -- luacheck: ignore
function teardown(f) teardowns[#teardowns + 1] = f end -- luacheck: ignore
function pending(name) print("SKIP " .. prefix .. name) end -- luacheck: ignore

for i = 1, #arg do dofile(arg[i]) end
print(("%d passed, %d failed"):format(passed, failed))
os.exit(failed == 0)
