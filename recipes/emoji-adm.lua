-- Emoji of 32 x 32 from a small ADM with task routing, in half an hour on two cores.
--   sluice train recipes/emoji-adm.lua --out runs/emoji
--   sluice train recipes/emoji-adm.lua --out runs/emoji-none --set routing=none    the baseline; sampled from the same noise
--   sluice sample runs/emoji -n 36 -o emoji.png
local sluice = require "sluice"

local here = debug.getinfo(1, "S").source:match("^@(.*)recipes/[^/]*$") or ""

local routings = {
  dtr = function(p) return sluice.routing.dtr { alpha = p.alpha, beta = p.beta } end,
  random = function(p) return sluice.routing.random { beta = p.beta, seed = p.seed } end,
  none = function() return sluice.routing.none() end,
}

local recipe = sluice.recipe {
  defaults = {
    routing = "dtr", alpha = 4, beta = 0.8, mask_at = "in_silu", channels = 32, dropout = 0.1, lr = 1e-3, steps = 13000, batch = 32,
    precision = "bf16", seed = 0, checkpoint = 500, preview = 1000,
  },
  function(p)
    local pack = sluice.data.pack(here .. "data/emoji/emoji.pack")
    local images, labels = pack:all() -- 64 x 64; means of 2 x 2 pixels make the smaller ones
    local routing = routings[p.routing] or error("routing is " .. p.routing .. ", expected dtr, random or none", 0)
    return {
      name = "emoji-adm",
      data = sluice.data.tensors { images = sluice.downsample(images, 2), labels = labels },
      model = sluice.adm {
        image_size = 32, out_channels = 3, model_channels = p.channels, num_res_blocks = 1, channel_mult = { 1, 2, 4 },
        attention_resolutions = { 8 }, num_head_channels = 32, use_scale_shift_norm = true, conv_resample = false, dropout = p.dropout,
        classes = #pack:names(), class_dropout = 0.1, routing = routing(p), mask_at = p.mask_at, seed = p.seed,
      },
      diffusion = sluice.diffusion { schedule = "cosine", predict = "x0", variance = "fixed_small" },
      loss = sluice.weight.custom(function(_, snr) return math.min(snr + 1, 5) end), -- a velocity loss, clipped
      optimizer = { lr = p.lr, betas = { 0.9, 0.99 }, clip = 1, schedule = sluice.schedule.cosine { warmup = 100, final = 0.01 } },
      ema = { decays = { 0.999 } },
      train = {
        steps = p.steps, batch = p.batch, seed = p.seed, flip = true, precision = p.precision,
        every = { checkpoint = p.checkpoint, sample = p.preview },
      },
      sample = { n = 36, labels = "balanced", cfg = 4, sampler = "ddim", steps = 50, eta = 0, clip = true, seed = 1, columns = 9 },
    }
  end,
}

return recipe
