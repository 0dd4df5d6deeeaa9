-- Looking at masks: pictures of a routing, what its timesteps share, and which channels are whose. Every function here is one of
-- sluice.routing and a method of a routing alike; each takes in place of a routing also a mask tensor [T,C], as routing:table and
-- model:tables() give it.
local core = require "sluice.core"
local fields = require "sluice.fields"
local sluice = require "sluice"

local get = fields.get

local MASK = { "T", "C", "block", "blocks" }
local LARGEST = 4096 -- pixels of a picture's side

local routing = {}

local function is_routing(r)
  return type(r) == "userdata" and not sluice.is_tensor(r) and r.table ~= nil and r.describe ~= nil
end

-- The options, checked: those of masks and those named in `more`.
local function options(o, what, more)
  local names = table.move(more or {}, 1, #(more or {}), #MASK + 1, { table.unpack(MASK) })
  o = fields.check(o or {}, names, what, 3) -- no tail call: the level counts
  return o
end

-- f32 [T,C], zeros and ones, of a routing or of a mask that was made before.
local function mask_of(r, o, what, level)
  level = level + 1
  if sluice.is_tensor(r) then
    if #r:shape() ~= 2 then error(("%s: the mask is %s, expected [T,C]"):format(what, tostring(r:shape())), level) end
    return r:to("cpu"):to "f32"
  end
  if not is_routing(r) then
    error(("%s: expected one of sluice.routing or a mask [T,C], got %s"):format(what, tostring(r)), level)
  end
  local block = get(o, "block", "integer", 1, what, level)
  return r:table(get(o, "T", "integer", 1000, what, level), get(o, "C", "integer", 128, what, level), block,
    get(o, "blocks", "integer", block, what, level)):to "f32"
end

local function whole(t)
  return math.tointeger(t:sum():item())
end

-- --- numbers ---

--- sluice.routing.windows(routing, options?) -> first, last, contiguous
--- The first and the last channel that are open at each timestep, counted from 1; 1 and 0 where none is. Also a method:
--- `routing:windows { C = 384 }`.
---@param routing sluice.Routing|sluice.Tensor  a routing, or a mask [T,C]
---@param options? table
---@field T? integer  timesteps (1000)
---@field C? integer  channels (128)
---@field block? integer  the routed block, from 1 (1), for masks that differ from block to block
---@field blocks? integer  of so many blocks
---@return sluice.Tensor first  i64 [T]; first[t + 1] belongs to timestep t
---@return sluice.Tensor last  i64 [T]
---@return boolean contiguous  whether every timestep's open channels follow each other
---@example print(sluice.routing.dtr { alpha = 4 }:windows { T = 10 })
function routing.windows(r, o)
  local what = "sluice.routing.windows"
  local m = mask_of(r, options(o, what), what, 2)
  local T, C = table.unpack(m:shape())
  local channel = sluice.arange(1, C):to("f32"):reshape { 1, C }
  local last = (m * channel):max(2)
  local first = (m * (C + 1 - channel)):max(2):neg():add(C + 1) -- C + 1 where none is open
  first = sluice.where(last:eq(0), sluice.ones { T }, first)
  local contiguous = (last - first + 1 - m:sum(2)):abs():max():item() == 0
  return first:to "i64", last:to "i64", contiguous
end

local NORMS = { "first", "union", "count" }

--- sluice.routing.overlap(routing, options?) -> tensor
--- How many of their channels two tasks share: entry [t1 + 1][t2 + 1] is `|A ∩ B| / |A|`, where A and B are the channels that are open at
--- t1 and at t2. Where all masks have one width, as in DTR and random routing, it is the paper's number of shared channels
--- (appendix B, where it is the width for t1 = t2) over that width, and symmetric. Also a method: `routing:overlap {}`.
---@param routing sluice.Routing|sluice.Tensor  a routing, or a mask [T,C]
---@param options? table
---@fields sluice.routing.windows
---@field over? string  "first": `|A ∩ B| / |A|` (the default); "union": `|A ∩ B| / |A ∪ B|`; "count": `|A ∩ B|`
---@return sluice.Tensor  f32 [T,T]; a task without channels shares 0
---@example print(sluice.routing.random { beta = 0.8 }:overlap { T = 4, C = 1000 })
function routing.overlap(r, o)
  local what = "sluice.routing.overlap"
  o = options(o, what, { "over" })
  local over = get(o, "over", "string", "first", what, 2)
  local m = mask_of(r, o, what, 2)
  local common, width = m:matmul(m:transpose()), m:sum(2, true)
  if over == "count" then return common end
  if over == "first" then return common / width:maximum(1) end
  if over == "union" then return common / (width + width:transpose() - common):maximum(1) end
  error(("%s: over is \"%s\"%s"):format(what, over, fields.hint(over, NORMS)), 2)
end

-- A list of { first, last }, checked; n: so many of nearly equal length.
local function ranges_of(ranges, T, what, level)
  level = level + 1
  if math.type(ranges) == "integer" then
    if ranges < 1 or ranges > T then error(("%s: ranges is %d, expected 1 to T = %d"):format(what, ranges, T), level) end
    local list = {}
    for i = 1, ranges do list[i] = { (i - 1) * T // ranges, i * T // ranges - 1 } end
    return list
  end
  if type(ranges) ~= "table" or #ranges == 0 then
    error(("%s: ranges is %s, expected their number or a list { { first, last }, … }"):format(what, tostring(ranges)), level)
  end
  for i, range in ipairs(ranges) do
    local first, last = table.unpack(type(range) == "table" and range or {})
    if math.type(first) ~= "integer" or math.type(last) ~= "integer" or first < 0 or last < first or last >= T then
      error(("%s: range %d is { %s, %s }, expected timesteps 0 <= first <= last <= %d"):format(what, i, tostring(first), tostring(last),
        T - 1), level)
    end
  end
  return ranges
end

local Dedicated = { __name = "sluice.routing.dedicated" }

function Dedicated:__tostring()
  local lines = { ("%-14s %8s %10s"):format("timesteps", "used", "dedicated") }
  for i, range in ipairs(self) do
    lines[i + 1] = ("%4d - %-7d %8d %10d"):format(range.first, range.last, range.used, range.dedicated)
  end
  local sums = "%d channels: %d used by every range (%d of them at every timestep), %d by several, %d by one, %d by none"
  lines[#lines + 1] = sums:format(self.channels, self.every, self.always, self.several, self.one, self.none)
  return table.concat(lines, "\n")
end

--- sluice.routing.dedicated(routing, options?) -> table
--- Which channels belong to which part of the timesteps. A range uses a channel that is open at one of its timesteps at least; a channel
--- that one range alone uses is dedicated to it, the paper's task-dedicated channels for tasks taken together (section 4.3). Also a
--- method: `routing:dedicated { ranges = 8 }`.
---@param routing sluice.Routing|sluice.Tensor  a routing, or a mask [T,C]
---@param options? table
---@fields sluice.routing.windows
---@field ranges? integer|table  how many of nearly equal length (4), or a list `{ { first, last }, … }` of timesteps, both ends included
---@return table counts  for each range `{ first, last, used, dedicated }`; and `every`, `several` (but not all), `one`, `none`: how many
---channels so many ranges use, which add up to `channels`; `always`: those open at every timestep. It prints as a table.
---@example print(sluice.routing.dtr { alpha = 4 }:dedicated { ranges = { { 0, 499 }, { 500, 999 } } })
function routing.dedicated(r, o)
  local what = "sluice.routing.dedicated"
  o = options(o, what, { "ranges" })
  local m = mask_of(r, o, what, 2)
  local T, C = table.unpack(m:shape())
  local ranges = ranges_of(o.ranges or 4, T, what, 2)
  local used, users = {}, sluice.zeros { C }
  for i, range in ipairs(ranges) do
    used[i] = m:slice(1, range[1] + 1, range[2] + 1):max(1)
    users = users + used[i]
  end
  local function count(n) return whole(users:eq(n):to "f32") end
  local alone = users:eq(1):to "f32"
  local d = { channels = C, one = count(1), none = count(0), every = count(#ranges), always = whole(m:min(1)) }
  if #ranges == 1 then d.one = 0 end -- one range is every range
  d.several = C - d.one - d.none - d.every
  for i, range in ipairs(ranges) do
    d[i] = { first = range[1], last = range[2], used = whole(used[i]), dedicated = whole(used[i] * alone) }
  end
  return setmetatable(d, Dedicated)
end

-- --- pictures ---

-- From purple to yellow, as figures of masks are coloured: points of matplotlib's viridis, evenly spaced, between which lies a line.
local COLOURS = { { 68, 1, 84 }, { 59, 82, 139 }, { 33, 145, 140 }, { 94, 201, 98 }, { 253, 231, 37 } }

-- f32 [3,H,W] in [-1, 1] of x [H,W]; lo and hi are the ends of the colours.
local function coloured(x, lo, hi)
  local H, W = table.unpack(x:shape())
  local colours = sluice.tensor(COLOURS) / 127.5 - 1
  local place = ((x - lo) / (hi - lo)):clamp(0, 1):reshape { -1 } * (#COLOURS - 1)
  local below = place:floor():clamp(0, #COLOURS - 2)
  local part = (place - below):reshape { -1, 1 }
  local index = below:to "i64"
  local pixels = colours:gather(index) * (1 - part) + colours:gather(index + 1) * part
  return pixels:reshape { H, W, 3 }:permute { 3, 1, 2 }
end

-- The row of n that each of `pixels` pixels shows: nothing is mixed.
local function rows_of(n, pixels)
  return ((sluice.arange(1, pixels) - 0.5) * n / pixels):floor():clamp(0, n - 1):to "i64"
end

-- n drawn between about 250 and 500 pixels wide: repeated, or every k-th.
local function side(n)
  return n > 500 and n // ((n + 499) // 500) or n * math.max(1, 256 // n)
end

local function size_of(o, name, default, what, level)
  local n = get(o, name, "integer", default, what, level + 1)
  if n < 1 or n > LARGEST then error(("%s: %s is %d, expected 1 to %d pixels"):format(what, name, n, LARGEST), level + 1) end
  return n
end

local PICTURE = { "width", "height", "lo", "hi" }

local function picture_of(r, o, what, level)
  level = level + 1
  local m = mask_of(r, o, what, level)
  local A, B = table.unpack(m:shape())
  local width, height = size_of(o, "width", side(A), what, level), size_of(o, "height", side(B), what, level)
  local lo, hi = get(o, "lo", "number", 0, what, level), get(o, "hi", "number", 1, what, level)
  if hi <= lo or hi ~= hi or lo ~= lo then error(("%s: lo is %g and hi %g, expected lo < hi"):format(what, lo, hi), level) end
  local seen = m:gather(rows_of(A, width)):transpose():contiguous():gather(rows_of(B, height))
  return coloured(seen:flip(1), lo, hi)
end

--- sluice.routing.picture(routing, options?) -> image
--- The mask as the paper's Figure 2 colours it: open channels yellow, shut ones purple. Timesteps go to the right, channels upward. Of
--- more timesteps or channels than pixels every so manieth is drawn; nothing is mixed. A matrix, such as an overlap, is drawn the same
--- way: its first dimension to the right, its second upward, `lo` purple, `hi` yellow. Also a method: `routing:picture { C = 384 }`.
---@param routing sluice.Routing|sluice.Tensor|table  a routing, a mask [T,C], a matrix, or a list of them
---@param options? table
---@fields sluice.routing.windows
---@field width? integer  pixels (of T = 1000: 500)
---@field height? integer  pixels (of C = 128: 128 enlarged to 256)
---@field lo? number  the value drawn purple (0)
---@field hi? number  the value drawn yellow (1)
---@return sluice.Tensor image  f32 [3,height,width] in [-1, 1], for sluice.save_png; of a list [N,3,height,width]
---@example sluice.save_png("dtr.png", sluice.routing.dtr {}:picture { T = 1000, C = 384 })
function routing.picture(r, o)
  local what = "sluice.routing.picture"
  o = options(o, what, PICTURE)
  local list, images = type(r) == "table" and r or { r }, {}
  if #list == 0 then error(what .. ": the list of routings is empty", 2) end
  for i, one in ipairs(list) do images[i] = picture_of(one, o, what, 2) end
  if list ~= r then return images[1] end
  local shape = images[1]:shape()
  for i, image in ipairs(images) do
    if image:shape() ~= shape then error(what .. ": pictures of a list must have one size; name width and height", 2) end
    images[i] = image:reshape { 1, table.unpack(shape) }
  end
  return core.join(images)
end

-- Okabe and Ito's colours, which all eyes tell apart: black, orange, sky blue, green, blue, vermilion, purple, yellow.
local PENS = {
  { 0, 0, 0 }, { 230, 159, 0 }, { 86, 180, 233 }, { 0, 158, 115 }, { 0, 114, 178 }, { 213, 94, 0 }, { 204, 121, 167 }, { 240, 228, 66 },
}

-- Zeros and ones [height,width]: a line three pixels thick through the height y[x] (pixels from the bottom) of every column.
local function line(y, width, height)
  local before = sluice.cat({ y:slice(1, 1, 1), y:slice(1, 1, width - 1) }, 1)
  local low, high = y:minimum(before):reshape { 1, width } - 1.5, y:maximum(before):reshape { 1, width } + 1.5
  local row = (height - sluice.arange(1, height):to "f32"):reshape { height, 1 }
  return (row:ge(low):to "f32") * (row:le(high):to "f32")
end

-- White, with grey lines at the quarters.
local function paper(width, height)
  local function quarters(n)
    local i = sluice.arange(1, n):to "f32" * 4 / n
    return (i - i:floor()):lt(4 / n):to "f32"
  end
  local lines = quarters(width):reshape { 1, width }:maximum(quarters(height):reshape { height, 1 })
  return (1 - lines * 0.3):reshape { 1, height, width }:expand { 3, height, width }
end

--- sluice.routing.starts(routings, options?) -> image
--- A figure of where the windows begin: for each routing a curve of the first open channel over the timesteps, which go to the right;
--- channel 1 is at the bottom, C at the top, and grey lines stand at the quarters. The curves are black,
--- orange, sky blue, green, blue, vermilion, purple and yellow, in this order. For DTR it shows what alpha does: a curve that is steep at
--- high timesteps gives channels to them.
---@param routings sluice.Routing[]  up to eight
---@param options? table
---@fields sluice.routing.windows
---@field width? integer  pixels (500)
---@field height? integer  pixels (250)
---@field top? integer  the channel at the top (C), to look at a part of them
---@return sluice.Tensor image  f32 [3,height,width] in [-1, 1], for sluice.save_png
---@example sluice.save_png("starts.png", sluice.routing.starts { sluice.routing.dtr { alpha = 1 }, sluice.routing.dtr { alpha = 4 } })
function routing.starts(list, o)
  local what = "sluice.routing.starts"
  o = options(o, what, { "width", "height", "top" })
  if is_routing(list) then list = { list } end
  if type(list) ~= "table" or #list < 1 or #list > #PENS then
    error(("%s: expected a list of 1 to %d routings"):format(what, #PENS), 2)
  end
  local width, height = size_of(o, "width", 500, what, 2), size_of(o, "height", 250, what, 2)
  local image = paper(width, height)
  for i = #list, 1, -1 do -- the first lies on top
    local mask = mask_of(list[i], o, what, 2)
    local T, C = table.unpack(mask:shape())
    local top = size_of(o, "top", C, what, 2)
    local y = (routing.windows(mask):to "f32" - 1):gather(rows_of(T, width)) * ((height - 3) / math.max(1, top - 1)) + 1
    local ink = line(y, width, height):reshape { 1, height, width }
    local pen = (sluice.tensor(PENS[i]) / 127.5 - 1):reshape { 3, 1, 1 }
    image = image * (1 - ink) + pen * ink
  end
  return image
end

return routing
