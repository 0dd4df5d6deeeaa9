-- Operations that are made of others: functions of sluice, and methods of tensors, concrete or symbolic alike.
local sluice = require "sluice"

local compose = {}

local function check(x, name)
  if not sluice.is_tensor(x) then error(("%s: x is %s, expected a tensor"):format(name, tostring(x)), 3) end
end

-- A dimension counted from 1, or from the end with -1, as one from 1 to rank.
local function dimension(dim, rank, name)
  if math.type(dim) ~= "integer" or dim == 0 or dim > rank or dim < -rank then
    error(("%s: dimension %s is outside 1 to %d"):format(name, tostring(dim), rank), 3)
  end
  return dim > 0 and dim or dim + rank + 1
end

--- tensor:squeeze(dim?) -> tensor
--- Without the dimension dim, which must be 1 long; without all that are, if none is named. A view.
---@param dim? integer  from 1, or from the end with -1
---@return sluice.Tensor
---@example print(sluice.zeros({ 1, 3, 1 }):squeeze():shape())
function compose.squeeze(x, dim)
  check(x, "squeeze")
  local shape, to = x:shape(), {}
  if dim ~= nil then
    dim = dimension(dim, #shape, "squeeze")
    if shape[dim] ~= 1 then error(("squeeze: dimension %d of %s is not 1"):format(dim, tostring(shape)), 2) end
  end
  for i, n in ipairs(shape) do
    if n ~= 1 or dim and i ~= dim then to[#to + 1] = n end
  end
  return x:reshape(to)
end

--- tensor:unsqueeze(dim) -> tensor
--- With one more dimension, 1 long, at place dim. A view.
---@param dim integer  from 1, or from the end with -1
---@return sluice.Tensor
---@example print(sluice.zeros({ 3 }):unsqueeze(1):shape())
function compose.unsqueeze(x, dim)
  check(x, "unsqueeze")
  local shape = x:shape()
  local to = table.move(shape, 1, #shape, 1, {})
  table.insert(to, dimension(dim, #shape + 1, "unsqueeze"), 1)
  return x:reshape(to)
end

--- tensor:flatten(first?, last?) -> tensor
--- The dimensions first … last as one.
---@param first? integer  1
---@param last? integer  -1
---@return sluice.Tensor
---@example print(sluice.zeros({ 2, 3, 4 }):flatten(2):shape())
function compose.flatten(x, first, last)
  check(x, "flatten")
  local shape, to = x:shape(), {}
  if #shape == 0 then return x:reshape { 1 } end
  first, last = dimension(first or 1, #shape, "flatten"), dimension(last or -1, #shape, "flatten")
  if last < first then error(("flatten: dimension %d comes before %d"):format(last, first), 2) end
  for i, n in ipairs(shape) do
    if i > first and i <= last then to[#to] = to[#to] * n else to[#to + 1] = n end
  end
  return x:reshape(to)
end

--- tensor:argmin(dim?) -> tensor
--- Where the least element of a dimension lies, as argmax.
---@param dim? integer  -1
---@return sluice.Tensor
---@example print(sluice.tensor({ 3, 1, 2 }):argmin())
function compose.argmin(x, dim)
  check(x, "argmin")
  return (-x):argmax(dim)
end

--- tensor:var(dims?, keepdim?) -> tensor
--- The mean of the squared distances from the mean: numpy's var, and torch's with unbiased = false.
---@param dims? integer|integer[]  all
---@param keepdim? boolean  false
---@return sluice.Tensor
---@example print(sluice.tensor({ 1, 2, 3, 4 }):var())
function compose.var(x, dims, keepdim)
  check(x, "var")
  return (x - x:mean(dims or {}, true)):square():mean(dims or {}, keepdim or false)
end

--- tensor:std(dims?, keepdim?) -> tensor
--- The square root of var.
---@param dims? integer|integer[]  all
---@param keepdim? boolean  false
---@return sluice.Tensor
---@example print(sluice.tensor({ 1, 2, 3, 4 }):std())
function compose.std(x, dims, keepdim)
  check(x, "std")
  return compose.var(x, dims, keepdim):sqrt()
end

--- tensor:ceil() -> tensor
--- The next whole number, upwards.
---@return sluice.Tensor
---@example print(sluice.tensor({ 1.2, -1.2 }):ceil())
function compose.ceil(x)
  check(x, "ceil")
  return -(-x):floor()
end

--- tensor:any(dims?, keepdim?) -> tensor
--- 1 where some element is not 0, else 0.
---@param dims? integer|integer[]  all
---@param keepdim? boolean  false
---@return sluice.Tensor
---@example print(sluice.tensor({ 0, 2 }):any())
function compose.any(x, dims, keepdim)
  check(x, "any")
  return x:ne(0):to("f32"):max(dims or {}, keepdim or false):to "u8"
end

--- tensor:all(dims?, keepdim?) -> tensor
--- 1 where no element is 0, else 0.
---@param dims? integer|integer[]  all
---@param keepdim? boolean  false
---@return sluice.Tensor
---@example print(sluice.tensor({ 0, 2 }):all())
function compose.all(x, dims, keepdim)
  check(x, "all")
  return x:ne(0):to("f32"):min(dims or {}, keepdim or false):to "u8"
end

--- tensor:isnan() -> tensor
--- u8: 1 where an element is not a number.
---@return sluice.Tensor
---@example print(sluice.tensor({ 1, 0 / 0 }):isnan())
function compose.isnan(x)
  check(x, "isnan")
  return x:ne(x)
end

--- tensor:isfinite() -> tensor
--- u8: 1 where an element is neither infinite nor not a number.
---@return sluice.Tensor
---@example print(sluice.tensor({ 1, 1 / 0 }):isfinite())
function compose.isfinite(x)
  check(x, "isfinite")
  return (x - x):eq(0)
end

--- tensor:zeros_like() -> tensor
--- Zeros of the shape and dtype of a tensor.
---@return sluice.Tensor
---@example print(sluice.ones({ 2 }):zeros_like())
function compose.zeros_like(x)
  check(x, "zeros_like")
  return sluice.zeros(x:shape(), { dtype = x:dtype(), device = x:device() })
end

--- tensor:ones_like() -> tensor
--- Ones of the shape and dtype of a tensor.
---@return sluice.Tensor
---@example print(sluice.zeros({ 2 }):ones_like())
function compose.ones_like(x)
  check(x, "ones_like")
  return sluice.ones(x:shape(), { dtype = x:dtype(), device = x:device() })
end

--- tensor:randn_like(options?) -> tensor
--- Normal deviates of the shape of a tensor, f32 unless it is bf16.
---@param options? table
---@field seed? integer  without one the next of sluice.seed's count
---@field dtype? string  as the tensor's, if it is bf16, else f32
---@field device? string  the tensor's
---@return sluice.Tensor
---@example print(sluice.zeros({ 2 }):randn_like { seed = 1 })
function compose.randn_like(x, options)
  check(x, "randn_like")
  local o = { dtype = x:dtype() == "bf16" and "bf16" or nil, device = x:device() }
  for k, v in pairs(options or {}) do o[k] = v end
  return sluice.randn(x:shape(), o)
end

--- tensor:allclose(other, options?) -> boolean
--- Whether |x - other| <= atol + rtol * |other| everywhere; shapes broadcast.
---@param other sluice.Tensor|number
---@param options? table
---@field rtol? number  1e-5
---@field atol? number  1e-8
---@return boolean
---@example print(sluice.ones({ 2 }):allclose(1 + 1e-7))
function compose.allclose(x, other, options)
  check(x, "allclose")
  local o = require("sluice.fields").check(options or {}, { "rtol", "atol" }, "allclose", 2)
  local bound = sluice.tensor(other):abs() * (o.rtol or 1e-5) + (o.atol or 1e-8)
  return compose.all((x - other):abs():le(bound)):item() == 1
end

compose.methods = {}
for name, f in pairs(compose) do
  if type(f) == "function" then compose.methods[name] = f end
end

--- sluice.eye(n, options?) -> tensor
--- The n by n identity.
---@param n integer
---@param options? table
---@field dtype? string  "f32"
---@field device? string  "cpu"
---@return sluice.Tensor
---@example print(sluice.eye(3))
function compose.eye(n, options)
  local t = sluice.zeros({ n, n }, options)
  for i = 1, n do t[{ i, i }] = 1 end
  return t
end

--- sluice.linspace(first, last, n, options?) -> tensor
--- n numbers at equal distances, both ends included.
---@param first number
---@param last number
---@param n integer
---@param options? table
---@field dtype? string  "f32"
---@field device? string  "cpu"
---@return sluice.Tensor
---@example print(sluice.linspace(0, 1, 5))
function compose.linspace(first, last, n, options)
  if math.type(n) ~= "integer" or n < 1 then error(("linspace: n is %s, expected at least 1"):format(tostring(n)), 2) end
  local list = {}
  for i = 1, n do list[i] = first + (last - first) * (n > 1 and (i - 1) / (n - 1) or 0) end
  return sluice.tensor(list, options)
end

return compose
