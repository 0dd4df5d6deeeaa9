-- Transformer blocks written in Lua: the numbers of DiT's own, training, and what is told of them.
local sluice = require "sluice"
local files = require "files"

local dir
setup(function() dir = files.temporary() end)
teardown(function() os.execute("rm -r " .. dir) end)

-- DiT's block, as the guide has it.
local function dit_block(z, c, b)
  local shift1, scale1, gate1, shift2, scale2, gate2 = b:modulation(c, 6)
  z = z + b:gate(b:attention("attn", b:adaln(z, shift1, scale1)), gate1)
  local h = b:linear("mlp.fc1", b:adaln(z, shift2, scale2), 4 * b.hidden, { act = "gelu" })
  return z + b:gate(b:linear("mlp.fc2", h, b.hidden), gate2)
end

local function options(more)
  local o = { input = { 1, 8, 8 }, patch = 2, hidden = 32, depth = 2, heads = 2, classes = 3, timesteps = 50,
    routing = sluice.routing.dtr { beta = 0.5 } }
  for k, v in pairs(more or {}) do o[k] = v end
  return o
end

local function disturbed(model)
  local state = {}
  for name, p in pairs(model:init(1):state()) do
    state[name] = name == "pos_embed" and p or p:to "cpu" + sluice.randn(p:shape(), { seed = #name }) * 0.1
  end
  return model:load_state(state)
end

-- Two models of the same weights: DiT's own blocks, and the same in Lua.
local function pair(more)
  local own = disturbed(sluice.dit(options(more)))
  local o = options(more)
  o.block = dit_block
  return own, sluice.dit(o):load_state(own:state())
end

local function batch()
  return sluice.randn({ 3, 1, 8, 8 }, { seed = 2 }), sluice.tensor({ 0, 20, 49 }, { dtype = "i64" }), { 0, 1, 2 }
end

local function close(a, b, tolerance, name)
  a, b = a:to "cpu", b:to "cpu"
  local scale = math.max(a:abs():max():item(), 1e-6)
  assert((a - b):abs():max():item() <= tolerance * scale, name)
end

local function trainer(model, more)
  local images = sluice.randn({ 12, 1, 8, 8 }, { seed = 4 }):clamp(-1, 1)
  local labels = sluice.tensor({ 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2 }, { dtype = "i64" })
  local o = { model = model, diffusion = sluice.diffusion { steps = 50 }, batch = 6, lr = 1e-3, seed = 3,
    data = sluice.data.tensors { images = images, labels = labels } }
  for k, v in pairs(more or {}) do o[k] = v end
  return sluice.trainer(o)
end

describe("a block in Lua", function()
  it("that says what DiT's block does gives its numbers", function()
    for _, more in ipairs { {}, { routing = sluice.routing.none() }, { routing = sluice.routing.random { seed = 5 } } } do
      local own, lua = pair(more)
      assert.same(own:names(), lua:names())
      local x, t, y = batch()
      local a, b = own:forward(x, t, y), lua:forward(x, t, y)
      close(a, b, 1e-6, "output")
      local ga, gb = own:gradients(x, t, y, a), lua:gradients(x, t, y, a)
      for name, g in pairs(ga) do close(g, gb[name], 2e-5, name) end
    end
  end)

  it("trains as it does, whatever is computed again or in parts, and in bf16", function()
    for _, more in ipairs { {}, { recompute = true }, { micro_batch = 2 } } do
      local own, lua = pair()
      local a, b = trainer(own, more), trainer(lua, more)
      for _ = 1, 3 do
        local x, y = a:step().loss, b:step().loss
        assert(math.abs(x - y) < 1e-5 * math.abs(x), ("%g, %g"):format(x, y))
      end
    end
    for _, residual in ipairs { "f32", "bf16" } do
      local own, lua = pair { precision = "bf16", residual = residual }
      local x, y = trainer(own):step().loss, trainer(lua):step().loss
      assert(math.abs(x - y) < 2e-2 * math.abs(x), ("%g, %g"):format(x, y))
    end
  end)

  it("has every kind of layer, parameters of its own and fields", function()
    local seen = {}
    local function block(z, c, b)
      seen = { b.index, b.blocks, b.hidden, b.heads, b.height, b.width, b.training }
      local n = z:shape()[1]
      local image = b:norm(z):reshape { n, b.height, b.width, b.hidden }:permute { 1, 4, 2, 3 }
      image = b:conv2d("conv", image, 16, { side = 3, init = "fan_in" }):silu()
      local h = b:linear("mix", image:permute { 1, 3, 4, 2 }:reshape { n, b.height * b.width, 16 }, b.hidden, { act = "silu" })
      h = b:attention("attn", h, { heads = 4 }) * b:param("scale", b.hidden, { init = "one" })
      local table_of_mine = sluice.full({ b.hidden }, 0.5)
      return z + b:dropout(h, 0.5) * table_of_mine + b:linear("c", c, b.hidden, { init = "normal", std = 0.1 }):reshape { n, 1, b.hidden }
    end
    local model = sluice.dit(options { block = block }):init(1)
    assert.same({ 2, 2, 32, 2, 4, 4, false }, seen)
    assert.same({ 32 }, model:state()["blocks.1.scale"]:shape())
    assert.equal(1, model:state()["blocks.1.scale"]:to("cpu"):min():item())
    assert.same({ 16, 32, 3, 3 }, model:state()["blocks.0.conv.weight"]:shape())
    local x, t, y = batch()
    model:forward(x, t, y)
    -- dropout draws by step, sample and place: parts of a batch drop the same
    local a, b = trainer(model), trainer(sluice.dit(options { block = block }):load_state(model:state()), { micro_batch = 2 })
    assert.is_true(seen[7])
    for _ = 1, 2 do
      local p, q = a:step().loss, b:step().loss
      assert(math.abs(p - q) < 1e-5 * math.abs(p))
    end
  end)

  it("is refused in words where it is wrong, at the user's line", function()
    local kept
    local cases = {
      { function(z) return z:mean() end, "block 1 gives f32 %[%], expected %[%d,16,32%]" },
      { function(z) return sluice.zeros(z:shape()) end,
        "the function returned a tensor of numbers %(f32 %[%d,16,32%]%), expected one made from z" },
      { function() return sluice.routing.dtr() end, "the function returned a sluice.routing, expected a tensor" },
      { function() return 3 end, "the function returned 3, expected a tensor" },
      { function(z, _, b) return b:linear("x", z) end, "b:linear: the width is nil" },
      { function(z, _, b) return b:liner("x", z) end, 'did you mean "linear"' },
      { function(z, _, b) return b:linear("x", z, 4, { inti = "zero" }) end, 'unknown field "inti"; did you mean "init"' },
      { function(z, _, b) return b:linear("x", z, 4, { init = "zeros" }) end, 'init is "zeros", expected one of' },
      { function(z, _, b) return b:attention("x", z, { heads = 5 }) end, "heads is 5, expected a divisor of x's width 32" },
      { function(z, _, b) return b:conv2d("x", z, 4) end, "x is f32 %[%d,16,32%], expected %[N,C,H,W%]" },
      { function(z, _, b) return b:dropout(z, 1) end, "p is 1, expected a number of 0 to below 1" },
      { function(z, _, b) b:param("p", 3) b:param("p", 4) return z end, "parameter blocks.0.p is declared as %[3%] and again as %[4%]" },
      { function(z, _, b) return b:linear("", z, 4) end, "the layer's name is \"\"" },
      -- fits one image, and as many as there are tokens
      { function(z, c, b) return z + b:linear("a", z + c, b.hidden) end, "block_spec.lua:%d+: add: .*%[%d,16,32%].*%[%d,32%]" },
      { function(z, c) return z:matmul(c) end, "block_spec.lua:%d+: matmul" },
      { function(z) if z:mean():item() > 0 then return z end end, "no value while tracing" },
      { function(z, _, b) kept = b return z end },
      { function(z) return kept:norm(z) end, "kept after the function returned" },
      { print, "block is a function, expected a function%(z, c, b%)" },
      { 5, "block is 5, expected a function" },
    }
    for i, case in ipairs(cases) do
      local ok, message = pcall(sluice.dit, options { block = case[1] })
      if case[2] then
        assert(not ok and message:match(case[2]), ("%d: %s"):format(i, tostring(message)))
        assert(message:match "block_spec.lua:%d+: ", message)
      end
    end
    local ok, raised = pcall(sluice.dit, options { block = function() error { mine = true } end })
    assert(not ok and raised.mine)
    local function twice(z, c)
      raised = select(2, pcall(sluice.dit, options { block = function() error { mine = "inner" } end }))
      return z:matmul(c)
    end
    local _, message = pcall(sluice.dit, options { block = twice })
    assert(raised.mine == "inner" and message:match "block_spec.lua:%d+: matmul", message)
    _, message = pcall(sluice.routing.table, sluice.zeros { 2 })
    assert(message:match "routing.table: the table is", message)
    assert.has_error(function() sluice.dit(options { hidden = 30, block = dit_block }) end)
  end)

  it("is run from a checkpoint only when its file is named", function()
    local function recipe_text(body)
      return ([[
        local sluice = require "sluice"
        local function block(z, c, b) %s end
        return sluice.recipe { defaults = { steps = 2 }, function(p)
          return { name = "own",
            model = sluice.dit { input = { 1, 8, 8 }, patch = 2, hidden = 16, depth = 2, heads = 2, classes = 2, block = block },
            data = sluice.data.tensors { images = sluice.randn({ 8, 1, 8, 8 }, { seed = 1 }),
              labels = sluice.tensor({ 0, 1, 0, 1, 0, 1, 0, 1 }, { dtype = "i64" }) },
            diffusion = sluice.diffusion { steps = 1000 }, train = { steps = p.steps, batch = 4 },
            sample = { n = 2, sampler = "ddim", steps = 2, seed = 1 } }
        end }]]):format(body)
    end
    local path, out = dir .. "/own.lua", dir .. "/run"
    files.write(path, recipe_text 'return z + b:linear("fc", z, b.hidden, { init = "zero" })')
    local run = sluice.train(dofile(path), { out = out, quiet = true })
    local pictures = run:sample {}
    local ok, message = pcall(sluice.load, out)
    assert(not ok and message:match "its blocks are Lua functions" and message:match "recipe = FILE", message)
    local loaded = sluice.load(out, { recipe = path })
    assert.equal(0, (loaded:sample {} - pictures):abs():max():item())
    assert.equal(0, (sluice.load(out, { recipe = out .. "/recipe.lua" }):sample {} - pictures):abs():max():item())
    local more = sluice.train(nil, { resume = out, quiet = true })
    assert.equal(2, more.steps)
    files.write(path, recipe_text 'return z + b:linear("fc2", z, b.hidden, { init = "zero" })')
    ok, message = pcall(sluice.load, out, { recipe = path })
    assert(not ok and message:match "blocks%.0%.fc2%.weight is missing" or message:match "has no parameter blocks", message)
    files.write(path, "return 1")
    ok, message = pcall(sluice.load, out, { recipe = path })
    assert(not ok and message:match "does not return a recipe", message)
  end)
end)
