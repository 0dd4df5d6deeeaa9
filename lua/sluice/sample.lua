-- sluice.sample and sluice.sampler: options in people's words, over the core's sampler.
local core = require "sluice.core"
local fields = require "sluice.fields"
local sluice = require "sluice"

local get = fields.get
local NAMES = fields.share("sluice.sample", {
  "model", "diffusion", "n", "labels", "cfg", "cfg_channels", "cfg_interval", "sampler", "steps", "eta", "clip", "seed", "noise",
  "init", "start", "mask", "ema", "precision", "device", "on_step", "batch",
})
fields.share("sluice.sampler", NAMES)

local function is(v, method)
  return type(v) == "userdata" and v[method] ~= nil
end

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
  local n = get(o, "steps", "integer", nil, "sluice.sample", level + 1)
  if n == nil then return d end
  if d.respaced then
    error(("sluice.sample: steps = %s, but the diffusion is respaced already (%d of %d steps)"):format(tostring(o.steps), d.steps,
      d.original_steps), level + 1)
  end
  if n < 1 or n > d.steps then
    error(("sluice.sample: steps is %d, expected 1 to %d"):format(n, d.steps), level + 1)
  end
  return d:respace(tostring(n))
end

-- cfg_interval = { lo, hi } as two numbers; nil, nil without one.
local function interval_of(o, what, level)
  local interval = get(o, "cfg_interval", "table", nil, what, level + 1)
  if not interval then return nil, nil end
  local lo, hi = interval[1], interval[2]
  if type(lo) ~= "number" or type(hi) ~= "number" or lo > hi or lo ~= lo or hi ~= hi then
    error(("%s: cfg_interval is { %s, %s }, expected two timesteps { lo, hi }, lo <= hi"):format(what, tostring(lo), tostring(hi)),
      level + 1)
  end
  return lo, hi
end

-- What no later check would name, or would name late.
local function check_kinds(o, what, level)
  level = level + 1
  if not is(o.model, "forward") then error(("%s: model is %s, expected a model"):format(what, tostring(o.model)), level) end
  if not is(o.diffusion, "q_sample") then
    error(("%s: diffusion is %s, expected a sluice.diffusion"):format(what, tostring(o.diffusion)), level)
  end
  if o.ema ~= nil and not sluice.is_tensor(o.ema) then
    error(("%s: ema is %s, expected weights, as in load(path).ema[1].weights"):format(what, tostring(o.ema)), level)
  end
  if o.on_step ~= nil and type(o.on_step) ~= "function" then
    error(("%s: on_step is %s, expected a function(s)"):format(what, tostring(o.on_step)), level)
  end
  if o.init ~= nil and o.mask == nil and (o.start == nil or o.start == 0) then
    error(what .. ": init is given, but neither start (the step to begin from) nor mask, so it would change nothing", level)
  end
end

-- All images lie in memory at the end.
local function check_size(o, n, what, level)
  local limit, info = sluice.memory().limit, o.model:info()
  local bytes = 4.0 * n * info.in_channels * info.height * info.width
  if limit > 0 and bytes > limit then
    error(("%s: n is %d: the images would take %.0f MiB, the limit is %.0f MiB"):format(what, n, bytes / 1048576, limit / 1048576),
      level + 1)
  end
end

-- The model, and the weights to sample with, on the device that was asked for: the model moves there.
local function place(o, what, level)
  local device = o.device
  if device ~= nil and type(device) ~= "string" then
    error(("%s: device is %s, expected a name"):format(what, tostring(device)), level)
  end
  if device then o.model:to(device) end
  return o.ema and o.ema:to(o.model:device())
end

-- Checked options with every default filled in; labels as a list, or nil.
local function resolve(o, what, level)
  level = level + 1
  fields.check(o, NAMES, what, level)
  if o.model == nil or o.diffusion == nil then error(what .. ": model and diffusion must be given", level) end
  check_kinds(o, what, level)
  local params = place(o, what, level)
  local listed = type(o.labels) == "table" or sluice.is_tensor(o.labels)
  local n = get(o, "n", "integer", listed and #o.labels or 1, what, level)
  if n < 1 then error(("%s: n is %d, expected at least 1"):format(what, n), level) end
  check_size(o, n, what, level)
  local batch = get(o, "batch", "integer", 64, what, level)
  if batch < 1 then error(("%s: batch is %d, expected at least 1"):format(what, batch), level) end
  local seed = get(o, "seed", "integer", nil, what, level) or core.next_seed()
  local lo, hi = interval_of(o, what, level)
  return {
    model = o.model, diffusion = diffusion_of(o, level), n = n, seed = seed, params = params,
    labels = labels_of(o, n, o.model:info().classes, seed, level),
    cfg = get(o, "cfg", "number", 1, what, level), cfg_channels = get(o, "cfg_channels", "integer", 0, what, level),
    cfg_lo = lo, cfg_hi = hi, precision = get(o, "precision", "string", nil, what, level),
    kind = get(o, "sampler", "string", "ddpm", what, level), eta = get(o, "eta", "number", 0, what, level),
    clip = get(o, "clip", "boolean", false, what, level), noise = o.noise, init = o.init, mask = o.mask,
    start = get(o, "start", "integer", 0, what, level),
    batch = batch,
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

-- observer(r, first, batch): called for each part, images first … first+batch-1 (from 0), where the user watches no steps: a function
-- called after each step with the sampler, or nil.
sample.observer = nil

-- A sampler object: s:steps() iterates; s.x, s.x0, s.i, s.t after each step; s.x may be assigned.
function sample.sampler(o)
  local r = resolve(o, "sluice.sampler", 2)
  return core.sampler(part_of(r, 0, r.n))
end

-- Bytes that run(o) would take beside model and results.
function sample.memory(o)
  local r = resolve(o, "sluice.sample", 2)
  local s <close> = core.sampler(part_of(r, 0, math.min(r.n, r.batch)))
  return s:memory()
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
    local s <close> = core.sampler(part_of(r, first, batch)) -- its arena is given back at once
    local watch = sample.observer and not o.on_step and sample.observer(r, first, batch)
    for state in s:steps() do
      if watch then watch(state) end
      if o.on_step and o.on_step(state) == false then break end
    end
    local x = s.x:to "cpu"
    if first + batch > r.n then x = x:slice(1, 1, r.n - first) end
    parts[#parts + 1] = x
  end
  local images = parts[1]
  if #parts > 1 then images = core.join(parts) end
  return images, r.labels and sluice.tensor(r.labels, { dtype = "i64" }) or nil
end

return sample
