-- Judges samples against the images that a model was trained on, by nearest neighbours in pixels (L2):
--   sluice run recipes/judge.lua RUN|CHECKPOINT [n=200] [seed=1] [cfg=…] …   draws n samples and judges them
-- or, in a recipe's code,  require "judge" (samples, labels, data).
--   agreement  share of samples whose nearest training image has the label that was asked for
--   diversity  mean distance between samples of one class over that of real images of one class
--   distance   median distance of a sample to the nearest training image over the real images' leave-one-out median
--   copies     samples whose pixels, as bytes, are those of a training image
--   real       the real images' own leave-one-out agreement
local sluice = require "sluice"

local function flat(images)
  return images:reshape { images:shape()[1], -1 }
end

local function as_bytes(images)
  return images:add(1):mul(127.5):round():clamp(0, 255)
end

local function median(t)
  local list = t:totable()
  table.sort(list)
  local n = #list
  return n % 2 == 1 and list[n // 2 + 1] or (list[n // 2] + list[n // 2 + 1]) / 2
end

-- Squared distances [n, m] of the rows of a [n, d] and b [m, d].
local function squared(a, b)
  return (a:square():sum(2, true) + b:square():sum(2):reshape { 1, -1 } - a:matmul(b:permute { 2, 1 }) * 2):clamp(0, math.huge)
end

-- Nearest row of b for each row of a: distances [n] and row numbers (from 0) [n]. first: a are b's rows first …, no neighbours of themselves.
local function nearest(a, b, first)
  local d = squared(a, b)
  if first then
    local n, m = a:shape()[1], b:shape()[1]
    local rows, columns = sluice.arange(n):add(first - 1):reshape { n, 1 }, sluice.arange(m):reshape { 1, m }
    d = d + rows:eq(columns):to("f32") * 1e9
  end
  return d:min(2):sqrt(), d:neg():argmax(2)
end

local function spread(rows)
  local n = rows:shape()[1]
  if n < 2 then return 0 end
  return squared(rows, rows):sqrt():sum():item() / (n * (n - 1))
end

-- The rows of each class, as a list over the classes.
local function by_class(rows, labels)
  local places, classes = {}, 0
  for i, k in ipairs(labels:totable()) do
    places[k] = places[k] or {}
    table.insert(places[k], i - 1)
    classes = math.max(classes, k + 1)
  end
  local parts = {}
  for k = 0, classes - 1 do
    if places[k] then parts[#parts + 1] = rows:gather(sluice.tensor(places[k], { dtype = "i64" })) end
  end
  return parts
end

local function mean_spread(rows, labels)
  local sum, n = 0, 0
  for _, part in ipairs(by_class(rows, labels)) do
    sum, n = sum + spread(part), n + 1
  end
  return sum / n
end

local function share(a, b)
  return a:eq(b):to("f32"):mean():item()
end

-- What is known of the real images alone.
local function measure_real(rows, labels)
  local distances, agree, n, step = {}, 0, rows:shape()[1], 1000
  for first = 1, n, step do
    local last = math.min(first + step - 1, n)
    local d, at = nearest(rows:slice(1, first, last), rows, first)
    for _, v in ipairs(d:totable()) do distances[#distances + 1] = v end
    agree = agree + share(labels:gather(at), labels:slice(1, first, last)) * (last - first + 1)
  end
  return { agreement = agree / n, median = median(sluice.tensor(distances)), spread = mean_spread(rows, labels) }
end

-- samples f32 [n,C,H,W] in [-1,1] and labels i64 [n]; data: a sluice.data of the training images.
local function judge(samples, labels, data)
  local images, truth = data:all()
  local rows, x = flat(images), flat(samples)
  local real = measure_real(rows, truth)
  local d, at = nearest(x, rows)
  local apart = (as_bytes(x) - as_bytes(rows:gather(at))):abs():max(2) -- 0: the same bytes
  return {
    agreement = share(truth:gather(at), labels), diversity = mean_spread(x, labels) / real.spread, distance = median(d) / real.median,
    copies = math.tointeger(apart:eq(0):to("f32"):sum():item()), real = real.agreement, n = x:shape()[1],
  }
end

return judge
