-- How training draws t: a relative density over the steps.
local Timesteps = {}
Timesteps.__index = Timesteps
Timesteps.__name = "sluice.timesteps"

function Timesteps:__tostring()
  return "sluice.timesteps." .. self.kind
end

-- Densities of every step of the diffusion d as a Lua table, or nil when they are all the same.
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

local timesteps = {}

function timesteps.uniform()
  return setmetatable({ kind = "uniform" }, Timesteps)
end

-- f(t, T) -> relative density of the original timestep t.
function timesteps.custom(f)
  if type(f) ~= "function" then error("sluice.timesteps.custom: expected a function(t, T)", 2) end
  return setmetatable({ kind = "custom", value = f }, Timesteps)
end

function timesteps.is(v)
  return getmetatable(v) == Timesteps
end

return timesteps
