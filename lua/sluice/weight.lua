-- Loss weights: functions of (t, snr), evaluated once into a table over the steps of a diffusion.
local core = require "sluice.core"
local fields = require "sluice.fields"

local Weight = {}
Weight.__index = Weight
Weight.__name = "sluice.weight"

function Weight:__tostring()
  return ("sluice.weight.%s"):format(self.kind)
end

-- The weight of every step of the diffusion d, a list. It multiplies the squared error of what is predicted.
function Weight:table(d)
  if self.kind ~= "custom" then return core.weight_table(d, self.kind, self.gamma, self.k) end
  local values, alphas, timesteps = {}, d.alphas_cumprod64, d.timesteps
  for i = 1, d.steps do
    local w = self.value(timesteps[i], alphas[i] / (1 - alphas[i]))
    if type(w) ~= "number" or w ~= w or w < 0 or w == math.huge then
      error(("%s at t = %d gives %s, expected a finite number not below 0"):format(tostring(self), timesteps[i], tostring(w)), 2)
    end
    values[i] = w
  end
  return values
end

local weight = {}

local P2 = fields.share("sluice.weight.p2", { "gamma", "k" })

function weight.constant()
  return setmetatable({ kind = "constant" }, Weight)
end

-- Source: Hang et al. 2023, "Efficient Diffusion Training via Min-SNR Weighting Strategy", section 3.4.
function weight.min_snr(gamma)
  if gamma ~= nil and not (type(gamma) == "number" and gamma > 0) then
    error(("sluice.weight.min_snr: gamma is %s, expected a number above 0"):format(tostring(gamma)), 2)
  end
  return setmetatable({ kind = "min_snr", gamma = gamma or 5 }, Weight)
end

-- Source: Choi et al. 2022, "Perception Prioritized Training of Diffusion Models", equation 8.
function weight.p2(o)
  o = fields.check(o or {}, P2, "sluice.weight.p2", 2)
  local get = fields.get
  return setmetatable({
    kind = "p2", gamma = get(o, "gamma", "number", 1, "sluice.weight.p2", 2), k = get(o, "k", "number", 1, "sluice.weight.p2", 2),
  }, Weight)
end

-- f(t, snr) -> weight, t the original timestep.
function weight.custom(f)
  if type(f) ~= "function" then error("sluice.weight.custom: expected a function(t, snr)", 2) end
  return setmetatable({ kind = "custom", value = f }, Weight)
end

function weight.is(v)
  return getmetatable(v) == Weight
end

return weight
