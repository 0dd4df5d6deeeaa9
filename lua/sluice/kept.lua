-- keep = …: images at some steps of a sampling, beside its result.
local core = require "sluice.core"
local fields = require "sluice.fields"

local Kept = {}
Kept.__index = Kept

local kept = {}

local function bad(what, keep, level)
  error(("%s: keep is %s, expected a number of steps, a list of steps, or { steps = either, what = \"x0\" or \"x\" }"):format(what,
    tostring(keep)), level + 1)
end

-- { number of steps … } or n of them, spread evenly up to the last.
local function spread(n, steps)
  local list = {}
  for k = 1, n do list[k] = (k * steps + n - 1) // n end
  return list
end

local function steps_of(keep, steps, what, level)
  level = level + 1
  if math.type(keep) == "integer" then
    if keep < 1 or keep > steps then error(("%s: keep is %d, expected 1 to %d (steps)"):format(what, keep, steps), level) end
    return spread(keep, steps)
  end
  if type(keep) ~= "table" or #keep == 0 then bad(what, keep, level) end
  for k, i in ipairs(keep) do
    if math.type(i) ~= "integer" or i < 1 or i > steps or (k > 1 and i <= keep[k - 1]) then
      error(("%s: keep[%d] is %s, expected steps from 1 to %d in rising order"):format(what, k, tostring(i), steps), level)
    end
  end
  return keep
end

-- What keep = … asks for, for a sampling of so many steps; nil for nil.
function kept.new(keep, steps, what, level)
  level = level + 1
  if keep == nil then return nil end
  local which = "x0"
  if type(keep) == "table" and #keep == 0 then
    fields.check(keep, { "steps", "what" }, what .. ": keep", level)
    which = fields.get(keep, "what", "string", "x0", what .. ": keep", level)
    if which ~= "x0" and which ~= "x" then
      error(('%s: keep.what is "%s", expected "x0" (the image predicted) or "x"'):format(what, which), level)
    end
    keep = keep.steps
  end
  local list = steps_of(keep, steps, what, level)
  local wanted = {}
  for _, i in ipairs(list) do wanted[i] = true end
  return setmetatable({ which = which, wanted = wanted, count = #list, parts = {} }, Kept)
end

-- Begins with the next batch.
function Kept:begin()
  self.part, self.steps, self.t = {}, {}, {}
  self.parts[#self.parts + 1] = self.part
end

-- Looks at a sampler after a step.
function Kept:see(s)
  if not self.wanted[s.i] then return end
  local image = s[self.which]
  if not image then error("sluice.sample: keep asks for x0, and the sampler's function asked for no prediction at s.x", 0) end
  self.part[#self.part + 1] = image:to("cpu"):clone()
  self.steps[#self.steps + 1], self.t[#self.t + 1] = s.i, s.t
end

-- { x0 (or x) = [m, n, C, H, W], steps = list, t = list }; fewer steps where on_step ended one of the batches. n: images.
function Kept:result(n)
  local least = math.huge
  for _, part in ipairs(self.parts) do least = math.min(least, #part) end
  local stack = {}
  for k = 1, least do
    local rows = {}
    for b, part in ipairs(self.parts) do rows[b] = part[k] end
    local all = #rows > 1 and core.join(rows) or rows[1]
    if all:shape()[1] > n then all = all:slice(1, 1, n) end
    stack[k] = all:reshape { 1, table.unpack(all:shape()) }
  end
  local steps, t = table.move(self.steps, 1, least, 1, {}), table.move(self.t, 1, least, 1, {})
  return { [self.which] = least > 1 and core.join(stack) or stack[1], steps = steps, t = t }
end

return kept
