-- Digits drawn as finely as patches of 4 x 4 allow, in less than an hour on two cores; models/digits.safetensors holds its weights.
--   sluice train recipes/digits.lua --out runs/digits
--   sluice run recipes/judge.lua runs/digits
local sluice = require "sluice"

local here = debug.getinfo(1, "S").source:match("^@(.*)recipes/[^/]*$") or ""

local recipe = sluice.recipe {
  defaults = { alpha = 4, beta = 0.8, lr = 2e-3, steps = 50000, batch = 32, hidden = 128, depth = 4, heads = 4, seed = 0 },
  function(p)
    return {
      name = "digits",
      data = sluice.data.pack(here .. "data/digits/digits.pack"),
      model = sluice.dit {
        input = { 1, 28, 28 }, patch = 4, hidden = p.hidden, depth = p.depth, heads = p.heads, classes = 10, learn_sigma = false,
        routing = sluice.routing.dtr { alpha = p.alpha, beta = p.beta }, seed = p.seed,
      },
      diffusion = sluice.diffusion { schedule = "cosine", predict = "x0", variance = "fixed_small" },
      loss = sluice.weight.custom(function(_, snr) return math.min(snr + 1, 5) end), -- a velocity loss, clipped
      optimizer = { lr = p.lr, betas = { 0.9, 0.99 }, clip = 1, schedule = sluice.schedule.cosine { warmup = 100, final = 0.01 } },
      ema = { decays = { 0.9995 } },
      train = { steps = p.steps, batch = p.batch, seed = p.seed },
      sample = {
        n = 200, labels = "balanced", cfg = 3, cfg_interval = { 200, 800 }, sampler = "ddim", steps = 50, eta = 0, clip = true, seed = 1,
        columns = 20,
      },
    }
  end,
}

return recipe
