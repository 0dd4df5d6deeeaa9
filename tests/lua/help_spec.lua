-- sluice.help: what it finds, and that it fits a terminal. What it says is compared with the module by the test `reference`.
local sluice = require "sluice"

describe("help", function()
  it("tells of a function its call, fields and example", function()
    local text = sluice.help "dit"
    assert.truthy(text:find("sluice.dit {", 1, true))
    assert.truthy(text:find("\n  classes?  integer", 1, true))
    assert.truthy(text:find("\nexample:\n", 1, true))
    assert.equal(text, sluice.help "sluice.dit")
  end)

  it("finds methods, fields' classes, operations and names with dots", function()
    assert.equal(sluice.help "tensor:item", sluice.help "item")
    assert.truthy(sluice.help("Diffusion"):find("alphas_cumprod", 1, true))
    assert.truthy(sluice.help("softmax"):find("also x:softmax(dim = -1)", 1, true))
    assert.truthy(sluice.help("io.load"):match "^sluice%.io%.load")
    local shapes = sluice.help "shape" -- of tensors and of data sets
    assert.truthy(shapes:find("tensor:shape()", 1, true) and shapes:find("dataset:shape()", 1, true))
  end)

  it("answers with the nearest name", function()
    assert.truthy(sluice.help("sotfmax"):match "^There is no sotfmax%. The nearest name:\n\nsluice%.softmax")
    assert.truthy(sluice.help(("z"):rep(40)):find("sluice.help() lists all names", 1, true))
    assert.has_error(function() sluice.help(3) end)
  end)

  it("lists all names by area, and fits 80 columns", function()
    local all = sluice.help()
    for _, name in ipairs { "Models", "dit", "sampler:steps", "routing.dtr" } do assert.truthy(all:find(name, 1, true), name) end
    for _, text in ipairs { all, sluice.help "sample", sluice.help "attention", sluice.help "Tensor" } do
      for line in (text:match "^(.-)\nexample:" or text):gmatch "[^\n]+" do assert(utf8.len(line) <= 80, line) end
    end
  end)
end)
