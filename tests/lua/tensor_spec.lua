local sluice = require "sluice"

local function shape(t) return table.concat(t:shape(), ",") end

local function raises(text, f, ...)
  local ok, message = pcall(f, ...)
  assert.is_false(ok, "no error, expected: " .. text)
  assert(tostring(message):find(text, 1, true), ("%s\ndoes not hold: %s"):format(message, text))
end

describe("making tensors", function()
  it("from nested tables, numbers and data with a shape", function()
    local t = sluice.tensor { { 1, 2, 3 }, { 4, 5, 6 } }
    assert.equal("2,3", shape(t))
    assert.equal("f32", t:dtype())
    assert.equal("cpu", t:device())
    assert.equal(2, #t)
    assert.same({ { 1, 2, 3 }, { 4, 5, 6 } }, t:totable())
    assert.equal("", shape(sluice.tensor(3)))
    assert.equal("3,2", shape(sluice.tensor { data = { 1, 2, 3, 4, 5, 6 }, shape = { 3, 2 } }))
    assert.equal("2,0", shape(sluice.tensor { {}, {} }))
    assert.same({ 1, 0 }, sluice.tensor({ true, false }, { dtype = "u8" }):totable())
    assert.equal(math.maxinteger, sluice.tensor({ math.maxinteger }, { dtype = "i64" })[1]:item())
  end)

  it("refuses what is no tensor", function()
    raises("rows of unequal length", sluice.tensor, { { 1, 2 }, { 3 } })
    raises("expected a number", sluice.tensor, { 1, "x" })
    raises("unequal depth", sluice.tensor, { { 1 }, 2 })
    raises("needs 6", sluice.tensor, { data = { 1, 2 }, shape = { 2, 3 } })
    raises('did you mean "dtype"', sluice.tensor, { 1 }, { dtpe = "f32" })
    raises('unknown dtype "f33"; did you mean "f32"', sluice.tensor, { 1 }, { dtype = "f33" })
    raises("is not here", sluice.tensor, { 1 }, { device = "cuda:9" })
    local circle = {}
    circle[1] = circle
    raises("nested deeper", sluice.tensor, circle)
  end)

  it("filled and counted", function()
    assert.same({ { 0, 0 } }, sluice.zeros({ 1, 2 }):totable())
    assert.same({ 1, 1 }, sluice.ones(2):totable())
    assert.same({ 7, 7 }, sluice.full({ 2 }, 7, { dtype = "i64" }):totable())
    assert.same({ 1, 2, 3 }, sluice.arange(3):totable())
    assert.same({ 0, 1, 2 }, sluice.arange(0, 2):totable())
    assert.same({ 0.5, 0.75, 1 }, sluice.arange(0.5, 1, 0.25):totable())
    assert.equal("i64", sluice.arange(0, 2):dtype())
    raises("shape holds -1", sluice.zeros, { -1 })
    raises("at most 8", sluice.zeros, { 1, 1, 1, 1, 1, 1, 1, 1, 1 })
  end)

  it("draws by seed, and by count without one", function()
    local a, b = sluice.randn({ 5 }, { seed = 7 }), sluice.randn({ 5 }, { seed = 7 })
    assert.same(a:totable(), b:totable())
    sluice.seed(7)
    assert.same(a:totable(), sluice.randn({ 5 }):totable())
    assert.not_same(a:totable(), sluice.randn({ 5 }):totable())
    for _, v in ipairs(sluice.randint(1, 6, { 200 }):totable()) do assert(v >= 1 and v <= 6) end
    local u = sluice.rand { 1000 }
    assert(u:min():item() > 0 and u:max():item() < 1)
    raises("expected 0 to 4294967295", sluice.seed, -1)
    raises("expected 0 to 4294967295", sluice.randn, { 1 }, { seed = 2 ^ 32 })
  end)
end)

describe("reading and writing elements", function()
  local t = sluice.tensor { { 1, 2, 3 }, { 4, 5, 6 } }

  it("counts from 1, from the end with negatives", function()
    assert.same({ 1, 2, 3 }, t[1]:totable())
    assert.equal(6, t[-1][-1]:item())
    raises("index 3 is outside 1 to 2", function() return t[3] end)
    raises("index 0 is outside 1 to 2", function() return t[0] end)
    raises("not an integer", function() return t[1.5] end)
    raises("no elements to index", function() return t[1][1][1] end)
    assert.is_nil(t.no_such_method)
  end)

  it("assigns numbers, tables and tensors to rows", function()
    local u = t:clone()
    u[1] = 0
    u[2] = { 7, 8, 9 }
    u[1][2] = sluice.tensor(5)
    assert.same({ { 0, 5, 0 }, { 7, 8, 9 } }, u:totable())
    assert.same({ { 1, 2, 3 }, { 4, 5, 6 } }, t:totable())
    assert.is_false(pcall(function() u[1] = { 1, 2 } end))
    raises("takes no fields", function() u.x = 1 end)
  end)

  it("gives numbers by item and totable only", function()
    assert.equal(21, t:sum():item())
    assert.equal("integer", math.type(t:to("i64"):sum():item()))
    raises("expected one element", t.item, t)
  end)

  it("converts", function()
    assert.equal("bf16", t:to("bf16"):dtype())
    assert.same({ 0, 255 }, sluice.tensor({ -3, 300 }):to("u8"):totable())
    assert.equal(rawequal(t:to "f32", t), true)
    raises('unknown dtype or device "f3"', t.to, t, "f3")
  end)

  it("has a short text", function()
    assert.equal("f32 [2,3] cpu\n[[1, 2, 3],\n [4, 5, 6]]", tostring(t))
    assert.truthy(tostring(sluice.zeros { 100 }):find("0, 0, 0, …, 0, 0, 0", 1, true))
    assert(#tostring(sluice.zeros { 64, 3, 32, 32 }) < 1000)
    assert.equal("f32 [0] cpu []", tostring(sluice.zeros { 0 }))
  end)

  it("orders single elements, refuses to order more", function()
    assert.is_true(t[1][1] < t[1][2] and t[1][1] <= 1)
    raises("write x:lt(y)", function() return t < t end)
  end)
end)

describe("memory", function()
  it("is given back by release, by close and by the collector", function()
    collectgarbage()
    local before = sluice.memory().bytes
    local t = sluice.zeros { 1 << 18 }
    assert(sluice.memory().bytes >= before + (1 << 20))
    t:release()
    assert(sluice.memory().bytes < before + (1 << 18))
    raises("was released", t.sum, t)
    t:release()
    do
      local u <close> = sluice.zeros { 1 << 18 }
      assert.equal(1 << 18, #u)
    end
    assert(sluice.memory().bytes < before + (1 << 18))
  end)

  it("stays bounded in a loop of temporaries", function()
    collectgarbage()
    local before, most = sluice.memory().bytes, 0
    local x = sluice.zeros { 1 << 18 }
    for _ = 1, 200 do
      x = x + 1
      most = math.max(most, sluice.memory().bytes)
    end
    assert.equal(200, x:max():item())
    assert(most - before < 64 << 20, ("%d MiB at most"):format((most - before) >> 20))
  end)

  it("views keep the storage", function()
    local row
    do
      local t = sluice.tensor { { 1, 2 }, { 3, 4 } }
      row = t[2]
    end
    collectgarbage()
    collectgarbage()
    assert.same({ 3, 4 }, row:totable())
  end)
end)
