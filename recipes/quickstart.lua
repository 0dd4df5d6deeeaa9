-- Learns handwritten digits in a few minutes on two cores, draws two hundred of them and judges them.
--   sluice run recipes/quickstart.lua [key=value …]     trains; draws quickstart.png, and digits.png from models/digits.safetensors
--   sluice train recipes/quickstart.lua                 trains only
local sluice = require "sluice"

local here = debug.getinfo(1, "S").source:match("^@(.*)recipes/[^/]*$") or ""

local recipe = sluice.recipe {
  defaults = { alpha = 4, beta = 0.8, lr = 3e-3, steps = 8000, batch = 32, hidden = 128, depth = 4, heads = 4, seed = 0 },
  function(p)
    return {
      name = "quickstart",
      data = sluice.data.pack(here .. "data/digits/digits.pack"),
      model = sluice.dit {
        input = { 1, 28, 28 }, patch = 7, hidden = p.hidden, depth = p.depth, heads = p.heads, classes = 10, learn_sigma = false,
        routing = sluice.routing.dtr { alpha = p.alpha, beta = p.beta }, seed = p.seed,
      },
      diffusion = sluice.diffusion { schedule = "cosine", predict = "x0", variance = "fixed_small" },
      loss = sluice.weight.custom(function(_, snr) return math.min(snr + 1, 5) end), -- a velocity loss, clipped
      optimizer = { lr = p.lr, betas = { 0.9, 0.99 }, clip = 1, schedule = sluice.schedule.cosine { warmup = 100, final = 0.01 } },
      ema = { decays = { 0.999 } },
      train = { steps = p.steps, batch = p.batch, seed = p.seed },
      -- guidance in the middle of the way only: digits that agree with their labels, and still differ from each other
      sample = {
        n = 200, labels = "balanced", cfg = 3, cfg_interval = { 200, 900 }, sampler = "ddim", steps = 25, eta = 0, clip = true, seed = 1,
        columns = 20,
      },
    }
  end,
}

if ... == "train" then return recipe end

local judge = require "judge"
local data = sluice.data.pack(here .. "data/digits/digits.pack")

local function draw(path, what, images, labels)
  sluice.save_png(path, images, { columns = 20 })
  print(("%s: %d digits %s"):format(path, #images, what))
  print("  " .. judge.text(judge.judge(images, labels, data)))
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
draw("quickstart.png", "of the model just trained, in " .. run.dir, run:sample())
draw("digits.png", "of models/digits.safetensors, which recipes/digits.lua trained longer",
  sluice.load(here .. "models/digits.safetensors"):sample())
