-- Between two noises.
local core = require "sluice.core"
local fields = require "sluice.fields"
local sluice = require "sluice"

local interpolate = {}

local function check(a, b)
  if not (sluice.is_tensor(a) and sluice.is_tensor(b)) or a:shape() ~= b:shape() then
    error(("sluice.slerp: a is %s, b is %s, expected two tensors of one shape, [C,H,W] or [n,C,H,W]"):format(fields.what(a),
      fields.what(b)), 3)
  end
  if #a:shape() ~= 3 and #a:shape() ~= 4 then
    error(("sluice.slerp: a is %s, expected [C,H,W] or [n,C,H,W]"):format(fields.what(a)), 3)
  end
end

local function weights_of(weights, n)
  local list = weights
  if type(weights) == "number" then
    list = {}
    for k = 1, n do list[k] = weights end
  elseif sluice.is_tensor(weights) then
    list = weights:totable()
  end
  if type(list) ~= "table" or #list == 0 then
    error(("sluice.slerp: weights is %s, expected a number or a list of numbers from 0 (a) to 1 (b)"):format(tostring(weights)), 3)
  end
  if n > 1 and #list ~= n then
    error(("sluice.slerp: %d weights for %d pairs, expected a number, or one weight for each pair"):format(#list, n), 3)
  end
  for k, w in ipairs(list) do
    if type(w) ~= "number" or w ~= w or w < 0 or w > 1 then
      error(("sluice.slerp: weight %d is %s, expected a number from 0 (a) to 1 (b)"):format(k, tostring(w)), 3)
    end
  end
  return list
end

-- The factors of a and b at weight w, for the angle between them.
local function factors(angle, w)
  local s = math.sin(angle)
  if s < 1e-4 then return 1 - w, w end -- as good as a straight line
  return math.sin((1 - w) * angle) / s, math.sin(w * angle) / s
end

local function angle_between(a, b)
  local na, nb = a:norm():item(), b:norm():item()
  if na == 0 or nb == 0 then return 0 end
  local cosine = (a * b):sum():item() / (na * nb)
  if cosine < -0.99999 then error("sluice.slerp: a and b point in opposite directions: many great circles join them", 3) end
  return math.acos(math.max(-1, math.min(1, cosine)))
end

--- sluice.slerp(a, b, weights) -> tensor
--- Noises on the great circle from a to b, for the `noise` of sluice.sample: they are as long as noise is, unlike those on a straight line.
---@param a sluice.Tensor  [C,H,W], or [n,C,H,W]: each image with its partner in b
---@param b sluice.Tensor  of a's shape
---@param weights number|number[]  from 0 (a) to 1 (b); a list gives an image each: m for one pair, one for each of n pairs
---@return sluice.Tensor  f32 [m,C,H,W]
---@example local noise = sluice.slerp(sluice.randn { 1, 28, 28 }, sluice.randn { 1, 28, 28 }, { 0, 0.5, 1 })
function interpolate.slerp(a, b, weights)
  check(a, b)
  a, b = a:to "f32", b:to "f32"
  local shape = a:shape()
  if #shape == 3 then
    a, b = a:reshape { 1, table.unpack(shape) }, b:reshape { 1, table.unpack(shape) }
    shape = a:shape()
  end
  local n, parts, angle = shape[1], {}, nil
  for k, w in ipairs(weights_of(weights, n)) do
    local at = n > 1 and k or 1
    local from, to = a:slice(1, at, at), b:slice(1, at, at)
    if n > 1 or k == 1 then angle = angle_between(from, to) end
    local fa, fb = factors(angle, w)
    parts[k] = from * fa + to * fb
  end
  return #parts > 1 and core.join(parts) or parts[1]
end

return interpolate
