local sluice = require "sluice"

local t = sluice.tensor { { 1, 2, 3 }, { 4, 5, 6 } }

local function shape(x) return table.concat(x:shape(), ",") end

local function raises(text, f, ...)
  local ok, message = pcall(f, ...)
  assert.is_false(ok, "no error, expected: " .. text)
  assert(tostring(message):find(text, 1, true), ("%s\ndoes not hold: %s"):format(message, text))
end

describe("operations", function()
  it("by operators, with numbers on either side", function()
    assert.same({ { 2, 3, 4 }, { 5, 6, 7 } }, (t + 1):totable())
    assert.same({ { 2, 1, 0 }, { -1, -2, -3 } }, (3 - t):totable())
    assert.same({ { 1, 4, 9 }, { 16, 25, 36 } }, (t ^ 2):totable())
    assert.same({ { -1, -2, -3 }, { -4, -5, -6 } }, (-t):totable())
    assert.same({ 0.5, 1, 1.5 }, (t[1] / 2):totable())
    raises("an operand is nil", function() return t + nil end)
    raises('an operand is "x"', function() return t * "x" end)
  end)

  it("numbers take the dtype beside them if it holds them", function()
    local i = sluice.tensor({ 1, 2 }, { dtype = "i64" })
    assert.equal("i64", (i + 1):dtype())
    assert.equal("f32", (i * 0.5):dtype())
    assert.equal("i64", (sluice.tensor({ 1 }, { dtype = "u8" }) + 300):dtype())
    assert.equal("bf16", (t:to "bf16" * 0.5):dtype())
  end)

  it("give what they are named for, so that calls nest", function()
    local w, q = sluice.ones { 4, 3 }, sluice.ones { 1, 2, 3, 4 }
    assert.equal(1, select("#", t:linear(w)))
    assert.equal(1, select("#", t:layer_norm()))
    assert.equal(1, select("#", q:attention(q, q)))
    assert.equal("2,4", shape(sluice.gelu(sluice.layer_norm(sluice.linear(t, w)))))
    assert.equal(3, select("#", t:chunk(3, 2)))
  end)

  it("dimensions and positions count from 1", function()
    assert.same({ 5, 7, 9 }, t:sum(1):totable())
    assert.same({ 6, 15 }, t:sum(-1):totable())
    assert.equal("1,1", shape(t:sum({ 1, 2 }, true)))
    assert.equal("2,1", shape(t:sum { dims = 2, keepdim = true }))
    assert.equal("1,1", shape(t:sum(nil, true)))
    assert.same({ { 2, 3 }, { 5, 6 } }, t:slice(2, 2, 3):totable())
    assert.same({ { 1, 3 }, { 4, 6 } }, t:slice(2, 1, -1, 2):totable())
    assert.same({ { 1, 4 }, { 2, 5 }, { 3, 6 } }, t:permute({ 2, 1 }):totable())
    assert.same(t:permute({ 2, 1 }):totable(), t:transpose(1, 2):totable())
    raises("counts from 1", t.sum, t, 0)
    raises("outside", t.transpose, t, 1, 3)
  end)

  it("joins, compares and chooses", function()
    assert.equal("4,3", shape(t:cat(t)))
    assert.equal("4,3", shape(sluice.cat(t, t, 1)))
    assert.equal("2,6", shape(sluice.cat({ t, t }, 2)))
    assert.equal("2,2,3", shape(sluice.stack { t, t }))
    assert.same({ { 1, 1, 0 }, { 0, 0, 0 } }, t:lt(3):totable())
    assert.equal("u8", t:le(3):dtype())
    assert.same({ { 0, 0, 3 }, { 4, 5, 6 } }, sluice.where(t:ge(3), t, 0):totable())
    assert.same({ 1, 0, 1 }, sluice.where(sluice.tensor({ 1, 0, 1 }, { dtype = "u8" }), 1, 0):totable())
  end)

  it("views share memory, reshapes of what is not dense copy", function()
    local u = t:clone()
    u:reshape({ 6 })[1] = 10
    u:slice(1, 2, 2)[1][1] = 40
    assert.same({ { 10, 2, 3 }, { 40, 5, 6 } }, u:totable())
    local flat = u:permute({ 2, 1 }):reshape { 6 }
    assert.same({ 10, 40, 2, 5, 3, 6 }, flat:totable())
    flat[1] = 0
    assert.equal(10, u[1][1]:item())
  end)

  it("give all their outputs", function()
    local a, b, c = t:chunk(3, 2)
    assert.same({ { 3 }, { 6 } }, c:totable())
    assert(a and b)
    assert.equal(3, select("#", t:chunk(3, 2)))
  end)

  it("name what does not fit", function()
    raises('softmax: unknown field "dm"; did you mean "dim"?', t.softmax, t, { dm = 1 })
    raises("matmul: b is missing", t.matmul, t)
    raises("one argument too many", t.exp, t, 1)
    raises("expected a tensor or a number", sluice.exp, "x")
    raises("keepdim is 1, expected true or false", t.sum, t, 1, 1)
    raises("lo is missing", t.clamp, t)
    raises("[2,3]", t.matmul, t, t)
    local _, message = pcall(function() return t:matmul(t) end)
    assert(message:match "ops_spec.lua:%d+: ", message)
  end)
end)

describe("arguments of any kind", function()
  local values = {
    false, true, 0, 1, -1, 2, 1.5, 1e300, 0 / 0, math.mininteger, "", "x", "f32", {}, { 1 }, { 1, 2 },
    { "x" }, { x = 1 }, { dim = 9 }, { dims = {} },
    type, function() return 1 end, coroutine.create(type), io.stdout, t, t[1], sluice.tensor(1), sluice.zeros { 0 },
    sluice.tensor({ 1, 2 }, { dtype = "i64" }), t:to "f64", t:to "bool", { t }, { t, t }, { {} },
  }
  local skip = { set_threads = true, save_png = true, seed = true }
  -- A number that is a size must stay small, or the call is an honest one of much memory.
  local count, state = 0, 12345
  local function draw(n)
    state = (state * 1103515245 + 12345) % 2147483648
    return state // 65536 % n + 1
  end

  local function poke(f, n)
    local args = {}
    for i = 1, n do args[i] = values[draw(#values + 1)] end
    local ok, message = pcall(f, table.unpack(args, 1, n))
    assert(ok or type(message) == "string" or message == nil or type(message) == "table", "an error without words")
    count = count + 1
  end

  it("give results or errors, never a crash", function()
    local methods = {}
    for _, name in ipairs(require("sluice.core").signature()) do methods[#methods + 1] = t[name] end
    for _, name in ipairs { "shape", "dtype", "to", "clone", "item", "totable", "transpose", "device", "rank", "numel" } do
      methods[#methods + 1] = t[name]
    end
    for name, f in pairs(sluice) do
      if type(f) == "function" and not skip[name] then methods[#methods + 1] = f end
    end
    for _, f in pairs(sluice.json) do
      if type(f) == "function" then methods[#methods + 1] = f end
    end
    for _, f in ipairs(methods) do
      for _ = 1, 60 do
        poke(f, draw(5) - 1)
        poke(function(...) return f(t, ...) end, draw(4) - 1)
      end
      poke(f, 200)
    end
    assert(count > 5000)
    for _, event in ipairs { "__index", "__newindex", "__len", "__lt", "__le", "__tostring", "__add", "__unm" } do
      local f = debug.getmetatable(t)[event]
      for _ = 1, 60 do poke(f, draw(4) - 1) end
    end
    assert.same({ 1, 2, 3 }, sluice.tensor({ 1, 2, 3 }):totable())
  end)

  it("nor with symbolic tensors among them", function()
    local kept
    for _, name in ipairs(require("sluice.core").signature()) do
      for i = 1, 40 do
        pcall(sluice.value_and_grad, function(p)
          values[#values + 1], values[#values + 2] = p, p[1]
          poke(function(...) return sluice[name](p, ...) end, i % 5)
          poke(sluice[name], i % 5)
          values[#values], values[#values - 1] = nil, nil
          kept = kept or p
        end, t)
        poke(function(...) return sluice[name](kept, ...) end, 1)
      end
    end
  end)
end)
