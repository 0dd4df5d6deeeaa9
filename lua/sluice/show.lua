-- sluice.show: pictures in the terminal, or in a PNG file where there is none.
local core = require "sluice.core"
local fields = require "sluice.fields"
local progress = require "sluice.progress"
local sluice = require "sluice"

local show = {}

local NAMES = { "columns", "path", "T", "C", "block" }
local FIRST = 25 -- images shown of a data set
local WIDE, ROWS = 12, 16 -- columns of the terminal that an image needs to be read, and its rows that pictures of work in progress take

local function say(text)
  io.write(text, "\n")
  io.flush()
end

local function is_colour(n)
  return n == 1 or n == 3
end

-- Bytes 0 … 255 as numbers in [-1, 1]; of a mask, whose values are 0 and 1, black and white.
local function from_bytes(t)
  local x = t:to("f32")
  local most = #x > 0 and x:max():item() or 0
  return x:mul(most <= 1 and 2 or 2 / 255):sub(1)
end

-- A table of numbers: as it is if they are a picture's, else from its least to its largest.
local function from_numbers(t)
  local least, most = t:min():item(), t:max():item()
  if least >= -1 and most <= 1 then return t end
  local span = most - least
  if span ~= span or span == math.huge then
    return nil, ("its numbers run from %g to %g, which makes no picture"):format(least, most)
  end
  if span == 0 then return t:mul(0), ("all are %g"):format(least) end
  return t:sub(least):mul(2 / span):sub(1), ("black is %.4g, white %.4g"):format(least, most)
end

local WHOLE = { u8 = true, bool = true }

-- Channels last, as files have them, [H,W,C] and [N,H,W,C], to channels first.
local function channels_first(t)
  local s = t:shape()
  local n = #s
  if n < 3 or not is_colour(s[n]) or (is_colour(s[n - 2]) and not WHOLE[t:dtype()]) then return t end
  local order = n == 3 and { 3, 1, 2 } or { 1, 4, 2, 3 }
  return t:permute(order):contiguous()
end

-- A tensor as images [N,C,H,W] in [-1, 1] and a remark; nil and why not.
local function from_tensor(t)
  local s, remark = t:shape(), nil
  if #s < 2 or #s > 4 then return nil, ("a tensor %s is no picture; [N,C,H,W], [C,H,W] and [H,W] are"):format(tostring(t:shape())) end
  for _, n in ipairs(s) do
    if n == 0 then return nil, ("a tensor %s is empty"):format(tostring(t:shape())) end
  end
  if t:device() ~= "cpu" then t = t:to "cpu" end
  if #s > 2 then t = channels_first(t) end
  if WHOLE[t:dtype()] then
    t = from_bytes(t)
  else
    t = t:to "f32"
    if #s == 2 then
      local picture
      picture, remark = from_numbers(t)
      if not picture then return nil, ("a tensor %s: %s"):format(tostring(t:shape()), remark) end
      t = picture
    end
  end
  s = t:shape()
  while #s < 4 do
    table.insert(s, 1, 1)
    t = t:reshape(s)
  end
  if not is_colour(s[2]) then
    return nil, ("a tensor %s has %d channels; pictures have 1 or 3"):format(tostring(t:shape()), s[2])
  end
  return t, remark
end

local function from_routing(routing, o)
  local image = sluice.routing.picture(routing, { T = o.T, C = o.C, block = o.block })
  return image:reshape { 1, table.unpack(image:shape()) }, "timesteps to the right, channels upward; yellow is open"
end

local function from_dataset(d)
  local images = {}
  for i = 1, math.min(#d, FIRST) do
    local image = d:get(i)
    images[i] = image:reshape { 1, table.unpack(image:shape()) }
  end
  if #images == 0 then return nil, "a data set without images" end
  return core.join(images), #d > FIRST and ("the first %d of %d images"):format(FIRST, #d) or nil
end

local function class_of(v)
  local meta = debug.getmetatable(v)
  return type(meta) == "table" and rawget(meta, "__name") or nil
end

-- Images and a remark of anything; nil and words for what is no picture.
local function images_of(v, o)
  local class = class_of(v)
  if sluice.is_tensor(v) then
    if tostring(v):match "^symbolic" then return nil, "a symbolic tensor has no values" end
    return from_tensor(v)
  end
  if class == "sluice.routing" then return from_routing(v, o) end
  if class == "sluice.dataset" then return from_dataset(v) end
  if class == "sluice.sampler" then return from_tensor(v.x0 or v.x) end
  local what = type(v) == "string" and ("the text %q"):format(v) or type(v) == "nil" and "nil"
    or class and "a " .. class or (type(v) == "number" or type(v) == "boolean") and tostring(v) or "a " .. type(v)
  return nil, what .. " is no picture; tensors of images, a routing, a data set and a sampler can be shown"
end

-- How many of the images of these sizes [N,C,H,W] can be read in the terminal while work goes on, and how many of them in a row: columns
-- if that can be, or if it is nil what makes them largest.
function show.readable(shape, columns)
  local rows, wide = core.terminal()
  local n, height, width = shape[1], shape[3], shape[4]
  rows, wide = math.min(ROWS, rows - 2), wide - 1
  local cells = math.min(WIDE, width)
  local across = math.max(1, wide // cells)
  local down = math.max(1, math.floor(rows / (cells * height / width / 2))) -- a cell is twice as high as wide
  if columns and columns > 0 then
    across = math.min(columns, across)
    return math.min(n, across * down), across
  end
  n = math.min(n, across * down)
  local best, largest = across, 0
  for a = 1, across do
    local scale = math.min(wide / (a * width), 2 * rows / (math.ceil(n / a) * height))
    if scale > largest then best, largest = a, scale end
  end
  return n, best
end

-- Draws those of the images that can be read; the rows that it took and how many are drawn. over: rows of the picture that it replaces.
function show.some(images, columns, over)
  local n, across = show.readable(images:shape(), columns)
  if n < #images then images = images:slice(1, 1, n) end
  return core.draw(images, across, { rows = ROWS, over = over }), n
end

-- As sluice.save_png does: a picture alone would not tell.
local function warn_nonfinite(images)
  local all = images:numel()
  local bad = all - images:isfinite():to("i64"):sum():item()
  if bad > 0 then progress.warn(("%d of %d values are not finite; NaN is drawn black"):format(bad, all)) end
end

-- show-0001.png and so on, the first that is free.
local function free_name()
  for i = 1, 9999 do
    local path = ("show-%04d.png"):format(i)
    if not core.exists(path) then return path end
  end
  error("sluice.show: show-0001.png … show-9999.png are all there; name another file with path =", 0)
end

--- sluice.show(x, options?)
--- Draws x in the terminal: by Kitty's or Sixel graphics where it has them, else in Unicode. Where stdout and stderr are no terminal, it
--- saves a PNG under a name that is free, show-0001.png and so on, and prints the name. Of what is no picture it says so in words.
--- @param x any  tensors [N,C,H,W], [C,H,W] or [H,W], in [-1, 1] or u8 (also channels last); a routing; a data set; a sampler
--- @param options? table
--- @field columns? integer  of pictures side by side; by default about as many as rows
--- @field path? string  saves a PNG there too
--- @field T? integer  of a routing, drawn as sluice.routing.picture does: timesteps (1000)
--- @field C? integer  of a routing: channels (128)
--- @field block? integer  of a routing: which block's mask (1)
--- @example sluice.show(sluice.routing.dtr {}, { T = 200 })
function show.show(x, o)
  if sluice.is_tensor(o) then o = nil end -- the labels in show(sluice.sample { … })
  o = fields.check(o or {}, NAMES, "sluice.show", 2)
  local columns = fields.get(o, "columns", "integer", nil, "sluice.show", 2)
  local path = fields.get(o, "path", "string", nil, "sluice.show", 2)
  for _, name in ipairs { "T", "C", "block" } do fields.get(o, name, "integer", nil, "sluice.show", 2) end
  local images, remark = images_of(x, o)
  if not images then return say(remark) end
  local terminal = core.terminal()
  if terminal then core.draw(images, columns or 0) end
  if remark then say(remark) end
  if not path and terminal then warn_nonfinite(images) end
  if path or not terminal then
    path = path or free_name()
    sluice.save_png(path, images, { columns = columns })
    say(path)
  end
end

return show
