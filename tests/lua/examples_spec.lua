-- The examples run as their comments say.
local program = os.getenv "SLUICE_BINARY" or "build/sluice"

local function run(command)
  local pipe = assert(io.popen(command .. " 2>&1"))
  local text = pipe:read "a"
  local ok, _, code = pipe:close()
  return ok, text, code
end

describe("examples", function()
  it("own-everything trains with a mask, a weight, a schedule and a loss of its own", function()
    local dir = os.tmpname()
    os.remove(dir)
    local ok, text = run(("%s run examples/own-everything.lua %s"):format(program, dir))
    assert(ok, text)
    assert.truthy(text:match "20 steps, last loss")
    assert(io.open(dir .. "/checkpoints/step-0000020.safetensors", "rb")):close()
    ok, text = run(("%s sample %s -n 2 -o %s/two.png --steps 4"):format(program, dir, dir))
    assert(ok, text)
    local file = assert(io.open(dir .. "/two.png", "rb"))
    assert.equal("\137PNG", file:read(4))
    file:close()
    os.execute("rm -r " .. dir)
  end)

  it("own-block trains, and is loaded with its recipe", function()
    local dir = os.tmpname()
    os.remove(dir)
    local ok, text = run(("%s run examples/own-block.lua %s"):format(program, dir))
    assert(ok, text)
    assert.truthy(text:match "20 steps, last loss")
    ok, text = run(([[%s -e 'print(sluice.load("%s", { recipe = "examples/own-block.lua" }).model)']]):format(program, dir))
    assert(ok, text)
    os.execute("rm -r " .. dir)
  end)

  it("own-sampler and edit-digits draw their pictures", function()
    local path = os.tmpname()
    for command, want in pairs {
      ["own-sampler.lua models/digits.safetensors"] = "dpm%-solver%+%+ +10 steps, mean %-0%.7", ["edit-digits.lua"] = "",
    } do
      local ok, text = run(("%s run examples/%s %s 8"):format(program, command, path))
      assert(ok and text:find(want), text)
      local file <close> = assert(io.open(path, "rb"))
      assert.equal("\137PNG", file:read(4))
    end
    os.remove(path)
  end)

  it("the functions are short", function()
    local lines, longest, n = {}, 0, 0
    for _, name in ipairs { "own-everything", "own-block", "own-sampler", "edit-digits" } do
      for line in io.lines(("examples/%s.lua"):format(name)) do lines[#lines + 1] = line end
    end
    local inside
    for _, line in ipairs(lines) do
      if line:match "^local .*function" then inside, n = true, 0 end
      if inside then
        n = n + 1
        longest = math.max(longest, n)
        assert(#line <= 140, line)
      end
      if line:match "^end" then inside = false end
    end
    assert(longest <= 15, longest)
  end)

  it("the model of the guide is the one that is tested", function()
    local function read(path)
      local file <close> = assert(io.open(path))
      return file:read "a"
    end
    local test, seen = read "tests/c/test_new_model.c", 0
    for block in read "docs/guide/add-a-model.md":gmatch "```c\n(.-)```" do
      if not block:find "slL_open" then
        assert(test:find(block, 1, true), block)
        seen = seen + 1
      end
    end
    assert.equal(2, seen)
  end)
end)
