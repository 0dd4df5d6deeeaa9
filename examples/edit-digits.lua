-- Known images edited: drawn on below the middle (in-painting), drawn anew from half-way (image-to-image), mixed in their noise.
--   sluice run examples/edit-digits.lua [PICTURE [STEPS]]
local sluice = require "sluice"

local loaded = sluice.load "models/digits.safetensors"
local STEPS, N = math.tointeger(arg[2]) or 50, 10

-- Ten digits; each picture below begins from them.
local digits = loaded:sample { n = N, labels = "balanced", steps = STEPS, seed = 2 }

-- The upper half stays, the lower is drawn: by the label, the digit that follows.
local function in_paint()
  local mask = sluice.cat(sluice.zeros { 1, 1, 14, 28 }, sluice.ones { 1, 1, 14, 28 }, 3)
  local labels = {}
  for i = 1, N do labels[i] = i % 10 end
  return loaded:sample { labels = labels, steps = STEPS, seed = 3, init = digits, mask = mask }
end

-- Noised to where `start` of the steps are left, and drawn again: the fewer, the more alike.
local function draw_anew(start)
  return loaded:sample { n = N, labels = "balanced", steps = STEPS, seed = 4, init = digits, start = start }
end

-- The noise that a deterministic sampler would make these images of.
local function encode(images, label)
  local d = loaded.diffusion:respace(tostring(STEPS))
  local x, map = images, d.timesteps
  local y = sluice.full({ images:shape()[1] }, label, { dtype = "i64" })
  for i = 0, STEPS - 1 do x = d:ddim_reverse(loaded.model:forward(x, map[i + 1], y), x, i) end
  return x
end

-- From one digit to another of its kind: on the great circle between their noises.
local function between(label)
  local two = loaded:sample { n = 2, labels = label, steps = STEPS, seed = 5 }
  local noise, weights = encode(two, label), {}
  for k = 1, N do weights[k] = (k - 1) / (N - 1) end
  local path = sluice.slerp(noise[1], noise[2], weights)
  return loaded:sample { n = N, labels = label, steps = STEPS, sampler = "ddim", clip = false, cfg = 1, noise = path }
end

local rows = { digits, in_paint(), draw_anew(STEPS * 3 // 5), draw_anew(STEPS * 9 // 10), between(3) }
sluice.save_png(arg[1] or "edit-digits.png", sluice.cat(rows[1], rows[2], rows[3], rows[4], rows[5], 1), { columns = N, scale = 2 })
