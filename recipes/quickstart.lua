-- Learns handwritten digits in a few minutes on two cores and draws a hundred of them.
--   sluice run recipes/quickstart.lua        trains, draws quickstart.png, tells how many samples look like their label
--   sluice train recipes/quickstart.lua      trains only
local sluice = require "sluice"

local here = debug.getinfo(1, "S").source:match("^@(.*)recipes/[^/]*$") or ""

local recipe = sluice.recipe {
  defaults = { alpha = 4, beta = 0.8, lr = 3e-3, steps = 6000, batch = 32, hidden = 128, depth = 4, heads = 4, seed = 0 },
  function(p)
    return {
      name = "quickstart",
      data = sluice.data.pack(here .. "data/digits/digits.pack"),
      model = sluice.dit {
        input = { 1, 28, 28 }, patch = 7, hidden = p.hidden, depth = p.depth, heads = p.heads, classes = 10, learn_sigma = false,
        routing = sluice.routing.dtr { alpha = p.alpha, beta = p.beta },
      },
      diffusion = sluice.diffusion { schedule = "cosine", predict = "x0", variance = "fixed_small" },
      loss = sluice.weight.custom(function(_, snr) return math.min(snr + 1, 5) end), -- a velocity loss, clipped
      optimizer = { lr = p.lr, betas = { 0.9, 0.99 }, clip = 1, schedule = sluice.schedule.cosine { warmup = 100, final = 0.01 } },
      ema = { decays = { 0.999 } },
      train = { steps = p.steps, batch = p.batch, seed = p.seed },
      sample = { n = 100, labels = "balanced", cfg = 3, sampler = "ddim", steps = 20, clip = true, seed = 1, columns = 10 },
    }
  end,
}

if ... == "train" then return recipe end

-- The share of samples whose nearest training image (pixels, L2) has the label that was asked for.
local function agreement(samples, labels)
  local file = assert(sluice.io.load(here .. "data/digits/digits28.npz"))
  local train = file.images:to("f32"):reshape { -1, 784 } / 127.5 - 1
  local x = samples:reshape { -1, 784 }
  local distance = train:square():sum(2) - x:matmul(train:permute { 2, 1 }) * 2 -- less |x|^2, the same for every image
  local nearest = file.labels:to("i64"):gather(distance:neg():argmax(2))
  return nearest:eq(labels):to("f32"):mean():item()
end

local set, out = {}, nil
for _, a in ipairs(arg or {}) do
  local key, value = a:match("^([%w_]+)=(.*)$")
  if key == "out" then
    out = value
  elseif key then
    set[key] = value
  else
    error(("quickstart: %s: expected key=value, as in steps=100"):format(a), 0)
  end
end
local run = sluice.train(recipe, { set = set, out = out })
local samples, labels = run:sample()
sluice.save_png("quickstart.png", samples, { columns = 10 })
print(("quickstart.png: 100 digits, ten of each; 1-nearest-neighbour agreement %.0f%%"):format(100 * agreement(samples, labels)))
