local sluice = require "sluice"

local function raises(text, f, ...)
  local ok, message = pcall(f, ...)
  assert.is_false(ok, "no error, expected: " .. text)
  assert(tostring(message):find(text, 1, true), ("%s\ndoes not hold: %s"):format(message, text))
end

local function temporary(suffix)
  local name = os.tmpname()
  os.remove(name)
  return name .. suffix
end

local x = sluice.tensor { { 1, 2, 3 }, { 4, 5, 6 } }

describe("tensor files", function()
  it("come back as they were saved", function()
    local path = temporary ".safetensors"
    assert.is_true(sluice.io.save(path, { a = x, b = sluice.arange(0, 3), c = x:to "bf16" }, { note = "hello", n = 3 }))
    local tensors, meta = sluice.io.load(path)
    assert.same(x:totable(), tensors.a:totable())
    assert.equal("i64", tensors.b:dtype())
    assert.equal("bf16", tensors.c:dtype())
    assert.equal("hello", meta.note)
    assert.equal("3", meta.n)
    os.remove(path)
    path = temporary ".npz"
    sluice.io.save(path, { arr_0 = x })
    assert.same(x:totable(), sluice.io.load(path).arr_0:totable())
    os.remove(path)
  end)

  it("give nil, a message and a code if they cannot be opened; else raise", function()
    local none, message, code = sluice.io.load "/no/such/file.safetensors"
    assert.is_nil(none)
    assert(message:find("/no/such/file.safetensors", 1, true), message)
    assert.equal("IO", code)
    none, message, code = sluice.io.save("/no/such/folder/x.safetensors", { a = x })
    assert.is_nil(none)
    assert(type(message) == "string" and code == "IO")
    local path = temporary ".safetensors"
    local file = assert(io.open(path, "wb"))
    file:write "this is no tensor file at all"
    file:close()
    assert.is_false(pcall(sluice.io.load, path))
    os.remove(path)
    raises("a is 1, expected a tensor", sluice.io.save, path, { a = 1 })
    raises("metadata k is a table", sluice.io.save, path, { a = x }, { k = {} })
    raises("path is missing", sluice.io.load)
    raises("zero byte", sluice.io.load, "a\0b")
  end)
end)

describe("pictures", function()
  it("are written and read", function()
    local path = temporary ".png"
    local picture = sluice.tensor { { { -1, 1 }, { 0, -1 } }, { { 1, 1 }, { 1, 1 } }, { { -1, -1 }, { -1, -1 } } }
    sluice.save_png(path, picture)
    local back = sluice.load_image(path)
    assert.same({ 3, 2, 2 }, back:shape())
    assert((back - picture):abs():max():item() < 0.01)
    sluice.save_png(path, sluice.zeros { 5, 3, 4, 4 }, { columns = 5, quant = "adm" })
    assert.equal(3, #sluice.load_image(path))
    os.remove(path)
    raises('did you mean "columns"', sluice.save_png, path, picture, { colums = 2 })
    raises('unknown quant "ad"', sluice.save_png, path, picture, { quant = "ad" })
    assert.is_false(pcall(sluice.load_image, "/no/such.png"))
  end)
end)

describe("json", function()
  it("goes both ways", function()
    local text = '{"a":[1,2.5,"x\\n"],"b":{"c":true},"d":null}'
    local v = sluice.json.decode(text)
    assert.equal(2.5, v.a[2])
    assert.equal("integer", math.type(v.a[1]))
    assert.is_true(v.b.c)
    assert.equal(sluice.json.null, v.d)
    assert.equal(text, sluice.json.encode(v))
    assert.equal("[]", sluice.json.encode({}, "array"))
    assert.equal("{}", sluice.json.encode {})
    for _, n in ipairs { 0.1, 1 / 3, 1e300, 1.0, -0.5, 123456789012 } do
      assert.equal(n, sluice.json.decode(sluice.json.encode(n)))
    end
    assert.equal(math.maxinteger, math.tointeger(sluice.json.encode(math.maxinteger)))
  end)

  it("refuses what is no JSON", function()
    raises("malformed", sluice.json.decode, '{"a":}')
    raises("more text", sluice.json.decode, "1 2")
    raises("both a list and an object", sluice.json.encode, { 1, a = 2 })
    raises("no form in JSON", sluice.json.encode, print)
    raises("no number in JSON", sluice.json.encode, 0 / 0)
    local circle = {}
    circle.x = circle
    raises("in a circle", sluice.json.encode, circle)
    assert.is_false(pcall(sluice.json.decode, ("["):rep(5000)))
  end)
end)
