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

describe("pairs", function()
  it("goes through the rows", function()
    local seen = {}
    for i, row in pairs(sluice.tensor { { 1, 2, 3 }, { 4, 5, 6 } }) do seen[i] = row:totable() end
    assert.same({ { 1, 2, 3 }, { 4, 5, 6 } }, seen)
    for _ in pairs(sluice.zeros { 0, 2 }) do error "there is no row" end
    raises("a tensor of no dimensions has no rows", pairs, sluice.ones { 2 }:sum())
    local t = sluice.ones { 2 }
    t:release()
    raises("the tensor was released", pairs, t)
  end)

  it("goes through those of a symbolic tensor", function()
    local value, g = sluice.value_and_grad(function(x)
      local sum = 0
      for i, row in pairs(x) do sum = sum + i * row:sum() end
      return sum
    end, sluice.ones { 2, 2 })
    assert.equal(6, value:item())
    assert.same({ { 1, 1 }, { 2, 2 } }, g:totable())
  end)
end)

describe("reading and writing elements", function()
  local t = sluice.tensor { { 1, 2, 3 }, { 4, 5, 6 } }

  it("counts from 1, from the end with negatives", function()
    assert.same({ 1, 2, 3 }, t[1]:totable())
    assert.equal(6, t[-1][-1]:item())
    raises("index 3 is outside 1 to 2", function() return t[3] end)
    raises("index 3 is outside 1 to 2; over the rows: for i, row in pairs(x)", function() for _ in ipairs(t) do end end)
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

  it("takes a position or a range for each dimension", function()
    assert.equal(6, t[{ 2, 3 }]:item())
    assert.equal(6, t[{ -1, -1 }]:item())
    assert.same({ 2, 5 }, t[{ {}, 2 }]:totable())
    assert.same({ { 2, 3 }, { 5, 6 } }, t[{ {}, { 2, 3 } }]:totable())
    assert.same({ { 1, 3 }, { 4, 6 } }, t[{ {}, { 1, -1, 2 } }]:totable())
    assert.same({ { 4, 5, 6 } }, t[{ { 2 } }]:totable())
    assert.same({ { 1 }, { 4 } }, t[{ {}, { 1, 3, math.maxinteger } }]:totable())
    assert.same(t:totable(), t[{}]:totable())
    assert.equal("2,0", shape(sluice.zeros { 2, 0 } [{ {}, {} }]))
    raises("index 4 is outside 1 to 3", function() return t[{ 1, 4 }] end)
    raises("3 indices for a tensor [2,3]", function() return t[{ 1, 2, 3 }] end)
    raises("the range { 2, 1 } of 2 is empty", function() return t[{ { 2, 1 } }] end)
    raises("a range's step is 0", function() return t[{ { 1, 2, 0 } }] end)
    raises("a range has 4 numbers", function() return t[{ { 1, 2, 1, 1 } }] end)
    raises('index "x" is not an integer', function() return t[{ "x" }] end)
    raises("index nil is not an integer", function() return t[{ { nil, 2 } }] end)
    raises("a tensor cannot be an index", function() return t[t] end)
    local u = t:clone()
    u[{ {}, 2 }] = 0
    u[{ 1, { 2, 3 } }] = { 8, 9 }
    u[{ 2, 1 }] = -1
    assert.same({ { 1, 8, 9 }, { -1, 0, 6 } }, u:totable())
  end)

  it("indexes while tracing as otherwise", function()
    local value, grads = sluice.value_and_grad(function(p)
      assert.equal("2", shape(p.x[{ {}, { 1, 3, 2 } }][1]))
      assert.equal("1,3", shape(p.x[{ { -1 } }]))
      assert.equal("[2,3]", tostring(p.x:shape()))
      raises("3 indices", function() return p.x[{ 1, 1, 1 }] end)
      raises("cannot be assigned to", function() p.x[{ 1, 1 }] = 0 end)
      return p.x[{ {}, { 1, 3, 2 } }]:sum() + p.x[{ 1, 2 }]
    end, { x = t })
    assert.equal(16, value:item())
    assert.same({ { 1, 1, 1 }, { 1, 0, 1 } }, grads.x:totable())
  end)

  it("tells its shape as a list, as a text and to ==", function()
    assert.equal("[2,3]", tostring(t:shape()))
    assert.is_true(t:shape() == sluice.zeros({ 2, 3 }):shape())
    assert.is_false(t:shape() == t:transpose():shape())
    assert.same({ 2, 3 }, t:shape())
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

  it("stands in columns, in one notation", function()
    local function text(list, dtype) return tostring(sluice.tensor(list, { dtype = dtype })):gsub("^%S+ %S+ cpu%s", "") end
    assert.equal("[  0.50,   0.25, 100.00]", (text { 0.5, 0.25, 100 }))
    assert.equal("[[ 1.0, -2.5],\n [10.0,  0.1]]", (text { { 1, -2.5 }, { 10, 0.1 } }))
    assert.equal("[0.3333, 2.0000]", (text { 1 / 3, 2 }))
    assert.equal("[1.0000e-09, 2.5000e-03]", (text { 1e-9, 2.5e-3 }))
    assert.equal("[1.2346e+06, 5.0000e-01]", (text { 1234567.5, 0.5 }))
    assert.equal("[1000000,      -1]", (text { 1e6, -1 }))
    assert.equal("[ nan,  inf, -inf,  1.5]", (text { 0 / 0, 1 / 0, -1 / 0, 1.5 }))
    assert.equal("[  1, 200]", (text({ 1, 200 }, "u8")))
    assert.equal("[9007199254740992,                1]", (text({ 1 << 53, 1 }, "i64")))
    assert.equal("0.3333333", (text(1 / 3)))
    assert.equal("[" .. ("1, "):rep(15) .. "1]", (text(sluice.ones(16):totable())))
  end)

  it("orders single elements, refuses to order more", function()
    assert.is_true(t[1][1] < t[1][2] and t[1][1] <= 1)
    raises("write x:lt(y)", function() return t < t end)
  end)
end)

describe("operations made of others", function()
  local t = sluice.tensor { { 1, 2, 3 }, { 4, 5, 6 } }

  it("change shapes", function()
    assert.equal("2,3,1", shape(t:unsqueeze(-1)))
    assert.equal("1,2,3", shape(sluice.unsqueeze(t, 1)))
    assert.equal("2,3", shape(t:unsqueeze(1):squeeze()))
    assert.equal("2,3,1", shape(t:reshape { 1, 2, 3, 1 }:squeeze(1)))
    assert.equal("6", shape(t:flatten()))
    assert.equal("2,12", shape(sluice.zeros({ 2, 3, 4 }):flatten(2)))
    assert.equal("6,4", shape(sluice.zeros({ 2, 3, 4 }):flatten(1, 2)))
    assert.equal("1", shape(sluice.tensor(3):flatten()))
    raises("squeeze: dimension 2 of [2,3] is not 1", t.squeeze, t, 2)
    raises("unsqueeze: dimension 4 is outside 1 to 3", t.unsqueeze, t, 4)
    raises("squeeze: x is 3, expected a tensor", sluice.squeeze, 3)
  end)

  it("reduce", function()
    assert.same({ 0, 0 }, t:argmin():totable())
    assert.same({ 2.25, 2.25, 2.25 }, t:var(1):totable())
    assert.same({ { 1.5, 1.5, 1.5 } }, t:std(1, true):totable())
    assert.same({ 1, 0 }, sluice.tensor({ { 0, 2 }, { 0, 0 } }):any(2):totable())
    assert.same({ 0, 1 }, sluice.tensor({ { 0, 2 }, { 1, -1 } }):all(2):totable())
    assert.is_true(t:allclose(t + 1e-7))
    assert.is_false(t:allclose(t + 1e-3))
    assert.is_true(t:allclose(t + 1e-3, { atol = 1e-2 }))
    raises('did you mean "atol"', t.allclose, t, t, { atl = 1 })
  end)

  it("compute elements", function()
    assert.same({ 2, -1 }, sluice.tensor({ 1.2, -1.2 }):ceil():totable())
    assert.same({ 1, 0, 1 }, (sluice.tensor { -1, 4, 3 } % 2):totable())
    assert.same({ -1, 2, 1 }, (sluice.tensor { -1, 4, 3 } // 2):totable())
    assert.same({ 2, 1 }, (5 % sluice.tensor { 3, 4 }):totable())
    raises("an operand is a table", function() return t % {} end)
    assert.same({ 0, 1, 0 }, sluice.tensor({ 1, 0 / 0, 1 / 0 }):isnan():totable())
    assert.same({ 1, 0, 0 }, sluice.tensor({ 1, 0 / 0, 1 / 0 }):isfinite():totable())
  end)

  it("make tensors", function()
    assert.same({ { 1, 0 }, { 0, 1 } }, sluice.eye(2):totable())
    assert.same({ 0, 0.5, 1 }, sluice.linspace(0, 1, 3):totable())
    assert.same({ 3 }, sluice.linspace(3, 9, 1):totable())
    local like = t:to("i32"):ones_like()
    assert.equal("i32 2,3", like:dtype() .. " " .. shape(like))
    assert.same({ { 0, 0, 0 }, { 0, 0, 0 } }, t:zeros_like():totable())
    assert.same(sluice.randn({ 2, 3 }, { seed = 4 }):totable(), t:randn_like({ seed = 4 }):totable())
  end)

  it("are traced and differentiated", function()
    local value, grads = sluice.value_and_grad(function(p) return p.x:flatten():std() + (p.x % 4):squeeze():sum() end, { x = t })
    assert.is_true(math.abs(value:item() - (35 / 12) ^ 0.5 - 9) < 1e-5)
    assert.equal("2,3", shape(grads.x))
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

  it("of a model, a diffusion, a routing and a data set that were closed is not touched", function()
    local model, diffusion, routing, data
    do
      local r <close> = sluice.routing.dtr {}
      local m <close> = sluice.dit { input = { 1, 8, 8 }, patch = 4, hidden = 16, depth = 1, heads = 2, routing = r }
      local d <close> = sluice.diffusion {}
      local s <close> = sluice.data.tensors { images = sluice.zeros { 2, 1, 8, 8 } }
      model, diffusion, routing, data = m, d, r, s
    end
    raises("the model was released", model.names, model)
    raises("the model was released", sluice.sample, { model = model, diffusion = sluice.diffusion {}, n = 1 })
    raises("the model was released", tostring, model)
    raises("the diffusion was released", function() return diffusion.steps end)
    raises("the routing was released", routing.table, routing, 2, 4)
    raises("the routing was released", sluice.dit, { input = { 1, 8, 8 }, patch = 4, hidden = 16, depth = 1, heads = 2,
      routing = routing })
    raises("the data set was released", function() return #data end)
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
