-- Judges samples against the images that a model was trained on, by nearest neighbours in pixels (L2).
--   sluice run recipes/judge.lua RUN|CHECKPOINT [seeds=1,2,3] [n=200] [data=PACK] [cfg=…] [steps=…] …
-- draws n samples per seed, balanced over the classes, and judges each lot and their mean. From Lua:
--   local judge = require "judge"     judge.judge(samples, labels, data) -> the figures     judge.text(figures)
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

-- Nearest row of b for each row of a: distances [n] and row numbers (from 0) [n]. first: a are b's rows first …, and no neighbours
-- of themselves.
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

local judge, measured = {}, setmetatable({}, { __mode = "k" })

-- samples f32 [n,C,H,W] in [-1,1] and labels i64 [n]; data: a sluice.data of the training images.
function judge.judge(samples, labels, data)
  local images, truth = data:all()
  local rows, x = flat(images), flat(samples)
  measured[data] = measured[data] or measure_real(rows, truth)
  local real = measured[data]
  local d, at = nearest(x, rows)
  local apart = (as_bytes(x) - as_bytes(rows:gather(at))):abs():max(2) -- 0: the same bytes
  return {
    agreement = share(truth:gather(at), labels), diversity = mean_spread(x, labels) / real.spread, distance = median(d) / real.median,
    copies = math.tointeger(apart:eq(0):to("f32"):sum():item()), real = real.agreement, n = x:shape()[1],
  }
end

function judge.text(j)
  local text = "1-nearest-neighbour agreement %.1f%% (real ones among themselves %.1f%%), diversity %.3f, distance %.3f, exact copies %g"
  return text:format(100 * j.agreement, 100 * j.real, j.diversity, j.distance, j.copies)
end

if ... == "judge" then return judge end

local function integer_list(text)
  local list = {}
  for word in text:gmatch "[^,]+" do
    list[#list + 1] = math.tointeger(tonumber(word)) or error(("judge: %s: expected seeds"):format(word), 0)
  end
  return list
end

local function value_of(text)
  if text == "true" or text == "false" then return text == "true" end
  local lo, hi = text:match "^([%d.]+),([%d.]+)$"
  if lo then return { tonumber(lo), tonumber(hi) } end
  return math.tointeger(tonumber(text)) or tonumber(text) or text
end

local here = debug.getinfo(1, "S").source:match "^@(.*)recipes/[^/]*$" or ""
local source, seeds, pack, set = nil, { 1, 2, 3 }, here .. "data/digits/digits.pack", {}
for _, a in ipairs(arg) do
  local key, value = a:match "^([%w_]+)=(.*)$"
  if key == "seeds" then seeds = integer_list(value)
  elseif key == "data" then pack = value
  elseif key then set[key] = value_of(value)
  elseif not source then source = a
  else error(("judge: %s: expected key=value"):format(a), 0) end
end
if not source then error("judge: which run or checkpoint? sluice run recipes/judge.lua RUN", 0) end
local loaded, data, mean = sluice.load(source), sluice.data.pack(pack), nil
for _, seed in ipairs(seeds) do
  local o = { n = 200, labels = "balanced", seed = seed }
  for k, v in pairs(set) do o[k] = v end
  local images, labels = loaded:sample(o)
  local j = judge.judge(images, labels, data)
  print(("seed %d: %s"):format(seed, judge.text(j)))
  mean = mean or {}
  for k, v in pairs(j) do mean[k] = (mean[k] or 0) + v / #seeds end
end
if #seeds > 1 then print("mean: " .. judge.text(mean)) end
