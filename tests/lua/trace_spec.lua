local sluice = require "sluice"

local function raises(text, f, ...)
  local ok, message = pcall(f, ...)
  assert.is_false(ok, "no error, expected: " .. text)
  assert(tostring(message):find(text, 1, true), ("%s\ndoes not hold: %s"):format(message, text))
end

local x = sluice.tensor { { 1, 2, 3 }, { 4, 5, 6 } }

describe("value_and_grad", function()
  it("differentiates by each parameter", function()
    local k = sluice.tensor { 10, 20, 30 }
    local value, grad = sluice.value_and_grad(function(p, c)
      return (p.x * p.x + p.y * k):sum() * c
    end, { x = x, y = sluice.ones { 3 } }, 2)
    assert.equal(2 * (91 + 120), value:item())
    assert.same({ { 4, 8, 12 }, { 16, 20, 24 } }, grad.x:totable())
    assert.same({ 40, 80, 120 }, grad.y:totable())
  end)

  it("takes one tensor, lists, and losses of one element", function()
    local value, grad = sluice.value_and_grad(function(p) return (p ^ 2):sum({ 1, 2 }, true) end, x)
    assert.equal(91, value:item())
    assert.equal("", table.concat(value:shape(), ","))
    assert.same({ { 2, 4, 6 }, { 8, 10, 12 } }, grad:totable())
    local _, grads = sluice.value_and_grad(function(p) return (p[1] * p[2]):sum() end, { x, x + 1 })
    assert.same((x + 1):totable(), grads[1]:totable())
    assert.same(x:totable(), grads[2]:totable())
  end)

  it("gives zeros where the loss does not depend on a parameter", function()
    local _, grad = sluice.value_and_grad(function(p) return p.a:sum() end, { a = x, b = sluice.ones { 2 } })
    assert.same({ 0, 0 }, grad.b:totable())
  end)

  it("indexes and slices symbolic tensors as concrete ones", function()
    local value, grad = sluice.value_and_grad(function(p) return p[2][-1] * p:slice(2, 1, 1):sum() end, x)
    assert.equal(30, value:item())
    assert.same({ { 6, 0, 0 }, { 6, 0, 5 } }, grad:totable())
  end)

  it("finds the program of a graph traced before", function()
    local function f(p) return (p * 3):exp():sum() end
    sluice.value_and_grad(f, x)
    sluice.value_and_grad(f, x)
    collectgarbage()
    local before = sluice.memory()
    for _ = 1, 20 do sluice.value_and_grad(f, x) end
    collectgarbage()
    collectgarbage()
    assert(sluice.memory().bytes - before.bytes < 100000)
    -- constants are part of the graph, captured tensors are not
    local function scaled(s) return sluice.value_and_grad(function(p) return (p * s):sum() end, x):item() end
    assert.equal(21, scaled(1))
    assert.equal(42, scaled(2))
    assert.equal(63, scaled(sluice.tensor(3)))
    assert.equal(84, scaled(sluice.tensor(4)))
  end)

  it("is not confused by many different graphs", function()
    for n = 1, 50 do
      local value = sluice.value_and_grad(function(p) return (p * n):sum() end, x)
      assert.equal(21 * n, value:item())
    end
  end)

  it("raises at the user's line what cannot be traced", function()
    raises("has no value while tracing", sluice.value_and_grad, function(p) return p:item() end, x)
    raises("has no value while tracing", sluice.value_and_grad, function(p) return p:totable() end, x)
    raises("has no value while tracing", sluice.value_and_grad, function(p) return #p end, x)
    raises("has no value while tracing", sluice.value_and_grad, function(p) return p < 1 end, x)
    raises("has no value while tracing", sluice.value_and_grad, function(p) return 1 <= p end, x)
    raises("cannot be assigned", sluice.value_and_grad, function(p) p[1] = 0 end, x)
    raises("matmul", sluice.value_and_grad, function(p) return p:matmul(p) end, x)
    local _, message = pcall(sluice.value_and_grad, function(p) return p:matmul(p) end, x)
    assert(message:match "trace_spec.lua:%d+: ", message)
  end)

  it("raises about losses and parameters that are none", function()
    raises("take its mean or sum", sluice.value_and_grad, function(p) return p end, x)
    raises("the function returned 3", sluice.value_and_grad, function() return 3 end, x)
    raises("the function returned a tensor", sluice.value_and_grad, function() return x:sum() end, x)
    raises("parameter a is 1, expected a tensor", sluice.value_and_grad, function() end, { a = 1 })
    raises("expected f32 or bf16", sluice.value_and_grad, function() end, { a = x:to "i64" })
    raises("f is a table", sluice.value_and_grad, {}, x)
    raises("params is missing", sluice.value_and_grad, print)
  end)

  it("ends the trace, whatever happens", function()
    local kept
    sluice.value_and_grad(function(p)
      kept = p * 2
      return p:sum()
    end, x)
    raises("kept after its trace", function() return kept + 1 end)
    raises("kept after its trace", kept.shape, kept)
    pcall(sluice.value_and_grad, function(p)
      kept = p
      error { code = 7 }
    end, x)
    raises("kept after its trace", function() return kept:sum() end)
    local _, object = pcall(sluice.value_and_grad, function() error { code = 7 } end, x)
    assert.equal(7, object.code)
    raises("kept after its trace", sluice.value_and_grad, function(p) return (p + kept):sum() end, x)
  end)

  it("keeps two traces apart", function()
    raises("two traces", sluice.value_and_grad, function(p)
      sluice.value_and_grad(function(q) return (p + q):sum() end, x)
    end, x)
    local value = sluice.value_and_grad(function(p)
      local inner = sluice.value_and_grad(function(q) return (q * q):sum() end, x)
      return (p * inner):sum()
    end, x)
    assert.equal(21 * 91, value:item())
  end)
end)
