-- Whether a recipe whose mask, loss weight, learning-rate schedule and loss are Lua trains as fast as one of built-in parts:
--   sluice run tests/bench/lua_recipe.lua [pairs] [hidden] [depth] [batch]     (300, 256, 6, 32)
-- Both train the same network on digits; blocks of steps are timed in turn (ABBA), and the geometric mean of the ratios Lua / built-in is
-- printed with its 95% interval (Student's t over the pairs).
local sluice = require "sluice"
local core = require "sluice.core"
local train_options = require "sluice.train_options"

local here = debug.getinfo(1, "S").source:match("^@(.*)tests/bench/[^/]*$") or ""
local PAIRS, HIDDEN, DEPTH, BATCH = 300, 256, 6, 32
if arg then
  PAIRS, HIDDEN = tonumber(arg[1]) or PAIRS, tonumber(arg[2]) or HIDDEN
  DEPTH, BATCH = tonumber(arg[3]) or DEPTH, tonumber(arg[4]) or BATCH
end
local BLOCK_SECONDS <const> = 0.1

local built_in = {
  routing = sluice.routing.dtr { alpha = 4, beta = 0.8 },
  loss = sluice.weight.min_snr(5),
  schedule = sluice.schedule.cosine { warmup = 100 },
}

local own = {
  routing = sluice.routing.custom(function(t, T, C)
    local width = math.floor(0.8 * C)
    local first = math.floor((t / (T - 1)) ^ 4 * (C - width) + 0.5) + 1
    return first, first + width - 1
  end),
  loss = {
    function(s) return (s.out - s.noise):square():mean { 2, 3, 4 } * s.weight end,
    weight = sluice.weight.custom(function(_, snr) return math.min(snr, 5) / snr end),
  },
  schedule = function(step, total)
    if step < 100 then return (step + 1) / 100 end
    return 0.5 * (1 + math.cos(math.pi * (step - 100) / (total - 100)))
  end,
}

local function trainer_of(parts)
  local d = sluice.recipe {
    function()
      return {
        data = sluice.data.pack(here .. "data/digits/digits.pack"),
        model = sluice.dit {
          input = { 1, 28, 28 }, patch = 4, hidden = HIDDEN, depth = DEPTH, heads = 4, classes = 10, learn_sigma = false,
          routing = parts.routing,
        },
        diffusion = sluice.diffusion { schedule = "cosine", predict = "eps", variance = "fixed_small" },
        loss = parts.loss,
        optimizer = { lr = 1e-4, schedule = parts.schedule },
        ema = { decays = { 0.999 } },
        train = { steps = 100000, batch = BATCH },
      }
    end,
  }:resolve()
  return core.trainer((train_options.of(d)))
end

local function seconds(trainer, steps)
  local start = core.clock()
  for _ = 1, steps do trainer:step() end
  return core.clock() - start
end

-- Student's t for 97.5% by degrees of freedom 19 …, from tables; beyond 60 the normal's.
local function student(n)
  return n >= 60 and 2.0 or n >= 39 and 2.02 or n >= 29 and 2.05 or 2.10
end

local a, b = trainer_of(built_in), trainer_of(own)
local first, second = a:step().loss, b:step().loss
print(("first losses: built-in %.6f, Lua %.6f"):format(first, second))
seconds(a, 5)
seconds(b, 5)
local steps = math.max(1, math.floor(BLOCK_SECONDS / (seconds(a, 5) / 5)))
local logs, time = {}, 0
for i = 1, PAIRS do
  local x, y
  if i % 2 == 1 then
    x = seconds(a, steps)
    y = seconds(b, steps)
  else
    y = seconds(b, steps)
    x = seconds(a, steps)
  end
  logs[i], time = math.log(y / x), time + x
end
local mean, spread = 0, 0
for _, v in ipairs(logs) do mean = mean + v / PAIRS end
for _, v in ipairs(logs) do spread = spread + (v - mean) ^ 2 / (PAIRS - 1) end
local half = student(PAIRS - 1) * math.sqrt(spread / PAIRS)
print(("%d pairs of %d steps, %.2f ms a step: ratio Lua / built-in %.4f, 95%% interval %.4f to %.4f"):format(PAIRS, steps,
  time / PAIRS / steps * 1e3, math.exp(mean), math.exp(mean - half), math.exp(mean + half)))
