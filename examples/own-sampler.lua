-- Samplers of one's own: a function that is called once a step and returns the next x.
--   sluice run examples/own-sampler.lua [CHECKPOINT [PICTURE]]
local sluice = require "sluice"

-- Song et al. 2021, equation 12, without noise: what sampler = "ddim" does.
local function ddim(s)
  local a = s.alpha_cumprod_prev
  return s.x0 * math.sqrt(a) + s.eps * math.sqrt(1 - a)
end

-- Heun's second order, along the angle phi of x = cos(phi) x0 + sin(phi) eps, where dx/dphi is v (Salimans and Ho 2022): a step of
-- Euler, and again with the mean of the slopes at both of its ends. Two runs of the network a step.
local function heun(s)
  local function v(x0, eps, alpha) return eps * math.sqrt(alpha) - x0 * math.sqrt(1 - alpha) end
  local a, b = s.alpha_cumprod, s.alpha_cumprod_prev
  if b > 0.999 then return ddim(s) end -- next to no noise is left, and a slope there says nothing
  local h, slope = math.acos(math.sqrt(b)) - math.acos(math.sqrt(a)), v(s.x0, s.eps, a)
  local x0, eps = s:predict(s.x + slope * h, s.t_next)
  return s.x + (slope + v(x0, eps, b)) * (h / 2)
end

-- DPM-Solver++(2M), Lu et al. 2022, algorithm 2: one run of the network a step, and the last step's x0.
local function dpm_solver(s)
  local function lambda(a) return math.log(a / (1 - a)) / 2 end
  local a, b, last = s.alpha_cumprod, s.alpha_cumprod_prev, s.state
  local x0 = s.x0
  if not s.t_next then return x0 end
  local h, d = lambda(b) - lambda(a), x0
  if last.x0 then d = x0 + (x0 - last.x0) * (h / last.h / 2) end
  last.x0, last.h = x0, h
  return s.x * math.sqrt((1 - b) / (1 - a)) - d * (math.sqrt(b) * (math.exp(-h) - 1))
end

local loaded = sluice.load(arg[1] or "models/digits.safetensors")
local rows = {}
for _, row in ipairs { { "ddim", ddim, 10 }, { "heun", heun, 5 }, { "dpm-solver++", dpm_solver, 10 } } do
  rows[#rows + 1] = loaded:sample { n = 10, labels = "balanced", steps = row[3], seed = 1, sampler = row[2] }
  print(("%-13s %2d steps, mean %.4f"):format(row[1], row[3], rows[#rows]:mean():item()))
end
sluice.save_png(arg[2] or "own-sampler.png", sluice.cat(rows[1], rows[2], rows[3], 1), { columns = 10 })
