-- A transformer block in Lua in the place of DiT's: attention and a convolution side by side, under DTR's masks.
--   sluice run examples/own-block.lua               trains a few steps and tells the loss
--   sluice train examples/own-block.lua --out DIR   as a run, sampled with: sluice sample DIR --recipe examples/own-block.lua
local sluice = require "sluice"

local here = debug.getinfo(1, "S").source:match("^@(.*)examples/[^/]*$") or ""

-- z [N, tokens, hidden] is masked by the routing already; c [N, hidden] is the condition; b declares parameters.
local function block(z, c, b)
  local shift, scale, gate, gate2 = b:modulation(c, 4)
  local h, n = b:adaln(z, shift, scale), z:shape()[1]
  local image = h:reshape { n, b.height, b.width, b.hidden }:permute { 1, 4, 2, 3 }
  image = b:conv2d("conv", image, b.hidden, { side = 3 }):silu()
  local rows = image:permute { 1, 3, 4, 2 }:reshape { n, b.height * b.width, b.hidden }
  return z + b:gate(b:attention("attn", h), gate) + b:gate(b:linear("mix", rows, b.hidden), gate2)
end

local recipe = sluice.recipe {
  defaults = { steps = 20, batch = 16, lr = 1e-3 },
  function(p)
    return {
      name = "own-block",
      data = sluice.data.pack(here .. "data/digits/digits.pack"),
      model = sluice.dit {
        input = { 1, 28, 28 }, patch = 4, hidden = 64, depth = 2, heads = 2, classes = 10, block = block,
        routing = sluice.routing.dtr {},
      },
      diffusion = sluice.diffusion { schedule = "cosine" },
      optimizer = { lr = p.lr, clip = 1 },
      train = { steps = p.steps, batch = p.batch },
      sample = { n = 4, labels = "balanced", cfg = 1.5, sampler = "ddim", steps = 10, clip = true },
    }
  end,
}

if ... == "train" then return recipe end

local run = sluice.train(recipe, { out = arg and arg[1], quiet = true })
print(("%d steps, last loss %.4f, into %s"):format(run.steps, run.last.loss, run.dir))
