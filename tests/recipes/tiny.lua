-- A run of seconds for the tests: dropout of labels, flips, two EMAs, held-out images, micro-batches, all that a resume must keep.
local sluice = require "sluice"
local parts = require "tiny_parts.loss"

local recipe = sluice.recipe {
  defaults = {
    steps = 40, batch = 16, micro = 8, hidden = 32, depth = 1, precision = "f32", checkpoint = 4, sample = 0, lr = 2e-3, seed = 3,
    beta = 0.8, loader = 1, holdout = 20, keep = 3,
  },
  function(p)
    return {
      name = "tiny",
      data = sluice.data.pack "data/digits/digits.pack",
      model = sluice.dit {
        input = { 1, 28, 28 }, patch = 7, hidden = p.hidden, depth = p.depth, heads = 2, classes = 10, learn_sigma = false,
        routing = sluice.routing.dtr { beta = p.beta },
      },
      diffusion = sluice.diffusion { schedule = "cosine", predict = "x0", variance = "fixed_small" },
      loss = parts.weight,
      optimizer = { lr = p.lr, clip = 1, schedule = sluice.schedule.cosine { warmup = 4 } },
      ema = { decays = { 0.5, 0.999 } },
      train = {
        steps = p.steps, batch = p.batch, micro_batch = p.micro, seed = p.seed, flip = true, precision = p.precision, loader = p.loader,
        holdout = p.holdout, every = { checkpoint = p.checkpoint, sample = p.sample, metric = 2 }, keep = { last = p.keep, every = 16 },
      },
      sample = { n = 4, labels = "balanced", cfg = 2, sampler = "ddim", steps = 3, seed = 1, ema = 0.999 },
    }
  end,
}

return recipe
