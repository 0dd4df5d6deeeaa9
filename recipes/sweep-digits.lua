-- A sweep of seconds over small models of the digits: routing and learning rate, two seeds each.
--   sluice sweep recipes/sweep-digits.lua --dry
--   sluice sweep recipes/sweep-digits.lua [--set steps=2000] [--out sweeps/first]
local sluice = require "sluice"

local here = debug.getinfo(1, "S").source:match("^@(.*)recipes/[^/]*$") or ""

local routings = {
  dtr = function(p) return sluice.routing.dtr { alpha = p.alpha, beta = p.beta } end,
  random = function(p) return sluice.routing.random { beta = p.beta, seed = p.seed } end,
  none = function() return sluice.routing.none() end,
}

local recipe = sluice.recipe {
  defaults = { routing = "dtr", alpha = 4, beta = 0.8, lr = 3e-3, steps = 200, batch = 32, hidden = 64, depth = 2, seed = 0 },
  function(p)
    local routing = routings[p.routing] or error("routing is " .. p.routing .. ", expected dtr, random or none", 0)
    return {
      name = "sweep-digits",
      data = sluice.data.pack(here .. "data/digits/digits.pack"),
      model = sluice.dit {
        input = { 1, 28, 28 }, patch = 7, hidden = p.hidden, depth = p.depth, heads = 4, classes = 10, learn_sigma = false,
        routing = routing(p), seed = p.seed,
      },
      diffusion = sluice.diffusion { schedule = "cosine", predict = "x0", variance = "fixed_small" },
      loss = sluice.weight.custom(function(_, snr) return math.min(snr + 1, 5) end), -- a velocity loss, clipped
      optimizer = { lr = p.lr, betas = { 0.9, 0.99 }, clip = 1, schedule = sluice.schedule.cosine { warmup = 100, final = 0.01 } },
      ema = { decays = { 0.99 } },
      train = {
        steps = p.steps, batch = p.batch, seed = p.seed, holdout = 500,
        every = { checkpoint = math.max(1, p.steps // 4), sample = 0 }, keep = { last = 1 },
      },
      sample = { n = 20, labels = "balanced", cfg = 3, cfg_interval = { 200, 900 }, sampler = "ddim", steps = 25, clip = true, seed = 1 },
    }
  end,
}

return {
  base = recipe,
  grid = { routing = { "none", "random", "dtr" }, lr = { 1e-3, 3e-3 } },
  seeds = { 0, 1 },
  out = "sweeps/digits",
}
