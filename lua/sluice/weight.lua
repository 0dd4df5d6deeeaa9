-- Loss weights: functions of (t, snr), evaluated once into a table over the steps of a diffusion.
local core = require "sluice.core"
local fields = require "sluice.fields"

--- sluice.Weight
--- A loss weight: a function of the timestep, for a recipe's `loss` and diffusion:losses. tostring names its kind.
--- @field kind string  "constant", "min_snr", "p2" or "custom"
--- @setup local weight = sluice.weight.min_snr(5)
local Weight = {}
Weight.__index = Weight
Weight.__name = "sluice.weight"

function Weight:__tostring()
  return ("sluice.weight.%s"):format(self.kind)
end

--- weight:table(diffusion) -> list
--- Its value for every step of a diffusion. It multiplies the squared error of what is predicted.
--- @param diffusion sluice.Diffusion
--- @return number[]
--- @example print(#weight:table(sluice.diffusion {}))  --> 1000
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

--- sluice.weight
--- Weights of the loss by timestep.
local weight = {}

--- sluice.weight.constant() -> weight
--- 1 everywhere.
--- @return sluice.Weight
--- @example print(sluice.weight.constant())  --> sluice.weight.constant
function weight.constant()
  return setmetatable({ kind = "constant" }, Weight)
end

--- sluice.weight.min_snr(gamma?) -> weight
--- With the signal-to-noise ratio snr: min(snr, gamma) / snr where the noise is predicted, min(snr, gamma) for x0, min(snr, gamma) /
--- (snr + 1) for v. Source: Hang et al. 2023, section 3.4.
--- @param gamma? number  5; above 0
--- @return sluice.Weight
--- @example print(sluice.weight.min_snr(5):table(sluice.diffusion {})[1] < 0.01)  --> true
function weight.min_snr(gamma)
  if gamma ~= nil and not (type(gamma) == "number" and gamma > 0) then
    error(("sluice.weight.min_snr: gamma is %s, expected a number above 0%s"):format(fields.what(gamma),
      type(gamma) == "table" and "; as a loss weight write sluice.weight.min_snr(5)" or ""), 2)
  end
  return setmetatable({ kind = "min_snr", gamma = gamma or 5 }, Weight)
end

--- sluice.weight.p2(options?) -> weight
--- 1 / (k + snr)^gamma. Source: Choi et al. 2022, equation 8.
--- @param options? table
--- @field gamma? number  1; not below 0
--- @field k? number  1; not below 0
--- @return sluice.Weight
--- @example print(sluice.weight.p2 { gamma = 0.5 })  --> sluice.weight.p2
function weight.p2(o)
  o = fields.check(o or {}, { "gamma", "k" }, "sluice.weight.p2", 2)
  local get = fields.get
  return setmetatable({
    kind = "p2", gamma = get(o, "gamma", "number", 1, "sluice.weight.p2", 2), k = get(o, "k", "number", 1, "sluice.weight.p2", 2),
  }, Weight)
end

--- sluice.weight.custom(f) -> weight
--- A weight of your own, evaluated once for every step of the diffusion.
--- @param f fun(t: integer, snr: number): number  t the original timestep; finite, not below 0
--- @return sluice.Weight
--- @example print(sluice.weight.custom(function(t, snr) return snr / (1 + snr) end):table(sluice.diffusion {})[1] > 0.99)  --> true
function weight.custom(f)
  if type(f) ~= "function" then error(("sluice.weight.custom: expected a function(t, snr), got %s"):format(fields.what(f)), 2) end
  return setmetatable({ kind = "custom", value = f }, Weight)
end

--- sluice.weight.is(value) -> boolean
--- Whether a value is one of sluice.weight.
--- @param value any
--- @return boolean
--- @example print(sluice.weight.is(1))  --> false
function weight.is(v)
  return getmetatable(v) == Weight
end

return weight
