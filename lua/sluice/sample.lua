-- sluice.sample and sluice.sampler: options in people's words, over the core's sampler.
local core = require "sluice.core"
local fields = require "sluice.fields"
local kept = require "sluice.kept"
local made = require "sluice.made"
local own_sampler = require "sluice.own_sampler"
local sample_fields = require "sluice.sample_fields"
local sluice = require "sluice"

local get = fields.get
local NAMES = sample_fields.names()

local function is(v, method)
  return type(v) == "userdata" and v[method] ~= nil
end

local function labels_of(o, n, classes, seed, level)
  local labels = o.labels
  if labels == nil then return nil end
  if classes == 0 then error("sluice.sample: the model takes no labels, labels must be nil", level + 1) end
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
    local near = type(labels) == "string" and fields.nearest(labels, { "balanced", "uniform" })
    error(('sluice.sample: labels is %s, %s'):format(tostring(labels), near and ('did you mean "%s"?'):format(near)
      or 'expected a list of classes, one class, "balanced" or "uniform"'), level + 1)
  end
  for i, label in ipairs(out) do
    if math.type(label) ~= "integer" then
      error(("sluice.sample: label %d is %s, expected an integer"):format(i, tostring(label)), level + 1)
    elseif label < 0 or label >= classes then
      error(("sluice.sample: label %s is outside 0 … %d (it is number %d); without labels the null class is drawn"):format(
        tostring(label), classes - 1, i), level + 1)
    end
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
  if o.sampler ~= nil and type(o.sampler) ~= "string" and type(o.sampler) ~= "function" then
    error(('%s: sampler is %s, expected "ddpm", "ddim" or a function(s) that returns the next x'):format(what, tostring(o.sampler)), level)
  end
  if o.init ~= nil and o.mask == nil and (o.start == nil or o.start == 0) then
    error(what .. ": init is given, but neither start (the step to begin from) nor mask, so it would change nothing", level)
  end
end

-- All images lie in memory at the end, those that are kept on the way (kept_steps of each) too.
local function check_size(o, n, kept_steps, what, level)
  local limit, info = sluice.memory().limit, o.model:info()
  local bytes = 4.0 * n * (1 + kept_steps) * info.in_channels * info.height * info.width
  if limit > 0 and bytes > limit then
    error(("%s: n is %d: the images would take %.0f MiB, the limit is %.0f MiB"):format(what, n, bytes / 1048576, limit / 1048576),
      level + 1)
  end
end

-- As many images as the options name: n, or those of labels, noise or init.
local function count_of(o, what, level)
  local n = get(o, "n", "integer", nil, what, level + 1)
  if n then return n end
  if type(o.labels) == "table" or sluice.is_tensor(o.labels) then return #o.labels end
  for _, t in ipairs { o.noise or false, o.init or false } do
    if sluice.is_tensor(t) and t:rank() >= 4 then return t:shape()[t:rank() - 3] end
  end
  return 1
end

-- Known images and the mask over them.
local function edited_of(o, what, level)
  local init, mask = o.init, o.mask
  if sluice.is_tensor(init) and init:rank() == 3 then init = init:reshape { 1, table.unpack(init:shape()) } end
  if sluice.is_tensor(mask) and mask:numel() > 0 and (mask:min():item() < 0 or mask:max():item() > 1) then
    error(("%s: mask goes from %g to %g, expected 0 (init is kept) to 1 (drawn)"):format(what, mask:min():item(), mask:max():item()),
      level + 1)
  end
  return init, mask
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
  local n = count_of(o, what, level)
  if n < 1 then error(("%s: n is %d, expected at least 1"):format(what, n), level) end
  local diffusion = diffusion_of(o, level)
  local start = get(o, "start", "integer", 0, what, level)
  local keep = kept.new(o.keep, start > 0 and start or diffusion.steps, what, level)
  check_size(o, n, keep and keep.count or 0, what, level)
  local batch = get(o, "batch", "integer", 64, what, level)
  if batch < 1 then error(("%s: batch is %d, expected at least 1"):format(what, batch), level) end
  local seed = get(o, "seed", "integer", nil, what, level) or core.next_seed()
  local lo, hi = interval_of(o, what, level)
  local init, mask = edited_of(o, what, level)
  return {
    model = o.model, diffusion = diffusion, whole = not o.diffusion.respaced and o.diffusion or nil, n = n, seed = seed, params = params,
    labels = labels_of(o, n, o.model:info().classes, seed, level),
    cfg = get(o, "cfg", "number", 1, what, level), cfg_channels = get(o, "cfg_channels", "integer", 0, what, level),
    cfg_lo = lo, cfg_hi = hi, precision = get(o, "precision", "string", nil, what, level),
    own = type(o.sampler) == "function" and o.sampler or nil, kind = type(o.sampler) == "string" and o.sampler or "ddpm",
    eta = get(o, "eta", "number", 0, what, level),
    clip = get(o, "clip", "boolean", false, what, level), noise = o.noise, init = init, mask = mask, start = start, batch = batch,
    keep = keep,
  }
end

-- The part of the options that is images first … first+n-1 (from 0). A batch beyond the last image is padded, so that one
-- compiled program serves all of them.
local function part_of(r, first, n)
  local part = fields.merged(r, { first = first, n = n })
  part.advance = r.own and own_sampler.advance(r.own, r)
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

--- sluice.sampler(options) -> sampler
--- The same as sluice.sample, driven by hand: one batch of images, drawn a step at a time. Look at them, edit x, stop, go on later.
--- @param options table  as of sluice.sample, but for on_step and keep
--- @fields sluice.sample
--- @return sluice.Sampler
--- @example
--- local loaded = sluice.load "models/digits.safetensors"
--- for s in sluice.sampler({ model = loaded.model, diffusion = loaded.diffusion, n = 2, labels = 7, steps = 3 }):steps() do
---   print(s.i, s.t, s.x0:mean():item())
--- end
function sample.sampler(o)
  for _, name in ipairs { "on_step", "keep" } do
    if type(o) == "table" and o[name] ~= nil then
      error(("sluice.sampler: %s is of sluice.sample; in a loop over sampler:steps(), look at s.i, s.x and s.x0"):format(name), 2)
    end
  end
  local r = resolve(o, "sluice.sampler", 2)
  if o.batch and o.batch < r.n then
    error(("sluice.sampler: batch is %d for n = %d images, which a sampler draws together; sluice.sample has batches"):format(o.batch,
      r.n), 2)
  end
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

-- Images first … first+n-1. stop(s, first, n, of all) is asked after each step.
local function draw(r, first, n, stop)
  local s <close> = core.sampler(part_of(r, first, n)) -- its arena is given back at once
  if r.keep then r.keep:begin() end
  local watch = not stop and sample.observer and sample.observer(r, first, n)
  for state in s:steps() do
    if r.keep then r.keep:see(state) end
    if watch then watch(state) end
    if stop and stop(state, first, n, r.n) == false then break end
  end
  return s.x:to "cpu"
end

--- sluice.sample(options) -> images, labels, made
--- Draws images with a model. Image k depends on the seed and on k, not (but for rounding) on n or the batch. `loaded:sample {…}` of a
--- loaded checkpoint or run does the same with its own settings where none are given.
---@param options table
---@field model sluice.Model
---@field diffusion sluice.Diffusion
---@field n? integer  images: 1, or as many as labels
---@field labels? integer[]|integer|"balanced"|"uniform"|sluice.Tensor  classes, counted from 0; without: unconditional
---@field cfg? number  classifier-free guidance; 1: none
---@field cfg_channels? integer  how many channels guidance leads; all
---@field cfg_interval? number[]  { lo, hi }: guidance only at these original timesteps, both included
---@field sampler? "ddpm"|"ddim"|fun(s: sluice.Step): sluice.Tensor  a function is called once a step and returns the next x; "ddpm"
---@field steps? integer  evenly spaced ones of the diffusion's; all
---@field eta? number  of ddim; 0
---@field clip? boolean  predicted images are kept in [-1, 1]; false
---@field seed? integer  0 … 2^32-1; without one the next of sluice.seed's count
---@field noise? sluice.Tensor  x_T, [n,C,H,W], or [1+steps,n,C,H,W] with each step's
---@field init? sluice.Tensor  known images, [n,C,H,W] or [1,C,H,W], for start and mask
---@field start? integer  steps to do, from init noised to there (image-to-image)
---@field mask? sluice.Tensor  1: to be drawn, 0: kept from init (in-painting); broadcasts to the images
---@field ema? sluice.Tensor  weights to use, as in loaded.ema[1].weights; the model's
---@field precision? string  "f32", "tf32" or "bf16"; the model's
---@field device? string  the model moves there
---@field batch? integer  images computed at a time; 64
---@field keep? integer|integer[]|table  also the images at so many steps, at these, or { steps = either, what = "x0" or "x" }
---@field on_step? fun(s: sluice.Sampler): boolean?  called after each step of each batch; false ends it
---@return sluice.Tensor images  f32 [n,C,H,W], on the CPU
---@return sluice.Tensor? labels  i64 [n]
---@return sluice.Made made  made.seed; made.kept = { x0 = [m,n,C,H,W], steps = list, t = list }; made:save(path, images)
---@example
---local loaded = sluice.load "models/digits.safetensors"
---local images, labels, made = sluice.sample { model = loaded.model, diffusion = loaded.diffusion, n = 4, labels = "balanced",
---  cfg = 2, sampler = "ddim", steps = 4, clip = true, seed = 1, keep = 2 }
---print(images:shape()[3], labels, made.kept.x0:shape()[1])  --> 28 i64 [4] cpu [0, 1, 2, 3] 2
function sample.run(o, origin)
  local r = resolve(o, "sluice.sample", 2)
  local batch = whole(r) and r.n or r.batch
  local parts = {}
  for first = 0, r.n - 1, batch do
    local x = draw(r, first, batch, o.on_step or (origin and origin.stop))
    if first + batch > r.n then x = x:slice(1, 1, r.n - first) end
    parts[#parts + 1] = x
  end
  local images = parts[1]
  if #parts > 1 then images = core.join(parts) end
  return images, r.labels and sluice.tensor(r.labels, { dtype = "i64" }) or nil, made.new(o, r, origin)
end

return sample
