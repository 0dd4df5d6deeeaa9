-- How training draws t: a relative density over the steps.
local fields = require "sluice.fields"

--- sluice.Timesteps
--- How training draws t, for a recipe's `train.t_sampler`. tostring names its kind.
--- @field kind string  "uniform" or "custom"
--- @setup local timesteps = sluice.timesteps.custom(function(t, T) return t < T // 2 and 2 or 1 end)
local Timesteps = {}
Timesteps.__index = Timesteps
Timesteps.__name = "sluice.timesteps"

function Timesteps:__tostring()
  return "sluice.timesteps." .. self.kind
end

--- timesteps:density(diffusion) -> list?
--- How often each step of a diffusion is drawn, relatively; nil of sluice.timesteps.uniform.
--- @param diffusion sluice.Diffusion
--- @return number[]?
--- @example print(timesteps:density(sluice.diffusion {})[1000])  --> 1
function Timesteps:density(d)
  if not self.value then return nil end
  local values, timesteps, sum = {}, d.timesteps, 0
  for i = 1, d.steps do
    local w = self.value(timesteps[i], d.original_steps)
    if type(w) ~= "number" or w ~= w or w < 0 or w == math.huge then
      error(("%s at t = %d gives %s, expected a finite number not below 0"):format(tostring(self), timesteps[i], tostring(w)), 2)
    end
    values[i], sum = w, sum + w
  end
  if sum == 0 then error(tostring(self) .. ": the density is 0 everywhere", 2) end
  return values
end

--- sluice.timesteps
--- How training draws timesteps, for a recipe's `train.t_sampler`.
local timesteps = {}

--- sluice.timesteps.uniform() -> timesteps
--- All alike.
--- @return sluice.Timesteps
--- @example print(sluice.timesteps.uniform())  --> sluice.timesteps.uniform
function timesteps.uniform()
  return setmetatable({ kind = "uniform" }, Timesteps)
end

--- sluice.timesteps.custom(f) -> timesteps
--- A density of your own, evaluated once for every step of the diffusion.
--- @param f fun(t: integer, T: integer): number  relative density of the original timestep t = 0 … T-1; not below 0, not 0 everywhere
--- @return sluice.Timesteps
--- @example local late = sluice.timesteps.custom(function(t, T) return t / T end)
function timesteps.custom(f)
  if type(f) ~= "function" then error(("sluice.timesteps.custom: expected a function(t, T), got %s"):format(fields.what(f)), 2) end
  return setmetatable({ kind = "custom", value = f }, Timesteps)
end

--- sluice.timesteps.is(value) -> boolean
--- Whether a value is one of sluice.timesteps.
--- @param value any
--- @return boolean
--- @example print(sluice.timesteps.is(sluice.timesteps.uniform()))  --> true
function timesteps.is(v)
  return getmetatable(v) == Timesteps
end

return timesteps
