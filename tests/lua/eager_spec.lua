-- Loops over eager operations hold memory flat: results are collected as they are made, programs and traces are bounded.
local sluice = require "sluice"
local files = require "files"

local program = os.getenv "SLUICE_BINARY" or "build/sluice"
local reduced = os.getenv "SLUICE_TEST_REDUCED" == "1" -- a sanitizer keeps what is freed for a while: nothing to measure

-- Run by the program, where the heap is a script's and not this test's: bytes that the process grows by after the first thousand.
local SCRIPT = [[
local n = ...
local a, b = sluice.tensor { 1, 2, 3, 4 }, sluice.tensor { 5, 6, 7, 8 }
local resident = require "sluice.core".resident
local function growth(n, f)
  for i = 1, 1000 do f(i) end
  local before = resident()
  for i = 1, n do f(i) end
  print(resident() - before)
end
growth(n, function() return a + b end)
growth(n // 50, function(i) return (a * 2 + b * i):sum():item() + a[1]:item() end)
growth(n // 50, function() return a:slice(1, 1, 2), a:reshape { 2, 2 }:transpose() end)
growth(n // 50, function() return sluice.tensor { 1, 2, 3 }:totable() end)
growth(n // 50, function() return (sluice.value_and_grad(function(p) return (p * p):sum() end, a)) end)
]]

describe("eager operations", function()
  it("a million of them take at most a megabyte, other loops little", function()
    local path = os.tmpname()
    files.write(path, SCRIPT)
    local pipe = assert(io.popen(("%s %s %d"):format(program, path, reduced and 1000 or 1000000)))
    local grown = {}
    for line in pipe:lines() do grown[#grown + 1] = tonumber(line) end
    assert(pipe:close())
    os.remove(path)
    assert.equal(5, #grown)
    for i, bytes in ipairs(grown) do
      assert(reduced or bytes <= (i == 1 and 1 or 4) << 20, ("case %d: %d bytes"):format(i, bytes))
    end
  end)

  it("the programs of many shapes are forgotten again", function()
    local before = sluice.memory().bytes
    local function shapes() -- each another program
      for i = 1, 1000 do assert.equal(1, (sluice.zeros { 1 + i } + 1):min():item()) end
      collectgarbage()
      return sluice.memory().bytes
    end
    local once = shapes()
    assert(shapes() - once <= 1 << 20 and once - before <= 64 << 20)
  end)
end)
