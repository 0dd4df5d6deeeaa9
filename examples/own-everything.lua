-- A mask, a loss weight, a learning-rate schedule and a loss, each a few lines of Lua, all in one recipe.
--   sluice run examples/own-everything.lua          trains a few steps and tells the loss
--   sluice train examples/own-everything.lua        the same, as a run
local sluice = require "sluice"

local here = debug.getinfo(1, "S").source:match("^@(.*)examples/[^/]*$") or ""

-- A mask: a window that slides evenly with t, narrower in deeper blocks. Channels first … last, from 1.
local routing = sluice.routing.custom(function(t, T, C, block, blocks)
  local width = math.floor(C * (0.9 - 0.2 * block / blocks))
  local first = 1 + math.floor(t / (T - 1) * (C - width))
  return first, first + width - 1
end)

-- A loss weight: soft Min-SNR.
local weight = sluice.weight.custom(function(_, snr)
  return 5 * snr / (snr + 5)
end)

-- A learning-rate schedule: a short rise, then a fall with the square root of the step.
local function schedule(step, total)
  local warmup = math.max(1, total // 10)
  return math.min((step + 1) / warmup, math.sqrt(warmup / (step + 1)))
end

-- A loss: a smooth absolute error (pseudo-Huber) of the predicted image, per sample.
local function loss(s)
  local c = 0.03
  local d = (s.out - s.x0):square()
  local huber = (d + c * c):sqrt() - c
  return huber:mean({ 2, 3, 4 }) * s.weight
end

local recipe = sluice.recipe {
  defaults = { steps = 20, batch = 16, lr = 1e-3 },
  function(p)
    return {
      name = "own-everything",
      data = sluice.data.pack(here .. "data/digits/digits.pack"),
      model = sluice.dit {
        input = { 1, 28, 28 }, patch = 7, hidden = 64, depth = 2, heads = 2, classes = 10, learn_sigma = false, routing = routing,
      },
      diffusion = sluice.diffusion { predict = "x0", variance = "fixed_small" },
      loss = { loss, weight = weight },
      optimizer = { lr = p.lr, schedule = schedule, clip = 1 },
      train = { steps = p.steps, batch = p.batch },
      sample = { n = 4, labels = "balanced", cfg = 1.5, sampler = "ddim", steps = 10, clip = true },
    }
  end,
}

if ... == "train" then return recipe end

local run = sluice.train(recipe, { out = arg and arg[1], quiet = true })
print(("%d steps, last loss %.4f, into %s"):format(run.steps, run.last.loss, run.dir))
