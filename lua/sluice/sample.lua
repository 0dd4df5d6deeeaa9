-- sluice.sample and sluice.sampler: options in people's words, over the core's sampler.
local core = require "sluice.core"
local fields = require "sluice.fields"
local sluice = require "sluice"

local get = fields.get
local NAMES = {
  "model", "diffusion", "n", "labels", "cfg", "cfg_channels", "cfg_interval", "sampler", "steps", "eta", "clip", "seed", "noise",
  "init", "start", "mask", "ema", "device", "on_step", "batch",
}

local function labels_of(o, n, classes, seed, level)
  local labels = o.labels
  if labels == nil then return nil end
  local out = {}
  if labels == "balanced" then
    for i = 1, n do out[i] = (i - 1) % classes end
  elseif labels == "uniform" then
    for i = 1, n do out[i] = core.draw_label(seed, i - 1, classes) end
  elseif math.type(labels) == "integer" then
    for i = 1, n do out[i] = labels end
  elseif type(labels) == "table" or type(labels) == "userdata" then
    local list = type(labels) == "userdata" and labels:totable() or labels
    if #list ~= n then error(("sluice.sample: %d labels for n = %d images"):format(#list, n), level + 1) end
    for i = 1, n do out[i] = list[i] end
  else
    error(('sluice.sample: labels is %s, expected a table, a class, "balanced" or "uniform"'):format(tostring(labels)), level + 1)
  end
  return out
end

local function diffusion_of(o, level)
  local d = o.diffusion
  if o.steps == nil then return d end
  if d.respaced then
    error(("sluice.sample: steps = %s, but the diffusion is respaced already (%d of %d steps)"):format(tostring(o.steps), d.steps,
      d.original_steps), level + 1)
  end
  return d:respace(tostring(o.steps))
end

-- Checked options with every default filled in; labels as a list, or nil.
local function resolve(o, what, level)
  level = level + 1
  fields.check(o, NAMES, what, level)
  if o.model == nil or o.diffusion == nil then error(what .. ": model and diffusion must be given", level) end
  if o.device ~= nil and o.device ~= "cpu" and o.device ~= "auto" then
    error(('%s: device is "%s"; this build has cpu'):format(what, tostring(o.device)), level)
  end
  local n = get(o, "n", "integer", type(o.labels) == "table" and #o.labels or 1, what, level)
  if n < 1 then error(("%s: n is %d, expected at least 1"):format(what, n), level) end
  local seed = get(o, "seed", "integer", nil, what, level) or core.next_seed()
  local interval = get(o, "cfg_interval", "table", nil, what, level)
  return {
    model = o.model, diffusion = diffusion_of(o, level), n = n, seed = seed, params = o.ema,
    labels = labels_of(o, n, o.model:info().classes, seed, level),
    cfg = get(o, "cfg", "number", 1, what, level), cfg_channels = get(o, "cfg_channels", "integer", 0, what, level),
    cfg_lo = interval and interval[1], cfg_hi = interval and interval[2],
    kind = get(o, "sampler", "string", "ddpm", what, level), eta = get(o, "eta", "number", 0, what, level),
    clip = get(o, "clip", "boolean", false, what, level), noise = o.noise, init = o.init, mask = o.mask,
    start = get(o, "start", "integer", 0, what, level),
    batch = get(o, "batch", "integer", 64, what, level),
  }
end

-- The part of the options that is images first … first+n-1 (from 0). A batch beyond the last image is padded, so that one
-- compiled program serves all of them.
local function part_of(r, first, n)
  local part = {}
  for k, v in pairs(r) do part[k] = v end
  part.first, part.n = first, n
  if r.labels then
    part.labels = {}
    for i = 1, n do part.labels[i] = r.labels[math.min(first + i, #r.labels)] end
  end
  return part
end

local sample = {}

-- A sampler object: s:steps() iterates; s.x, s.x0, s.i, s.t after each step; s.x may be assigned.
function sample.sampler(o)
  local r = resolve(o, "sluice.sampler", 2)
  return core.sampler(part_of(r, 0, r.n))
end

local function whole(r)
  return r.noise or r.init or r.mask or r.n <= r.batch
end

-- -> images [n,C,H,W], labels (i64 [n], or nil)
function sample.run(o)
  local r = resolve(o, "sluice.sample", 2)
  local batch = whole(r) and r.n or r.batch
  local parts = {}
  for first = 0, r.n - 1, batch do
    local s = core.sampler(part_of(r, first, batch))
    for state in s:steps() do
      if o.on_step and o.on_step(state) == false then break end
    end
    local x = s.x
    if first + batch > r.n then x = x:slice(1, 1, r.n - first) end
    parts[#parts + 1] = x
  end
  local images = parts[1]
  if #parts > 1 then images = core.join(parts) end
  return images, r.labels and sluice.tensor(r.labels, { dtype = "i64" }) or nil
end

return sample
