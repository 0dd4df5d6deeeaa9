-- Draws the pictures of docs/guide/mask-workshop.md: DTR's masks, windows and shared channels, a mask of one's own, and digits of three
-- small models that differ in nothing but the mask.
--   sluice run examples/mask-workshop.lua [FOLDER [STEPS]]        (docs/guide, 3000)
local sluice = require "sluice"

local here = debug.getinfo(1, "S").source:match("^@(.*)examples/[^/]*$") or ""
local folder, steps = arg and arg[1] or here .. "docs/guide", math.tointeger(arg and arg[2] or 3000)
local routing = sluice.routing

local function save(name, image, options)
  local path = ("%s/masks-%s.png"):format(folder, name)
  sluice.save_png(path, image, options)
  print(path)
end

local dtr = routing.dtr { alpha = 4, beta = 0.8 }

-- Four lanes: channels of its own for every quarter of the timesteps, and three quarters of the channels for all.
local lanes = routing.custom(function(t, T, C)
  local lane, quarter = C // 16, 4 * t // T
  local shared, row = C - 4 * lane, {}
  for c = 1, C do
    row[c] = c <= shared or (c - shared - 1) // lane == quarter
  end
  return row
end)

-- --- looking ---

local alphas, by_alpha = { 0.5, 1, 2, 4, 8 }, {}
for i, alpha in ipairs(alphas) do by_alpha[i] = routing.dtr { alpha = alpha } end

save("figure2", routing.picture({ routing.random {}, table.unpack(by_alpha) }, { C = 128, width = 250 }), { columns = 3, pad = 6 })
save("starts", routing.starts(by_alpha, { C = 128, top = 27 }))
save("overlap", routing.picture({ dtr:overlap { C = 128 }, routing.random {}:overlap { C = 128 }, lanes:overlap { C = 128 } },
  { lo = 0.6, width = 250, height = 250 }), { columns = 3, pad = 6 })
save("lanes", lanes:picture { C = 128 })
for i, alpha in ipairs(alphas) do print(("alpha = %g\n%s"):format(alpha, by_alpha[i]:dedicated { C = 128 })) end
print(("lanes\n%s"):format(lanes:dedicated { C = 128 }))

-- --- training ---

local masks = { none = routing.none(), dtr = dtr, lanes = lanes }
local recipe = sluice.recipe {
  defaults = { mask = "none", steps = steps, seed = 0 },
  function(p)
    return {
      data = sluice.data.pack(here .. "data/digits/digits.pack"),
      model = sluice.dit {
        input = { 1, 28, 28 }, patch = 7, hidden = 128, depth = 4, heads = 4, classes = 10, learn_sigma = false,
        routing = assert(masks[p.mask], p.mask), seed = p.seed,
      },
      diffusion = sluice.diffusion { schedule = "cosine", predict = "x0", variance = "fixed_small" },
      loss = sluice.weight.custom(function(_, snr) return math.min(snr + 1, 5) end),
      optimizer = { lr = 3e-3, betas = { 0.9, 0.99 }, clip = 1, schedule = sluice.schedule.cosine { warmup = 100, final = 0.01 } },
      ema = { decays = { 0.999 } },
      train = {
        steps = p.steps, batch = 32, seed = p.seed, holdout = 1000, every = { sample = 0, holdout = p.steps }, keep = { last = 1 },
      },
      sample = { n = 10, labels = "balanced", cfg = 3, cfg_interval = { 200, 900 }, sampler = "ddim", steps = 25, clip = true, seed = 1 },
    }
  end,
}
local out = "sweeps/masks-" .. steps
local rows = sluice.sweep { base = recipe, grid = { mask = { "none", "dtr", "lanes" } }, seeds = { 0, 1 }, out = out }
print(rows)

-- One row for each mask of seed 0; in a column the same noise and label.
local samples = {}
for i = 1, 3 do samples[i] = sluice.load(rows[i].run):sample { n = 10 } end
save("digits", sluice.cat(samples, 1), { columns = 10, scale = 2 })
